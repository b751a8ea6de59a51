"""The real lists read once, and a way to plan views from rows written out in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.annotations import AnnotationList, ListFile, find_lists, read_list
from k710.lists.catalog import build_catalog
from k710.lists.views import BuiltView, Policy, ViewSpec, build_views, choose_views

Row = tuple[Any, ...]
"""``release:split``, id, start, and optionally label; segments are 10 s long."""
DEFAULT_LABEL = "abseiling"


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a test asks about."""

    catalog: pd.DataFrame
    """Every row."""
    views: dict[str, BuiltView]
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
    frame = pd.DataFrame(
        {
            "id": [row[1] for row in rows],
            "start_s": [float(row[2]) for row in rows],
            "end_s": [float(row[4] if len(row) > 4 else row[2] + 10) for row in rows],
            "label": labels,
            "canonical": [-1 if label is None else classes[label] for label in labels],
            "is_cc": pd.NA,
        }
    )
    file = ListFile(release=release, split=split, path=Path(f"{release_name}/{split}.csv"))
    return AnnotationList(file=file, sha256="", rows=frame)


def plan_rows(rows: Sequence[Row], *words: str, policy: Policy | None = None) -> Planned:
    """The views ``words`` (default: ``default``) of a build of just these rows."""
    lists = as_lists(rows)
    catalog = build_catalog(lists)
    named = [item.file.name.split(":") for item in lists]
    releases = [r for r in load_releases().values() if r.name in {release for release, _ in named}]
    specs = choose_views(words or ("default",), releases, [(release, split) for release, split in named])
    built = build_views(catalog, specs, policy or Policy())
    return Planned(catalog=catalog, views={v.spec.name: v for v in built})


@pytest.fixture(scope="session")
def plan() -> Callable[..., Planned]:
    """``plan_rows``, for tests."""
    return plan_rows


@pytest.fixture(scope="session")
def lists_of() -> Callable[[Sequence[Row]], list[AnnotationList]]:
    """``as_lists``, for tests."""
    return as_lists


@pytest.fixture(scope="session")
def real_lists(shared: Path) -> list[AnnotationList]:
    """Every real list."""
    return [read_list(f, load_labels()) for f in find_lists(shared / "kinetics" / "annotations")]


@pytest.fixture(scope="session")
def real_catalog(real_lists: list[AnnotationList]) -> pd.DataFrame:
    """Every row of the real lists."""
    return build_catalog(real_lists)


@pytest.fixture(scope="session")
def real_specs(real_lists: list[AnnotationList]) -> list[ViewSpec]:
    """Every view that the real lists can give."""
    named = [(i.file.release.name, i.file.split) for i in real_lists]
    releases = [r for r in load_releases().values() if r.name in {release for release, _ in named}]
    words = ["default", "k710-test", *(f"{r}-{s}" for r, s in named)]
    return choose_views(words, releases, named)


@pytest.fixture(scope="session")
def real_views(real_catalog: pd.DataFrame, real_specs: list[ViewSpec]) -> dict[str, BuiltView]:
    """Every view of the real lists under the default policy."""
    return {v.spec.name: v for v in build_views(real_catalog, real_specs, Policy())}
