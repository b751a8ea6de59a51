"""``read/``: one small file for each archive that was read and whose clips are all on the disk, with what it had."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, to_mapping
from k710.errors import InputError, UsageError
from k710.fetch.record import sweep

FOLDER = "read"
SCHEMA = "k710.read_archive/1"
DOWNLOADS_FILE = "downloads.json"
_DOWNLOADS_SCHEMA = "k710.downloads/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadArchive:
    """An archive that was read to its end."""

    name: str
    """What it is called."""
    version: str
    """What tells it from another of its name; a user's archive that was changed is read again."""
    members: tuple[str, ...]
    """Names of the videos in it."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Members that were passed over, by the reason."""


class ReadArchives:
    """The record of one folder; every change is on the disk when the call returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._known: dict[str, ReadArchive] = {}
        for path in sorted(self._folder.glob("*.json")):
            archive = _read(path)
            self._known[archive.name] = archive

    def of(self, name: str, version: str) -> ReadArchive | None:
        """What the archive called ``name`` had; None when it was not read to its end, or is another one now.

        An empty ``version`` stands for any.
        """
        known = self._known.get(name)
        return known if known is not None and version in ("", known.version) else None

    def put(self, archive: ReadArchive) -> None:
        """Record an archive."""
        name = hashlib.sha256(archive.name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        path = self._folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        data = json.dumps({"schema": SCHEMA, **to_mapping(archive)}, indent=1, sort_keys=True)
        atomic.write_bytes(path, data.encode() + b"\n")
        self._known[archive.name] = archive


class Downloads:
    """``downloads.json``: which files a build has downloaded itself, to remove them; no other file is ever removed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DOWNLOADS_FILE
        self._lock = threading.Lock()
        try:
            sweep(self._path)
            document = json.loads(self._path.read_bytes())
            if document["schema"] != _DOWNLOADS_SCHEMA:
                raise ValueError(f"schema is {document['schema']}, this version reads {_DOWNLOADS_SCHEMA}")
            self._names = {str(name) for name in document["names"]}
        except FileNotFoundError:
            self._names = set()
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "remove it: what was downloaded before then counts as yours, and stays"
            raise InputError(f"{self._path}: cannot be read ({error})", hint=hint) from error

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def names(self) -> list[str]:
        """All of them."""
        return sorted(self._names)

    def put(self, name: str) -> None:
        """Record a file that is about to be downloaded and is not there."""
        self._write(name, is_ours=True)

    def forget(self, name: str) -> None:
        """Take note that a file is no longer there, or no longer this build's."""
        self._write(name, is_ours=False)

    def _write(self, name: str, *, is_ours: bool) -> None:
        with self._lock:
            if (name in self._names) == is_ours:
                return
            self._names ^= {name}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self._path, {"schema": _DOWNLOADS_SCHEMA, "names": sorted(self._names)})


def _read(path: Path) -> ReadArchive:
    try:
        document = json.loads(path.read_bytes())
        if document.pop("schema") != SCHEMA:
            raise ValueError("of another version of k710")
        return from_mapping(ReadArchive, document, where=path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        hint = "remove it, and the archive is read again"
        raise InputError(f"{path}: cannot be read ({error})", hint=hint) from error
