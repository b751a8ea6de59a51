"""The real lists read once, and a way to plan views from rows written out in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from list_cases import FramedView, Planned, Row, as_lists, catalog_of, framed, plan_rows

from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.annotations import AnnotationList, find_lists, read_list
from k710.lists.catalog import Catalog
from k710.lists.policy import Policy
from k710.lists.views import ViewSpec, build_views, choose_views


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
def real_catalog(real_lists: list[AnnotationList]) -> Catalog:
    """Every row of the real lists."""
    return catalog_of(real_lists)


@pytest.fixture(scope="session")
def real_specs(real_lists: list[AnnotationList]) -> list[ViewSpec]:
    """Every view that the real lists can give."""
    named = [(i.file.release.name, i.file.split) for i in real_lists]
    releases = [r for r in load_releases().values() if r.name in {release for release, _ in named}]
    words = ["default", "k710-test", *(f"{r}-{s}" for r, s in named)]
    return choose_views(words, releases, named)


@pytest.fixture(scope="session")
def real_views(real_catalog: Catalog, real_specs: list[ViewSpec]) -> dict[str, FramedView]:
    """Every view of the real lists under the default policy."""
    return {v.spec.name: framed(real_catalog, v) for v in build_views(real_catalog, real_specs, Policy())}
