"""What a build is, as tables and documents: exclusions, held-out videos, views, the lock, and how two locks differ."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from k710 import __version__, schema
from k710.config import Release, differences
from k710.lists.annotations import AnnotationList
from k710.lists.catalog import Catalog, distinct
from k710.lists.clips import view_digest
from k710.lists.dedupe import REASONS
from k710.lists.policy import Policy
from k710.lists.views import BuiltView
from k710.tables import compute, picked

VIEW_SCHEMA = "k710.view/1"
_BAD_ROW = REASONS.index("bad_row")


def digest(value: Any) -> str:
    """sha256 of bytes, or of plain values in canonical JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


def excluded_table(catalog: Catalog, views: Sequence[BuiltView], bad_rows: pa.Table) -> pa.Table:
    """Every excluded row of every view, in order of view, bad rows first, then as in the catalog."""
    tables = []
    for view in views:
        tables.append(_bad_rows_of(view, bad_rows))
        rows, by = catalog.columns(view.rows), catalog.columns(np.maximum(view.by, 0))
        unnamed = pa.array(view.by < 0)
        columns = {
            "view": pa.repeat(view.spec.name, len(view.rows)),
            **rows,
            "reason": picked(pa.array(REASONS), view.reasons),
            **{
                f"by_{name}": compute.if_else(unnamed, None, by[name])
                for name in ("release", "split", "start_s", "end_s", "label")
            },
            "class_differs": pa.array(view.class_differs(catalog)),
        }
        tables.append(pa.table({f.name: columns[f.name] for f in schema.EXCLUDED}).cast(schema.EXCLUDED))
    return pa.concat_tables(tables) if tables else schema.EXCLUDED.empty_table()


def exclusion_counts(view: BuiltView, bad_rows: pa.Table) -> dict[str, int]:
    """Rows that a view does not take, per reason, in order of name."""
    counts = np.bincount(view.reasons, minlength=len(REASONS))
    counts[_BAD_ROW] += _bad_rows_of(view, bad_rows).num_rows
    return {name: int(counts[REASONS.index(name)]) for name in sorted(REASONS) if counts[REASONS.index(name)]}


def bad_rows_csv(bad_rows: pa.Table) -> str:
    """``bad_rows.csv``: where each row is that could not be used, and what is wrong with it."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(bad_rows.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in bad_rows.columns), strict=True))
    return buffer.getvalue()


def held_out_table(catalog: Catalog) -> pa.Table:
    """The videos of every list that is not for training, as hashes."""
    tables = [schema.HELD_OUT.empty_table()]
    for position, name in enumerate(catalog.lists):
        if name.is_held_out:
            rows = catalog.list_rows(position)
            videos = distinct(catalog.clip_video[catalog.clip[rows]], catalog.num_videos)
            hashes = np.sort(catalog.video_hashes(videos))
            columns: list[Any] = [
                pa.repeat(name.release, len(hashes)),
                pa.repeat(name.split, len(hashes)),
                pa.array(hashes),
            ]
            tables.append(pa.table(columns, schema=schema.HELD_OUT))
    return pa.concat_tables(tables)


def view_documents(
    catalog: Catalog, views: Sequence[BuiltView], manifest: pa.Table, class_table: str, encode: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """``views/{name}.json`` of each view: its planned shards, counts and digests."""
    shards = _shards_per_view(manifest)
    documents = []
    for view in views:
        clips, classes = catalog.clip[view.members], catalog.canonical[view.members]
        own = view_digest(catalog, view)
        documents.append(
            {
                "schema": VIEW_SCHEMA,
                "name": view.spec.name,
                "release": view.spec.release,
                "split": view.spec.split,
                "taxonomy": view.spec.taxonomy,
                "clips": len(view.members),
                "videos": len(distinct(catalog.clip_video[clips], catalog.num_videos)),
                "classes": int(np.count_nonzero(np.bincount(classes[classes >= 0]))),
                "shards": shards.get(view.spec.name, []),
                "digest": own,
                "data_digest": digest([own, class_table, dict(encode)]),
            }
        )
    return documents


def lists_not_given(releases: Sequence[Release], lists: Sequence[AnnotationList]) -> list[str]:
    """Lists of the chosen releases that every distribution has, and that were not among those read."""
    given = {item.file.name for item in lists}
    return [f"{r.name}:{s}" for r in releases for s in r.splits if f"{r.name}:{s}" not in given]


def lock_document(
    *,
    config: Mapping[str, Any],
    releases: Sequence[Release],
    lists: Sequence[AnnotationList],
    policy: Policy,
    views: Sequence[Mapping[str, Any]],
    manifest: pa.Table,
    manifest_digest: str,
    left_out_digest: str,
    class_table: str,
) -> dict[str, Any]:
    """``k710.lock.json``: all that decides the bytes of a build, and what came of it."""
    plan = [{v["name"]: v["digest"] for v in views}, config["clips_per_shard"], config["encode"]]
    return {
        "schema": schema.LOCK,
        "k710": __version__,
        "config": dict(config),
        "class_table": class_table,
        "releases": {r.name: r.taxonomy for r in releases},
        "inputs": {item.file.name: _input(item) for item in lists},
        "protected": [i.file.name for i in lists if i.file.split in policy.protected_splits],
        "not_checked": lists_not_given(releases, lists),
        "counts": {
            "rows": sum(item.rows.num_rows for item in lists),
            "bad_rows": sum(item.bad_rows.num_rows for item in lists),
            "clips": manifest.num_rows,
            "videos": len(compute.unique(manifest["id"])),
            "shards": len(compute.unique(manifest["leaf"])),
        },
        "views": {v["name"]: {k: v[k] for k in ("clips", "videos", "classes", "digest", "data_digest")} for v in views},
        "digests": {"plan": digest(plan), "manifest": manifest_digest, "left_out": left_out_digest},
    }


def lock_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each setting, list or view in which two locks differ; none when the plan is the same.

    A list whose rows only stand in another order is no difference.

    Raises:
        ValueError: ``old`` is a lock of another version.
    """
    if old["schema"] != schema.LOCK:
        raise ValueError(f"its schema is {old['schema']}, this version reads {schema.LOCK}")
    lines = differences(old["config"], new["config"], "config.")
    if old["class_table"] != new["class_table"]:
        lines.append("class table: changed")
    # Rows that no view took matter too: they decide what was checked for leaks.
    if all(old["digests"].get(name) == new["digests"][name] for name in ("manifest", "left_out")):
        return lines
    for name in sorted(set(old["inputs"]) | set(new["inputs"])):
        before, after = old["inputs"].get(name), new["inputs"].get(name)
        if before is None or after is None:
            lines.append(f"list {name}: {'added' if before is None else 'gone'}")
        elif before["sha256"] != after["sha256"]:
            lines.append(f"list {name}: {before['rows']:,} -> {after['rows']:,} rows, contents changed")
    for name in sorted(set(old["views"]) | set(new["views"])):
        clips = [lock["views"].get(name, {}).get("clips", 0) for lock in (old, new)]
        if old["views"].get(name, {}).get("digest") != new["views"].get(name, {}).get("digest"):
            lines.append(f"view {name}: {clips[0]:,} -> {clips[1]:,} clips")
    return lines or ["manifest: written by another version of k710"]


def _bad_rows_of(view: BuiltView, bad_rows: pa.Table) -> pa.Table:
    """The bad rows of a view's source lists, as excluded rows."""
    pairs = zip(bad_rows["release"].to_pylist(), bad_rows["split"].to_pylist(), strict=True)
    own = bad_rows.filter(pa.array([view.spec.draws_on(str(r), str(s)) for r, s in pairs], pa.bool_()))
    columns: dict[str, Any] = {f.name: own[f.name] for f in schema.ROW_FIELDS}
    columns |= {"view": pa.repeat(view.spec.name, own.num_rows), "reason": pa.repeat(REASONS[_BAD_ROW], own.num_rows)}
    columns["class_differs"] = pa.repeat(False, own.num_rows)
    arrays = [columns.get(f.name, pa.nulls(own.num_rows, f.type)) for f in schema.EXCLUDED]
    return pa.table(arrays, names=schema.EXCLUDED.names).cast(schema.EXCLUDED)


def _shards_per_view(manifest: pa.Table) -> dict[str, list[str]]:
    views = manifest["views"].combine_chunks()
    leaf = manifest["leaf"].combine_chunks().dictionary_encode()
    view = compute.list_flatten(views).dictionary_encode()
    leaves, names = leaf.dictionary.to_pylist(), view.dictionary.to_pylist()
    codes = leaf.indices.to_numpy().astype(np.int64)[compute.list_parent_indices(views).to_numpy()]
    pairs = distinct(view.indices.to_numpy() * len(leaves) + codes, len(leaves) * len(names))
    shards: dict[str, list[str]] = {str(name): [] for name in names}
    for pair in pairs.tolist():
        shards[str(names[pair // len(leaves)])].append(str(leaves[pair % len(leaves)]))
    return {name: sorted(found) for name, found in shards.items()}


def _input(item: AnnotationList) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": item.file.path.name,
        "sha256": item.sha256,
        "rows": item.rows.num_rows,
        "videos": len(compute.unique(item.rows["id"])),
    }
    if item.file.member:
        facts["member"] = item.file.member
    if item.bad_rows.num_rows:
        facts["bad_rows"] = item.bad_rows.num_rows
    return facts
