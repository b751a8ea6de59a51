"""From views to clips: one row for each clip that some view needs, with every label it carries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from k710 import schema
from k710.config import load_releases
from k710.labels import NUM_CLASSES, TAXONOMIES, LabelMap
from k710.lists.views import MERGED, BuiltView
from k710.segments import id_hash
from k710.shards.plan import assign_leaves, group_name


def plan_clips(catalog: pd.DataFrame, views: Sequence[BuiltView], labels: LabelMap, clips_per_shard: int) -> pa.Table:
    """The manifest: one row per clip of any view, in order of planned shard and key."""
    entries = pd.concat([v.members[["clip", "canonical"]].assign(view=v.spec.name) for v in views])
    entries = entries.sort_values(["clip", "view"], ignore_index=True)
    rows = catalog[catalog["clip"].isin(entries["clip"])].sort_values("clip", kind="stable", ignore_index=True)
    clips = rows.drop_duplicates("clip")[["clip", "key", "id", "start_s", "end_s"]].reset_index(drop=True)
    # From here on a clip is its position in `clips`.
    position = pd.Series(clips.index, index=clips["clip"])
    entries["clip"], rows["clip"] = position.loc[entries["clip"]].to_numpy(), position.loc[rows["clip"]].to_numpy()
    classes = rows[rows["canonical"] >= 0][["clip", "canonical"]].drop_duplicates().sort_values(["clip", "canonical"])
    hashes = {i: id_hash(i) for i in clips["id"].unique()}
    num = len(clips)
    columns: dict[str, Any] = {
        "key": clips["key"],
        "id": clips["id"],
        "id_hash": np.array([hashes[i] for i in clips["id"]], dtype=np.uint64),
        "start_s": clips["start_s"],
        "end_s": clips["end_s"],
        "class": _single_class(num, entries, classes),
        "classes": _lists(num, classes["clip"], pa.array(classes["canonical"], pa.int16())),
        "views": _lists(num, entries["clip"], _array(entries["view"], pa.string())),
        "view_classes": _lists(num, entries["clip"], pa.array(entries["canonical"], pa.int16())),
        **{f"{t}_class": _taxonomy_class(num, rows, labels, t) for t in TAXONOMIES},
        "leaf": assign_leaves(clips["id"].tolist(), _groups(num, entries), clips_per_shard),
        "rows": _lists(num, rows["clip"], _row_structs(rows)),
    }
    arrays = [_array(columns[f.name], f.type) for f in schema.MANIFEST]
    return pa.table(arrays, schema=schema.MANIFEST).sort_by([("leaf", "ascending"), ("key", "ascending")])


def view_digest(view: BuiltView) -> str:
    """sha256 over the sorted (key, class) of a view."""
    members = view.members.sort_values("key")
    lines = (f"{k}\t{c}\n" for k, c in zip(members["key"], members["canonical"], strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _groups(num_clips: int, entries: pd.DataFrame) -> list[str]:
    # A bit per view makes the exact set of views of a clip one integer.
    names = sorted(entries["view"].unique())
    bits = entries["view"].map({name: 1 << i for i, name in enumerate(names)}).to_numpy(np.int64)
    sets = np.zeros(num_clips, np.int64)
    np.bitwise_or.at(sets, entries["clip"].to_numpy(), bits)
    folder = {s: group_name([n for i, n in enumerate(names) if s >> i & 1]) for s in np.unique(sets).tolist()}
    return [folder[s] for s in sets.tolist()]


def _single_class(num_clips: int, entries: pd.DataFrame, classes: pd.DataFrame) -> pa.Array[Any]:
    merged = entries[entries["view"].str.startswith(f"{MERGED}-") & (entries["canonical"] >= 0)]
    merged = merged[["clip", "canonical"]].drop_duplicates()
    candidates = pd.concat([merged, classes[~classes["clip"].isin(merged["clip"])]])
    return _per_clip(num_clips, candidates[~candidates["clip"].duplicated(keep=False)])


def _taxonomy_class(num_clips: int, rows: pd.DataFrame, labels: LabelMap, taxonomy: str) -> pa.Array[Any]:
    own = [name for name, release in load_releases().items() if release.taxonomy == taxonomy]
    labelled = rows[rows["release"].isin(own) & (rows["canonical"] >= 0)]
    # Where two lists of one taxonomy differ, the newest release's earliest split speaks.
    first = labelled.assign(age=-labelled["release_order"]).sort_values(["clip", "age", "split_order", "label"])
    index = np.array([-1 if (i := labels.index_in(taxonomy, c)) is None else i for c in range(NUM_CLASSES)])
    first["canonical"] = index[first["canonical"].to_numpy()]
    return _per_clip(num_clips, first.drop_duplicates("clip"))


def _per_clip(num_clips: int, known: pd.DataFrame) -> pa.Array[Any]:
    """The ``canonical`` column of ``known`` at the positions of its ``clip`` column, null elsewhere."""
    values = np.full(num_clips, -1, np.int16)
    values[known["clip"].to_numpy()] = known["canonical"].to_numpy()
    return pa.array(values, pa.int16(), mask=values < 0)


def _row_structs(rows: pd.DataFrame) -> pa.Array[Any]:
    return pa.StructArray.from_arrays(
        [_array(rows[f.name], f.type) for f in schema.ROW_FIELDS], fields=schema.ROW_FIELDS
    )


def _lists(num_clips: int, owners: pd.Series, values: pa.Array[Any]) -> pa.Array[Any]:
    """For each clip the list of the ``values`` that it owns; ``owners`` is sorted."""
    counts = np.bincount(owners.to_numpy(np.int64), minlength=num_clips)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _array(values: Any, kind: pa.DataType) -> pa.Array[Any]:
    array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(kind)
