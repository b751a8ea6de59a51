"""Whether two clips show the same frames, by laying their hashes over each other at every time offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.fingerprints.bands import MIRROR, Ints, distances
from k710.fingerprints.frames import RATE_HZ, FrameHashes, Hashes

_UNKNOWN = 1 << 10
"""Distance where a sample tells nothing."""
_FAR_SAMPLES = RATE_HZ
"""Offsets that lie so far from the best one show what the two clips are like when they are not laid over each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchSettings:
    """When two clips are near-duplicates; calibrated by ``bench/near_duplicates.py``."""

    overlap: float = 0.45
    """Least part of the shorter clip that lies over the other one: half of it, and what a cut may be off by."""
    matching: float = 0.6
    """Least part of the samples that lie over each other that must match."""
    distance: int = 88
    """Most bits in which two samples may differ that match, and most of the typical distance of near-duplicates. Fast
    motion moves samples 0.03 s apart so far; frames of different scenes differ in 94 or more."""
    same_distance: float = 20.0
    """Typical distance up to which two clips are the same however they lie: what a new encode and a crop cost."""
    contrast: float = 0.7
    """Above it: most of the typical distance, as part of that at offsets a second or more away. Two shots of one
    place are as far from each other at any offset; a copy is closer at its own."""
    slack: float = 2.0
    """How much closer two clips may be where too little of them lies over each other. In a slow shot that was cut in
    two, the end of one part is closest to the start of the next."""
    drift_samples: int = 3
    """Samples around the same time that may be meant by it, where two clips do not lie over each other exactly."""
    drift_distance: int = 56
    """``distance`` for those."""
    drift_contrast: float = 0.5
    """``contrast`` for those."""
    least_samples: int = 10
    """Samples that must match: a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """How two clips lie over each other where they agree best."""

    frames: int
    """Samples that match, 10 a second."""
    part: float
    """Those, as part of the shorter clip's samples that tell something."""
    offset_s: float
    """How long after the first clip's start the second one starts, seconds; negative: before it."""
    distance: float
    """Typical number of bits, of 256, between samples that lie over each other."""
    beyond: float
    """The least one at offsets at which too little of them would lie over each other; 256 where there are none."""
    elsewhere: float
    """The same at offsets a second or more away; 256 where there are none."""
    is_mirrored: bool
    """Whether one is the other's mirror image."""
    has_drift: bool
    """Whether samples around the same time were compared, too: ``frames`` and ``distance`` are of the nearest."""


def compare(a: FrameHashes, b: FrameHashes, settings: MatchSettings | None = None) -> Match | None:
    """How ``a`` and ``b`` show the same frames; None: they do not, by ``settings``.

    Where they do not lie over each other sample by sample, they may still with a drift: a copy that runs a little
    faster, or whose frames were dropped here and there.
    """
    settings = settings or MatchSettings()
    for drift in (False, True):
        best = best_match(a, b, settings, drift=drift)
        if best is not None and is_near_duplicate(best, settings):
            return best
    return None


def is_near_duplicate(match: Match, settings: MatchSettings) -> bool:
    """Whether clips that agree so well show the same frames, and not the same place at another time."""
    if match.frames < settings.least_samples or match.part < settings.overlap * settings.matching:
        return False
    if match.distance > match.beyond + settings.slack:
        return False
    if match.distance <= settings.same_distance and not match.has_drift:
        return True
    most, contrast = settings.distance, settings.contrast
    if match.has_drift:
        most, contrast = settings.drift_distance, settings.drift_contrast
    return match.distance <= most and match.distance <= contrast * match.elsewhere


def best_match(a: FrameHashes, b: FrameHashes, settings: MatchSettings, *, drift: bool = False) -> Match | None:
    """The offset, and the form of each picture, at which ``a`` and ``b`` agree best; None: too short to tell.

    With ``drift`` each sample is compared with those of the other clip some tenths of a second around its own time.
    """
    telling = a.is_telling[:, None] & b.is_telling[None, :]
    shorter = int(min(a.is_telling.sum(), b.is_telling.sum()))
    if shorter < settings.least_samples:
        return None
    found = []
    for first, second, is_mirrored in _forms(a, b):
        apart = np.where(telling, distances(first, second), _UNKNOWN)
        apart = _least_around(apart, settings.drift_samples) if drift else apart
        match = _laid_over(apart, shorter, settings, is_mirrored=is_mirrored, has_drift=drift)
        found += [] if match is None else [match]
    return min(found, key=lambda m: m.distance, default=None)


def _forms(a: FrameHashes, b: FrameHashes) -> list[tuple[Hashes, Hashes, bool]]:
    pairs = [(a.whole, b.whole), (a.middle, b.whole), (a.whole, b.middle)]
    return [(x, y, False) for x, y in pairs] + [(x, y ^ MIRROR, True) for x, y in pairs]


def _least_around(apart: Ints, samples: int) -> Ints:
    """Per pair of samples the least distance of the first to any of ``samples`` around the second, on both sides."""
    least = apart.copy()
    for step in range(1, min(samples, apart.shape[1] - 1) + 1):
        least[:, step:] = np.minimum(least[:, step:], apart[:, :-step])
        least[:, :-step] = np.minimum(least[:, :-step], apart[:, step:])
    return np.where(apart < _UNKNOWN, least, _UNKNOWN)


def _laid_over(
    apart: Ints, shorter: int, settings: MatchSettings, *, is_mirrored: bool, has_drift: bool
) -> Match | None:
    """The offset at which the matrix of distances [samples of a, samples of b] is least along its diagonal."""
    by_offset = _diagonals(apart)
    known = by_offset < _UNKNOWN
    num = known.sum(axis=1)
    enough = num >= max(settings.least_samples, settings.overlap * shorter)
    if not enough.any():
        return None
    typical = _medians(by_offset, num)
    best = int(np.argmin(np.where(enough, typical, np.inf)))
    beyond = typical[~enough & (num >= settings.least_samples)]
    # Offsets with half a second of samples say what is elsewhere; fewer might be anything.
    away = (np.abs(np.arange(len(num)) - best) >= _FAR_SAMPLES) & (num >= RATE_HZ // 2)
    matching = int((by_offset[best] <= (settings.drift_distance if has_drift else settings.distance)).sum())
    return Match(
        frames=matching,
        part=matching / shorter,
        offset_s=(best - (apart.shape[1] - 1)) / RATE_HZ,
        distance=float(typical[best]),
        beyond=float(beyond.min()) if len(beyond) else 256.0,
        elsewhere=float(np.median(typical[away])) if away.any() else 256.0,
        is_mirrored=is_mirrored,
        has_drift=has_drift,
    )


def _diagonals(apart: Ints) -> Ints:
    """The diagonals as rows, the one of the lower left corner's opposite first; unknown where there is none.

    Row ``r`` holds the pairs in which sample ``i`` of the first clip meets sample ``i - (r - (M - 1))`` of the second.
    """
    height, width = apart.shape
    rows = np.full((height + width - 1, height), _UNKNOWN, dtype=apart.dtype)
    i, j = np.indices(apart.shape)
    rows[i - j + width - 1, i] = apart
    return rows


def _medians(rows: Ints, num: Ints) -> npt.NDArray[np.float64]:
    """The median of what is known in each row; infinite where nothing is."""
    ordered = np.sort(rows, axis=1)
    at = np.arange(len(rows))
    low, high = np.maximum(num - 1, 0) // 2, np.minimum(num // 2, rows.shape[1] - 1)
    found = (ordered[at, low] + ordered[at, high]) / 2
    return np.where(num > 0, found, np.inf)
