"""Two clips whose frames do not lie over each other exactly: one runs a little faster, or lost frames.

Each sample is compared, by its hash, with those of the other clip some tenths of a second around its own time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.fingerprints.bands import MIRROR, distances
from k710.fingerprints.frames import RATE_HZ, FrameHashes, Hashes

Bits = npt.NDArray[np.int16]

_UNKNOWN = 1 << 10
"""Distance where a sample tells nothing."""
_SLACK = 2.0
"""How much closer two clips may be where too little of them lies over each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """Where the frames of two clips are closest."""

    offset: int
    """How many samples after the first clip's start the second one starts."""
    distance: float
    """Typical number of bits, of 256, between a sample and the nearest around its time."""
    elsewhere: float
    """The same at offsets a second or more away; 256 where there are none."""
    is_mirrored: bool
    """Whether one is the other's mirror image."""


def drifting(a: FrameHashes, b: FrameHashes, samples: int, overlap: float, least: int) -> Drift | None:
    """The offset, and the form of each picture, at which ``a`` and ``b`` agree best; None: at none that counts.

    Args:
        a: a clip.
        b: another one.
        samples: how many around the same time are looked at, on both sides.
        overlap: least part of the shorter clip that must lie over the other one.
        least: least samples that must.
    """
    telling = a.is_telling[:, None] & b.is_telling[None, :]
    shorter = int(min(a.is_telling.sum(), b.is_telling.sum()))
    if shorter < least:
        return None
    found = []
    for first, second, is_mirrored in _forms(a, b):
        apart = np.where(telling, distances(first, second), _UNKNOWN).astype(np.int16)
        drift = _laid_over(_least_around(apart, samples), max(least, overlap * shorter), least, is_mirrored=is_mirrored)
        found += [] if drift is None else [drift]
    return min(found, key=lambda d: d.distance, default=None)


def _forms(a: FrameHashes, b: FrameHashes) -> list[tuple[Hashes, Hashes, bool]]:
    pairs = [(a.whole, b.whole), (a.middle, b.whole), (a.whole, b.middle)]
    return [(x, y, False) for x, y in pairs] + [(x, y ^ MIRROR, True) for x, y in pairs]


def _least_around(apart: Bits, samples: int) -> Bits:
    """Per pair of samples the least distance of the first to any of ``samples`` around the second, on both sides."""
    least = apart.copy()
    for step in range(1, min(samples, apart.shape[1] - 1) + 1):
        least[:, step:] = np.minimum(least[:, step:], apart[:, :-step])
        least[:, :-step] = np.minimum(least[:, :-step], apart[:, step:])
    return np.where(apart < _UNKNOWN, least, _UNKNOWN).astype(np.int16)


def _laid_over(apart: Bits, enough: float, least: int, *, is_mirrored: bool) -> Drift | None:
    """The offset at which the matrix of distances [samples of a, samples of b] is least along its diagonal."""
    by_offset = _diagonals(apart)
    num = (by_offset < _UNKNOWN).sum(axis=1)
    is_enough = num >= enough
    if not is_enough.any():
        return None
    typical = _medians(by_offset, num)
    best = int(np.argmin(np.where(is_enough, typical, np.inf)))
    beyond = typical[~is_enough & (num >= least)]
    if len(beyond) and typical[best] > beyond.min() + _SLACK:
        return None
    # Offsets with half a second of samples say what is elsewhere; fewer might be anything.
    away = (np.abs(np.arange(len(num)) - best) >= RATE_HZ) & (num >= RATE_HZ // 2)
    return Drift(
        offset=best - (apart.shape[1] - 1),
        distance=float(typical[best]),
        elsewhere=float(np.median(typical[away])) if away.any() else 256.0,
        is_mirrored=is_mirrored,
    )


def _diagonals(apart: Bits) -> Bits:
    """The diagonals as rows, the one of the lower left corner's opposite first; unknown where there is none.

    Row ``r`` holds the pairs in which sample ``i`` of the first clip meets sample ``i - (r - (M - 1))`` of the second.
    """
    height, width = apart.shape
    rows = np.full((height + width - 1, height), _UNKNOWN, dtype=apart.dtype)
    i, j = np.indices(apart.shape)
    rows[i - j + width - 1, i] = apart
    return rows


def _medians(rows: Bits, num: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The median of what is known in each row; infinite where nothing is."""
    ordered = np.sort(rows, axis=1)
    at = np.arange(len(rows))
    low, high = np.maximum(num - 1, 0) // 2, np.minimum(num // 2, rows.shape[1] - 1)
    found = (ordered[at, low].astype(np.float64) + ordered[at, high]) / 2
    return np.where(num > 0, found, np.inf)
