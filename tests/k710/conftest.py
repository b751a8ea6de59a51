"""Fixtures of builds: an S3 server on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from object_server import Server, running_server


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    """A server for all tests of a module."""
    with running_server() as running:
        yield running


@pytest.fixture
def server(one_server: Server) -> Server:
    """The server with a bucket of this test's own."""
    return one_server.anew()
