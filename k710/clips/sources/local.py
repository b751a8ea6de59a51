"""Videos in local folders, in whatever layout people have them: which file can serve which clip.

A file is known by the first 11 characters of its name, never by splitting at ``_`` (one id in seven has one). A name
with times is a trimmed clip and must match the row to the second; a name without is a trimmed clip or the whole video,
which only its length tells, so that is left to the worker that opens it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.config import load_releases
from k710.errors import UsageError
from k710.segments import Segment

SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".3gp", ".wmv", ".ts"})
_NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d{6})_(\d{6})|_(\d{9})_(\d{9}))?")

_LOCK = "k710.lock.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that may serve a clip."""

    path: str
    """Where it is."""
    timed: bool
    """Whether its name has the clip's times: then it is trimmed."""
    may_be_trimmed: bool
    """Whether it may be taken as trimmed when its length fits; False where another segment has the better claim."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    path: str
    order: int
    times: tuple[float, float] | None


class LocalFolders:
    """The video files under some folders, in order of preference."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read all file names once.

        Raises:
            UsageError: a folder is missing, or it or one in it cannot be listed.
        """
        self.names = tuple(str(folder) for folder in folders)
        self.num_files = 0
        self._by_id: dict[str, list[_File]] = {}
        for order, folder in enumerate(folders):
            if not folder.is_dir():
                raise UsageError(
                    f"{folder}: no such folder", hint="--videos takes a folder of video files, and may be repeated"
                )
            for path in _video_files(folder):
                self._add(path, order)
        for files in self._by_id.values():
            files.sort(key=lambda f: (f.order, f.times is None, f.path))

    def candidates(
        self, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]]
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the files to try, best first; an empty tuple where there is none.

        Args:
            wanted: the clips.
            rivals: for each video with several segments in any list, wanted here or not, all of them: an untimed file
                may be any one of them.
        """
        return [tuple(self._for_clip(item, rivals.get(item.segment.id, (item,)))) for item in wanted]

    def _add(self, path: str, order: int) -> None:
        match = _NAME.fullmatch(Path(path).stem)
        if match is None:
            return
        self.num_files += 1
        seconds = [float(t) for t in match.group(2, 3) if t] or [int(t) / 1000 for t in match.group(4, 5) if t]
        times = (seconds[0], seconds[1]) if seconds else None
        self._by_id.setdefault(match.group(1), []).append(_File(path=path, order=order, times=times))

    def _for_clip(self, item: Wanted, siblings: Sequence[Wanted]) -> Iterator[Candidate]:
        segment = item.segment
        for file in self._by_id.get(segment.id, ()):
            if file.times == (segment.start_s, segment.end_s):
                yield Candidate(path=file.path, timed=True, may_be_trimmed=True)
            elif file.times is None:
                yield Candidate(path=file.path, timed=False, may_be_trimmed=_has_claim(item, siblings, file.path))


def _has_claim(item: Wanted, siblings: Sequence[Wanted], path: str) -> bool:
    """Whether an untimed trimmed file can only be this segment's: it is the only one, or the path names its release."""
    if len(siblings) == 1:
        return True
    named = _releases_in(path)
    return [s for s in siblings if s.releases & named] == [item]


def _releases_in(path: str) -> set[str]:
    parts = {part.lower() for part in Path(path).parts[:-1]}
    return {name for name, release in load_releases().items() if parts & set(release.aliases)}


def _video_files(folder: Path) -> Iterator[str]:
    for root, folders, names in os.walk(folder, onerror=_refuse):
        if _LOCK in names:
            # A build among the videos: its cache would pass for sources, and clips would be encoded twice over.
            folders.clear()
            continue
        folders.sort()
        for name in sorted(names):
            # `._*` are AppleDouble files, which some published archives carry.
            if not name.startswith("._") and Path(name).suffix.lower() in SUFFIXES:
                yield f"{root}/{name}"


def _refuse(error: OSError) -> None:
    """Name a folder that cannot be listed, whose videos would count as missing."""
    raise UsageError(
        f"{error.filename}: cannot be listed ({error.strerror})",
        hint="make it readable, or give --videos the folders beside it",
    ) from error
