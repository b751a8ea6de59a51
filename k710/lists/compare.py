"""Two lists row against row, and two plans shard against shard: what only one has, and what both have otherwise.

Nothing here depends on which of the two comes first, except the names of the sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.lists.catalog import Ints, Mask, Seconds
from k710.tables import compute, named_schema, picked

KINDS = ("only_a", "only_b", "class_changed", "segment_changed", "more_a", "more_b")
"""What a difference is: a video of one side only; a row of both with another class or segment; a further row of a video
that both have."""

DIFFERENCES = named_schema(
    "differences",
    1,
    [
        pa.field("kind", pa.string(), nullable=False),  # one of KINDS
        pa.field("view", pa.string(), nullable=False),  # of the build, or the name of the first list
        pa.field("id", pa.string(), nullable=False),
        pa.field("a_start_s", pa.float64()),
        pa.field("a_end_s", pa.float64()),
        pa.field("a_label", pa.string()),
        pa.field("b_start_s", pa.float64()),
        pa.field("b_end_s", pa.float64()),
        pa.field("b_label", pa.string()),
        pa.field("overlap_s", pa.float64()),  # seconds that both rows show; null where there is only one, or no times
    ],
)
"""One row for each difference, in order of kind, id and segment; a row with two changes stands under both kinds."""

NUM_EXAMPLES = 10
"""Videos of each kind that are shown."""
_NUM_SHARDS_SHOWN = 3
_UNKNOWN_NAMES = 1 << 20
"""Where the numbers of class names begin that no class table knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListDiff:
    """How two lists differ."""

    rows_a: int
    """Rows of the first list; a row that repeats another counts once."""
    rows_b: int
    """Rows of the second list, likewise."""
    ids_a: int
    """Videos of the first list."""
    ids_b: int
    """Videos of the second list."""
    ids_equal: int
    """Videos of both whose rows do not differ in anything that can be compared."""
    ids: Mapping[str, int]
    """Per kind the videos that differ so."""
    segments_disjoint: int
    """Rows of ``segment_changed`` that show no common second."""
    classes_not_compared: int
    """Rows of both of which one side has no class, or a name that says nothing to the other's."""
    segments_not_compared: int
    """Rows of both of which one side has no times."""
    rows: pa.Table
    """``DIFFERENCES``."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not self.rows.num_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class LeafStates:
    """The planned shards of two plans of one build."""

    leaves: pa.Array[Any]
    """Every shard of either plan, in order of name."""
    clips_old: Ints
    """Per shard: clips that the old plan has in it."""
    clips_new: Ints
    """Per shard: clips that the new plan has in it."""
    same: Mask
    """Per shard: whether it holds the same clips with the same labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardChanges:
    """What a new plan does to the shards of an old one."""

    same: int
    """Shards that hold the same clips with the same labels."""
    changed: int
    """Shards of both plans that do not."""
    added: int
    """Shards of the new plan only."""
    removed: int
    """Shards of the old plan only."""
    clips_added: int
    """Clips of the new plan only."""
    clips_removed: int
    """Clips of the old plan only."""
    examples: Mapping[str, tuple[str, ...]]
    """The first shards by name that are ``changed``, ``added`` or ``removed``."""

    @property
    def is_empty(self) -> bool:
        """Whether every shard stays."""
        return not (self.changed or self.added or self.removed)

    def lines(self) -> list[str]:
        """The changes in words: two lines, and one for each kind of shard that there are examples of."""
        found = [
            f"shards: {self.same:,} unchanged, {self.changed:,} changed, {self.added:,} new, {self.removed:,} gone",
            f"clips: {self.clips_added:,} new, {self.clips_removed:,} gone",
        ]
        for kind, word in (("changed", "changed"), ("added", "new"), ("removed", "gone")):
            names, total = self.examples.get(kind, ()), getattr(self, kind)
            if names:
                more = f", ... and {total - len(names):,} more" if total > len(names) else ""
                found.append(f"  {word}: {', '.join(names)}{more}")
        return found


def compare_rows(a: pa.Table, b: pa.Table, view: str = "") -> ListDiff:
    """How two lists differ: tables with ``id, start_s, end_s, label`` and ``canonical`` (-1: not known).

    Rows of one video are compared as sets: equal rows first; what is left is paired by segment, then by class, then in
    order of time, and a row that finds no partner is one more. Classes are compared by ``canonical``, or by name where
    neither side knows it; times to the millisecond, as keys of clips have them.
    """
    coded = _Coded(a, b)
    pairs_a, pairs_b, more_a, more_b = _paired(coded)
    facts = _PairFacts(coded, pairs_a, pairs_b)
    none = np.full(len(coded), -1, dtype=np.int64)
    only = [rows[~coded.is_shared[coded.id[rows]]] for rows in (coded.rows_a, coded.rows_b)]
    found = {
        "only_a": (only[0], none[: len(only[0])]),
        "only_b": (none[: len(only[1])], only[1]),
        "class_changed": (pairs_a[facts.class_differs], pairs_b[facts.class_differs]),
        "segment_changed": (pairs_a[facts.segment_differs], pairs_b[facts.segment_differs]),
        "more_a": (more_a, none[: len(more_a)]),
        "more_b": (none[: len(more_b)], more_b),
    }
    ids = {kind: _marked(coded, np.where(rows >= 0, rows, others)) for kind, (rows, others) in found.items()}
    differing = np.any([ids[kind] for kind in KINDS[2:]], axis=0)
    num = {kind: int(mask.sum()) for kind, mask in ids.items()}
    shared = int(coded.is_shared.sum())
    return ListDiff(
        rows_a=len(coded.rows_a),
        rows_b=len(coded.rows_b),
        ids_a=shared + num["only_a"],
        ids_b=shared + num["only_b"],
        ids_equal=shared - int(differing.sum()),
        ids=num,
        segments_disjoint=int((facts.segment_differs & (facts.overlap_s == 0)).sum()),
        classes_not_compared=int(facts.class_unknown.sum()),
        segments_not_compared=int(facts.segment_unknown.sum()),
        rows=_difference_rows(coded, found, view),
    )


def examples(found: ListDiff, count: int = NUM_EXAMPLES) -> dict[str, list[dict[str, Any]]]:
    """The first differences of each kind, one of each video, in order of id."""
    shown = {}
    for kind in (k for k in KINDS if found.ids[k]):
        rows = found.rows.filter(compute.equal(found.rows["kind"], kind))
        ids = rows["id"].combine_chunks()
        first = np.ones(len(ids), dtype=bool)
        first[1:] = compute.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        shown[kind] = rows.filter(pa.array(first)).slice(0, count).drop_columns(["kind", "view"]).to_pylist()
    return shown


def leaf_states(old: pa.Table, new: pa.Table) -> LeafStates:
    """The shards of two manifests, with or without their column ``rows``, which decides no bytes."""
    place = compute.index_in(new["key"], value_set=_whole(old["key"]))
    kept = _whole(compute.is_valid(place)).to_numpy(zero_copy_only=False)
    there = _whole(place.drop_null()).to_numpy(zero_copy_only=False)
    unchanged = np.ones(len(there), dtype=bool)
    for name in (n for n in new.column_names if n not in ("key", "rows")):
        unchanged &= _equal(_whole(new[name]).filter(pa.array(kept)), _whole(old[name]).take(pa.array(there)))
    encoded = pa.concat_arrays([_whole(old["leaf"]), _whole(new["leaf"])]).dictionary_encode()
    order = compute.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    code = rank[encoded.indices.to_numpy()]
    num, leaf_new = len(order), code[old.num_rows :]
    clips_old, clips_new = (np.bincount(part, minlength=num) for part in (code[: old.num_rows], leaf_new))
    stay = np.bincount(leaf_new[kept][unchanged], minlength=num)
    same = (clips_old == clips_new) & (stay == clips_new)
    return LeafStates(leaves=picked(encoded.dictionary, order), clips_old=clips_old, clips_new=clips_new, same=same)


def shard_changes(old: pa.Table, new: pa.Table) -> ShardChanges:
    """What becomes of the shards of the manifest ``old`` under the manifest ``new``."""
    states = leaf_states(old, new)
    both = (states.clips_old > 0) & (states.clips_new > 0)
    masks = {"changed": both & ~states.same, "added": states.clips_old == 0, "removed": states.clips_new == 0}
    shared = int(compute.sum(compute.is_in(new["key"], value_set=_whole(old["key"]))).as_py() or 0)
    return ShardChanges(
        same=int(states.same.sum()),
        changed=int(masks["changed"].sum()),
        added=int(masks["added"].sum()),
        removed=int(masks["removed"].sum()),
        clips_added=new.num_rows - shared,
        clips_removed=old.num_rows - shared,
        examples={
            kind: tuple(map(str, picked(states.leaves, np.flatnonzero(mask)[:_NUM_SHARDS_SHOWN]).to_pylist()))
            for kind, mask in masks.items()
        },
    )


class _Coded:
    """The rows of two lists, the second's behind the first's, as integers that order them the same either way."""

    def __init__(self, a: pa.Table, b: pa.Table) -> None:
        self.columns = {
            name: pa.concat_arrays([_whole(t[name]).cast(kind) for t in (a, b)])
            for name, kind in (("id", pa.string()), ("label", pa.string()))
        }
        encoded = self.columns["id"].dictionary_encode()
        self.ids = encoded.dictionary
        self.id = encoded.indices.to_numpy().astype(np.int64)
        self.start_s, self.end_s = (
            np.concatenate([_whole(t[name]).cast(pa.float64()).to_numpy(zero_copy_only=False) for t in (a, b)])
            for name in ("start_s", "end_s")
        )
        low, high = _milliseconds(self.start_s), _milliseconds(self.end_s)
        self.has_times = (low >= 0) & (high >= 0)
        self.segment = _numbered(low << 31 | high & ((1 << 31) - 1))
        self.label_class = self._classes(a, b)
        self.category = _numbered(self.label_class)
        key = _packed([self.id, self.segment, self.category])
        self.key = key
        # The first of equal rows, and all in order of (id, segment, class).
        self.rows_a = np.unique(key[: a.num_rows], return_index=True)[1]
        self.rows_b = np.unique(key[a.num_rows :], return_index=True)[1] + a.num_rows
        self.is_shared = _marked(self, self.rows_a) & _marked(self, self.rows_b)

    def __len__(self) -> int:
        return len(self.id)

    def _classes(self, a: pa.Table, b: pa.Table) -> Ints:
        """Canonical class; a number of its own for a name that is no class of the table; -1: none."""
        canonical = np.concatenate([_whole(t["canonical"]).to_numpy(zero_copy_only=False) for t in (a, b)])
        unknown = canonical < 0
        texts = self.columns["label"].filter(pa.array(unknown)).dictionary_encode()
        order = compute.sort_indices(texts.dictionary).to_numpy()
        rank = np.full(len(order) + 1, -1, dtype=np.int64)
        rank[order] = np.arange(len(order)) + _UNKNOWN_NAMES
        classes = canonical.astype(np.int64)
        classes[unknown] = rank[compute.fill_null(texts.indices, len(order)).to_numpy(zero_copy_only=False)]
        return classes


class _PairFacts:
    """What the two rows of each pair are to each other."""

    def __init__(self, coded: _Coded, a: Ints, b: Ints) -> None:
        first, second = coded.label_class[a], coded.label_class[b]
        comparable = (first >= 0) & (second >= 0) & ((first < _UNKNOWN_NAMES) == (second < _UNKNOWN_NAMES))
        self.class_differs: Mask = comparable & (first != second)
        self.class_unknown: Mask = ~comparable & (first != second)
        timed = coded.has_times[a] & coded.has_times[b]
        self.segment_differs: Mask = timed & (coded.segment[a] != coded.segment[b])
        self.segment_unknown: Mask = coded.has_times[a] != coded.has_times[b]
        self.overlap_s: Seconds = _overlap_s(coded, a, b)


def _paired(coded: _Coded) -> tuple[Ints, Ints, Ints, Ints]:
    """Rows of both sides of which something differs, one against one, and the rows of shared videos left on each."""
    rest = [rows[coded.is_shared[coded.id[rows]]] for rows in (coded.rows_a, coded.rows_b)]
    pairs: list[tuple[Ints, Ints]] = []
    for key in (
        coded.key,
        _packed([coded.id, coded.segment]),
        _packed([coded.id, coded.category]),
        coded.id,
    ):
        taken = _matched(key[rest[0]], key[rest[1]])
        if key is not coded.key:  # what is equal is not looked at again
            pairs.append((rest[0][taken[0]], rest[1][taken[1]]))
        rest = [np.delete(rows, places) for rows, places in zip(rest, taken, strict=True)]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return first, second, rest[0], rest[1]


def _marked(coded: _Coded, rows: Ints) -> Mask:
    """Per video: whether one of ``rows`` is of it."""
    mask = np.zeros(len(coded.ids), dtype=bool)
    mask[coded.id[rows]] = True
    return mask


def _matched(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Places of equal values: the first of each in ``a`` with the first in ``b``, the second with the second, ..."""
    sides = []
    orders = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    for own, other in ((a[orders[0]], b[orders[1]]), (b[orders[1]], a[orders[0]])):
        turn = np.arange(len(own)) - np.searchsorted(own, own, side="left")
        partners = np.searchsorted(other, own, side="right") - np.searchsorted(other, own, side="left")
        sides.append(turn < partners)
    return orders[0][sides[0]], orders[1][sides[1]]


def _difference_rows(coded: _Coded, found: Mapping[str, tuple[Ints, Ints]], view: str) -> pa.Table:
    kind = np.repeat(np.arange(len(KINDS)), [len(found[k][0]) for k in KINDS])
    a, b = (np.concatenate([found[k][side] for k in KINDS]) for side in (0, 1))
    either = np.where(a >= 0, a, b)
    ids, code = np.unique(coded.id[either], return_inverse=True)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[compute.sort_indices(picked(coded.ids, ids)).to_numpy()] = np.arange(len(ids))
    order = np.lexsort((coded.key[either], rank[code], kind))
    kind, a, b = kind[order], a[order], b[order]
    overlap_s = np.where((a >= 0) & (b >= 0), _overlap_s(coded, a, b), np.nan)
    columns = {
        "kind": picked(pa.array(KINDS, pa.string()), kind),
        "view": pa.repeat(view, len(order)),
        "id": picked(coded.columns["id"], either[order]),
        **{f"a_{name}": values for name, values in _row_columns(coded, a).items()},
        **{f"b_{name}": values for name, values in _row_columns(coded, b).items()},
        "overlap_s": pa.array(overlap_s, from_pandas=True),
    }
    return pa.table([columns[name] for name in DIFFERENCES.names], schema=DIFFERENCES)


def _row_columns(coded: _Coded, rows: Ints) -> dict[str, pa.Array[Any]]:
    absent = rows < 0
    times = {
        name: pa.array(np.where(absent, np.nan, values[rows]) if len(values) else [], pa.float64(), from_pandas=True)
        for name, values in (("start_s", coded.start_s), ("end_s", coded.end_s))
    }
    return {**times, "label": picked(coded.columns["label"], rows)}


def _overlap_s(coded: _Coded, a: Ints, b: Ints) -> Seconds:
    if not len(coded):
        return np.zeros(0)
    end = np.minimum(coded.end_s[a], coded.end_s[b])
    overlap: Seconds = np.maximum(end - np.maximum(coded.start_s[a], coded.start_s[b]), 0.0)
    return overlap


def _milliseconds(seconds: Seconds) -> Ints:
    return np.rint(np.nan_to_num(seconds, nan=-0.001) * 1000).astype(np.int64)


def _numbered(values: Ints) -> Ints:
    """Each value's place among the distinct ones."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _packed(codes: Sequence[Ints]) -> Ints:
    """One integer per row that is equal, and sorts, as the codes do one after the other; none is negative."""
    key = codes[0]
    for code in codes[1:]:
        width = int(code.max(initial=0)) + 1
        if (int(key.max(initial=0)) + 1) * width >= 1 << 63:
            key = _numbered(key)
        key = key * width + code
    return key


def _equal(a: pa.Array[Any], b: pa.Array[Any]) -> Mask:
    """Per row: whether both columns say the same; two nulls do."""
    if not pa.types.is_list(a.type):
        same = compute.or_(compute.fill_null(compute.equal(a, b), False), compute.and_(a.is_null(), b.is_null()))
        return np.asarray(same.to_numpy(zero_copy_only=False), dtype=bool)
    lengths = [compute.fill_null(compute.list_value_length(side), -1).to_numpy(zero_copy_only=False) for side in (a, b)]
    equal: npt.NDArray[np.bool_] = lengths[0] == lengths[1]
    flat = [compute.list_flatten(side.filter(pa.array(equal))) for side in (a, b)]
    owner = np.repeat(np.flatnonzero(equal), np.maximum(lengths[0][equal], 0))
    equal[owner[~_equal(flat[0], flat[1])]] = False
    return equal


def _whole(values: Any) -> pa.Array[Any]:
    """A column as one array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
