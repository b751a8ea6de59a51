"""Lists, catalogs and views of rows that a test writes out, as tables that it can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.annotations import AnnotationList, ListFile
from k710.lists.catalog import Catalog, ListName, build_catalog
from k710.lists.manifest import excluded_table
from k710.lists.policy import Policy
from k710.lists.rows import BAD_ROWS, LIST_ROWS
from k710.lists.views import BuiltView, ViewSpec, build_views, choose_views

Row = tuple[Any, ...]
"""``release:split``, id, start, and optionally label; segments are 10 s long."""
DEFAULT_LABEL = "abseiling"


@dataclass(frozen=True, kw_only=True, slots=True)
class FramedView:
    """A view as tables that a test can read."""

    built: BuiltView
    """As it was built."""
    members: pd.DataFrame
    """Its rows: what names them, key and canonical class."""
    excluded: pd.DataFrame
    """The rest."""

    @property
    def spec(self) -> ViewSpec:
        """Which view."""
        return self.built.spec


def framed(catalog: Catalog, view: BuiltView) -> FramedView:
    """``view`` as tables that a test can read."""
    excluded = excluded_table(catalog, [view], BAD_ROWS.empty_table()).to_pandas()
    return FramedView(built=view, members=catalog.table(view.members).to_pandas(), excluded=excluded)


def rows_of(catalog: Catalog) -> pd.DataFrame:
    """Every row of a catalog, and its video and clip."""
    frame = catalog.table(np.arange(len(catalog))).to_pandas()
    return frame.assign(video=catalog.video, clip=catalog.clip)


def catalog_of(lists: Sequence[AnnotationList]) -> Catalog:
    """The catalog of some lists."""
    named = [ListName(release=i.file.release.name, split=i.file.split, id_kind=i.file.release.id_kind) for i in lists]
    return build_catalog([(name, item.rows) for name, item in zip(named, lists, strict=True)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a test asks about."""

    catalog: Catalog
    """Every row."""
    views: dict[str, FramedView]
    """By name."""

    def keys(self, view: str) -> list[str]:
        """Keys in a view, sorted."""
        return sorted(self.views[view].members["key"])

    def labels(self, view: str) -> list[str]:
        """Class names of a view's members in order of key."""
        return self.views[view].members.sort_values("key")["label"].tolist()

    def excluded(self, view: str) -> list[tuple[str, str, str, str]]:
        """``(list, key, reason, list of the deciding row)`` of each excluded row, sorted."""
        rows = self.views[view].excluded
        return sorted(
            (f"{r.release}:{r.split}", r.key, r.reason, f"{r.by_release}:{r.by_split}") for r in rows.itertuples()
        )


def as_lists(rows: Sequence[Row]) -> list[AnnotationList]:
    """Lists that hold ``rows``, as ``read_list`` gives them."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return [_as_list(name, members) for name, members in grouped.items()]


def _as_list(name: str, rows: Sequence[Row]) -> AnnotationList:
    release_name, split = name.split(":")
    release = load_releases()[release_name]
    classes = load_labels().canonical_of(release.taxonomy)
    labels = [row[3] if len(row) > 3 else DEFAULT_LABEL for row in rows]
    table = pa.table(
        {
            "id": [row[1] for row in rows],
            "start_s": [float(row[2]) for row in rows],
            "end_s": [float(row[4] if len(row) > 4 else row[2] + 10) for row in rows],
            "label": labels,
            "canonical": [-1 if label is None else classes[label] for label in labels],
            "is_cc": [row[5] if len(row) > 5 else None for row in rows],
        },
        schema=LIST_ROWS,
    )
    file = ListFile(release=release, split=split, path=Path(f"{release_name}/{split}.csv"))
    return AnnotationList(file=file, sha256="", rows=table, bad_rows=BAD_ROWS.empty_table())


def plan_rows(rows: Sequence[Row], *words: str, policy: Policy | None = None) -> Planned:
    """The views ``words`` (default: ``default``) of a build of just these rows."""
    lists = as_lists(rows)
    catalog = catalog_of(lists)
    named = [item.file.name.split(":") for item in lists]
    releases = [r for r in load_releases().values() if r.name in {release for release, _ in named}]
    specs = choose_views(words or ("default",), releases, [(release, split) for release, split in named])
    built = build_views(catalog, specs, policy or Policy())
    return Planned(catalog=catalog, views={v.spec.name: framed(catalog, v) for v in built})
