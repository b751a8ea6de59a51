"""Videos in local folders, in whatever layout people have them: which file can serve which clip.

A file is known by the first 11 characters of its name, never by splitting at ``_`` (one id in seven has one). A name
with times is a trimmed clip and must match the row to the second; a name without is a trimmed clip or the whole video,
which the user says or its length tells, so that is left to the worker that opens it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.clips.sources.candidates import Candidate, VideosAre, Wanted
from k710.clips.sources.file_names import SUFFIXES as SUFFIXES
from k710.clips.sources.file_names import FileNames, NamedFile, holds_youtube_id, times_of
from k710.clips.sources.scan import scan
from k710.config import load_releases
from k710.segments import Segment, is_youtube_id

NO_ID = "no id in its name"
UNKNOWN_ID = "no annotation names its id"
OTHER_TIMES = "its times are no annotation's"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Unclaimed:
    """A video file that no annotation row can use."""

    path: str
    """Where it is."""
    reason: str
    """``NO_ID``, ``UNKNOWN_ID`` or ``OTHER_TIMES``."""


class LocalFolders:
    """The video files under some folders, in order of preference."""

    def __init__(self, folders: Sequence[Path], videos_are: VideosAre = "auto") -> None:
        """Read all file names once.

        Raises:
            UsageError: a folder is missing, or it or one in it cannot be listed.
        """
        self.names = tuple(str(folder) for folder in folders)
        self.videos_are: VideosAre = videos_are
        self._files = scan(folders)
        self.num_files = len(self._files)

    def candidates(
        self, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]]
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the files to try, best first; an empty tuple where there is none.

        First come those of the first folder given; of one folder, replacements of broken files, then names with the
        clip's times, then the others, each by path.

        Args:
            wanted: the clips.
            rivals: for each video with several segments in any list, wanted here or not, all of them: an untimed file
                may be any one of them.
        """
        return named_files(self._files, wanted, rivals, self.videos_are)

    def unclaimed(self, segments: Iterable[Segment]) -> list[Unclaimed]:
        """The video files that serve none of ``segments``, by path.

        Args:
            segments: of every annotation row, whether a view takes it or not; in any order, some of them twice.
        """
        claimed: set[str] = set()
        near: set[str] = set()
        any_text_is_an_id = False
        for segment in segments:
            any_text_is_an_id = any_text_is_an_id or not is_youtube_id(segment.id)
            for file in self._files.of(segment):
                (claimed if file.times in (None, times_of(segment)) else near).add(file.path)
        return sorted(
            Unclaimed(path=file.path, reason=_reason(file, near, any_text_is_an_id))
            for file in self._files.all_files()
            if file.path not in claimed
        )


def named_files(
    files: FileNames, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]], videos_are: VideosAre
) -> list[tuple[Candidate, ...]]:
    """For each clip the files that are named after it, or after its video, best first."""
    return [tuple(_for_clip(files, item, rivals.get(item.segment.id, (item,)), videos_are)) for item in wanted]


def _for_clip(files: FileNames, item: Wanted, siblings: Sequence[Wanted], videos_are: VideosAre) -> Iterator[Candidate]:
    wanted = times_of(item.segment)
    for file in files.of(item.segment):
        if file.times == wanted:
            yield Candidate(path=file.path, timed=True, may_be_trimmed=True)
        elif file.times is None:
            yield Candidate(
                path=file.path,
                timed=False,
                may_be_trimmed=_has_claim(item, siblings, file.folder.path),
                videos_are=videos_are,
            )


def _has_claim(item: Wanted, siblings: Sequence[Wanted], folder: str) -> bool:
    """Whether an untimed trimmed file can only be this segment's: it is the only one, or the path names its release."""
    if len(siblings) == 1:
        return True
    named = _releases_in(folder)
    return [s for s in siblings if s.releases & named] == [item]


@functools.lru_cache(maxsize=4096)
def _releases_in(folder: str) -> frozenset[str]:
    """Releases that a folder, or one that it is in, is called by."""
    # The folder that the command is run in says nothing about an object store.
    own = folder.split("/") if "://" in folder else Path(folder).absolute().parts
    parts = {part.lower() for part in own}
    return frozenset(name for name, release in load_releases().items() if parts & set(release.aliases))


def _reason(file: NamedFile, near: set[str], any_text_is_an_id: bool) -> str:
    if file.path in near:
        return OTHER_TIMES
    return UNKNOWN_ID if any_text_is_an_id or holds_youtube_id(file.video) else NO_ID
