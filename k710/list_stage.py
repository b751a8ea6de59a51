"""From annotation files to the plan of a build: lists, catalog, views, clips and their shards. Writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k710 import schema
from k710.class_names.orders import class_order
from k710.config import Release, load_releases, manifests_folder
from k710.errors import InputError, UsageError
from k710.labels import TAXONOMIES, LabelMap, load_labels, read_labels
from k710.lists.annotations import AnnotationList, ReadOptions, find_lists, read_list
from k710.lists.catalog import Catalog, ListName, build_catalog
from k710.lists.clips import plan_clips
from k710.lists.leakage import leak_table, row_pairs
from k710.lists.manifest import (
    digest,
    excluded_table,
    exclusion_counts,
    held_out_table,
    lists_not_given,
    lock_document,
    view_documents,
)
from k710.lists.policy import Policy, Selection
from k710.lists.rows import BAD_ROWS, LIST_ROWS
from k710.lists.views import BuiltView, ViewSpec, build_views, choose_views
from k710.report.audit import audit_document
from k710.report.flow import view_flows
from k710.shards.index import CLASSES_FILE
from k710.tables import compute, table_bytes
from k710.timing import stage

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Which annotation files, and how to read them."""

    annotations: Path
    """Folder with one folder of lists per release."""
    releases: tuple[str, ...] | None = None
    """Releases to take; None for those whose folders are there."""
    options: ReadOptions
    """Columns, order of integer labels, and what a bad row means."""
    class_table: Path | None = None
    """A user's class table; None for the packaged one."""
    require_complete: bool = False
    """Whether a list that was not given is an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """The annotation files as they were read."""

    lists: tuple[AnnotationList, ...]
    """Every list, in order of release and split."""
    releases: tuple[Release, ...]
    """The releases that were chosen, oldest first."""
    labels: LabelMap
    """The class table."""
    class_table: bytes
    """Its file."""
    catalog: Catalog
    """Every row."""
    not_checked: tuple[str, ...]
    """Lists of these releases that were not given."""
    bad_rows: pa.Table
    """Rows that could not be used."""

    def view_specs(self, words: Sequence[str]) -> list[ViewSpec]:
        """The views that the words of ``--views`` name."""
        return choose_views(words, self.releases, [(i.file.release.name, i.file.split) for i in self.lists])


@dataclass(frozen=True, kw_only=True, slots=True)
class ListPlan:
    """All that the lists decide."""

    lists: Lists
    """What it was made of."""
    views: tuple[BuiltView, ...]
    """Every view."""
    manifest: pa.Table
    """One row per planned clip."""
    tables: Mapping[str, bytes]
    """The parquet files of a build and its class table, by name."""
    lock: dict[str, Any]
    """``k710.lock.json``."""
    view_documents: tuple[dict[str, Any], ...]
    """``views/{name}.json``."""
    audit: dict[str, Any]
    """``audit.json``."""
    notes: tuple[str, ...]
    """What a user of these settings should know."""


def read_lists(inputs: Inputs, progress: Progress) -> Lists:
    """Every list that ``inputs`` names.

    Raises:
        UsageError: settings that cannot be.
        InputError: an annotation file is wrong, or no row of any list can be used.
    """
    labels = load_labels() if inputs.class_table is None else read_labels(inputs.class_table)
    _require_taxonomies(labels)
    if inputs.options.class_order is not None:
        class_order(inputs.options.class_order, labels)
    files = find_lists(inputs.annotations, inputs.releases)
    lists = []
    with stage("read"):
        for done, file in enumerate(files):
            progress("reading lists", done, len(files))
            lists.append(read_list(file, labels, inputs.options))
        progress("reading lists", len(files), len(files))
    chosen = {f.release.name for f in files}
    releases = tuple(r for r in load_releases().values() if r.name in (inputs.releases or chosen))
    not_checked = tuple(lists_not_given(releases, lists))
    if inputs.require_complete and not_checked:
        raise UsageError(f"lists not given: {', '.join(not_checked)}", hint="add them, or leave out --require-complete")
    if not any(item.rows.num_rows for item in lists):
        raise InputError(f"{inputs.annotations}: no row of any list can be used", hint="see bad_rows.csv")
    with stage("catalog"):
        catalog = build_catalog([(_name(item), _with_unusable(item)) for item in lists])
    return Lists(
        lists=tuple(lists),
        releases=releases,
        labels=labels,
        class_table=(inputs.class_table or manifests_folder() / CLASSES_FILE).read_bytes(),
        catalog=catalog,
        not_checked=not_checked,
        bad_rows=pa.concat_tables([BAD_ROWS.empty_table(), *(item.bad_rows for item in lists)]),
    )


def plan_lists(
    lists: Lists,
    specs: Sequence[ViewSpec],
    policy: Policy,
    *,
    clips_per_shard: int,
    config: Mapping[str, Any],
    progress: Progress,
) -> ListPlan:
    """Views, clips, shards and audit; ``config`` is what the lock says of the settings."""
    catalog, labels = lists.catalog, lists.labels
    progress("planning", 0, 4)
    with stage("views"):
        views = build_views(catalog, specs, policy)
        _require_some(views, policy)
    progress("planning", 1, 4)
    with stage("clips"):
        manifest = plan_clips(catalog, views, labels, clips_per_shard)
        documents = view_documents(catalog, views, manifest, labels.digest, config["encode"])
    progress("planning", 2, 4)
    with stage("audit"):
        pairs = row_pairs(catalog)
        audit = audit_document(
            catalog, views, policy, lists.not_checked, labels=labels, pairs=pairs, bad_rows=lists.bad_rows.num_rows
        )
        for figures, view in zip(audit["views"], views, strict=True):
            figures["excluded"] = exclusion_counts(view, lists.bad_rows)
        audit["flow"] = view_flows(catalog, views, lists.bad_rows)
    progress("planning", 3, 4)
    with stage("tables"):
        tables = {
            "manifest.parquet": table_bytes(manifest, schema.MANIFEST),
            "excluded.parquet": table_bytes(excluded_table(catalog, views, lists.bad_rows), schema.EXCLUDED),
            "held_out.parquet": table_bytes(held_out_table(catalog), schema.HELD_OUT),
            "leaks.parquet": table_bytes(leak_table(catalog, pairs), schema.LEAKS),
            CLASSES_FILE: lists.class_table,
        }
    progress("planning", 4, 4)
    lock = lock_document(
        config=config,
        releases=lists.releases,
        lists=lists.lists,
        policy=policy,
        views=documents,
        manifest=manifest,
        manifest_digest=digest(tables["manifest.parquet"]),
        left_out_digest=digest(tables["excluded.parquet"] + tables["held_out.parquet"]),
        class_table=labels.digest,
    )
    return ListPlan(
        lists=lists,
        views=tuple(views),
        manifest=manifest,
        tables=tables,
        lock=lock,
        view_documents=tuple(documents),
        audit=audit,
        notes=_notes(lists, policy),
    )


def _with_unusable(item: AnnotationList) -> pa.Table:
    """The rows of a list and, when it is held out, the unusable ones that name a video: it is held out all the same."""
    named = item.bad_rows.filter(compute.is_valid(item.bad_rows["id"]))
    if item.file.split == "train" or not named.num_rows:
        return item.rows
    columns = {f.name: pa.nulls(named.num_rows, f.type) for f in LIST_ROWS}
    columns |= {"id": named["id"], "canonical": pa.array(np.full(named.num_rows, -1, np.int16))}
    return pa.concat_tables([item.rows, pa.table(columns, schema=LIST_ROWS)])


def _notes(lists: Lists, policy: Policy) -> tuple[str, ...]:
    """What a user of these settings would not expect, and should know."""
    selection, notes = policy.selection, []
    silent = [i.file.name for i in lists.lists if i.rows["is_cc"].null_count == i.rows.num_rows]
    if selection.only_cc and silent:
        notes.append(
            f"--only-cc takes no row of {', '.join(silent)}: these lists do not say which are Creative Commons"
        )
    if selection.exclude_ids:
        wanted = pa.array(selection.exclude_ids, pa.string())
        found = compute.sum(compute.is_in(wanted, value_set=lists.catalog.ids)).as_py() or 0
        notes.append(f"--exclude-ids: {found:,} of {len(wanted):,} ids stand in the lists")
    if alike := {*selection.near_duplicates, *selection.near_duplicates_held_out}:
        found = compute.sum(compute.is_in(pa.array(alike, pa.string()), value_set=lists.catalog.ids)).as_py() or 0
        notes.append(f"--drop-near-duplicates: {found:,} of {len(alike):,} videos that give way stand in the lists")
    return tuple(notes)


def _require_some(views: Sequence[BuiltView], policy: Policy) -> None:
    """Refuse a selection that leaves nothing; a build that has forgotten every video is none of its own choice."""
    chosen = dataclasses.replace(policy.selection, forgotten=())
    if chosen != Selection() and views and not any(len(view.members) for view in views):
        raise UsageError(
            "no row of any list is selected",
            hint="--only-cc, --classes, --exclude-classes and --exclude-ids leave nothing together",
        )


def _require_taxonomies(labels: LabelMap) -> None:
    """Refuse a table without a class of some release: its rows could not be read."""
    missing = [taxonomy for taxonomy in TAXONOMIES if taxonomy not in labels.taxonomies]
    if missing:
        raise InputError(
            f"{labels.where}: no columns for {', '.join(missing)}", hint=f"a build needs {', '.join(TAXONOMIES)}"
        )


def _name(item: AnnotationList) -> ListName:
    release = item.file.release
    return ListName(release=release.name, split=item.file.split, id_kind=release.id_kind)
