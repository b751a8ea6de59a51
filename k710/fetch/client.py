"""The only module that talks HTTP: requests that say in one family of errors what went wrong, and can be stopped.

``requests`` does it, for its proxies, certificates and redirects as users know them from other programs; the body is
read from the urllib3 response under it, as the bytes come, so that a slow server is noticed.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3

from k710 import __version__
from k710.errors import StoppedOnPurposeError
from k710.fetch.outcomes import (
    BAD_REDIRECT,
    FORBIDDEN,
    NO_LENGTH,
    NOT_FOUND,
    RATE_LIMITED,
    REFUSED,
    SERVER_ERROR,
    TOO_SLOW,
    TRUNCATED,
    UNREACHABLE,
    FetchError,
)

Answer = TypeVar("Answer")

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_GIVEN_UP = 3
"""Files in a row that a server which has answered before may not answer for; then it is not asked for the others."""
_GOOD = (200, 206, 416)
_CHUNK = 1 << 20
_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationParseError,
)
_WHERE = re.compile(r"^\w+\(host=.*?\): ")
_CUT_OFF = (urllib3.exceptions.HTTPError, OSError, ValueError)
"""What reading a body ends in when the connection does; ValueError: it was closed by ``stop``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a server is waited for, and how often it is asked."""

    connect_s: float = 15.0
    """Time for a connection."""
    read_s: float = 60.0
    """Time in which at least one byte must come."""
    tries: int = 5
    """Requests in a row that may fail without any new bytes, before a file is given up."""
    first_wait_s: float = 1.0
    """Wait before the second try; each further wait is twice as long."""
    max_wait_s: float = 120.0
    """Longest wait, also when the server asks for more: then the file is given up."""
    window_s: float = 30.0
    """Time over which the rate is taken."""
    min_bytes_per_s: int = 1024
    """Rate below which a connection is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a server says about a file."""

    size_bytes: int | None = None
    """Its size; None: not said."""
    etag: str = ""
    """Its version, as the server calls it; empty: not said."""
    last_modified: str = ""
    """When it was changed last, as the server writes it; empty: not said."""

    @property
    def validator(self) -> str:
        """What a request may name to get the rest of this very version; empty: there is nothing."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def is_version_of(self, other: Facts) -> bool | None:
        """Whether both are of one version of a file; None: they do not say enough."""
        if None not in (self.size_bytes, other.size_bytes) and self.size_bytes != other.size_bytes:
            return False
        for mine, theirs in ((self.etag, other.etag), (self.last_modified, other.last_modified)):
            if mine and theirs:
                return mine.removeprefix("W/") == theirs.removeprefix("W/")
        return None


class Client:
    """Asks servers for files, from several threads; ``stop`` ends all that is under way."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._sessions = threading.local()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._bodies: set[Any] = set()
        self._not_before: dict[str, float] = {}
        self._answering: set[str] = set()
        self._given_up: Counter[str] = Counter()
        self._refused_until: dict[str, float] = {}

    def stop(self) -> None:
        """Let every request and every wait end soon, in a ``StoppedOnPurposeError``."""
        self._stopped.set()
        with self._lock:
            bodies = list(self._bodies)
        for body in bodies:
            with contextlib.suppress(Exception):  # it may just have ended by itself
                body.shutdown()

    def facts(self, url: str) -> Facts:
        """What the server says about the file at ``url``, by a HEAD request; a ``FetchError`` when it does not."""
        return self.trying(lambda: self._head(url), url)

    def trying(self, ask: Callable[[], Answer], url: str) -> Answer:
        """What ``ask`` returns, asked again after a while when a ``FetchError`` says that this may help."""
        wait_s = self.patience.first_wait_s
        for left in range(self.patience.tries - 1, -1, -1):
            try:
                return ask()
            except FetchError as error:
                if not error.again or not left:
                    if error.status == UNREACHABLE:
                        self._given_up[_host(url)] += 1
                    if error.status == RATE_LIMITED and error.wait_s:
                        self._refused_until[_host(url)] = time.monotonic() + error.wait_s
                    raise
                self.rest(wait_s if error.wait_s is None else error.wait_s, url)
                wait_s = min(2 * wait_s, self.patience.max_wait_s)
        raise AssertionError("the last try returns or raises")

    def rest(self, seconds: float, url: str) -> None:
        """Wait, and let every other request to the same server wait too."""
        with self._lock:
            until = max(self._not_before.get(_host(url), 0.0), time.monotonic() + seconds)
            self._not_before[_host(url)] = until
        self._await_turn(url)

    @contextlib.contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[Reply]:
        """The answer to one GET request, open for reading.

        Raises:
            FetchError: there is none, or it is no file's.
            StoppedOnPurposeError: ``stop`` was called.
        """
        response = self._send("GET", url, headers or {})
        body = response.raw
        with self._lock:
            self._bodies.add(body)
        try:
            yield Reply(response=response, patience=self.patience, check=self.check)
        finally:
            with self._lock:
                self._bodies.discard(body)
            response.close()

    def check(self) -> None:
        """Raise ``StoppedOnPurposeError`` when ``stop`` was called."""
        if self._stopped.is_set():
            raise StoppedOnPurposeError("stopped", hint="run the same command again to go on")

    def _head(self, url: str) -> Facts:
        response = self._send("HEAD", url, {})
        response.close()
        return _facts(response)

    def _send(self, method: str, url: str, headers: dict[str, str]) -> requests.Response:
        """The answer to a request, redirects followed; its body is not read."""
        asked = {"Accept-Encoding": "identity", "User-Agent": f"k710/{__version__}", **headers}
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            self._await_turn(target)
            response = self._once(method, target, asked)
            if response.status_code not in _REDIRECTS:
                _require_file(response, self.patience.max_wait_s)
                return response
            target = _next(target, response)
        raise FetchError(BAD_REDIRECT, f"more than {_MAX_REDIRECTS} redirects")

    def _once(self, method: str, url: str, headers: dict[str, str]) -> requests.Response:
        host = _host(url)
        if self._given_up[host] >= (_MAX_GIVEN_UP if host in self._answering else 1):
            raise FetchError(UNREACHABLE, f"{host} did not answer before")
        if self._refused_until.get(host, 0.0) > time.monotonic():
            raise FetchError(RATE_LIMITED, f"{host} asked to wait")
        try:
            response = self._exchange(requests.Request(method, url, headers=headers))
        except _NO_ADDRESS as error:
            raise FetchError(REFUSED, f"not an address ({type(error).__name__})") from error
        except requests.exceptions.SSLError as error:
            raise FetchError(UNREACHABLE, f"{host}: its certificate cannot be trusted ({_short(error)})") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self.check()
            raise FetchError(UNREACHABLE, f"{host}: {_short(error)}", again=True) from error
        self._answering.add(host)
        self._given_up.pop(host, None)
        return response

    def _exchange(self, request: requests.Request) -> requests.Response:
        """One request and its answer, with the user's proxies and certificates."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()
        session: requests.Session = self._sessions.session
        prepared = session.prepare_request(request)
        url = str(prepared.url)
        how = session.merge_environment_settings(url, {}, True, None, None)
        # Not session.send, which would read the body of a redirect, however long it is.
        return session.get_adapter(url).send(prepared, timeout=(self.patience.connect_s, self.patience.read_s), **how)

    def _await_turn(self, url: str) -> None:
        while True:
            self.check()
            with self._lock:
                left_s = self._not_before.get(_host(url), 0.0) - time.monotonic()
            if left_s <= 0:
                return
            self._stopped.wait(left_s)


class Reply:
    """The answer to a GET request."""

    def __init__(self, *, response: requests.Response, patience: Patience, check: Callable[[], None]) -> None:
        self._response, self._patience, self._check = response, patience, check
        self.status = response.status_code
        """200: all of it; 206: a part; 416: there is no such part."""
        self.is_page = response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))
        """Whether the server says that it is a page for people."""

    @property
    def facts(self) -> Facts:
        """Of the whole file, also when only a part comes."""
        return _facts(self._response)

    @property
    def start(self) -> int | None:
        """Where the part that comes begins; None when the server does not say."""
        if self.status == 200:
            return 0
        first = self._response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        return int(first) if first.isdecimal() else None

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            FetchError: it ends early, comes too slowly, or nobody can say where it ends.
            StoppedOnPurposeError: ``stop`` was called.
        """
        raw: Any = self._response.raw
        if not raw.chunked and "Content-Length" not in self._response.headers:
            raise FetchError(NO_LENGTH, "the server does not say how long it is")
        began, came = time.monotonic(), 0
        while True:
            self._check()
            try:
                data = raw.read1(_CHUNK, decode_content=False)
            except urllib3.exceptions.ReadTimeoutError as error:
                waited = f"nothing came for {self._patience.read_s:g} s"
                raise FetchError(TOO_SLOW, waited, again=True) from error
            except _CUT_OFF as error:
                self._check()
                raise FetchError(TRUNCATED, f"the connection ended early: {_short(error)}", again=True) from error
            if not data:
                return
            yield data
            came += len(data)
            passed_s = time.monotonic() - began
            if passed_s >= self._patience.window_s:
                if came < self._patience.min_bytes_per_s * passed_s:
                    rate = f"{came / passed_s:,.0f} bytes/s over {passed_s:.0f} s"
                    raise FetchError(TOO_SLOW, rate, again=True)
                began, came = time.monotonic(), 0


def public(url: str) -> str:
    """``url`` without user, password and query, which may be somebody's credentials."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _require_file(response: requests.Response, max_wait_s: float) -> None:
    code = response.status_code
    if code in _GOOD:
        return
    said = f"{code} {response.reason or ''}".rstrip()
    wait_s = _retry_after(response.headers.get("Retry-After", ""))
    response.close()
    if code in (404, 410):
        raise FetchError(NOT_FOUND, said)
    if code in (401, 403, 407):
        raise FetchError(FORBIDDEN, said)
    if code == 429 or (code == 503 and wait_s is not None):
        if wait_s is not None and wait_s > max_wait_s:
            raise FetchError(RATE_LIMITED, f"{said}, to be asked again in {wait_s:.0f} s", wait_s=wait_s)
        raise FetchError(RATE_LIMITED, said, again=True, wait_s=wait_s)
    if code >= 500 and code not in (501, 505):
        raise FetchError(SERVER_ERROR, said, again=True)
    raise FetchError(REFUSED, said)


def _next(url: str, response: requests.Response) -> str:
    location = response.headers.get("Location", "")
    response.close()
    if not location:
        raise FetchError(BAD_REDIRECT, f"{response.status_code} without a place to go to")
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise FetchError(BAD_REDIRECT, "to no address") from error
    if scheme not in ("http", "https"):
        raise FetchError(BAD_REDIRECT, f"to {scheme or 'no'} address")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise FetchError(BAD_REDIRECT, "from https to http, where anybody on the way could change the file")
    return target


def _facts(response: requests.Response) -> Facts:
    headers = response.headers
    size = headers.get("Content-Length", "")
    if response.status_code in (206, 416):
        size = headers.get("Content-Range", "").rpartition("/")[2]
    return Facts(
        size_bytes=int(size) if size.isdecimal() else None,
        etag=headers.get("ETag", ""),
        last_modified=headers.get("Last-Modified", ""),
    )


def _retry_after(text: str) -> float | None:
    """Seconds that a server asks to wait: a number, or a date; None when it does not."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _short(error: BaseException) -> str:
    """The innermost reason, without the names of objects in which libraries wrap it."""
    inner: Any = error
    while getattr(inner, "reason", None) is not None or (inner.args and isinstance(inner.args[0], BaseException)):
        reason = getattr(inner, "reason", None)
        following = reason if isinstance(reason, BaseException) else inner.args[0] if inner.args else None
        if not isinstance(following, BaseException):
            break
        inner = following
    return _WHERE.sub("", str(inner))[:200]
