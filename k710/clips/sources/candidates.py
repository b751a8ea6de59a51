"""What sources are asked for and what they answer: clips that need a file, and files that may serve them.

There are two kinds of sources. A listed one can say for each clip, in any order, what it has: folders, addresses. A
streamed one is read from its start to its end, once, and offers what comes by: archives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from k710.clips.outcomes import Unusable
from k710.segments import Segment

VideosAre = Literal["auto", "clips", "originals"]
"""What files without times in their names are: told by their length, trimmed clips, or whole videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    """A file that an origin has brought here."""

    path: Path
    """Where it is: in the folder that the origin was given, which goes when the clip is made."""
    begins_s: float = 0.0
    """Second of the video at which the file begins; not 0 where only a part of a whole video was brought."""


class Origin(Protocol):
    """Where one video is that must be brought here before it can be opened; it travels to workers by pickle.

    It holds no password, key or cookie: those are looked up by the worker that brings the video.
    """

    @property
    def kind(self) -> str:
        """The kind of source, as samples say it: a name of ``SOURCES``."""
        ...

    @property
    def identity(self) -> str:
        """What would differ if another video had to be brought: a clip that failed is tried again when it changes."""
        ...

    def bring(self, folder: Path) -> Brought | Unusable:
        """Bring the video into ``folder``, which is empty, or say why that cannot be done.

        A refusal that may pass, such as a server that asks to wait, is ``pending``.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that may serve a clip."""

    path: str
    """Where it is; of one that is still to be brought, the name it will have."""
    timed: bool
    """Whether its name has the clip's times: then it is trimmed."""
    may_be_trimmed: bool
    """Whether it may be taken as trimmed, if that is what it is; False where another segment has as good a claim."""
    videos_are: VideosAre = "auto"
    """What it is when it is not timed: ``clips``, trimmed whatever its length; ``originals``, to be cut whatever its
    length; ``auto``, as its length says."""
    origin: Origin | None = None
    """What brings it here; None: it is here."""
    kind: str = "local"
    """The kind of source that it is from: a name of ``SOURCES``."""
    is_ours: bool = False
    """Whether the file was made by this run for this clip alone, and goes when the clip has come to an outcome."""

    @property
    def name(self) -> str:
        """File name, without folders."""
        return Path(self.path).name


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A clip that needs a file."""

    segment: Segment
    """Which part of which video."""
    releases: frozenset[str]
    """Releases with a row for it."""


class Listed(Protocol):
    """A source that knows what it has."""

    @property
    def names(self) -> tuple[str, ...]:
        """What people call it, for messages."""
        ...

    def candidates(
        self, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]]
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the files to try, best first; an empty tuple where there is none.

        Args:
            wanted: the clips.
            rivals: for each video with several segments in any list, wanted here or not, all of them.
        """
        ...


class Streamed(Protocol):
    """A source that is read once, in an order of its own."""

    @property
    def names(self) -> tuple[str, ...]:
        """What people call it, for messages."""
        ...

    def identities(self, wanted: Sequence[Wanted]) -> list[str]:
        """For each clip what would differ if other archives had to be read for it; empty where none can hold it."""
        ...

    def offers(self, wanted: Mapping[str, Wanted], folder: Path) -> Iterator[tuple[str, Candidate]]:
        """Files for clips as they come by, each written to ``folder``: the clip's key, and the file, which is ours.

        Nothing is read further ahead than the caller takes. A clip is offered once, and again when the file was
        ``unusable`` and another comes by.

        Args:
            wanted: the clips that still need a file, by key.
            folder: for the files; it goes with the run.
        """
        ...

    def settled(self, keys: Collection[str]) -> None:
        """Take note that these clips, offered before, have come to an outcome that is on the disk."""
        ...

    def unusable(self, keys: Collection[str]) -> None:
        """Take note that the files offered for these clips gave none."""
        ...

    def may_come(self, keys: Collection[str]) -> dict[str, str]:
        """When all has been offered: those of the clips that may lie in what could not be read this time, and why."""
        ...

    def room(self, wanted: Sequence[Wanted]) -> str:
        """What is on the disk at a time besides clips, for people, if these clips are to be looked for."""
        ...


Round = tuple[Listed, ...] | Streamed
"""Sources that are asked together: listed ones, or one that is read as a whole."""
