"""Which frames of a video make a clip, and at what constant rate: arithmetic on the times of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
"""Seconds, ascending."""

_ENOUGH = 3
"""Frames that tell the rate of a part of a video whose rate varies."""
_FALLBACK = Fraction(25)
"""Rate of a video that tells none: a single frame without a duration, or frames that are all at one time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The frames that a clip is made of."""

    first_s: float
    """Time of the first frame in the file, counted from the file's start."""
    start_s: float
    """Time in the file at which the clip starts: that of its first frame, or later when frames are held for long."""
    rate: Fraction
    """Frames a second of the clip."""
    variable: bool
    """Whether the distance between frames varies, so that frames are repeated and dropped to get ``rate``."""
    num_frames: int
    """Frames of the clip, at least one."""

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return float(self.num_frames / self.rate)


def cut_out(times_s: Times, tick_s: float, declared: Fraction | None, *, start_s: float, end_s: float) -> Cut:
    """The frames from the one that is shown at ``start_s`` to the one before ``end_s``.

    Args:
        times_s: when each frame of the video is shown; not empty.
        tick_s: unit in which the file counts time.
        declared: rate that the file names.
        start_s: start of the segment.
        end_s: its end, later than the start and the video's first frame.
    """
    first = max(0, int(np.searchsorted(times_s, start_s + min(tick_s / 2, 5e-4), side="right")) - 1)
    window_s = times_s[first : max(first + 1, int(np.searchsorted(times_s, end_s)))]
    rate, variable = rate_of(times_s, tick_s, declared)
    if variable and len(window_s) >= _ENOUGH:
        rate, variable = rate_of(window_s, tick_s, declared)
    begins_s = max(start_s, float(times_s[first])) if variable else float(times_s[first])
    # The frame that is shown at the start may have begun before it; the clip lasts as long as the segment all the same.
    end_s = min(end_s, float(times_s[-1] + 1 / rate))
    num_frames = max(1, round((end_s - max(start_s, begins_s)) * rate))
    if not variable:
        num_frames = min(num_frames, len(times_s) - first)
    return Cut(first_s=float(times_s[first]), start_s=begins_s, rate=rate, variable=variable, num_frames=num_frames)


def keep_all(times_s: Times, tick_s: float, declared: Fraction | None) -> Cut:
    """Every frame of a trimmed video."""
    rate, variable = rate_of(times_s, tick_s, declared)
    first_s = float(times_s[0])
    return Cut(first_s=first_s, start_s=first_s, rate=rate, variable=variable, num_frames=len(times_s))


def rate_of(times_s: Times, tick_s: float, declared: Fraction | None) -> tuple[Fraction, bool]:
    """Average rate of frames shown at these times, and whether it varies.

    It is constant when no frame stands further than half a frame from where that rate would put it.
    """
    span_s = float(times_s[-1] - times_s[0])
    if len(times_s) < 2 or span_s <= 0:
        return declared or _FALLBACK, False
    step_s = span_s / (len(times_s) - 1)
    off_s = float(np.abs(times_s - times_s[0] - step_s * np.arange(len(times_s))).max())
    if off_s > max(step_s / 2, 1.5 * tick_s):
        typical_s = float(np.median(np.diff(times_s)))
        return _simple(len(times_s) / (span_s + typical_s)), True
    return _named(1 / step_s, 2 * tick_s / span_s + 1e-6, declared), False


def _named(rate: float, tolerance: float, declared: Fraction | None) -> Fraction:
    """The rate that the file names or people use, when what was measured cannot be told from it."""
    common = [Fraction(round(rate)), Fraction(round(rate * 1.001) * 1000, 1001)]
    common.sort(key=lambda candidate: abs(candidate - Fraction(rate)))
    # Containers that do not store a rate make one up from times that they have rounded: 989/33 for 30000/1001.
    named = [] if declared is None else [declared]
    for candidate in named + common if declared in common else common + named:
        if candidate > 0 and abs(float(candidate) / rate - 1) <= tolerance:
            return candidate
    return _simple(rate)


def _simple(rate: float) -> Fraction:
    # A slide show has less than one frame in 1001 seconds.
    return Fraction(rate).limit_denominator(1001) or Fraction(rate).limit_denominator(10**9)
