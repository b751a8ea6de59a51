"""What near-duplicates mean for a build: which views they lie in, and which of them leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from k710.fingerprints.search import NearDuplicate, groups
from k710.labels import MERGED
from k710.report.near_duplicates import NEAR_DUPLICATES

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


def pair_table(
    clips: Sequence[ClipFacts], found: Sequence[NearDuplicate], gave_way: Sequence[Mapping[str, Any]] = ()
) -> pa.Table:
    """``near_duplicates.parquet``: the pairs that leak first, then in order of their keys; last those that gave way."""
    counted = [(p.a, p.b) for p in found if not is_same_video(clips[p.a], clips[p.b])]
    first = groups(len(clips), counted)
    rows = [_row(clips, pair, clips[first[pair.a]].key) for pair in found]
    rows.sort(key=lambda row: (row["same_video"], _KINDS.index(row["kind"]), row["key_a"], row["key_b"]))
    return pa.Table.from_pylist([*rows, *gave_way], schema=NEAR_DUPLICATES)


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


def is_counted(row: Mapping[str, Any]) -> bool:
    """Whether a pair is one of near-duplicates that the build has: not of segments of one video, and none gave way."""
    return not row["same_video"] and not row["gave_way"]


def is_leak(row: Mapping[str, Any], protect: Collection[str]) -> bool:
    """Whether a pair of ``near_duplicates.parquet`` is one that a build with such ``protect`` must not have."""
    views = ((u, v) for u in row["views_a"].split(",") for v in row["views_b"].split(","))
    return any(is_protected(u, v, protect) for u, v in views)


def _counted(table: pa.Table) -> Iterable[dict[str, Any]]:
    return (row for row in table.to_pylist() if is_counted(row))


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
        "rest": match.rest,
        "found_by": match.found_by,
        "same_video": is_same_video(a, b),
        "same_bytes": a.sha256 == b.sha256,
        "group": "" if is_same_video(a, b) else group,
        "id_a": a.id,
        "id_b": b.id,
        "gave_way": False,
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
