"""Fixtures: a server on loopback, and a client without patience."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
