"""A web server on loopback that keeps to the rules, or breaks any of them on request."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from k710.fetch.client import Patience

HURRIED = Patience(connect_s=2, read_s=0.5, tries=3, first_wait_s=0.01, max_wait_s=0.3, window_s=0.2)
"""As little patience as a test has."""


@dataclass(kw_only=True)
class Page:
    """A file on the server, and how the server misbehaves with it."""

    data: bytes = b""
    etag: str | None = "auto"
    """"auto": by the data."""
    modified: str | None = None
    ranges: bool = True
    """Whether parts are given."""
    heeds_if_range: bool = True
    length: bool = True
    """Whether the length is said."""
    chunked: bool = False
    cut_after: list[int] = field(default_factory=list)
    """For each answer in turn: bytes after which the connection ends."""
    drip_s: float = 0.0
    """Wait before each of tiny pieces."""
    codes: list[int] = field(default_factory=list)
    """For each answer in turn: a code in place of the file; the last one stays if ``always``."""
    always: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    head_code: int = 0
    """Code for HEAD requests."""
    location: str = ""
    """Where it says that it has moved to."""
    on_get: Callable[[Page], None] | None = None
    """Called before each answer to a GET."""

    @property
    def version(self) -> str | None:
        return f'"{hashlib.md5(self.data).hexdigest()}"' if self.etag == "auto" else self.etag


def write_certificate(path: Path) -> Path:
    """A certificate of this machine's, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


class Site:
    """The server: files by path, and the requests it has had."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sent: Counter[str] = Counter()
        """Bytes of bodies sent, by path."""
        self.hang = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _answer(self, site, body=True)

            def do_HEAD(self) -> None:
                _answer(self, site, body=False)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: pytest shows what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def put(self, path: str, data: bytes = b"", **how: object) -> Page:
        self.pages[path] = Page(data=data, **how)  # type: ignore[arg-type]
        return self.pages[path]

    def gets(self, path: str) -> list[dict[str, str]]:
        """Headers of the GET requests for ``path``."""
        return [headers for method, asked, headers in self.requests if method == "GET" and asked == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(handler: BaseHTTPRequestHandler, site: Site, *, body: bool) -> None:
    path = handler.path.partition("?")[0]
    site.requests.append((handler.command, path, dict(handler.headers)))
    page = site.pages.get(path)
    if page is None or (not body and page.head_code):
        return _plain(handler, page.head_code if page else 404)
    if page.location:
        return _plain(handler, 302, {"Location": page.location})
    if body and page.on_get:
        page.on_get(page)
    if page.codes:
        code = page.codes[0] if page.always else page.codes.pop(0)
        if code != 200:
            return _plain(handler, code, page.headers)
    _file(handler, site, page, path, body=body)
    return None


def _plain(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str] | None = None) -> None:
    handler.send_response(code)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _file(handler: BaseHTTPRequestHandler, site: Site, page: Page, path: str, *, body: bool) -> None:
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    named = handler.headers.get("If-Range")
    is_part = asked and page.ranges and (named in (None, page.version, page.modified) or not page.heeds_if_range)
    start = int(asked[1]) if asked and is_part else 0
    data = page.data[start:]
    if is_part and start >= len(page.data):
        return _plain(handler, 416, {"Content-Range": f"bytes */{len(page.data)}"})
    handler.send_response(206 if is_part else 200)
    if is_part:
        handler.send_header("Content-Range", f"bytes {start}-{len(page.data) - 1}/{len(page.data)}")
    for name, value in {"ETag": page.version, "Last-Modified": page.modified, **page.headers}.items():
        if value:
            handler.send_header(name, value)
    if page.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    elif page.length:
        handler.send_header("Content-Length", str(len(data)))
    else:
        handler.send_header("Connection", "close")
        handler.close_connection = True
    handler.end_headers()
    if body:
        _send(handler, site, page, path, data)
    return None


def _send(handler: BaseHTTPRequestHandler, site: Site, page: Page, path: str, data: bytes) -> None:
    end = page.cut_after.pop(0) if page.cut_after else len(data)
    size = 64 if page.drip_s else 1 << 16
    for start in range(0, min(end, len(data)), size):
        piece = data[start : min(start + size, end)]
        if page.drip_s:
            time.sleep(page.drip_s)
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if page.chunked else piece)
        site.sent[path] += len(piece)
    if end < len(data):
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
    elif page.chunked:
        handler.wfile.write(b"0\r\n\r\n")
