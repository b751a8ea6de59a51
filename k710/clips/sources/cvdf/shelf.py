"""What archives are read from: a folder that a user has, or downloads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from k710.clips.sources.cvdf.places import Place, Row
from k710.fetch.outcomes import Wanted as File

_GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """An archive, here or to be downloaded."""

    name: str
    """What messages and records call it."""
    identity: str
    """What would differ if it were another one, as far as is known before it is read."""
    place: Place
    """Which clips it may hold."""
    path: Path
    """Where it is, or will be."""
    file: File | None = None
    """How it is downloaded; None: it is a user's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Clips that may be in what could not be had or read."""

    place: Place
    """Which clips."""
    reason: str
    """What is the matter, and with which archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """How much of the disk archives may take at a time."""

    archives: int
    """How many are still to be read."""
    size_bytes: int
    """The most bytes of downloaded archives on the disk at a time."""
    unknown: int = 0
    """How many archives there are whose size the server does not say; they are not counted in."""

    def line(self) -> str:
        """In a sentence, for people."""
        unknown = f"; the sizes of {self.unknown:,} are not known" if self.unknown else ""
        if not self.size_bytes and not self.unknown:
            return f"{self.archives:,} archives to read"
        size = f"{self.size_bytes / _GB:,.2f} GB"
        return f"{self.archives:,} archives to read, downloads take at most {size} at a time{unknown}"


class Shelf(Protocol):
    """Where archives are."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def lost(self) -> Sequence[Lost]:
        """What is known to be out of reach before any archive is read."""
        ...

    def using(self) -> AbstractContextManager[None]:
        """Keep others away from what is written, for as long as the block lasts."""
        ...

    def archives(self, rows: Collection[Row]) -> Sequence[Archive]:
        """The archives that may hold clips of these annotation rows, in the order in which they are read."""
        ...

    def version(self, archive: Archive) -> str:
        """What tells the archive from another of its name; empty while that is not known."""
        ...

    def opened(
        self, archives: Sequence[Archive], is_needed: Callable[[Archive], bool]
    ) -> Iterator[tuple[Archive, str]]:
        """Each archive that is needed when its turn comes, and why it cannot be read: empty where it can."""
        ...

    def again(self, archive: Archive) -> bool:
        """Whether there is another copy now of an archive that is damaged."""
        ...

    def remedy(self, archive: Archive) -> str:
        """What people can do about an archive that is damaged."""
        ...

    def done(self, archive: Archive) -> None:
        """Take note that no clip of an archive waits for it any more."""
        ...

    def peak(self, archives: Sequence[Archive]) -> Peak:
        """How much of the disk these archives may take at a time."""
        ...
