"""``sources.json`` beside what was fetched: where each file is from, and what it was when it was first seen."""

from __future__ import annotations

import contextlib
import datetime
import glob
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, to_mapping
from k710.errors import InputError, UsageError
from k710.fetch.client import Facts
from k710.processes import only_writer

SOURCES_FILE = "sources.json"
SCHEMA = "k710.sources/1"
_GUARD = ".fetching"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A file as it was when it was first fetched, or accepted anew."""

    url: str
    """Where it is from, without user, password and query."""
    size_bytes: int
    """Its size."""
    sha256: str
    """Its checksum: publishers state none, so the first sight is what later ones are compared with."""
    etag: str = ""
    """Its version, as the server calls it."""
    last_modified: str = ""
    """When it was changed last, as the server writes it."""
    first_seen: str = ""
    """Date, UTC. Nothing is made from it."""
    fetched: bool = True
    """Whether it was downloaded here; False: it was there before, and is the user's."""
    temporary: bool = False
    """Whether it was downloaded to be unpacked and removed."""

    @property
    def facts(self) -> Facts:
        """What the server said about it."""
        return Facts(size_bytes=self.size_bytes, etag=self.etag, last_modified=self.last_modified)


class Sources:
    """The record of one folder; every change is on the disk when the call returns."""

    def __init__(self, folder: Path) -> None:
        """Read the record of ``folder``; none yet is an empty one.

        Raises:
            InputError: it cannot be read.
        """
        self.folder = folder
        self._path = folder / SOURCES_FILE
        self._lock = threading.Lock()
        self._files = self._read()
        sweep(self._path)

    def name(self, path: Path) -> str:
        """How the record calls the file at ``path``."""
        return path.relative_to(self.folder).as_posix()

    def of(self, path: Path) -> Seen | None:
        """What is known of the file at ``path``."""
        return self._files.get(self.name(path))

    def put(self, path: Path, seen: Seen) -> None:
        """Record the file at ``path``."""
        with self._lock:
            self._files[self.name(path)] = seen
            self._write()

    def forget(self, path: Path) -> None:
        """Drop the file at ``path`` from the record."""
        with self._lock:
            if self._files.pop(self.name(path), None) is not None:
                self._write()

    def _write(self) -> None:
        files = {name: to_mapping(seen) for name, seen in self._files.items()}
        atomic.write_json(self._path, {"schema": SCHEMA, "files": files})

    def _read(self) -> dict[str, Seen]:
        try:
            document = json.loads(self._path.read_bytes())
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema is {document['schema']}, this version reads {SCHEMA}")
            return {name: from_mapping(Seen, seen, where=name) for name, seen in document["files"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise InputError(
                f"{self._path}: cannot be read ({error})",
                hint="without it nobody knows which files are the first ones: restore it, or use another folder",
            ) from error


def sweep(path: Path) -> None:
    """Remove what runs that were killed left of writing ``path``; no other run may be at it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        left.unlink(missing_ok=True)


def today() -> str:
    """The date in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` for as long as the block lasts; a killed process holds nothing.

    Raises:
        UsageError: another run is at it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with atomic.writable(folder):
            stack.enter_context(
                only_writer(folder / _GUARD, f"{folder}: another `k710 fetch` or `k710 build` writes there")
            )
        yield
