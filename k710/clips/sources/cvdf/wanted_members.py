"""The clips that are still wanted, by the names that members of archives may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from k710.clips.sources.candidates import Wanted
from k710.clips.sources.cvdf.places import Place, Row, has_claim
from k710.clips.sources.file_names import spellings, split_times, times_of
from k710.segments import is_youtube_id

RowsOf = Callable[[Wanted], tuple[Row, ...]]
"""Gives the annotation rows of a clip."""

_PREFIX = "v_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A clip that a member may serve."""

    key: str
    """The clip."""
    timed: bool
    """Whether the member's name has the clip's times."""


class WantedMembers:
    """What to look for in archives; a clip that was offered is looked for no more."""

    def __init__(self, wanted: Mapping[str, Wanted], rows_of: RowsOf, rivals: Mapping[str, Sequence[Wanted]]) -> None:
        """Take ``wanted``, by key; ``rivals`` are all segments of each video that has several."""
        self._items, self._rows_of, self._rivals = dict(wanted), rows_of, rivals
        self._left = set(self._items)
        self._left_by_row = Counter(row for item in self._items.values() for row in rows_of(item))
        self._keys: dict[str, tuple[str, ...]] = {}
        for key, item in self._items.items():
            for video in _names(item.segment.id):
                self._keys[video] = (*self._keys.get(video, ()), key)

    def matches(self, name: str, place: Place) -> list[Match]:
        """The clips that are looked for and that a member called ``name`` may serve."""
        video, times = split_times(PurePosixPath(name).stem)
        keys = (*self._keys.get(video, ()), *self._keys.get(video.removeprefix(_PREFIX), ()))
        found: dict[str, Match] = {}
        for key in keys:
            if key not in self._left:
                continue
            segment = self._items[key].segment
            for spelling, ending in spellings(segment.id):
                # An opaque id may itself end like times: these are then none.
                if spelling != video or ending not in (None, times):
                    continue
                named = times if ending is None else None
                if named in (None, times_of(segment)) and any(map(place.may_hold, self.rows(key))):
                    found.setdefault(key, Match(key=key, timed=named is not None))
        return list(found.values())

    def has_claim(self, key: str, place: Place) -> bool:
        """Whether an untimed trimmed video in an archive can only be the clip ``key``."""
        item = self._items[key]
        siblings = self._rivals.get(item.segment.id, (item,))
        segments = [sibling.segment for sibling in siblings]
        if item.segment not in segments:
            return False
        return has_claim(place.release, [s.releases for s in siblings], segments.index(item.segment))

    def may_be_in(self, place: Place) -> bool:
        """Whether a clip that is looked for may be in an archive of this place."""
        return any(left and place.may_hold(row) for row, left in self._left_by_row.items())

    def are_among(self, names: Sequence[str], place: Place) -> bool:
        """Whether a clip that is looked for is among members of these names."""
        return any(self.matches(name, place) for name in names)

    def is_left(self, key: str) -> bool:
        """Whether the clip is looked for."""
        return key in self._left

    def took(self, key: str) -> None:
        """Look for the clip no more."""
        if key in self._left:
            self._left.discard(key)
            self._left_by_row.subtract(self.rows(key))

    def lost(self, key: str) -> None:
        """Look for the clip again."""
        if key in self._items and key not in self._left:
            self._left.add(key)
            self._left_by_row.update(self.rows(key))

    def rows(self, key: str) -> tuple[Row, ...]:
        """The annotation rows of a clip; none of one that was not asked for."""
        return self._rows_of(self._items[key]) if key in self._items else ()

    def all_rows(self) -> set[Row]:
        """The annotation rows of all clips."""
        return set(self._left_by_row)


def _names(video_id: str) -> Iterator[str]:
    """Names of the video under which its clips are found; of YouTube ids, which are many, the plain one alone."""
    if is_youtube_id(video_id):
        yield video_id
    else:
        yield from dict.fromkeys(video for video, _ in spellings(video_id))
