"""A file on its way: its bytes so far under another name, and which version of the file they are of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, to_mapping
from k710.errors import UsageError
from k710.fetch.client import Client, Facts, Reply
from k710.fetch.outcomes import FORBIDDEN, NO_ROOM, NOT_DATA, REFUSED, TRUNCATED, FetchError
from k710.fetch.record import sweep

OnBytes = Callable[[int], None]
"""Told how many bytes have come; a negative number when some of them count no more."""

SPARE_BYTES = 1 << 26
"""What a download leaves free on the disk."""
_ENOUGH = 1 << 20
"""New bytes after which the tries are counted anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """A file that is here, whole, under its name on the way."""

    facts: Facts
    """What the server said about it."""
    sha256: str
    """Of its bytes."""
    size_bytes: int
    """Its size."""


class Partial:
    """The bytes of one file so far: ``.NAME.partial``, and ``.NAME.partial.json`` which says of what version."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path.with_name(f".{path.name}.partial")
        self._notes = path.with_name(f".{path.name}.partial.json")
        self._final = path
        self._url = url

    @property
    def size_bytes(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def facts(self) -> Facts | None:
        """The version that the bytes are of; None where there are none, or none that can be gone on with."""
        try:
            notes = json.loads(self._notes.read_bytes())
            facts = from_mapping(Facts, notes["facts"])
        except (OSError, ValueError, KeyError, TypeError, UsageError):
            return None
        return facts if notes.get("url") == self._url and facts.validator and self.path.is_file() else None

    def begin(self, facts: Facts) -> None:
        """Start anew with a version of the file."""
        # First the bytes go, then the new version is named: in between there is nothing, never a mixture.
        self.path.unlink(missing_ok=True)
        atomic.write_json(self._notes, {"url": self._url, "facts": to_mapping(facts)})
        self.path.touch()

    def drop(self) -> None:
        """Remove all of it."""
        sweep(self._notes)
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def publish(self, arrived: Arrived, record: Callable[[Arrived], None]) -> None:
        """Give the bytes the file's name and record them; a run that is killed in between leaves it to ``settle``."""
        atomic.write_json(self._notes, {"url": self._url, "facts": to_mapping(arrived.facts), **_known(arrived)})
        atomic.sync_file(self.path)
        self.path.replace(self._final)
        atomic.sync_folder(self._final.parent)
        record(arrived)
        self._notes.unlink(missing_ok=True)
        sweep(self._notes)

    def settle(self, record: Callable[[Arrived], None]) -> None:
        """Record the file whose ``publish`` was cut short after it got its name."""
        if self.path.exists() or not self._final.is_file():
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, UsageError):
            notes = json.loads(self._notes.read_bytes())
            facts = from_mapping(Facts, notes["facts"])
            arrived = Arrived(facts=facts, sha256=notes["sha256"], size_bytes=notes["size_bytes"])
            if notes["url"] == self._url and self._final.stat().st_size == arrived.size_bytes:
                record(arrived)
                self._notes.unlink(missing_ok=True)


def fetch_partial(client: Client, url: str, partial: Partial, on_bytes: OnBytes) -> Arrived:
    """All bytes of ``url`` in ``partial``, the ones that are there gone on with if they are of the same version.

    Raises:
        FetchError: they did not come; those that did stay, to be gone on with.
        StoppedOnPurposeError: the client was stopped.
    """
    came = _Came()
    if partial.facts() is None:
        partial.drop()
    on_bytes(partial.size_bytes)
    while True:
        before = came.size_bytes
        try:
            return client.trying(lambda: _once(client, url, partial, came, on_bytes), url)
        except FetchError as error:
            # Given up only when nothing comes any more, not when a long file is cut off now and then.
            if not error.again or came.size_bytes - before < _ENOUGH:
                raise


def sha256_of(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """Checksum of a file; ``check`` may end it early."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
            check()
    return digest.hexdigest()


def require_room(folder: Path, size_bytes: int) -> None:
    """Raise a ``FetchError`` when the disk of ``folder``, which exists, has not ``size_bytes`` and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + SPARE_BYTES:
        raise FetchError(NO_ROOM, f"{size_bytes:,} bytes to come, {free:,} free on the disk of {folder}")


@dataclass(kw_only=True, slots=True)
class _Came:
    """What a download has got so far."""

    size_bytes: int = 0
    """New bytes, in all tries."""


def _once(client: Client, url: str, partial: Partial, came: _Came, on_bytes: OnBytes) -> Arrived:
    """One request for what is missing."""
    known, have = partial.facts(), partial.size_bytes
    if known is not None and known.size_bytes == have and have:
        if _is_still_there(client, url, known):
            return _arrived(client, partial, known)
        known = None
    headers = {}
    if known is not None and have:
        headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
    with client.get(url, headers) as reply:
        if headers and reply.status == 206 and reply.start == have and reply.facts.is_version_of(known or Facts()):
            facts = known or reply.facts
        elif reply.status == 200:
            _begin(partial, reply, on_bytes)
            facts = reply.facts
        else:
            # Another part than asked for, or of another version: what is here cannot be gone on with.
            on_bytes(-partial.size_bytes)
            partial.drop()
            raise FetchError(TRUNCATED, f"status {reply.status} with another part than was asked for", again=True)
        if facts.size_bytes is not None:
            require_room(partial.path.parent, facts.size_bytes - partial.size_bytes)
        with partial.path.open("ab") as stream:
            for data in reply.chunks():
                stream.write(data)
                # What has come stays, also when this process is killed.
                stream.flush()
                came.size_bytes += len(data)
                on_bytes(len(data))
    if facts.size_bytes is not None and partial.size_bytes != facts.size_bytes:
        got = f"{partial.size_bytes:,} of {facts.size_bytes:,} bytes"
        if partial.size_bytes > facts.size_bytes:
            partial.drop()
        raise FetchError(TRUNCATED, got, again=True)
    return _arrived(client, partial, facts)


def _is_still_there(client: Client, url: str, known: Facts) -> bool:
    """Whether the server has the version still that is here as a whole."""
    try:
        return bool(client.facts(url).is_version_of(known))
    except FetchError as error:
        if error.status in (FORBIDDEN, REFUSED):  # of HEAD requests; a GET tells more
            return False
        # It was asked often enough.
        raise FetchError(error.status, error.message) from error


def _begin(partial: Partial, reply: Reply, on_bytes: OnBytes) -> None:
    if reply.is_page and partial.size_bytes:
        # A login page in between must not cost what has come so far.
        raise FetchError(NOT_DATA, "a page for people (text/html) came")
    on_bytes(-partial.size_bytes)
    partial.begin(reply.facts)


def _arrived(client: Client, partial: Partial, facts: Facts) -> Arrived:
    # Read again from the disk, also the part that an earlier run wrote.
    return Arrived(facts=facts, sha256=sha256_of(partial.path, client.check), size_bytes=partial.size_bytes)


def _known(arrived: Arrived) -> dict[str, str | int]:
    return {"sha256": arrived.sha256, "size_bytes": arrived.size_bytes}
