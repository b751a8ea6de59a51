"""Video files by what their names say: an id, and the times of a trimmed clip. Nothing is opened.

A file is kept as numbers: which folder, and which ending its name has after the id (files that start at the same second
share it), so that a full copy of Kinetics takes some 150 bytes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from k710.clips.containers import SUFFIXES as SUFFIXES
from k710.segments import Segment, is_youtube_id, safe_id

Times = tuple[int, int]
"""Start and end in a name, milliseconds."""

_ENDING_BITS = 32
_ENDING_MASK = (1 << _ENDING_BITS) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A folder with video files."""

    path: str
    """Where it is."""
    order: int
    """Which of the folders given it is in, from 0."""
    is_replacement: bool
    """Whether it holds replacements of broken files, by the name of a folder on the way to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFile:
    """A video file, as its name describes it."""

    path: str
    """With the folder's."""
    video: str
    """The name without times: a YouTube id, also after ``v_``, or any text."""
    folder: Folder
    """Where it is."""
    times: Times | None
    """The times in its name."""


class FileNames:
    """Video files by the name of their video, each once."""

    def __init__(self) -> None:
        self.folders: list[Folder] = []
        self._places: dict[str, int | list[int]] = {}
        self._endings: list[tuple[str, Times | None]] = []
        self._ending_codes: dict[str, int] = {}

    def __len__(self) -> int:
        """Files that are known."""
        return sum(1 if isinstance(places, int) else len(places) for places in self._places.values())

    def add(self, folder: Folder, names: Iterable[str]) -> list[str]:
        """Take in the video files of a folder; returns the names of their videos."""
        number = len(self.folders) << _ENDING_BITS
        self.folders.append(folder)
        videos = []
        for name in names:
            # Most names are a YouTube id and an ending seen before.
            video, code = name[:11], self._ending_codes.get(name[11:])
            if code is None:
                video, code = self._parse(name)
            before = self._places.get(video)
            if before is None:
                self._places[video] = number | code
            elif isinstance(before, int):
                self._places[video] = [before, number | code]
            else:
                before.append(number | code)
            videos.append(video)
        return videos

    def of(self, segment: Segment) -> list[NamedFile]:
        """Files of the video that ``segment`` is of, best first: by folder given, replacements, timed, path."""
        found = [
            file if times is None else replace(file, times=None)
            for video, times in spellings(segment.id)
            for file in self._files(video)
            if times is None or file.times == times
        ]
        if len(found) > 1:
            found.sort(key=lambda file: (*self._rank(file), file.times is None, file.path))
        return found

    def all_files(self) -> Iterator[NamedFile]:
        """Every file, in no order."""
        for video in self._places:
            yield from self._files(video)

    def count_once(self, videos: Iterable[str]) -> None:
        """Of several names that symbolic links give one file, keep the best, if they name the same video and times."""
        for video in videos:
            places = self._places[video]
            if isinstance(places, int):
                continue
            by_rank = sorted(
                zip(self._files(video), places, strict=True), key=lambda pair: (*self._rank(pair[0]), pair[0].path)
            )
            kept: dict[tuple[Times | None, object], int] = {}
            for file, place in by_rank:
                kept.setdefault((file.times, _identity(file.path)), place)
            self._places[video] = list(kept.values())

    def _files(self, video: str) -> Iterator[NamedFile]:
        places = self._places.get(video, ())
        for place in [places] if isinstance(places, int) else places:
            folder = self.folders[place >> _ENDING_BITS]
            ending, times = self._endings[place & _ENDING_MASK]
            yield NamedFile(path=f"{folder.path}/{video}{ending}", video=video, folder=folder, times=times)

    @staticmethod
    def _rank(file: NamedFile) -> tuple[int, bool]:
        return file.folder.order, not file.folder.is_replacement

    def _parse(self, name: str) -> tuple[str, int]:
        dot = name.rindex(".")
        video, times = split_times(name[:dot])
        ending = name[len(video) :]
        code = self._ending_codes.get(ending)
        if code is None:
            code = self._ending_codes[ending] = len(self._endings)
            self._endings.append((ending, times))
        return video, code


def split_times(stem: str) -> tuple[str, Times | None]:
    """A name without its suffix as video and times: ``_`` and 6 digits of seconds, or 9 of milliseconds, twice."""
    for digits, unit_ms in ((6, 1000), (9, 1)):
        start, end = stem[-2 * digits - 1 : -digits - 1], stem[-digits:]
        is_number = len(start + end) == 2 * digits and (start + end).isascii() and (start + end).isdecimal()
        video = stem[: -2 * digits - 2]
        if video and is_number and stem[len(video)] == stem[-digits - 1] == "_":
            return video, (int(start) * unit_ms, int(end) * unit_ms)
    return stem, None


def times_of(segment: Segment) -> Times:
    """The times that the name of a trimmed file of ``segment`` has."""
    return round(segment.start_s * 1000), round(segment.end_s * 1000)


def holds_youtube_id(video: str) -> bool:
    """Whether the name of a video is a YouTube id, also after ActivityNet's ``v_``."""
    return is_youtube_id(video) or (video.startswith("v_") and is_youtube_id(video[2:]))


def spellings(video_id: str) -> Iterator[tuple[str, Times | None]]:
    """How files of a video may be called, and what of an id that ends like times is taken for times."""
    if is_youtube_id(video_id):
        yield video_id, None
        yield f"v_{video_id}", None
        return
    for name in dict.fromkeys((video_id, safe_id(video_id))):
        yield name, None
        video, times = split_times(name)
        if times:
            yield video, times


def _identity(path: str) -> object:
    """What two names of one file have in common."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - names are text here, for speed
    except OSError:
        return path
    return facts.st_dev, facts.st_ino
