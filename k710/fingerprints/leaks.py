"""What near-duplicates mean for a build: which views they lie in, which leak, and which clips would give way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from k710.fingerprints.search import NearDuplicate, groups
from k710.labels import MERGED
from k710.lists.policy import Policy
from k710.tables import named_schema, read_table

NEAR_DUPLICATES = named_schema(
    "near_duplicates",
    1,
    [
        pa.field("key_a", pa.string(), nullable=False),
        pa.field("key_b", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # own_train_eval, train_eval, train_train, eval_eval
        pa.field("views_a", pa.string(), nullable=False),  # separated by commas
        pa.field("views_b", pa.string(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),  # samples that match, 10 a second
        pa.field("offset_s", pa.float64(), nullable=False),  # start of b after that of a
        pa.field("distance", pa.float64(), nullable=False),  # typical bits of 256 between frames
        pa.field("part", pa.float64(), nullable=False),  # frames, as part of the shorter clip
        pa.field("mirrored", pa.bool_(), nullable=False),
        pa.field("same_video", pa.bool_(), nullable=False),  # two segments of one video without a common second
        pa.field("same_bytes", pa.bool_(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # first key of all that hang together
        pa.field("id_a", pa.string(), nullable=False),
        pa.field("id_b", pa.string(), nullable=False),
    ],
)
"""Each pair of clips that show the same frames; ``a`` is the one of a training view where only one is."""

TRAIN = "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """What a build says of a clip that was compared."""

    key: str
    """Its key."""
    id: str
    """Its video."""
    start_s: float
    """Where it starts in the video, seconds."""
    end_s: float
    """Where it ends."""
    views: tuple[str, ...]
    """The views that list it."""
    sha256: str
    """Of its bytes."""

    @property
    def is_trained_on(self) -> bool:
        """Whether a training view lists it."""
        return any(_split(view) == TRAIN for view in self.views)


def pair_table(clips: Sequence[ClipFacts], found: Sequence[NearDuplicate]) -> pa.Table:
    """``near_duplicates.parquet``: the pairs that leak first, then in order of their keys."""
    counted = [(p.a, p.b) for p in found if not is_same_video(clips[p.a], clips[p.b])]
    first = groups(len(clips), counted)
    rows = [_row(clips, pair, clips[first[pair.a]].key) for pair in found]
    rows.sort(key=lambda row: (row["same_video"], _KINDS.index(row["kind"]), row["key_a"], row["key_b"]))
    return pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES)


def is_same_video(a: ClipFacts, b: ClipFacts) -> bool:
    """Whether two clips are segments of one video that share no second: alike, and no copies of each other."""
    return a.id == b.id and not (a.start_s < b.end_s and b.start_s < a.end_s)


def between_views(table: pa.Table, protect: Collection[str]) -> list[dict[str, Any]]:
    """Per pair of views how many near-duplicate pairs lie between them; pairs of a view with itself lie inside it.

    ``protected`` where the build's policy forbids such a pair. Segments of one video do not count.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    clips: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for row in _counted(table):
        met = set()
        for u in row["views_a"].split(","):
            for v in row["views_b"].split(","):
                swap = _rank(v) < _rank(u)
                views = (v, u) if swap else (u, v)
                met.add(views)
                first, second = clips.setdefault(views, (set(), set()))
                first.add(row["key_b"] if swap else row["key_a"])
                second.add(row["key_a"] if swap else row["key_b"])
        pairs.update(met)
    return [
        {
            "views": list(views),
            "pairs": pairs[views],
            "clips": [len(part) for part in clips[views]],
            "protected": is_protected(*views, protect),
        }
        for views in sorted(pairs, key=lambda views: (_rank(views[0]), _rank(views[1])))
    ]


def is_protected(train: str, held_out: str, protect: Collection[str]) -> bool:
    """Whether a clip of ``train`` must not look like one of ``held_out``: as with the videos of lists."""
    if _split(train) != TRAIN or _split(held_out) == TRAIN:
        return False
    if _release(train) == MERGED:
        split = _split(held_out)
        return ("test" if split == "holdout" else split) in protect
    return _release(train) == _release(held_out)


def giving_way(
    table: pa.Table,
    protect: Collection[str],
    *,
    leaks: Literal["drop-train", "drop-eval", "report"] = "drop-train",
    inside: bool = False,
) -> dict[str, str]:
    """The clips that leave a build without near-duplicates, each with the clip that it looks like.

    Args:
        table: ``near_duplicates.parquet``.
        protect: kinds of held-out lists that training must not see, as the build's policy has them.
        leaks: which side of a leak gives way.
        inside: whether of clips that are trained on and look the same only one stays too, the one with the first key.
    """
    found: dict[str, str] = {}
    rows = list(_counted(table))
    if leaks != "report":
        for row in rows:
            if _leaks(row, protect):
                gone, stays = ("key_a", "key_b") if leaks == "drop-train" else ("key_b", "key_a")
                found.setdefault(row[gone], row[stays])
    if inside:
        for row in sorted(rows, key=lambda row: (row["key_a"], row["key_b"])):
            stays, gone = sorted((row["key_a"], row["key_b"]))
            if row["kind"] == "train_train" and stays not in found:
                found.setdefault(gone, stays)
    return found


def videos_giving_way(path: Path, policy: Policy, *, inside: bool = False) -> tuple[str, ...]:
    """The videos of the clips that leave by ``giving_way`` and ``policy``, for ``Selection.exclude_ids``.

    ``path`` is a copy of the table outside of the build that it is used for: after the build without these videos,
    its own table no longer names them.

    Raises:
        FeedError: the table is missing or damaged.
    """
    table = read_table(path, NEAR_DUPLICATES)
    gone = giving_way(table, policy.protect, leaks=policy.leaks, inside=inside)
    ids = {row[f"key_{side}"]: row[f"id_{side}"] for row in table.to_pylist() for side in "ab"}
    return tuple(sorted({ids[key] for key in gone}))


def _leaks(row: Mapping[str, Any], protect: Collection[str]) -> bool:
    views = ((u, v) for u in row["views_a"].split(",") for v in row["views_b"].split(","))
    return any(is_protected(u, v, protect) for u, v in views)


def _counted(table: pa.Table) -> Iterable[dict[str, Any]]:
    return (row for row in table.to_pylist() if not row["same_video"])


_KINDS = ("own_train_eval", "train_eval", "train_train", "eval_eval")


def _row(clips: Sequence[ClipFacts], pair: NearDuplicate, group: str) -> dict[str, Any]:
    a, b, match = clips[pair.a], clips[pair.b], pair.match
    offset_s = match.offset_s
    if _kind(a, b) in ("own_train_eval", "train_eval") and not _leads(a, b):
        a, b, offset_s = b, a, -offset_s
    return {
        "key_a": a.key,
        "key_b": b.key,
        "kind": _kind(a, b),
        "views_a": ",".join(a.views),
        "views_b": ",".join(b.views),
        "frames": match.frames,
        "offset_s": offset_s + 0.0,
        "distance": match.distance,
        "part": match.part,
        "mirrored": match.is_mirrored,
        "same_video": is_same_video(a, b),
        "same_bytes": a.sha256 == b.sha256,
        "group": "" if is_same_video(a, b) else group,
        "id_a": a.id,
        "id_b": b.id,
    }


def _kind(a: ClipFacts, b: ClipFacts) -> str:
    crossing = [(u, v) for u in a.views for v in b.views if (_split(u) == TRAIN) != (_split(v) == TRAIN)]
    if any(_release(u) == _release(v) for u, v in crossing):
        return "own_train_eval"
    if crossing:
        return "train_eval"
    return "train_train" if a.is_trained_on else "eval_eval"


def _leads(a: ClipFacts, b: ClipFacts) -> bool:
    """Whether ``a`` is the side that is trained on; where both are, the one that is in more training views."""
    return _num_train(a) >= _num_train(b)


def _num_train(clip: ClipFacts) -> int:
    return sum(_split(view) == TRAIN for view in clip.views)


def _rank(view: str) -> tuple[bool, bool, str]:
    return _split(view) != TRAIN, _release(view) != MERGED, view


def _release(view: str) -> str:
    return view.rpartition("-")[0]


def _split(view: str) -> str:
    return view.rpartition("-")[2]
