"""Which archive can hold which clip: by release, split and class, as far as the names of archives and folders tell."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from k710.config import Release, load_releases
from k710.fetch.published import archive_stem
from k710.labels import load_labels

Row = tuple[str, str, str]
"""An annotation row of a clip: release, split and class name; empty where it is not known."""

_REPLACEMENT = "replacement"
_WORD = re.compile(r"[^a-z0-9]+")
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an archive stands among the published ones; empty: that is not known, or it is of all."""

    release: str = ""
    """Whose videos it has."""
    split: str = ""
    """Of which split."""
    label: str = ""
    """Of which class, folded, where each class has an archive of its own."""
    is_replacement: bool = False
    """Whether its videos stand in for broken ones."""

    def may_hold(self, row: Row) -> bool:
        """Whether the clip of an annotation row may be in the archive."""
        if not self.release:
            return True
        release, split, label = row
        if self.release not in publishing(release):
            return False
        if self.split and split in _published_splits(self.release) and split != self.split:
            return False
        folded = fold(label)
        # A class that the published release does not have is the user's own word: nobody knows where it is.
        return not self.label or self.label == folded or folded not in class_names(self.release)


class Places:
    """The places of some archives, asked for many clips."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._by_place: dict[Place, list[int]] = {}
        for number, place in enumerate(places):
            self._by_place.setdefault(place, []).append(number)
        self._found: dict[Row, tuple[int, ...]] = {}

    def holding(self, rows: Iterable[Row]) -> tuple[int, ...]:
        """Numbers of the archives that may hold the clip of these rows, in their order."""
        found = {number for row in rows for number in self._of(row)}
        return tuple(sorted(found))

    def _of(self, row: Row) -> tuple[int, ...]:
        if row not in self._found:
            found = [n for place, numbers in self._by_place.items() if place.may_hold(row) for n in numbers]
            self._found[row] = tuple(found)
        return self._found[row]


def published_place(release: str, split: str, name: str, *, is_replacement: bool) -> Place:
    """The place of the published archive called ``name``."""
    label = "" if is_replacement else _class_of(release, name)
    return Place(release=release, split=split, label=label, is_replacement=is_replacement)


def place_of(path: PurePath, *, below: int) -> Place:
    """The place of a user's archive, by the names of the folders that it is in.

    Args:
        path: where it is; absolute.
        below: how many of the parts of ``path`` are those of the folder that the user gave.
    """
    folders = [part.lower() for part in path.parts[:-1]]
    names = [(number, name) for number, part in enumerate(folders) if (name := _release_called(part))]
    own = [*folders[below:], path.name.lower()]
    is_replacement = any(part.startswith(_REPLACEMENT) for part in own)
    if not names:
        return Place(is_replacement=is_replacement)
    deepest, release = names[-1]
    splits = [part for part in folders[deepest + 1 :] if part in _published_splits(release)]
    if is_replacement:
        return Place(release=release, is_replacement=True)
    return Place(release=release, split=splits[-1] if splits else "", label=_class_of(release, path.name))


def in_order(path: str) -> list[tuple[int, str]]:
    """A key to sort by in which ``part_2`` stands before ``part_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(path) if part]


@functools.cache
def publishing(release: str) -> tuple[str, ...]:
    """The releases whose archives may hold the videos of ``release``: itself, if its own are published.

    Those of Kinetics-700 are not; most of them are in the archives of Kinetics-700-2020, which has its classes.
    """
    known = load_releases()
    if release not in known or _published_splits(release):
        return (release,)
    same = (r for r in known.values() if r.taxonomy == known[release].taxonomy)
    return (release, *(r.name for r in same if r.name != release and _published_splits(r.name)))


def splits_of(release: str, split: str) -> tuple[str, ...]:
    """The published splits in whose archives a clip of this split may be; all where it has none of its own."""
    published = _published_splits(release)
    return (split,) if split in published else published


def has_claim(release: str, segment_releases: Sequence[Collection[str]], own: int) -> bool:
    """Whether an untimed trimmed video in an archive can only be of one of several segments of the video.

    Args:
        release: of the archive; empty: not known.
        segment_releases: for each segment of the video the releases with a row for it.
        own: which of them.
    """
    if len(segment_releases) == 1:
        return True
    named = [n for n, releases in enumerate(segment_releases) if any(release in publishing(r) for r in releases)]
    return named == [own]


def fold(name: str) -> str:
    """The name of a class or an archive without what people write differently: case, signs, spaces."""
    return _WORD.sub("", name.lower())


@functools.cache
def class_names(release: str) -> frozenset[str]:
    """The class names of a release, folded."""
    return frozenset(fold(name) for name in load_labels().taxonomy_names(load_releases()[release].taxonomy))


def _class_of(release: str, name: str) -> str:
    stem = fold(archive_stem(name) or name)
    return stem if stem in class_names(release) else ""


@functools.cache
def _published_splits(release: str) -> tuple[str, ...]:
    known = load_releases().get(release)
    return tuple(file.split for file in known.published if file.what == "path_list") if known else ()


@functools.lru_cache(maxsize=4096)
def _release_called(folder: str) -> str:
    """The release that a folder is named after, also as CVDF's scripts name it (``k400_targz``); empty: none."""
    found: list[Release] = [r for r in load_releases().values() if folder.removesuffix("_targz") in r.aliases]
    return found[0].name if found else ""
