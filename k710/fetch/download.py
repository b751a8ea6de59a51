"""One file from its URL to its place: compared with its first sight, checked, and never half there."""

from __future__ import annotations

import stat
import zlib
from dataclasses import replace
from pathlib import Path

from k710.fetch.archives import check_archive
from k710.fetch.client import Client, public
from k710.fetch.outcomes import (
    CHANGED,
    DAMAGED,
    FETCHED,
    FOUND,
    IN_THE_WAY,
    NOT_COMPARED,
    NOT_DATA,
    REPLACED,
    UNCHANGED,
    WRONG_CHECKSUM,
    FetchError,
    Outcome,
    Wanted,
)
from k710.fetch.partial import Arrived, OnBytes, Partial, fetch_partial, sha256_of
from k710.fetch.record import Seen, Sources, today

MAX_HASHED_BYTES = 1 << 28
"""Files up to this size are read again on every run, to see that they are still what was fetched; larger ones are
known by their size."""

_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script")
_GZIP = b"\x1f\x8b"


def download(
    client: Client, sources: Sources, wanted: Wanted, *, accept_changed: bool, on_bytes: OnBytes = lambda _: None
) -> Outcome:
    """Have ``wanted`` at its place, and recorded in ``sources``.

    What is there already and is what was first fetched stays; what another run began is gone on with.

    Args:
        accept_changed: whether a file whose checksum is not the first one takes its place.

    Raises:
        StoppedOnPurposeError: the client was stopped; what came so far stays, to be gone on with.
    """
    try:
        return _download(client, sources, wanted, accept_changed, on_bytes)
    except FetchError as error:
        return _outcome(sources, wanted, error.status, reason=error.message)


def has_page(head: bytes) -> bool:
    """Whether the first bytes of a file, gzipped or not, are those of a page for people or of a server's error."""
    if head[:2] == _GZIP:
        try:
            head = zlib.decompressobj(31).decompress(head, 512)
        except zlib.error:
            return False
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES)


def _download(client: Client, sources: Sources, wanted: Wanted, accept_changed: bool, on_bytes: OnBytes) -> Outcome:
    partial = Partial(wanted.path, public(wanted.url))
    partial.settle(lambda arrived: _record(sources, wanted, arrived))
    seen = sources.of(wanted.path)
    if _is_there(wanted.path):
        here = _compare(client, sources, wanted, seen)
        if here is not None:
            on_bytes(here.size_bytes)
            return here
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    arrived = fetch_partial(client, wanted.url, partial, on_bytes)
    is_new = seen is None or seen.sha256 == arrived.sha256
    if not (is_new or accept_changed):
        assert seen is not None
        # The new version stays under its name on the way, for a run that accepts it.
        raise FetchError(CHANGED, f"sha256 was {seen.sha256} on {seen.first_seen}, is {arrived.sha256} now")
    try:
        _check(wanted, partial.path, arrived, client)
    except FetchError:
        partial.drop()
        raise
    partial.publish(arrived, lambda arrived: _record(sources, wanted, arrived))
    return _outcome(sources, wanted, FETCHED if is_new else REPLACED)


def _compare(client: Client, sources: Sources, wanted: Wanted, seen: Seen | None) -> Outcome | None:
    """What is to be said of a file that is there; None when the server has another version of it."""
    if seen is None:
        return _adopt(client, sources, wanted)
    size = wanted.path.stat().st_size
    same = size == seen.size_bytes and (size > MAX_HASHED_BYTES or sha256_of(wanted.path) == seen.sha256)
    if not same:
        raise FetchError(IN_THE_WAY, "it is not the file that was fetched any more")
    try:
        facts = client.facts(wanted.url)
    except FetchError as error:
        return _outcome(sources, wanted, NOT_COMPARED, reason=f"{error.status}: {error.message}")
    is_same = facts.is_version_of(seen.facts)
    if is_same is False:
        return None
    if seen.temporary and not wanted.is_temporary:
        # This run wants it to stay, whatever the one that fetched it was told.
        sources.put(wanted.path, replace(seen, temporary=False))
    if is_same is None:
        return _outcome(sources, wanted, NOT_COMPARED, reason="the server names no version")
    return _outcome(sources, wanted, UNCHANGED)


def _adopt(client: Client, sources: Sources, wanted: Wanted) -> Outcome:
    """Take in a file that somebody else put there, if it is what the server has as far as can be told."""
    size = wanted.path.stat().st_size
    facts = client.facts(wanted.url)
    if facts.size_bytes != size:
        stated = "no size" if facts.size_bytes is None else f"{facts.size_bytes:,} bytes"
        raise FetchError(IN_THE_WAY, f"a file of {size:,} bytes that was not fetched here; the server states {stated}")
    arrived = Arrived(facts=facts, sha256=sha256_of(wanted.path, client.check), size_bytes=size)
    try:
        _check(wanted, wanted.path, arrived, client)
    except FetchError as error:
        raise FetchError(IN_THE_WAY, f"not fetched here, and {error.status}: {error.message}") from error
    _record(sources, wanted, arrived, fetched=False)
    return _outcome(sources, wanted, FOUND)


def _check(wanted: Wanted, path: Path, arrived: Arrived, client: Client) -> None:
    """Whether what came is what was wanted, as far as its bytes tell."""
    with path.open("rb") as stream:
        head = stream.read(4096)
    if not head:
        raise FetchError(NOT_DATA, "an empty file came")
    if has_page(head):
        raise FetchError(NOT_DATA, "a page came instead of the file")
    if wanted.sha256:
        if arrived.sha256 != wanted.sha256:
            raise FetchError(WRONG_CHECKSUM, f"sha256 is {arrived.sha256}, should be {wanted.sha256}")
    elif wanted.is_archive and wanted.is_checked_inside:
        problem = check_archive(path, check=client.check)
        if problem:
            raise FetchError(DAMAGED, problem)


def _is_there(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise FetchError(IN_THE_WAY, f"{path.parent} is not a folder") from error
    if stat.S_ISLNK(mode) and not path.exists():
        raise FetchError(IN_THE_WAY, "a link that leads nowhere")
    if not path.is_file():
        raise FetchError(IN_THE_WAY, "not a file")
    return True


def _record(sources: Sources, wanted: Wanted, arrived: Arrived, *, fetched: bool = True) -> None:
    before = sources.of(wanted.path)
    seen = Seen(
        url=public(wanted.url),
        size_bytes=arrived.size_bytes,
        sha256=arrived.sha256,
        etag=arrived.facts.etag,
        last_modified=arrived.facts.last_modified,
        first_seen=today(),
        fetched=fetched,
        temporary=fetched and wanted.is_temporary,
    )
    if before is not None and before.sha256 == seen.sha256:
        seen = replace(seen, first_seen=before.first_seen)
    sources.put(wanted.path, seen)


def _outcome(sources: Sources, wanted: Wanted, status: str, *, reason: str = "") -> Outcome:
    seen = sources.of(wanted.path) if wanted.path.exists() else None
    return Outcome(
        name=sources.name(wanted.path),
        url=public(wanted.url),
        status=status,
        reason=reason,
        size_bytes=seen.size_bytes if seen else 0,
        sha256=seen.sha256 if seen else "",
    )
