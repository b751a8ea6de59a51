"""Which videos stand in more than one list, row against row, and what a list says of its own videos twice.

A leak is decided by video, never by segment: another segment of a held-out video shows the same people and place.
Times and classes only tell how bad it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.errors import InputError
from k710.lists.catalog import Catalog, Ints, Mask
from k710.tables import picked

KINDS = ("train_eval", "own_train_eval", "eval_eval", "train_train")
"""What two lists are to each other; ``own``: a training list and a held-out list of one release."""
MAX_ROW_PAIRS = 20_000_000
"""Most pairs of rows that are written out; the published lists have about one million."""
_BLOCK = 1 << 21
"""Pairs that are looked at together: what the arrays of one step take is then tens of megabytes."""
_NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RowPairs:
    """Rows of two different lists that name one video, in order of (list a, list b, id, times)."""

    a: npt.NDArray[np.int32]
    """Per pair: a row of the training list where the other is held out, else of the earlier list."""
    b: npt.NDArray[np.int32]
    """Per pair: the other row."""

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """What two rows of each pair are to each other."""

    overlap_s: npt.NDArray[np.float64]
    """Seconds that both show; 0 where they are disjoint, NaN where a row has no times."""
    same_segment: Mask
    """Whether both rows have the very same times."""
    class_differs: npt.NDArray[np.int8]
    """1 or 0; -1 where that cannot be said."""


def shared_videos(catalog: Catalog) -> dict[tuple[str, str], int]:
    """Number of videos that stand in both of two lists, for every pair of lists, in catalog order."""
    names = [str(name) for name in catalog.lists]
    # One bit per video and list: half a gigabyte of bytes for a hundred lists would be sixty megabytes.
    bits = np.packbits(list_members(catalog), axis=1)
    return {
        (names[i], names[j]): int(np.bitwise_count(bits[i] & bits[j]).sum())
        for i in range(len(names))
        for j in range(i + 1, len(names))
    }


def list_members(catalog: Catalog) -> Mask:
    """For each list (rows) and video (columns), whether the list names the video."""
    members = np.zeros((len(catalog.lists), catalog.num_videos), dtype=bool)
    members[catalog.list_code, catalog.video] = True
    return members


def kind_of(catalog: Catalog, a: int, b: int, owners: Sequence[str] | None = None) -> str:
    """One of ``KINDS`` for two lists.

    Args:
        catalog: the lists.
        a: position of a list; the training list, when one of the two is.
        b: position of the other list.
        owners: per list, the release it is of; None for its name's.
    """
    first, second = catalog.lists[a], catalog.lists[b]
    if first.is_held_out == second.is_held_out:
        return "eval_eval" if first.is_held_out else "train_train"
    owner = [owners[a], owners[b]] if owners is not None else [first.release, second.release]
    return "own_train_eval" if owner[0] == owner[1] else "train_eval"


def row_pairs(catalog: Catalog, limit: int = MAX_ROW_PAIRS) -> RowPairs:
    """Every pair of rows of two different lists that name one video.

    Raises:
        InputError: more pairs than ``limit``, as when a list has one video in very many rows; names the worst video.
    """
    rank = _ranks(catalog)
    rows = _by_video(catalog, rank)
    video, ranked = catalog.clip_video[catalog.clip[rows]], rank[catalog.list_code[rows]]
    # The rows that each row is paired with stand together: from the end of its list's run to the end of its video's.
    list_end = _run_ends((video[1:] != video[:-1]) | (ranked[1:] != ranked[:-1]), len(rows))
    partners = _run_ends(video[1:] != video[:-1], len(rows)) - list_end
    total = int(partners.sum())
    if total > limit:
        raise _too_many(catalog, total, limit)
    first = np.repeat(np.arange(len(rows), dtype=np.int32), partners)
    offset = np.arange(total, dtype=np.int64) - np.repeat(np.cumsum(partners) - partners, partners)
    second = np.repeat(list_end, partners) + offset
    # Stable: within two lists the pairs stay in order of video and row. 16 bits are sorted by counting.
    code = ranked[first].astype(np.int64) * len(catalog.lists) + ranked[second]
    order = np.argsort(code.astype(np.uint16 if len(catalog.lists) < 256 else np.int64), kind="stable")
    return RowPairs(a=rows[first[order]], b=rows[second[order]])


def compared(catalog: Catalog, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Compared:
    """The rows ``a`` against the rows ``b``, one by one."""
    first, second = catalog.clip[a], catalog.clip[b]
    end = np.minimum(catalog.end_s[first], catalog.end_s[second])
    overlap_s = np.maximum(end - np.maximum(catalog.start_s[first], catalog.start_s[second]), 0.0)
    classes, labels = (catalog.canonical[a], catalog.canonical[b]), (catalog.label[a], catalog.label[b])
    known = (classes[0] >= 0) & (classes[1] >= 0)
    # Names that the class table does not know still say something against each other.
    named = (classes[0] < 0) & (classes[1] < 0) & (labels[0] >= 0) & (labels[1] >= 0)
    differs = np.full(len(a), -1, dtype=np.int8)
    differs[known] = (classes[0] != classes[1])[known]
    differs[named] = (labels[0] != labels[1])[named]
    return Compared(overlap_s=overlap_s, same_segment=(first == second) & ~np.isnan(overlap_s), class_differs=differs)


def leak_table(catalog: Catalog, pairs: RowPairs | None = None, owners: Sequence[str] | None = None) -> pa.Table:
    """``leaks.parquet``: the pairs as a table of ``schema.LEAKS``, in their order.

    Raises:
        InputError: more pairs than can be written out.
    """
    pairs = row_pairs(catalog) if pairs is None else pairs
    parts = [
        _leak_rows(catalog, pairs.a[low : low + _BLOCK], pairs.b[low : low + _BLOCK], owners)
        for low in range(0, len(pairs), _BLOCK)
    ]
    return pa.concat_tables(parts) if parts else schema.LEAKS.empty_table()


def pair_figures(
    catalog: Catalog, pairs: RowPairs | None = None, owners: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """For each two lists with a video in common, how much they share and whether it is the same moments and classes."""
    pairs = row_pairs(catalog) if pairs is None else pairs
    code = catalog.list_code[pairs.a].astype(np.int64) * len(catalog.lists) + catalog.list_code[pairs.b]
    bounds = np.flatnonzero(np.concatenate([[True], code[1:] != code[:-1], [True]])) if len(code) else [0]
    return [_figures(catalog, pairs.a[low:high], pairs.b[low:high], owners) for low, high in itertools.pairwise(bounds)]


def list_figures(catalog: Catalog) -> list[dict[str, Any]]:
    """For each list its rows and videos, and what it says of a video more than once."""
    rows, clip = len(catalog), catalog.clip
    video = catalog.video
    starts = np.ones(rows, dtype=bool)
    starts[1:] = (catalog.list_code[1:] != catalog.list_code[:-1]) | (video[1:] != video[:-1])
    again = np.zeros(rows, dtype=bool)
    again[1:] = ~starts[1:] & (clip[1:] == clip[:-1])
    repeats = again.copy()
    repeats[1:] &= catalog.label[1:] == catalog.label[:-1]
    first = np.flatnonzero(starts)
    owner = catalog.list_code[first]
    size = np.diff(np.append(first, rows))
    segments = size - _sums(again, first)
    low, high = _class_range(catalog, first)
    counts = {
        "rows": np.bincount(catalog.list_code, minlength=len(catalog.lists)),
        "videos": _per_list(owner, np.ones(len(first), bool), catalog),
        "ids_twice": _per_list(owner, size > 1, catalog),
        "ids_with_two_classes": _per_list(owner, low < high, catalog),
        "ids_with_two_segments": _per_list(owner, segments > 1, catalog),
        "duplicate_rows": _per_list(catalog.list_code, repeats, catalog),
    }
    return [{"list": str(n), **{k: int(v[i]) for k, v in counts.items()}} for i, n in enumerate(catalog.lists)]


def list_leaks(catalog: Catalog, owners: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Each pair of a training list and a held-out list with videos in common, as the lists came, with some ids.

    ``own`` is true where both are of one release: rows of a training list that its own release holds out.
    """
    members, video = list_members(catalog), catalog.video
    found = []
    for a in (i for i, name in enumerate(catalog.lists) if not name.is_held_out):
        for b in (i for i, name in enumerate(catalog.lists) if name.is_held_out):
            common = members[a] & members[b]
            videos = np.flatnonzero(common)
            if len(videos):
                rows = catalog.list_rows(a)
                found.append(
                    {
                        "train": str(catalog.lists[a]),
                        "held_out": str(catalog.lists[b]),
                        "own": kind_of(catalog, a, b, owners) == "own_train_eval",
                        "videos": len(videos),
                        "train_rows": int(common[video[rows]].sum()),
                        "examples": picked(catalog.ids, videos[:_NUM_EXAMPLES]).to_pylist(),
                    }
                )
    return found


def _ranks(catalog: Catalog) -> Ints:
    """Per list its place in the order in which pairs are written: training lists first."""
    order = sorted(range(len(catalog.lists)), key=lambda i: (catalog.lists[i].is_held_out, i))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _by_video(catalog: Catalog, ranks: Ints) -> npt.NDArray[np.int32]:
    """The rows in order of (video, rank of the list, clip, label)."""
    slices = [catalog.list_rows(int(i)) for i in np.argsort(ranks)]
    rows = np.concatenate([np.zeros(0, np.int32), *(np.arange(s.start, s.stop, dtype=np.int32) for s in slices)])
    return rows[np.argsort(catalog.clip_video[catalog.clip[rows]], kind="stable")]


def _run_ends(changes: Mask, num_rows: int) -> Ints:
    """Per row: where the run of equal rows that it is in ends, given where the next row is another."""
    ends = np.append(np.flatnonzero(changes) + 1, num_rows)
    return np.repeat(ends, np.diff(ends, prepend=0)) if num_rows else np.zeros(0, np.int64)


def _too_many(catalog: Catalog, total: int, limit: int) -> InputError:
    rows = np.bincount(catalog.video, minlength=catalog.num_videos)
    worst = int(rows.argmax())
    return InputError(
        f"{total:,} pairs of rows of two lists name one video, more than the {limit:,} that are written out; "
        f"video {catalog.ids[worst].as_py()} alone stands in {int(rows[worst]):,} rows",
        hint="take out rows that repeat a video, or give fewer lists at once",
    )


def _leak_rows(
    catalog: Catalog, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32], owners: Sequence[str] | None
) -> pa.Table:
    facts = compared(catalog, a, b)
    codes = catalog.list_code[a], catalog.list_code[b]
    num = range(len(catalog.lists))
    kinds = np.array([[KINDS.index(kind_of(catalog, i, j, owners)) for j in num] for i in num], dtype=np.int8)
    columns = {
        "level": pa.repeat("same_video", len(a)),
        "kind": picked(pa.array(KINDS, pa.string()), kinds[codes]),
        "id": picked(catalog.ids, catalog.clip_video[catalog.clip[a]]),
        "overlap_s": pa.array(facts.overlap_s, from_pandas=True),
        "class_differs": pa.array(facts.class_differs == 1, mask=facts.class_differs < 0),
    }
    for side, rows in (("a", a), ("b", b)):
        columns |= {f"{side}_{name}": values for name, values in _row_columns(catalog, rows).items()}
    return pa.table([columns[name] for name in schema.LEAKS.names], schema=schema.LEAKS)


def _row_columns(catalog: Catalog, rows: npt.NDArray[np.int32]) -> dict[str, pa.Array[Any]]:
    code, clip, canonical = catalog.list_code[rows], catalog.clip[rows], catalog.canonical[rows]
    return {
        "release": picked(pa.array([n.release for n in catalog.lists], pa.string()), code),
        "split": picked(pa.array([n.split for n in catalog.lists], pa.string()), code),
        "start_s": pa.array(catalog.start_s[clip], from_pandas=True),
        "end_s": pa.array(catalog.end_s[clip], from_pandas=True),
        "label": picked(pa.array(catalog.names, pa.string()), catalog.label[rows]),
        "class": pa.array(canonical, mask=canonical < 0),
    }


def _figures(
    catalog: Catalog, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32], owners: Sequence[str] | None
) -> dict[str, Any]:
    facts = compared(catalog, a, b)
    video = catalog.clip_video[catalog.clip[a]]
    lists = int(catalog.list_code[a[0]]), int(catalog.list_code[b[0]])
    overlapping, differing, told = facts.overlap_s > 0, facts.class_differs == 1, facts.class_differs >= 0
    # No class that could be compared is not the same as no class that differs.
    known = bool(told.any())
    return {
        "a": str(catalog.lists[lists[0]]),
        "b": str(catalog.lists[lists[1]]),
        "kind": kind_of(catalog, *lists, owners),
        "videos": _distinct(video),
        "row_pairs": len(a),
        "same_segment": int(facts.same_segment.sum()),
        "overlapping_row_pairs": int(overlapping.sum()),
        "overlapping_videos": _distinct(video[overlapping]),
        "disjoint_row_pairs": int((facts.overlap_s == 0).sum()),
        "overlap_s": round(float(np.nansum(facts.overlap_s)), 3),
        "classes_compared_row_pairs": int(told.sum()),
        "class_differs_row_pairs": int(differing.sum()) if known else None,
        "class_differs_videos": _distinct(video[differing]) if known else None,
        "same_segment_classes_compared": int((facts.same_segment & told).sum()),
        "same_segment_class_differs": int((facts.same_segment & differing).sum()),
    }


def _distinct(ordered: npt.NDArray[Any]) -> int:
    """Number of different values among values in order."""
    return int((ordered[1:] != ordered[:-1]).sum()) + 1 if len(ordered) else 0


def _class_range(catalog: Catalog, first: Ints) -> tuple[Ints, Ints]:
    """Smallest and largest class of each run of rows; the smallest is the larger one where no row has a class."""
    # Unknown names are classes of their own, behind the canonical ones.
    unknown = (catalog.canonical < 0) & (catalog.label >= 0)
    classes = np.where(unknown, catalog.label + (1 << 20), catalog.canonical).astype(np.int64)
    if not len(first):
        return first, first
    low = np.minimum.reduceat(np.where(classes < 0, np.iinfo(np.int64).max, classes), first)
    return low, np.maximum.reduceat(classes, first)


def _sums(mask: Mask, first: Ints) -> Ints:
    return np.add.reduceat(mask.astype(np.int64), first) if len(first) else first


def _per_list(owner: npt.NDArray[np.int16], mask: Mask, catalog: Catalog) -> Ints:
    return np.bincount(owner[mask], minlength=len(catalog.lists))
