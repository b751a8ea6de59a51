"""Catalogs, views and whole builds of rows that a test writes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710.build import BuildConfig, build
from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.catalog import Catalog, ListName, build_catalog
from k710.lists.policy import Policy
from k710.lists.rows import LIST_ROWS
from k710.lists.views import BuiltView, build_views, choose_views

A, B, C, D = "aaaaaaaaaaa", "bbbbbbbbbbb", "-cccccccccc", "_dddddddddd"
Row = tuple[str, str, float, str | None]
"""``release:split``, id, start and class name; segments are 10 s long."""


def catalog(rows: Sequence[Row]) -> Catalog:
    """The catalog of ``rows``."""
    return build_catalog([(_name(name), _table(name, members)) for name, members in _grouped(rows).items()])


def views(found: Catalog, *words: str, policy: Policy | None = None) -> list[BuiltView]:
    """The views ``words`` (default: ``default``) of a catalog."""
    named = [(n.release, n.split) for n in found.lists]
    releases = [r for r in load_releases().values() if r.name in {release for release, _ in named}]
    return build_views(found, choose_views(words or ("default",), releases, named), policy or Policy())


def write_lists(folder: Path, rows: Sequence[Row]) -> Path:
    """``rows`` as official CSVs in the folders of their releases."""
    for name, members in _grouped(rows).items():
        release, split = name.split(":")
        path = folder / release.replace("k", "kinetics") / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{label},{video},{start:g},{start + 10:g},{split}\n" for _, video, start, label in members]
        path.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(lines))
    return folder


def built(folder: Path, rows: Sequence[Row], **settings: Any) -> Path:
    """A build of just the lists of ``rows``."""
    annotations = write_lists(folder / "annotations", rows)
    build(BuildConfig(annotations=annotations, out=folder / "out", manifest_only=True, workers=1, **settings))
    return folder / "out"


def _grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return grouped


def _name(name: str) -> ListName:
    release, split = name.split(":")
    return ListName(release=release, split=split)


def _table(name: str, rows: Sequence[Row]) -> pa.Table:
    classes = load_labels().canonical_of(load_releases()[name.split(":")[0]].taxonomy)
    values = [
        {
            "id": video,
            "start_s": start,
            "end_s": start + 10,
            "label": label,
            "canonical": -1 if label is None else classes[label],
            "is_cc": None,
        }
        for _, video, start, label in rows
    ]
    return pa.Table.from_pylist(values, schema=LIST_ROWS)
