"""Near-duplicates among fingerprints: proposed by the index, then laid over each other frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from k710.fingerprints.bands import DULL, MIRROR, BandSettings, Entries, Ints, close_owners, distances
from k710.fingerprints.frames import HASH_BYTES, LEAST_QUALITY, FrameHashes, Hashes
from k710.fingerprints.matching import Match, MatchSettings, compare
from k710.fingerprints.moments import calm_moments

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""

_TOLD_EVERY = 100
_DULL_QUALITY = 2 * LEAST_QUALITY
"""Twice what is dull: a copy has lost some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How near-duplicates are looked for, and what counts as one."""

    index: BandSettings = field(default_factory=BandSettings)
    """Which pairs are proposed."""
    dull: BandSettings = DULL
    """Which pairs of dull clips are."""
    match: MatchSettings = field(default_factory=MatchSettings)
    """Which of them are near-duplicates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NearDuplicate:
    """Two clips that show the same frames."""

    a: int
    """Position of one of them; smaller than ``b``."""
    b: int
    """Position of the other."""
    match: Match
    """How they lie over each other."""


class Index:
    """The calm moments of clips that are added one after the other, those of dull clips also by themselves."""

    def __init__(self) -> None:
        self._clips, self._dull = _Moments(), _Moments()

    def add(self, position: int, frames: FrameHashes) -> None:
        """Take in the clip at ``position``."""
        self._clips.add(position, frames, calm_moments(frames))
        if is_dull(frames):
            self._dull.add(position, frames, calm_moments(frames, dull=True))

    def candidates(self, settings: SearchSettings) -> Ints:
        """Pairs of positions that may be near-duplicates, [pair, 2], each once, the smaller first, ascending.

        The index is empty then.
        """
        found = np.concatenate([self._clips.close(settings.index), self._dull.close(settings.dull)])
        return np.unique(found, axis=0)


class _Moments:
    """Moments by which clips are found."""

    def __init__(self) -> None:
        self._whole: list[Hashes] = []
        self._middle: list[Hashes] = []
        self._owner: list[Ints] = []

    def add(self, position: int, frames: FrameHashes, moments: Ints) -> None:
        self._whole.append(frames.whole[moments])
        self._middle.append(frames.middle[moments])
        self._owner.append(np.full(len(moments), position, dtype=np.int64))

    def close(self, settings: BandSettings) -> Ints:
        """Pairs of clips with moments close to each other; the moments are given up."""
        if not self._owner:
            return np.empty((0, 2), dtype=np.int64)
        entries = Entries(
            whole=np.concatenate(self._whole).reshape(-1, HASH_BYTES),
            middle=np.concatenate(self._middle).reshape(-1, HASH_BYTES),
            owner=np.concatenate(self._owner).astype(np.int32),
        )
        self._whole, self._middle, self._owner = [], [], []
        return close_owners(entries, settings)


def is_dull(frames: FrameHashes) -> bool:
    """Whether the hashes of a clip, or of a copy of it, may say little."""
    return float(np.median(frames.quality)) < _DULL_QUALITY


def find_near_duplicates(clips: Sequence[FrameHashes], settings: SearchSettings | None = None) -> list[NearDuplicate]:
    """All pairs of ``clips`` that show the same frames, in order of their positions."""
    settings = settings or SearchSettings()
    index = Index()
    for position, frames in enumerate(clips):
        index.add(position, frames)
    return verified(index.candidates(settings), dict(enumerate(clips)), settings.match)


def verified(
    pairs: Ints,
    clips: Mapping[int, FrameHashes],
    settings: MatchSettings,
    progress: Progress | None = None,
) -> list[NearDuplicate]:
    """Those of ``pairs`` whose clips do show the same frames, in their order."""
    found = []
    moments: dict[int, Ints] = {}
    for number, (a, b) in enumerate(pairs.tolist(), start=1):
        for position in (a, b):
            if position not in moments:
                moments[position] = calm_moments(clips[position])
        both_dull = is_dull(clips[a]) and is_dull(clips[b])
        if both_dull or _several_moments(clips[a], moments[a], clips[b], moments[b], settings):
            match = compare(clips[a], clips[b], settings)
            found += [] if match is None else [NearDuplicate(a=a, b=b, match=match)]
        if progress is not None and (number % _TOLD_EVERY == 0 or number == len(pairs)):
            progress("near-duplicates", number, len(pairs))
    return found


def _several_moments(a: FrameHashes, of_a: Ints, b: FrameHashes, of_b: Ints, settings: MatchSettings) -> bool:
    """Whether more than one calm moment of one clip is somewhere in the other one.

    To lay two clips over each other costs twenty times as much, and the clips that share no more than a logo are many.
    """
    return _num_found(a, of_a, b, settings) >= min(2, len(of_a)) or _num_found(b, of_b, a, settings) >= min(
        2, len(of_b)
    )


def _num_found(a: FrameHashes, moments: Ints, b: FrameHashes, settings: MatchSettings) -> int:
    whole, middle = a.whole[moments], a.middle[moments]
    wanted = np.concatenate([whole, middle, whole ^ MIRROR, middle ^ MIRROR])
    apart = distances(wanted, b.whole).min(axis=1).reshape(4, -1).min(axis=0)
    cropped = distances(np.concatenate([whole, whole ^ MIRROR]), b.middle).min(axis=1).reshape(2, -1).min(axis=0)
    return int((np.minimum(apart, cropped) <= settings.distance).sum())


def groups(num: int, pairs: Iterable[tuple[int, int]]) -> Ints:
    """Per position of ``num`` the smallest position that it hangs together with by ``pairs``."""
    root = list(range(num))

    def of(position: int) -> int:
        while root[position] != position:
            root[position] = root[root[position]]
            position = root[position]
        return position

    for a, b in pairs:
        first, second = sorted((of(a), of(b)))
        root[second] = first
    return np.array([of(position) for position in range(num)], dtype=np.int64)
