"""One video at an address: brought by HTTP or through fsspec, or why it cannot be had, and whether it may be later."""

from __future__ import annotations

import errno
import functools
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import fsspec

from k710.clips.outcomes import (
    CORRUPT,
    FORBIDDEN,
    MISSING,
    NOT_A_VIDEO,
    PENDING,
    TOO_LARGE,
    TRUNCATED,
    Unusable,
)
from k710.clips.sources.candidates import Brought
from k710.clips.verify import MAX_BYTES
from k710.errors import FeedError, UsageError
from k710.fetch import outcomes as fetched
from k710.fetch.client import Client, Patience, public
from k710.fetch.partial import Partial, fetch_partial, sha256_of
from k710.store import Store

HTTP = ("http", "https")
SCHEMES = (*HTTP, "s3", "gs", "file")
"""How addresses of videos may begin."""
PATIENCE = Patience(tries=4, max_wait_s=60.0)
"""With a server, for one video: those that it is not enough for are pending."""

_MEANING = {
    fetched.NOT_FOUND: MISSING,
    fetched.FORBIDDEN: FORBIDDEN,
    fetched.REFUSED: FORBIDDEN,
    fetched.BAD_REDIRECT: FORBIDDEN,
    fetched.NOT_DATA: NOT_A_VIDEO,
    # It could be half of it, today and tomorrow.
    fetched.NO_LENGTH: TRUNCATED,
}
"""What failed requests mean for a clip; all others may go better another time."""
_SECRET_NAMES = ("signature", "credential", "security-token", "token", "password", "passwd", "secret", "authorization")
_SECRET_WORDS = frozenset(
    {"auth", "sig", "key", "apikey", "api_key", "api-key", "pwd", "jwt", "awsaccesskeyid", "googleaccessid"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlOrigin:
    """A video at an address."""

    url: str
    """Where it is; holds nothing secret."""
    name: str
    """Name of the file that is written."""
    sha256: str = ""
    """Of its bytes; empty: not known."""
    stamp: str = ""
    """What tells a version of it from another, by the listing that it is from; empty: not known."""

    @property
    def kind(self) -> str:
        """The kind of source."""
        return "url"

    @property
    def identity(self) -> str:
        """Address and version."""
        return f"{self.url} {self.sha256} {self.stamp}".rstrip()

    def bring(self, folder: Path) -> Brought | Unusable:
        """Write the video to ``folder``; each server is asked again a few times when that may help."""
        target = folder / self.name
        over_http = urlsplit(self.url).scheme in HTTP
        problem = _by_http(self.url, target) if over_http else _by_fsspec(self.url, target)
        if problem is not None:
            return problem
        if self.sha256 and (is_now := sha256_of(target)) != self.sha256:
            return Unusable(status=CORRUPT, detail=f"sha256 is {is_now}, should be {self.sha256}")
        return Brought(path=target)


def shown(text: str) -> str:
    """An address, or what was meant for one, without user, password and query, for messages."""
    return re.split(r"[?#]", re.sub(r"//[^/]*@", "//", text), maxsplit=1)[0]


def require_plain(url: str, where: str) -> None:
    """Refuse an address that cannot be used, or that holds a secret, which would be stored and shown.

    Raises:
        UsageError: it is no address of a known kind, its package is missing, or it has a user, a password or a key.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        query = parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True)
        is_whole = bool(parts.netloc or (parts.scheme == "file" and parts.path))
    except ValueError as error:
        raise UsageError(f"{where}: not an address ({error})", hint=_EXAMPLE) from error
    if parts.scheme not in SCHEMES or not is_whole:
        raise UsageError(f"{where}: not an address that begins with {', '.join(SCHEMES)}", hint=_EXAMPLE)
    if "@" in parts.netloc or any(_is_secret(name) for name, _ in query):
        raise UsageError(
            f"{where}: the address comes with a user, a password, a key or a signature, which would be stored",
            hint="a ~/.netrc file names users and passwords of servers, the environment (AWS_*) those of object stores",
        )
    _require_package(parts.scheme, where)


def _require_package(scheme: str, where: str) -> None:
    if scheme in (*HTTP, "file"):
        return
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        hint = "pip install 'k710[s3]'" if scheme == "s3" else str(error)
        raise UsageError(f"{where}: a package for {scheme}:// is missing", hint=hint) from error


_EXAMPLE = "such as url:https://host/{id}_{start:06d}_{end:06d}.mp4, or url:FILE.csv with the columns id and url"


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return lower in _SECRET_WORDS or any(part in lower for part in _SECRET_NAMES)


class _TooLargeError(Exception):
    """More bytes came than any video has."""


def _by_http(url: str, target: Path) -> Unusable | None:
    partial = Partial(target, public(url))

    def watch(_: int) -> None:
        if partial.size_bytes > MAX_BYTES:
            raise _TooLargeError

    try:
        fetch_partial(_client(), url, partial, watch)
    except fetched.FetchError as error:
        if error.status == fetched.NO_ROOM:
            raise OSError(errno.ENOSPC, error.message, str(target.parent)) from error
        return Unusable(status=_MEANING.get(error.status, PENDING), detail=f"{error.status}: {error.message}")
    except _TooLargeError:
        return Unusable(status=TOO_LARGE, detail=f"more than {MAX_BYTES:,} bytes")
    partial.path.replace(target)
    return None


def _by_fsspec(url: str, target: Path) -> Unusable | None:
    root, _, name = url.rpartition("/")
    store = _store(root)
    try:
        size = store.size_bytes(name)
        if size is not None and size > MAX_BYTES:
            return Unusable(status=TOO_LARGE, detail=f"{size:,} bytes")
        with store.open(name) as stream, target.open("wb") as handle:
            shutil.copyfileobj(stream, handle, 1 << 20)
    except FeedError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Unusable(status=MISSING, detail="there is no such object")
        status = FORBIDDEN if isinstance(error.__cause__, PermissionError) else PENDING
        return Unusable(status=status, detail=error.message)
    if size is not None and target.stat().st_size != size:
        return Unusable(status=PENDING, detail=f"{target.stat().st_size:,} of {size:,} bytes came")
    return None


@functools.lru_cache(maxsize=1)
def _client() -> Client:
    """One for each process: it remembers which servers do not answer, and how long others ask to wait."""
    return Client(PATIENCE)


@functools.lru_cache(maxsize=64)
def _store(root: str) -> Store:
    return Store(root)
