"""What lists decided, as a build has it on the disk, and the same without some videos: no list is read again.

All decisions of a plan but the draw of ``per_class`` are by video, so nothing else moves when a video is not selected:
its rows become ``not_selected``, its clips leave their leaves, and every figure follows from the tables.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import __version__, atomic, schema
from k710.config import load_releases
from k710.errors import FeedError
from k710.labels import LabelMap
from k710.lists.catalog import SPLIT_ORDER
from k710.lists.manifest import VIEW_SCHEMA, digest
from k710.lists.views import MERGED, ViewSpec
from k710.report.stored import parsed_audit
from k710.segments import id_digests, trie_digests
from k710.shards.index import HELD_OUT_FILE, LOCK_FILE, parsed_lock
from k710.shards.plan import assign_leaves, group_name
from k710.tables import compute, read_table, table_bytes
from k710.takedown.forgotten import summed
from k710.takedown.stored_audit import audit_of_tables

MANIFEST_FILE = "manifest.parquet"
EXCLUDED_FILE = "excluded.parquet"

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPlan:
    """The plan of a build."""

    lock: dict[str, Any]
    """``k710.lock.json``."""
    manifest: pa.Table
    """One row per planned clip."""
    excluded: pa.Table
    """Per view, each source row that is not in it."""
    held_out: pa.Table
    """The videos of every held-out list, as hashes; no takedown changes it."""
    held_out_bytes: bytes
    """The file of that table."""
    audit: dict[str, Any]
    """``audit.json``."""
    files: Mapping[str, bytes]
    """``manifest.parquet`` and ``excluded.parquet`` as they are on the disk, or are to be."""

    @property
    def specs(self) -> list[ViewSpec]:
        """The views, in order of name."""
        specs = []
        for name in sorted(self.lock["views"]):
            release, _, split = name.rpartition("-")
            taxonomy = MERGED if release == MERGED else self.lock["releases"][release]
            specs.append(ViewSpec(release=release, split=split, taxonomy=taxonomy))
        return specs

    @property
    def digests(self) -> dict[str, str]:
        """The lock's digests of the tables, by the tables."""
        left_out = digest(self.files[EXCLUDED_FILE] + self.held_out_bytes)
        return {"manifest": digest(self.files[MANIFEST_FILE]), "left_out": left_out}

    def is_of(self, lock: Mapping[str, Any]) -> bool:
        """Whether these are the tables that ``lock`` was written for."""
        return all(lock["digests"].get(name) == value for name, value in self.digests.items())

    def videos(self) -> set[int]:
        """Hashes of all videos that the tables name."""
        listed = _listed_hashes(self.excluded)
        return set().union(listed.tolist(), *(t["id_hash"].to_pylist() for t in (self.manifest, self.held_out)))

    def keys_of(self, forgotten: Collection[int]) -> set[str]:
        """Keys of the clips of these videos, planned or not."""
        planned = self.manifest["key"].filter(_is_one_of(self.manifest["id_hash"].to_numpy(), forgotten))
        listed = self.excluded["key"].filter(_is_one_of(_listed_hashes(self.excluded), forgotten)).drop_null()
        return set(map(str, planned.to_pylist() + listed.to_pylist()))


def read_plan(out: Path) -> StoredPlan:
    """The plan of the build in ``out``.

    Raises:
        FeedError: a part of it is missing or damaged.
    """
    lock = read_lock(out)
    tables = {
        name: read_table(out / name, like)
        for name, like in ((MANIFEST_FILE, schema.MANIFEST), (EXCLUDED_FILE, schema.EXCLUDED))
    }
    audit_file = out / "audit.json"
    try:
        text = audit_file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FeedError(f"{audit_file}: cannot be read ({error})", hint="run `k710 build` again") from error
    return StoredPlan(
        lock=lock,
        manifest=tables[MANIFEST_FILE],
        excluded=tables[EXCLUDED_FILE],
        held_out=read_table(out / HELD_OUT_FILE, schema.HELD_OUT),
        held_out_bytes=(out / HELD_OUT_FILE).read_bytes(),
        audit=parsed_audit(text, audit_file),
        files={name: (out / name).read_bytes() for name in tables},
    )


def read_lock(out: Path) -> dict[str, Any]:
    """The lock of the build in ``out``; a ``FeedError`` where there is none."""
    path = out / LOCK_FILE
    try:
        return parsed_lock(path.read_bytes(), where=str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FeedError(
            f"{out}: no build here ({LOCK_FILE} is missing)", hint="`k710 build --out` makes one; or give --data"
        ) from error


def without(plan: StoredPlan, forgotten: Collection[int], labels: LabelMap) -> StoredPlan:
    """``plan`` as the same lists give it when these videos, and no others, are forgotten; applied twice it is the same.

    The parts of the audit that speak of the lists alone stay as they are. ``per_class`` draws nothing in place of a
    clip that goes.
    """
    gone = _is_one_of(plan.manifest["id_hash"].to_numpy(), forgotten)
    files = dict(plan.files)
    excluded, manifest = _excluded_without(plan, gone, forgotten), plan.manifest
    if excluded is not plan.excluded:
        files[EXCLUDED_FILE] = table_bytes(excluded, schema.EXCLUDED)
    if gone.any():
        manifest = _replanned(manifest.filter(~gone), manifest.filter(gone), plan.lock["config"]["clips_per_shard"])
        files[MANIFEST_FILE] = table_bytes(manifest, schema.MANIFEST)
    changed = dataclasses.replace(plan, manifest=manifest, excluded=excluded, files=files)
    audit = audit_of_tables(plan.audit, plan.lock, plan.specs, manifest, excluded, plan.held_out, labels)
    return dataclasses.replace(changed, audit=audit, lock=_lock(changed, forgotten))


def view_documents(plan: StoredPlan) -> list[dict[str, Any]]:
    """``views/{name}.json`` of each view, by the manifest."""
    names = compute.list_flatten(plan.manifest["views"])
    parents = compute.list_parent_indices(plan.manifest["views"])
    view_classes = compute.list_flatten(plan.manifest["view_classes"])
    documents = []
    for spec in plan.specs:
        own = compute.equal(names, spec.name)
        clips, classes = plan.manifest.take(parents.filter(own)), view_classes.filter(own)
        order = compute.sort_indices(clips["key"])
        pairs = zip(clips["key"].take(order).to_pylist(), classes.take(order).to_pylist(), strict=True)
        own_digest = digest("".join(f"{key}\t{number}\n" for key, number in pairs).encode())
        documents.append(
            {
                "schema": VIEW_SCHEMA,
                "name": spec.name,
                "release": spec.release,
                "split": spec.split,
                "taxonomy": spec.taxonomy,
                "clips": clips.num_rows,
                "videos": len(compute.unique(clips["id_hash"])),
                "classes": len(compute.unique(classes.filter(compute.greater_equal(classes, 0)))),
                "shards": sorted(compute.unique(clips["leaf"]).to_pylist()),
                "digest": own_digest,
                "data_digest": digest([own_digest, plan.lock["class_table"], plan.lock["config"]["encode"]]),
            }
        )
    return documents


def write_stored_plan(out: Path, plan: StoredPlan) -> None:
    """Write the lock, the tables and the views of ``plan``, but for what is on the disk already."""
    # The lock first, as in a build: after a kill the same build then goes on, and writes the rest.
    write_json(out / LOCK_FILE, plan.lock)
    # The excluded rows of a clip are made from its row in the manifest, so that goes last.
    for name in (EXCLUDED_FILE, MANIFEST_FILE):
        if (out / name).read_bytes() != plan.files[name]:
            atomic.write_bytes(out / name, plan.files[name])
    for document in view_documents(plan):
        write_json(out / "views" / f"{document['name']}.json", document)


def write_json(path: Path, value: Any) -> None:
    """Replace the JSON at ``path`` unless it says ``value`` already."""
    try:
        same = json.loads(path.read_bytes()) == value
    except (OSError, ValueError):
        same = False
    if not same:
        atomic.write_json(path, value)


def _id_kind(release: str) -> str:
    known = load_releases().get(release)
    return "youtube" if known is None else known.id_kind


def _is_one_of(hashes: npt.NDArray[np.uint64], forgotten: Collection[int]) -> _Mask:
    return np.isin(hashes, np.array(sorted(forgotten), dtype=np.uint64))


def _listed_hashes(excluded: pa.Table) -> npt.NDArray[np.uint64]:
    """Per excluded row the hash of its video; 0 for a bad row whose id could not be read."""
    hashes = np.zeros(excluded.num_rows, dtype=np.uint64)
    releases = excluded["release"].combine_chunks().dictionary_encode()
    ids = excluded["id"].combine_chunks().dictionary_encode()
    kinds = np.array([_id_kind(str(r)) for r in releases.dictionary.to_pylist()], dtype=object)
    kind = kinds[releases.indices.to_numpy()] if len(kinds) else kinds
    codes = compute.fill_null(ids.indices, -1).to_numpy()
    for name in set(kinds):
        own = np.append(_numbers(id_digests(map(str, ids.dictionary.to_pylist()), name)), np.uint64(0))
        hashes = np.where(kind == name, own[codes], hashes)
    return hashes


def _numbers(digests: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _excluded_without(plan: StoredPlan, gone: _Mask, forgotten: Collection[int]) -> pa.Table:
    """The excluded rows when the forgotten videos are selected nowhere; the very table when nothing changes."""
    table = plan.excluded.combine_chunks()
    planned = plan.manifest.filter(gone)
    bad = compute.equal(table["reason"], "bad_row").to_numpy()
    named = _is_one_of(_listed_hashes(table), forgotten) & ~bad
    changes = named & compute.not_equal(table["reason"], "not_selected").to_numpy()
    if not changes.any() and not planned.num_rows:
        return plan.excluded
    table = _not_selected(table, pa.array(named))
    # All rows of a planned clip stand in the manifest: taken from there they are right, however often this is done.
    again = compute.is_in(table["key"], value_set=planned["key"].combine_chunks())
    table = pa.concat_tables([table.filter(compute.invert(again)), *_rows_of_planned(plan.specs, planned)])
    return _in_runs(table.combine_chunks(), plan.specs)


def _not_selected(table: pa.Table, mask: pa.Array[Any]) -> pa.Table:
    values: dict[str, Any] = {"reason": "not_selected", "class_differs": False}
    values |= {f.name: pa.scalar(None, f.type) for f in schema.EXCLUDED if f.name.startswith("by_")}
    columns = [
        compute.if_else(mask, values[f.name], table[f.name]) if f.name in values else table[f.name]
        for f in schema.EXCLUDED
    ]
    return pa.table(columns, names=schema.EXCLUDED.names).cast(schema.EXCLUDED)


def _rows_of_planned(specs: Sequence[ViewSpec], planned: pa.Table) -> list[pa.Table]:
    """Per view the rows of its source lists that name these clips, as rows that are not selected."""
    structs = compute.list_flatten(planned["rows"].combine_chunks())
    rows = pa.Table.from_struct_array(structs).append_column(
        "key", planned["key"].combine_chunks().take(compute.list_parent_indices(planned["rows"].combine_chunks()))
    )
    lists = list(zip(rows["release"].to_pylist(), rows["split"].to_pylist(), strict=True))
    tables = []
    for spec in specs:
        own = rows.filter(pa.array([spec.draws_on(str(release), str(split)) for release, split in lists], pa.bool_()))
        given = {
            **{name: own[name] for name in own.column_names},
            "view": pa.repeat(spec.name, own.num_rows),
            "reason": pa.repeat("not_selected", own.num_rows),
            "class_differs": pa.repeat(False, own.num_rows),
        }
        columns = [given.get(f.name, pa.nulls(own.num_rows, f.type)) for f in schema.EXCLUDED]
        tables.append(pa.table(columns, names=schema.EXCLUDED.names).cast(schema.EXCLUDED))
    return tables


def _in_runs(table: pa.Table, specs: Sequence[ViewSpec]) -> pa.Table:
    """The excluded rows in the order in which a build writes them, and in its chunks: they show in the file's bytes."""
    bad = compute.equal(table["reason"], "bad_row").to_numpy()
    ages = {name: i for i, name in enumerate(load_releases())}
    view = _codes(table["view"], {spec.name: i for i, spec in enumerate(specs)})
    rows = [
        _codes(table["release"], ages),
        _codes(table["split"], {name: i for i, name in enumerate(SPLIT_ORDER)}),
        _codes(table["id"], None),
        *(compute.fill_null(table[c], -1).to_numpy() for c in ("start_s", "end_s")),
    ]
    # Bad rows come first in each view, as they stand; rows of one clip stand in order already.
    within = [np.where(bad, 0, values) for values in rows]
    order = np.lexsort((np.arange(len(view)), *reversed(within), ~bad, view))
    run = np.stack([view, bad, np.where(bad, rows[0], 0), np.where(bad, rows[1], 0)])[:, order]
    starts = np.flatnonzero((run[:, 1:] != run[:, :-1]).any(axis=0)) + 1
    table = table.take(pa.array(order, pa.int64())).combine_chunks()
    bounds = [0, *starts.tolist(), table.num_rows]
    return pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(bounds)])


def _codes(column: Any, order: Mapping[str, int] | None) -> npt.NDArray[np.int64]:
    """Numbers that sort like the texts of a column (by ``order``, else by code point); -1 where there is none."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    order = {text: i for i, text in enumerate(sorted(texts))} if order is None else order
    places = np.array([*(order.get(text, len(order)) for text in texts), -1], dtype=np.int64)
    numbers: npt.NDArray[np.int64] = places[compute.fill_null(encoded.indices, -1).to_numpy()]
    return numbers


def _replanned(manifest: pa.Table, gone: pa.Table, clips_per_shard: int) -> pa.Table:
    """The manifest with the leaves of the groups that clips are ``gone`` from planned anew."""
    groups, changed = ([group_name(views or ()) for views in t["views"].to_pylist()] for t in (manifest, gone))
    leaves = manifest["leaf"].to_pylist()
    for group in set(changed):
        places = [i for i, name in enumerate(groups) if name == group]
        ids = manifest["id"].take(pa.array(places, pa.int64())).to_pylist()
        hashes = _numbers(trie_digests(map(str, ids)))
        names, leaf = assign_leaves(hashes, np.zeros(len(places), np.int64), [group], clips_per_shard)
        for place, number in zip(places, leaf.tolist(), strict=True):
            leaves[place] = names[number]
    position = manifest.schema.get_field_index("leaf")
    table = manifest.set_column(position, schema.MANIFEST.field("leaf"), pa.array(leaves, pa.string()))
    return table.sort_by([("leaf", "ascending"), ("key", "ascending")]).combine_chunks()


def _lock(plan: StoredPlan, forgotten: Collection[int]) -> dict[str, Any]:
    old, manifest = plan.lock, plan.manifest
    documents = view_documents(plan)
    config = old["config"] | {"selection": old["config"]["selection"] | {"forgotten": summed(forgotten)}}
    facts = ("clips", "videos", "classes", "digest", "data_digest")
    counts = {
        "clips": manifest.num_rows,
        "videos": len(compute.unique(manifest["id"])),
        "shards": len(compute.unique(manifest["leaf"])),
    }
    parts = [{v["name"]: v["digest"] for v in documents}, config["clips_per_shard"], config["encode"]]
    return old | {
        "k710": __version__,
        "config": config,
        "counts": old["counts"] | counts,
        "views": {v["name"]: {k: v[k] for k in facts} for v in documents},
        "digests": {"plan": digest(parts), **plan.digests},
    }
