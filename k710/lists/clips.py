"""From views to clips: one row for each clip that some view needs, with every label it carries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.config import load_releases
from k710.errors import UsageError
from k710.labels import TAXONOMIES, LabelMap
from k710.lists.catalog import SPLIT_ORDER, Catalog, Codes, Ints, distinct, first_of_each
from k710.lists.views import BuiltView
from k710.shards.plan import assign_leaves, group_name
from k710.tables import compute, picked

_MAX_VIEWS = 63


@dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    """The clips that some view needs, in order of (video, start, end), and what the views say of them."""

    clips: Codes
    """Number of each clip in the catalog."""
    place: Codes
    """Per clip of the catalog: its position among ``clips``; -1: no view needs it."""
    view_classes: npt.NDArray[np.int16]
    """Per clip and view (in order of name): its class there; -1: none; -2: it is not in the view."""

    def __len__(self) -> int:
        return len(self.clips)


def plan_clips(catalog: Catalog, views: Sequence[BuiltView], labels: LabelMap, clips_per_shard: int) -> pa.Table:
    """The manifest: one row per clip of any view, in order of planned shard and key.

    Raises:
        UsageError: more views than one build can hold.
    """
    if len(views) > _MAX_VIEWS:
        raise UsageError(f"a build holds at most {_MAX_VIEWS} views, got {len(views)}", hint="name fewer with --views")
    views = sorted(views, key=lambda view: view.spec.name)
    planned = _planned(catalog, views)
    leaves, rank = _leaves(catalog, planned, views, clips_per_shard)
    order = np.lexsort((catalog.key_rank[planned.clips], rank))
    planned = _reordered(planned, order)
    rows = _rows_by_clip(catalog, planned)
    arrays = {
        **_identity(catalog, planned),
        **_view_columns(planned, views),
        **_class_columns(catalog, planned, views, rows, labels),
        "leaf": picked(leaves, rank[order]),
        "rows": _lists(planned.place[catalog.clip[rows]], len(planned), _row_structs(catalog, rows)),
    }
    return pa.table([arrays[f.name].cast(f.type) for f in schema.MANIFEST], schema=schema.MANIFEST)


def view_digest(catalog: Catalog, view: BuiltView) -> str:
    """sha256 over the sorted (key, class) of a view."""
    clips = catalog.clip[view.members]
    order = np.argsort(catalog.key_rank[clips])
    classes = compute.cast(pa.array(catalog.canonical[view.members[order]]), pa.string())
    lines = compute.binary_join_element_wise(picked(catalog.keys, clips[order]), classes, "\t")
    lines = compute.binary_join_element_wise(lines, "", "\n")
    # The values of a column stand in its buffer one after the other: the very bytes of the text.
    begin, end = (int(v) for v in np.frombuffer(lines.buffers()[1], np.int32)[[0, len(lines)]])
    return hashlib.sha256(lines.buffers()[2][begin:end] if end else b"").hexdigest()


def _planned(catalog: Catalog, views: Sequence[BuiltView]) -> _Planned:
    wanted = np.zeros(catalog.num_clips, dtype=bool)
    for view in views:
        wanted[catalog.clip[view.members]] = True
    clips = np.flatnonzero(wanted).astype(np.int32)
    place = np.full(catalog.num_clips, -1, dtype=np.int32)
    place[clips] = np.arange(len(clips), dtype=np.int32)
    classes = np.full((len(clips), len(views)), -2, dtype=np.int16)
    for column, view in enumerate(views):
        classes[place[catalog.clip[view.members]], column] = catalog.canonical[view.members]
    return _Planned(clips=clips, place=place, view_classes=classes)


def _leaves(
    catalog: Catalog, planned: _Planned, views: Sequence[BuiltView], clips_per_shard: int
) -> tuple[pa.Array[Any], Ints]:
    """The planned shards in order of name, and which of them each clip is in."""
    bits = (planned.view_classes > -2) @ (1 << np.arange(len(views), dtype=np.int64))
    # By sorting: there are few sets, and numpy's own way to find them is much slower.
    ordered = np.sort(bits)
    sets = ordered[np.diff(ordered, prepend=-1) > 0]
    group = np.searchsorted(sets, bits)
    names = [group_name([v.spec.name for i, v in enumerate(views) if s >> i & 1]) for s in sets.tolist()]
    video = catalog.clip_video[planned.clips]
    videos = distinct(video, catalog.num_videos)
    hashes = np.zeros(catalog.num_videos, dtype=np.uint64)
    hashes[videos] = catalog.trie_hashes(videos)
    leaves, leaf = assign_leaves(hashes[video], group, names, clips_per_shard)
    order = np.argsort(np.array(leaves, dtype=object)) if leaves else np.zeros(0, np.int64)
    rank = np.empty(len(leaves), dtype=np.int64)
    rank[order] = np.arange(len(leaves))
    return pa.array([leaves[i] for i in order], pa.string()), rank[leaf]


def _reordered(planned: _Planned, order: Ints) -> _Planned:
    clips, place = planned.clips[order], planned.place.copy()
    place[clips] = np.arange(len(clips), dtype=np.int32)
    return _Planned(clips=clips, place=place, view_classes=planned.view_classes[order])


def _rows_by_clip(catalog: Catalog, planned: _Planned) -> Ints:
    """Every row of the catalog that names a planned clip, grouped by clip in the order planned."""
    place = planned.place[catalog.clip]
    rows = np.flatnonzero(place >= 0)
    return rows[np.argsort(place[rows], kind="stable")]


def _identity(catalog: Catalog, planned: _Planned) -> dict[str, pa.Array[Any]]:
    video = catalog.clip_video[planned.clips]
    videos = distinct(video, catalog.num_videos)
    hashes = np.zeros(catalog.num_videos, dtype=np.uint64)
    hashes[videos] = catalog.video_hashes(videos)
    return {
        "key": picked(catalog.keys, planned.clips),
        "id": picked(catalog.ids, video),
        "id_hash": pa.array(hashes[video]),
        "start_s": pa.array(catalog.start_s[planned.clips]),
        "end_s": pa.array(catalog.end_s[planned.clips]),
    }


def _view_columns(planned: _Planned, views: Sequence[BuiltView]) -> dict[str, pa.Array[Any]]:
    clip, view = np.nonzero(planned.view_classes > -2)
    names = pa.array([v.spec.name for v in views], pa.string())
    return {
        "views": _lists(clip, len(planned), picked(names, view)),
        "view_classes": _lists(clip, len(planned), pa.array(planned.view_classes[clip, view])),
    }


def _class_columns(
    catalog: Catalog, planned: _Planned, views: Sequence[BuiltView], rows: Ints, labels: LabelMap
) -> dict[str, pa.Array[Any]]:
    place, canonical = planned.place[catalog.clip[rows]], catalog.canonical[rows]
    pairs = np.sort(place[canonical >= 0].astype(np.int64) << 16 | canonical[canonical >= 0])
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    clip, classes = pairs >> 16, (pairs & 0xFFFF).astype(np.int16)
    return {
        "class": _single_class(planned, views, clip, classes),
        "classes": _lists(clip, len(planned), pa.array(classes)),
        **{f"{t}_class": _taxonomy_class(catalog, planned, rows, labels, t) for t in TAXONOMIES},
    }


def _single_class(
    planned: _Planned, views: Sequence[BuiltView], clip: Ints, classes: npt.NDArray[np.int16]
) -> pa.Array[Any]:
    """The class that the merged views give a clip, else its only class; null when there is none or they differ."""
    merged = [i for i, view in enumerate(views) if view.spec.is_merged]
    given = planned.view_classes[:, merged]
    highest = given.max(axis=1, initial=-2)
    lowest = np.where(given >= 0, given, np.iinfo(np.int16).max).min(axis=1, initial=np.iinfo(np.int16).max)
    first = np.full(len(planned), -1, dtype=np.int16)
    first[clip] = classes
    only = np.where(np.bincount(clip, minlength=len(planned)) == 1, first, -1)
    values = np.where(highest < 0, only, np.where(lowest == highest, highest, -1))
    return pa.array(values, pa.int16(), mask=values < 0)


def _taxonomy_class(catalog: Catalog, planned: _Planned, rows: Ints, labels: LabelMap, taxonomy: str) -> pa.Array[Any]:
    """Index in ``taxonomy`` by the clip's rows; where they differ the newest release's earliest split speaks."""
    releases = load_releases()
    own = np.array([n.release in releases and releases[n.release].taxonomy == taxonomy for n in catalog.lists])
    values = np.full(len(planned), -1, dtype=np.int16)
    if own.any():
        rows = rows[own[catalog.list_code[rows]] & (catalog.canonical[rows] >= 0)]
        splits = np.array([SPLIT_ORDER.index(n.split) for n in catalog.lists], dtype=np.int64)
        code = catalog.list_code[rows]
        priority: Ints = (-catalog.ages[code] << 24) + (splits[code] << 20) + catalog.label[rows].astype(np.int64)
        place = planned.place[catalog.clip[rows]]
        first = first_of_each(place, priority, len(planned))
        known = np.flatnonzero(first >= 0)
        index = [labels.index_in(taxonomy, c) for c in range(len(labels.rows))]
        indices = np.array([-1 if i is None else i for i in index], dtype=np.int16)
        values[known] = indices[catalog.canonical[rows[first[known]]]]
    return pa.array(values, mask=values < 0)


def _row_structs(catalog: Catalog, rows: Ints) -> pa.Array[Any]:
    columns = catalog.columns(rows)
    return pa.StructArray.from_arrays([columns[f.name] for f in schema.ROW_FIELDS], fields=schema.ROW_FIELDS)


def _lists(owners: npt.NDArray[Any], num_clips: int, values: pa.Array[Any]) -> pa.Array[Any]:
    """For each clip the list of the ``values`` that it owns; ``owners`` is ascending."""
    counts = np.bincount(owners, minlength=num_clips)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
