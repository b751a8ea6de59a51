"""Clips out of downloaded archives into a folder that ``k710 build --videos`` reads, each archive read once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, to_mapping
from k710.errors import InputError, SourceError, UsageError
from k710.fetch.archives import Limits, Member, Skipped, read_members
from k710.fetch.record import sweep

EXTRACTED_FILE = "extracted.json"
SCHEMA = "k710.extracted/1"
TAKEN = "another file has its place"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What came out of one archive."""

    sha256: str
    """Of the archive."""
    clips: int
    """Videos that are in the folder now."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Members that are not, by the reason."""


class ExtractedArchives:
    """Which archives a folder of clips has already: it is on the disk when ``put`` returns."""

    def __init__(self, folder: Path) -> None:
        """Read the record of ``folder``; none yet is an empty one.

        Raises:
            InputError: it cannot be read.
        """
        self.folder = folder
        self._path = folder / EXTRACTED_FILE
        self._lock = threading.Lock()
        try:
            sweep(self._path)
            document = json.loads(self._path.read_bytes())
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema is {document['schema']}, this version reads {SCHEMA}")
            self._archives = {n: from_mapping(Extracted, a, where=n) for n, a in document["archives"].items()}
        except FileNotFoundError:
            self._archives = {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            hint = "remove it, and every archive is unpacked again; clips that are there stay"
            raise InputError(f"{self._path}: cannot be read ({error})", hint=hint) from error

    def of(self, name: str) -> Extracted | None:
        """What came out of the archive called ``name``; None when it was not unpacked here, or not to its end."""
        return self._archives.get(name)

    def put(self, name: str, extracted: Extracted) -> None:
        """Record that an archive was unpacked to its end."""
        with self._lock:
            self._archives[name] = extracted
            archives = {name: to_mapping(extracted) for name, extracted in self._archives.items()}
            atomic.write_json(self._path, {"schema": SCHEMA, "archives": archives})


def extract(
    archive: Path,
    folder: Path,
    sha256: str = "",
    *,
    limits: Limits | None = None,
    check: Callable[[], None] = lambda: None,
) -> Extracted:
    """Write the videos of ``archive`` into ``folder``, each whole or not at all, and nothing anywhere else.

    A file that is there already stays as it is: of equal size it is taken for the clip, else the clip is skipped.
    ``check`` may end it early.

    Raises:
        SourceError: the archive is damaged, from some place on; the clips before that are there.
        OSError: ``folder`` cannot be written.
    """
    skipped: Counter[str] = Counter()

    def skip(member: Skipped) -> None:
        skipped[member.reason] += 1

    # What a run that was killed was just writing.
    for left in folder.glob(".*.partial"):
        left.unlink(missing_ok=True)
    clips = 0
    for member in read_members(archive, limits=limits, on_skip=skip):
        check()
        if _write(member, folder / member.name):
            clips += 1
        else:
            skipped[TAKEN] += 1
    return Extracted(sha256=sha256, clips=clips, skipped=dict(sorted(skipped.items())))


def _write(member: Member, path: Path) -> bool:
    """Whether ``path`` holds the member now."""
    if path.is_symlink() or path.exists():
        return path.is_file() and path.stat().st_size == member.size_bytes
    with atomic.replacing(path) as partial, partial.open("wb") as stream:
        while data := member.stream.read(_CHUNK):
            stream.write(data)
        if stream.tell() != member.size_bytes:
            raise SourceError(f"{path.name}: {stream.tell():,} of {member.size_bytes:,} bytes in the archive")
    return True
