"""Fixtures: a server on loopback, and a client without patience."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from web_site import HURRIED, Site

from k710.fetch.client import Client


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # Where the network is behind a proxy, this machine is not.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Site()
    yield served
    served.close()


@pytest.fixture
def client() -> Client:
    return Client(HURRIED)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def fresh_workers() -> Iterator[None]:
    """Worker processes that see the environment of this test, and none of a later one that see it still."""
    # They come from a server process that keeps the environment in which it was started.
    server: Any = forkserver._forkserver
    server._stop()
    yield
    server._stop()
