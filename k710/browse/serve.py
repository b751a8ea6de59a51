"""A gallery served to this machine alone, with every page made when it is opened."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from k710.browse.gallery import BrowseConfig, Gallery
from k710.browse.pages import as_bytes
from k710.browse.sections import Page
from k710.errors import K710Error, UsageError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_SHEET = re.compile(r"sheets/[0-9a-f]{2}/[0-9a-f]{64}\.jpg")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def serve(config: BrowseConfig, *, port: int, say: Callable[[str], None]) -> None:
    """Serve the gallery of ``config`` until interrupted; ``say`` is called with its address.

    Raises:
        UsageError: pages are asked for, the port is taken, or the folder is no gallery or cannot be written.
        FeedError: no build there, or a damaged one.
    """
    if not config.asked.is_nothing:
        raise UsageError(
            "--serve makes every page when it is opened", hint="leave out --view, --class, --all and what else asks"
        )
    gallery = Gallery(config)
    with gallery.held():
        server = GalleryServer(gallery, port)
        try:
            say(server.address)
            server.serve_forever()
        finally:
            server.server_close()


class GalleryServer(ThreadingHTTPServer):
    """Answers for the pages of one gallery."""

    daemon_threads = True

    def __init__(self, gallery: Gallery, port: int) -> None:
        """Listen on ``port`` of this machine's own address; 0: any that is free.

        Raises:
            UsageError: it is taken.
        """
        self.site = Site(gallery)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(f"port {port}: cannot be had ({error.strerror})", hint="give another --port") from error

    @property
    def address(self) -> str:
        """Where its first page is."""
        return f"http://{HOST}:{self.server_port}/index.html"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that went away; it has lost nothing but its own answer."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Site:
    """What is answered to a path; one page is made at a time."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._lock = threading.Lock()
        self._indexes: dict[str, str] | None = None

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """The bytes and the type of what is at ``path``, relative to the gallery; None: nothing is.

        Only names that the plan of the gallery knows are answered, so that none leads out of its folder. A build that
        has changed is read again first.

        Raises:
            FeedError: it cannot be read any more, or changes meanwhile.
        """
        if _SHEET.fullmatch(path):
            self._gallery.read.require_same()
            file: Path = self._gallery.out / path
            return (file.read_bytes(), "image/jpeg") if file.is_file() else None
        with self._lock:
            if not self._gallery.read.is_same:
                self._gallery, self._indexes = self._gallery.read_again(), None
            html = self._index(path) if path.endswith("index.html") else self._page(path)
            self._gallery.read.require_same()
        return None if html is None else (as_bytes(html), "text/html; charset=utf-8")

    def _index(self, path: str) -> str | None:
        if self._indexes is None:
            self._indexes = self._gallery.pages.indexes(_always, served=True)
        return self._indexes.get(path)

    def _page(self, path: str) -> str | None:
        page = self._gallery.sections.page_at(path)
        if page is None:
            return None
        self._gallery.draw(page)
        return self._gallery.html(page, _always, "served")


def _always(page: Page) -> bool:  # noqa: ARG001 - the shape of an answer
    """Every page can be followed: it is made then."""
    return True


class _Handler(BaseHTTPRequestHandler):
    server: GalleryServer
    server_version, sys_version = "k710", ""
    timeout = 30.0

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # A page of another site can have its name point here, and would then read what is answered.
        if (self.headers.get("Host") or "").rpartition(":")[0] not in _NAMES:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        try:
            found = self.server.site.answer(path)
        except K710Error as error:
            found = (f"{error.message}\n{error.hint}\n".encode(), "text/plain; charset=utf-8")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, *found, with_body=with_body)
            return
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, *found, with_body=with_body)

    def _send(self, status: HTTPStatus, body: bytes, kind: str, *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is for what was asked."""
