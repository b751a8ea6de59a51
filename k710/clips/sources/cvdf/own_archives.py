"""Archives that a user has, in any depth and by any names: read where they are, and never changed or removed."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from k710.clips.containers import SUFFIXES
from k710.clips.sources.cvdf.places import Place, Row, in_order, place_of
from k710.clips.sources.cvdf.shelf import Archive, Lost, Peak
from k710.errors import UsageError
from k710.fetch.published import archive_stem

_LOCK = "k710.lock.json"
_BLOCK = 512
_GZIP = b"\x1f\x8b"


class OwnArchives:
    """The archives below a folder."""

    lost: Sequence[Lost] = ()

    def __init__(self, folder: Path) -> None:
        """Find them; what an archive is, is told by its first bytes, or by its name if these are damaged.

        Raises:
            UsageError: no such folder, one in it cannot be listed, or there is no archive.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder", hint="cvdf:DIR takes a folder of archives; cvdf: downloads")
        self.name = f"cvdf:{folder}"
        self._archives = _found(folder)
        if not self._archives:
            raise UsageError(
                f"{folder}: no tar archive in it", hint="`k710 fetch videos` gets archives, and cvdf: downloads them"
            )

    def using(self) -> AbstractContextManager[None]:
        """Nothing is written."""
        return contextlib.nullcontext()

    def archives(self, rows: Collection[Row]) -> Sequence[Archive]:  # noqa: ARG002 - they are here, asked for or not
        """All of them, in the order in which they are read: replacements of broken videos first."""
        return self._archives

    def version(self, archive: Archive) -> str:
        """Size and time of the file."""
        return archive.identity

    def opened(
        self, archives: Sequence[Archive], is_needed: Callable[[Archive], bool]
    ) -> Iterator[tuple[Archive, str]]:
        """Each archive that is needed when its turn comes; what is wrong with it is seen when it is read."""
        for archive in archives:
            if is_needed(archive):
                yield archive, ""

    def again(self, archive: Archive) -> bool:  # noqa: ARG002 - it is so of all
        """No: only the user can replace it."""
        return False

    def remedy(self, archive: Archive) -> str:  # noqa: ARG002 - it is so of all
        """What people can do about an archive that is damaged."""
        return "put a whole copy in its place and run the same command again; what could be read of it is taken"

    def done(self, archive: Archive) -> None:
        """The archive stays."""

    def peak(self, archives: Sequence[Archive]) -> Peak:
        """Nothing comes to the disk."""
        return Peak(archives=len(archives), size_bytes=0)


def _found(root: Path) -> list[Archive]:
    found: list[tuple[Path, os.stat_result]] = []
    seen: set[tuple[int, int]] = set()
    top = root.absolute()
    for place, folders, names in os.walk(top, onerror=_refuse, followlinks=True):
        if not _is_new(Path(place).stat(), seen) or _LOCK in names:
            # Shards of a build are tars too.
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            facts = _facts_of_archive(path)
            if facts is not None and _is_new(facts, seen):
                found.append((path, facts))
    archives = [_archive(path, facts, below=len(top.parts)) for path, facts in found]
    return sorted(archives, key=lambda a: (not a.place.is_replacement, in_order(a.name)))


def _archive(path: Path, facts: os.stat_result, *, below: int) -> Archive:
    place: Place = place_of(path, below=below)
    return Archive(name=str(path), identity=f"{facts.st_size} {facts.st_mtime_ns}", place=place, path=path)


def _facts_of_archive(path: Path) -> os.stat_result | None:
    """The facts of a file that is an archive; None when it is not."""
    # Clips may lie beside archives, very many of them.
    if path.name.startswith(".") or path.suffix.lower() in SUFFIXES:
        return None
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return None
        return facts if archive_stem(path.name) != path.name or _is_tar(path) else None
    except OSError:
        return None


def _is_tar(path: Path) -> bool:
    """Whether the file begins as a tar, gzipped or not."""
    with path.open("rb") as stream:
        head = stream.read(64 * _BLOCK)
    if head[:2] == _GZIP:
        try:
            head = zlib.decompressobj(31).decompress(head, _BLOCK)
        except zlib.error:
            return False
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _is_new(facts: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    identity = (facts.st_dev, facts.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _refuse(error: OSError) -> None:
    raise UsageError(
        f"{error.filename}: cannot be listed ({error.strerror})", hint="make it readable, or give cvdf: another folder"
    ) from error
