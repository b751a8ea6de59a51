"""Builds with odd names, made once, and galleries of copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gallery_cases import make_build, write_near_duplicates, write_sources

from k710 import atomic
from k710.browse import sheets
from k710.browse.gallery import BrowseConfig, browse
from k710.browse.sections import Asked


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, videos and a class table."""
    root = tmp_path_factory.mktemp("sources")
    write_sources(root)
    return root


@pytest.fixture(scope="session")
def odd_build(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their build, with a table of near-duplicates: do not write to it."""
    out = make_build(sources, tmp_path_factory.mktemp("odd") / "data")
    write_near_duplicates(out)
    return out


@pytest.fixture
def odd(odd_build: Path, tmp_path: Path) -> Path:
    """A copy of that build to browse and to damage."""
    shutil.copytree(odd_build, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def whole(odd_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page of its gallery, two clips to a page: do not write to it."""
    out = tmp_path_factory.mktemp("whole") / "gallery"
    browse(BrowseConfig(build=str(odd_build), out=out, asked=Asked(everything=True), per_page=2, workers=2))
    return out


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Draws sheets in this process and waits for no disk; the pages of ``whole`` are made as they are by users."""

    def one_by_one(function: Callable[[Any], Any], tasks: Iterable[Any], *, workers: int) -> Iterator[Any]:
        for task in tasks:
            yield [(task, function(task))]

    monkeypatch.setattr(atomic, "sync_file", lambda path: None)
    monkeypatch.setattr(atomic, "sync_folder", lambda path: None)
    monkeypatch.setitem(sheets.EXECUTORS, "local", one_by_one)
    return monkeypatch
