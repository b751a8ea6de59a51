"""The moments of a clip by which it is found: those at which its picture changes least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from k710.fingerprints.frames import FrameHashes

MOST_MOMENTS = 12
"""Of one clip."""
_APART = 4
"""Samples between two moments: next to a calm one stand others that show the same."""
_ALIKE = 8
"""Bits up to which a moment shows what another one has shown: a clip that stands still has only one."""


def calm_moments(frames: FrameHashes, *, dull: bool = False) -> npt.NDArray[np.int64]:
    """Samples of ``frames`` that tell something and differ least from those before and after, ascending.

    With ``dull`` all that show something, such as a plain wall.

    A copy that begins at another time is sampled up to 0.05 s beside them, and shows nearly the same there; and since
    the picture decides, its own calm moments are the same ones.
    """
    words = np.ascontiguousarray(frames.whole).view(np.uint64)
    steps = np.bitwise_count(words[1:] ^ words[:-1]).sum(axis=1, dtype=np.int64)
    change = np.maximum(np.append(steps, 0), np.insert(steps, 0, 0))
    free = (frames.is_shown if dull else frames.is_telling).copy()
    found: list[int] = []
    for at in np.argsort(change, kind="stable"):
        if free[at]:
            found.append(int(at))
            free[max(0, at - _APART + 1) : at + _APART] = False
            free &= np.bitwise_count(words ^ words[at]).sum(axis=1, dtype=np.int64) > _ALIKE
            if len(found) == MOST_MOMENTS:
                break
    return np.array(sorted(found), dtype=np.int64)
