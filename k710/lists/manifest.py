"""What a build is, as documents: the lock, the description of each view, and how two locks differ."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from k710 import __version__, schema
from k710.config import Release, differences
from k710.lists.annotations import AnnotationList
from k710.lists.clips import view_digest
from k710.lists.views import BuiltView, Policy

VIEW_SCHEMA = "k710.view/1"


def parquet_bytes(table: pa.Table) -> bytes:
    """``table`` as the bytes of a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def digest(value: Any) -> str:
    """sha256 of bytes, or of plain values in canonical JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


def lists_not_given(releases: Sequence[Release], lists: Sequence[AnnotationList]) -> list[str]:
    """Lists of the chosen releases that every distribution has, and that were not among those read."""
    given = {item.file.name for item in lists}
    return [f"{r.name}:{s}" for r in releases for s in r.splits if f"{r.name}:{s}" not in given]


def view_document(view: BuiltView, manifest: pa.Table, class_table: str, encode: Mapping[str, Any]) -> dict[str, Any]:
    """``views/{name}.json``: the planned shards, counts and digests of a view."""
    name = view.spec.name
    leaves = manifest["leaf"].filter(pa.array([name in (views or ()) for views in manifest["views"].to_pylist()]))
    own = view_digest(view)
    return {
        "schema": VIEW_SCHEMA,
        "name": name,
        "release": view.spec.release,
        "split": view.spec.split,
        "taxonomy": view.spec.taxonomy,
        "clips": len(view.members),
        "videos": int(view.members["id"].nunique()),
        "classes": int(view.members.loc[view.members["canonical"] >= 0, "canonical"].nunique()),
        "shards": sorted(set(leaves.to_pylist())),
        "digest": own,
        "data_digest": digest([own, class_table, dict(encode)]),
    }


def lock_document(
    *,
    config: Mapping[str, Any],
    releases: Sequence[Release],
    lists: Sequence[AnnotationList],
    policy: Policy,
    views: Sequence[Mapping[str, Any]],
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
        "inputs": {
            item.file.name: {
                "file": item.file.path.name,
                "sha256": item.sha256,
                "rows": len(item.rows),
                "videos": int(item.rows["id"].nunique()),
            }
            for item in lists
        },
        "protected": [i.file.name for i in lists if i.file.split in policy.protected_splits],
        "not_checked": lists_not_given(releases, lists),
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


def excluded_table(views: Sequence[BuiltView]) -> pd.DataFrame:
    """Every excluded row of every view, in an order that depends on nothing but the rows."""
    table = pd.concat([v.excluded.assign(view=v.spec.name) for v in views])
    by = ["view", "release", "split", "id", "start_s", "end_s", "label", "reason"]
    return table.sort_values(by, kind="stable", na_position="first", ignore_index=True)
