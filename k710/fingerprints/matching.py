"""Whether two clips show the same frames, by laying them over each other at every time offset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from k710.fingerprints.bands import MIRROR
from k710.fingerprints.drift import drifting
from k710.fingerprints.frames import RATE_HZ, FrameHashes, Hashes, Light
from k710.fingerprints.motion import Overlaps, mirrored, moved, overlaps

FoundBy = Literal["rest", "motion", "still", "drift"]

_FAR_SAMPLES = RATE_HZ
"""Offsets that lie so far from the best one show what the two clips are like when they are not laid over each other."""
_FEW_SAMPLES = 6
"""Offsets at which fewer samples lie over each other say nothing."""
NO_DISTANCE = 256.0
"""Where no frame of a pair has a hash that says something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchSettings:
    """When two clips are near-duplicates; calibrated by ``bench/near_duplicates.py``."""

    overlap: float = 0.45
    """Least part of the shorter clip that lies over the other one: half of it, and what a cut may be off by."""
    least_samples: int = 10
    """Least samples that lie over each other: a second."""
    rest: float = 0.62
    """What the pictures may differ by, as part of what moves. Copies have 0.6 at most, two shots of one place 0.75."""
    least_moving: float = 0.1
    """What must move for that, brightness of 0 to 255: half of what the grain of a camera gives."""
    together: float = 0.85
    """Or, for copies with a logo or cropped at one side: least correlation of what moves ..."""
    ahead: float = 0.3
    """... and by how much it is more than at offsets a second or more away ..."""
    distance: int = 88
    """... and most bits by which the hashes differ there. Frames of different scenes differ in 94 or more."""
    still: float = 0.4
    """What moves in a clip that stands still, at most: encoding it anew changes as much."""
    still_error: float = 0.7
    """What the pictures of two clips that stand still may differ by, brightness of 0 to 255 ..."""
    still_distance: int = 20
    """... and in how many bits of their hashes."""
    drift_samples: int = 3
    """Samples around the same time that may be meant by it, where a copy runs at another speed or lost frames."""
    drift_distance: int = 56
    """Most of the typical distance of the nearest of those."""
    drift_contrast: float = 0.5
    """Most of it, as part of that at offsets a second or more away."""
    drift_together: float = 0.6
    """Least correlation of what moves there."""
    drift_rest: float = 2.0
    """Most of what the pictures may differ by there, as part of what moves: in a slow shot that goes on the same way it
    is 4 and more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """How two clips lie over each other."""

    frames: int
    """Samples that do, 10 a second."""
    part: float
    """Those, as part of the shorter clip."""
    offset_s: float
    """How long after the first clip's start the second one starts, seconds; negative: before it."""
    distance: float
    """Typical number of bits, of 256, between their hashes; 256 where no hash says anything."""
    rest: float
    """What the pictures differ by, as part of what moves."""
    is_mirrored: bool
    """Whether one is the other's mirror image."""
    found_by: FoundBy
    """``rest``: they differ by little of what moves; ``motion``: the same moves, under a logo or in a crop; ``still``:
    nothing moves, and they show the same; ``drift``: frames some tenths of a second apart are the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """A picture of one clip against a picture of the other."""

    a: Light
    b: Light
    hash_a: Hashes
    hash_b: Hashes
    is_mirrored: bool
    is_whole: bool


def compare(a: FrameHashes, b: FrameHashes, settings: MatchSettings | None = None) -> Match | None:
    """How ``a`` and ``b`` show the same frames; None: they do not, by ``settings``.

    Raises:
        ValueError: one of the clips has no samples.
    """
    settings = settings or MatchSettings()
    if min(int(a.is_shown.sum()), int(b.is_shown.sum())) < settings.least_samples:
        return None
    return _Pair(a, b, settings).match()


class _Pair:
    """Two clips in all their forms."""

    def __init__(self, a: FrameHashes, b: FrameHashes, settings: MatchSettings) -> None:
        self._a, self._b, self._settings = a, b, settings
        self._least = max(settings.least_samples, int(np.ceil(settings.overlap * min(len(a), len(b)))))
        self._laid = [(form, overlaps(form.a, form.b, _FEW_SAMPLES)) for form in _forms(a, b)]

    def match(self) -> Match | None:
        return self._by_rest() or self._by_motion() or self._still() or self._by_drift()

    def _by_rest(self) -> Match | None:
        form, laid, at = self._closest()
        if laid.rest[at] > self._settings.rest or laid.moving[at] < self._settings.least_moving:
            return None
        return self._found(form, laid, at, "rest")

    def _by_motion(self) -> Match | None:
        settings = self._settings
        for form, laid in self._laid:
            at, enough = self._best(laid, -laid.together), laid.num >= self._least
            away = enough & (np.abs(laid.offset - laid.offset[at]) >= _FAR_SAMPLES)
            elsewhere = laid.together[away].max(initial=-1.0)
            # In a shot that was cut in two, the end of one part is closest to the start of the next.
            beyond = laid.together[~enough].max(initial=-1.0)
            is_ahead = laid.together[at] >= max(settings.together, elsewhere + settings.ahead, beyond)
            if is_ahead and laid.moving[at] >= settings.still and self._distance(form, laid, at) <= settings.distance:
                return self._found(form, laid, at, "motion")
        return None

    def _still(self) -> Match | None:
        settings = self._settings
        if min(moved(self._a.light), moved(self._b.light)) >= settings.still:
            return None
        form, laid, at = self._closest()
        if laid.error[at] > settings.still_error or self._distance(form, laid, at) > settings.still_distance:
            return None
        return self._found(form, laid, at, "still")

    def _by_drift(self) -> Match | None:
        settings = self._settings
        # Sparing: to look for a drift costs more than all the rest, and this is what it must have in the end.
        if max(laid.together[laid.num >= self._least].max() for form, laid in self._laid) < settings.drift_together:
            return None
        found = drifting(self._a, self._b, settings.drift_samples, settings.overlap, settings.least_samples)
        if found is None or found.distance >= min(settings.drift_distance, settings.drift_contrast * found.elsewhere):
            return None
        for form, laid in self._laid:
            if form.is_whole and form.is_mirrored == found.is_mirrored:
                near = np.abs(laid.offset - found.offset) <= settings.drift_samples
                at = self._best(laid, np.where(near, -laid.together, np.inf))
                is_close = laid.together[at] >= settings.drift_together and laid.rest[at] <= settings.drift_rest
                if near[at] and is_close:
                    return self._found(form, laid, at, "drift")
        return None

    def _closest(self) -> tuple[_Form, Overlaps, int]:
        """The form and the place in it at which the pictures differ least by what moves."""
        found = [(form, laid, self._best(laid, laid.rest)) for form, laid in self._laid]
        return min(found, key=lambda f: f[1].rest[f[2]])

    def _best(self, laid: Overlaps, cost: np.ndarray) -> int:
        return int(np.argmin(np.where(laid.num >= self._least, cost, np.inf)))

    def _distance(self, form: _Form, laid: Overlaps, at: int) -> float:
        """Typical bits between the hashes of samples that lie over each other."""
        offset, num = int(laid.offset[at]), int(laid.num[at])
        of_a = slice(max(0, offset), max(0, offset) + num)
        of_b = slice(of_a.start - offset, of_a.stop - offset)
        telling = self._a.is_telling[of_a] & self._b.is_telling[of_b]
        apart = np.bitwise_count(form.hash_a[of_a][telling] ^ form.hash_b[of_b][telling]).sum(axis=1)
        return float(np.median(apart)) if len(apart) else NO_DISTANCE

    def _found(self, form: _Form, laid: Overlaps, at: int, found_by: FoundBy) -> Match:
        return Match(
            frames=int(laid.num[at]),
            part=float(laid.num[at]) / min(len(self._a), len(self._b)),
            offset_s=float(laid.offset[at]) / RATE_HZ,
            distance=self._distance(form, laid, at),
            rest=float(laid.rest[at]),
            is_mirrored=form.is_mirrored,
            found_by=found_by,
        )


def _forms(a: FrameHashes, b: FrameHashes) -> Iterator[_Form]:
    """Whole against whole, and against middle, which is what a cropped copy looks like; and their mirror images."""
    whole_a, whole_b = (a.light, a.whole), (b.light, b.whole)
    middle_a, middle_b = (a.middle_light, a.middle), (b.middle_light, b.middle)
    for one, other in ((whole_a, whole_b), (middle_a, whole_b), (whole_a, middle_b)):
        for is_mirrored in (False, True):
            yield _Form(
                a=one[0],
                b=mirrored(other[0]) if is_mirrored else other[0],
                hash_a=one[1],
                hash_b=other[1] ^ MIRROR if is_mirrored else other[1],
                is_mirrored=is_mirrored,
                is_whole=one is whole_a and other is whole_b,
            )
