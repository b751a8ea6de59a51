"""What two clips have in common in how their brightness changes, at every offset at which they can meet.

A hash says what a frame shows, and frames of the same place at another time show the same. What moves, and be it the
grain of a camera on a tripod, is the same in a copy alone.

Axes: T sample times, F fields of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.fingerprints.frames import FIELDS, LIGHT_STEPS, Light

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NOTHING = 1e-9
"""Where nothing moves at all, its square; of brightness 0 to 255."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlaps:
    """Two clips at each offset; sample ``i`` of the first one meets sample ``i - offset`` of the second."""

    offset: Ints
    """The offsets, ascending."""
    num: Ints
    """Samples that lie over each other."""
    together: Floats
    """Correlation of what moves: of brightness less its mean in each field; 1 where all moves alike."""
    rest: Floats
    """What the pictures differ by, as part of what moves: near 0 in a copy, 1 and more in two shots of one place. A
    copy may be brighter and of more contrast."""
    error: Floats
    """What the pictures differ by: standard deviation, brightness of 0 to 255."""
    moving: Floats
    """What moves in the clip in which less does: standard deviation, brightness of 0 to 255."""


def overlaps(a: Light, b: Light, least: int) -> Overlaps:
    """``a`` [T, F] and ``b`` [T, F] at each offset at which ``least`` samples or more lie over each other.

    Neither may have fewer.
    """
    offset = np.arange(least - len(b), len(a) - least + 1)
    first, last = np.maximum(0, offset), np.minimum(len(a), len(b) + offset)
    num = last - first
    one, two = (light.astype(np.float64) / LIGHT_STEPS for light in (a, b))
    # Sums of squares of large numbers lose what is small; the mean plays no part.
    one, two = one - one.mean(), two - two.mean()
    dots = _diagonal_sums(one @ two.T, offset)
    sum_a, square_a = _windows(one, first, last)
    sum_b, square_b = _windows(two, first - offset, last - offset)
    moves = [_less(s, (t * t).sum(axis=1) / num) for s, t in ((square_a, sum_a), (square_b, sum_b))]
    shared = dots - (sum_a * sum_b).sum(axis=1) / num
    size = num * one.shape[1]
    total = [_less(s, t.sum(axis=1) ** 2 / size) for s, t in ((square_a, sum_a), (square_b, sum_b))]
    alike = (dots - sum_a.sum(axis=1) * sum_b.sum(axis=1) / size) / np.sqrt(total[0] * total[1])
    unlike = 1 - np.clip(alike, 0, 1) ** 2
    part_moving = np.minimum(moves[0] / total[0], moves[1] / total[1])
    return Overlaps(
        offset=offset,
        num=num,
        together=shared / np.sqrt(moves[0] * moves[1]),
        rest=np.sqrt(unlike / part_moving),
        error=np.sqrt(unlike * total[0] / size),
        moving=np.sqrt(np.minimum(moves[0], moves[1]) / size),
    )


def moved(light: Light) -> float:
    """What moves in a clip: standard deviation of brightness less its mean in each field, of 0 to 255."""
    return float(np.sqrt(((light - light.mean(axis=0)) ** 2).mean()) / LIGHT_STEPS)


def mirrored(light: Light) -> Light:
    """The brightness of the mirror images."""
    found: Light = light.reshape(-1, FIELDS, FIELDS)[:, :, ::-1].reshape(light.shape)
    return found


def _windows(light: Floats, first: Ints, last: Ints) -> tuple[Floats, Floats]:
    """For each window of samples the sum of each field [window, F], and the sum of all squares [window]."""
    sums = np.concatenate([np.zeros((1, light.shape[1])), np.cumsum(light, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum((light * light).sum(axis=1))])
    return sums[last] - sums[first], squares[last] - squares[first]


def _diagonal_sums(products: Floats, offset: Ints) -> Floats:
    """For each offset the sum over pairs of samples that lie over each other."""
    height, width = products.shape
    i, j = np.indices(products.shape)
    sums = np.bincount((i - j + width - 1).ravel(), weights=products.ravel(), minlength=height + width - 1)
    found: Floats = sums[offset + width - 1]
    return found


def _less(squares: Floats, of_means: Floats) -> Floats:
    found: Floats = np.maximum(squares - of_means, _NOTHING)
    return found
