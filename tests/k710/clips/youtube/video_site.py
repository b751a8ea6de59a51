"""A web server on loopback with videos, which gives ranges, counts what is asked of it, and misbehaves on request."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(kw_only=True)
class Served:
    """A file, and how the server misbehaves with it."""

    data: bytes = b""
    type: str = "video/mp4"
    ranges: bool = True
    code: int = 200
    code_of_ranges: int = 0
    """Code in place of every range but the first."""
    cut_after: int | None = None
    """Bytes after which a body ends early."""
    drip_s: float = 0.0
    """Wait before each byte."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request."""

    path: str
    range: str
    headers: dict[str, str]
    client: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: those who read a part only hang up in the middle."""


@dataclass(kw_only=True)
class VideoSite:
    """The server; files by name."""

    files: dict[str, Served] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    sent_bytes: int = 0
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def do_HEAD(self) -> None:
                site.answer(self)

            def do_CONNECT(self) -> None:
                site.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def template(self) -> str:
        """Address of a video by its id."""
        return f"http://127.0.0.1:{self.server.server_port}/{{id}}.mp4"

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        wanted = request.headers.get("Range", "")
        asked = Asked(path=name, range=wanted, headers=dict(request.headers), client=request.client_address[0])
        self.asked.append(asked)
        file = self.files.get(name, Served(code=404))
        first, last = _range(wanted, len(file.data)) if file.ranges else (0, len(file.data) - 1)
        code = file.code_of_ranges if file.code_of_ranges and first else file.code
        if code != 200:
            request.send_response(code)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = file.data[first : last + 1]
        request.send_response(206 if wanted and file.ranges else 200)
        request.send_header("Content-Type", file.type)
        request.send_header("Content-Length", str(len(body)))
        if file.ranges:
            request.send_header("Accept-Ranges", "bytes")
        if wanted and file.ranges:
            request.send_header("Content-Range", f"bytes {first}-{last}/{len(file.data)}")
        request.end_headers()
        if request.command == "GET":
            self._send(request, file, body)

    def _send(self, request: BaseHTTPRequestHandler, file: Served, body: bytes) -> None:
        if file.cut_after is not None:
            request.close_connection = True
            body = body[: file.cut_after]
        try:
            if not file.drip_s:
                request.wfile.write(body)
                self.sent_bytes += len(body)
                return
            for place in range(len(body)):
                time.sleep(file.drip_s)
                request.wfile.write(body[place : place + 1])
        except OSError:
            request.close_connection = True


def _range(wanted: str, size: int) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if found is None:
        return 0, size - 1
    return int(found[1]), min(int(found[2] or size - 1), size - 1)


def refuse_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection and every look-up of a name fail that is not this machine's."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def only_here(self: socket.socket, address: Any) -> None:
        _require_here(address[0] if isinstance(address, tuple) else "127.0.0.1")
        connect(self, address)

    def only_our_names(host: Any, *arguments: Any, **named: Any) -> Any:
        _require_here(host)
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setattr(socket, "getaddrinfo", only_our_names)


def _require_here(host: Any) -> None:
    if host not in ("127.0.0.1", "::1", "localhost", None):
        # Not an Exception: no handler of network errors may take it for one.
        pytest.fail(f"a test wanted to reach {host}")
