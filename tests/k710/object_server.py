"""An S3 server on this machine, and builds in it: what lies there, and who asked for what."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import fsspec
import pytest

_REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+) (/\S*) HTTP')


class Server:
    """The server with one bucket."""

    def __init__(self, files: Any) -> None:
        self.files = files
        self.bucket = f"test-{secrets.token_hex(6)}"
        files.mkdir(self.bucket)
        self.url = f"s3://{self.bucket}/k710"
        self.requests: list[tuple[str, str]] = []
        self.on_request: list[Callable[[str, str], None]] = []

    def anew(self) -> Server:
        """The same server with another bucket, and no request so far."""
        other = Server(self.files)
        self.requests.clear()
        other.requests, other.on_request = self.requests, self.on_request
        return other

    def objects(self, url: str = "") -> dict[str, bytes]:
        """All objects below a URL."""
        start = (url or self.url).removeprefix("s3://") + "/"
        return {str(p).removeprefix(start): self.files.cat_file(p) for p in sorted(self.files.find(start))}

    def contents(self, url: str = "") -> dict[str, str]:
        """sha256 of every object that a build in a folder has as a file; the ledger is in order of completion."""
        left_out = ("ledger.jsonl", "build.json")
        objects = self.objects(url)
        return {p: hashlib.sha256(data).hexdigest() for p, data in objects.items() if p not in left_out}

    def counted(self, mark: int = 0) -> Counter[str]:
        """Requests since ``mark`` of them, by kind."""
        return Counter(method for method, _ in self.requests[mark:])


class _Noted(logging.Handler):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        match = _REQUEST.search(record.getMessage())
        if match:
            self._server.requests.append((match[1], match[2]))
            for look in self._server.on_request:
                look(match[1], match[2])


@contextmanager
def running_server() -> Iterator[Server]:
    """A server on a port of its own, which clients find through the environment."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    log = logging.getLogger("werkzeug")
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        patch.setenv(name, value)
    # Workers come from a process that may have been started before: the next one has these variables.
    forkserver._forkserver._stop()
    server = Server(fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True))
    noted = _Noted(server)
    log.addHandler(noted)
    before, log.level, log.propagate = log.level, logging.INFO, False
    try:
        yield server
    finally:
        log.level, log.propagate = before, True
        log.removeHandler(noted)
        running.stop()
        forkserver._forkserver._stop()
        patch.undo()


def folder_of(work: Path) -> Path:
    """The one folder in ``work`` that a build in a store has worked in."""
    (folder,) = work.iterdir()
    return folder
