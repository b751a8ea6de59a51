"""Black and frozen videos, by a few small grey pictures of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

BLACK_LUMA = 20
"""Of 255, black being 0: what a black screen's noise stays below; a dark scene has lights above it."""
BLACK_PART = 0.98
"""Part of a picture below ``BLACK_LUMA`` that makes it black: a recorder's clock may stand in a corner."""
FROZEN_LUMA = 3.0
"""Most change of any block of a still picture: x264 at crf 23 moves blocks of one by up to 2 (at 35 by 5), a hand of 12
pixels that moves by 4 changes one by 6 or more."""
NEARLY_ALL = 0.95
"""Part of the pictures that must be black, or the same: a clip may begin with a flash or end in a cut."""
FEWEST_PICTURES = 4
"""Of fewer, nothing is said about a standstill."""
FEWEST_SECONDS = 1.0
"""Between the first picture and the last; shorter clips may well show somebody who stands still."""
LOOK_EVERY_S = 0.45
"""Distance of the pictures; no fraction of a second, so that what blinks is not always seen lit."""

# About 10 pixels of a 256 px clip a block, so that coding noise is averaged out and a moving hand is not.
_BLOCKS_WIDE, _BLOCKS_HIGH = 32, 24


@dataclass(kw_only=True, slots=True)
class Pictures:
    """The pictures of one video that are looked at."""

    times_s: list[float] = field(default_factory=list)
    """When each is shown."""
    luma: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    """Each one in grey, 24 by 32 blocks."""
    # Our own, on one thread: the shared default starts a pool, and a forked child waits for it forever.
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def see(self, frame: av.VideoFrame) -> None:
        """Take a frame in, unless it is close to the one before."""
        at_s = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else 0.0
        if self.times_s and abs(at_s - self.times_s[-1]) < LOOK_EVERY_S:
            return
        small = self._reformatter.reformat(
            frame, _BLOCKS_WIDE, _BLOCKS_HIGH, format="gray", interpolation="AREA", threads=1
        )
        self.times_s.append(at_s)
        self.luma.append(small.to_ndarray().astype(np.uint8, copy=True))

    @property
    def are_black(self) -> bool:
        """Whether nearly all of nearly all pictures is black."""
        return bool(self.luma) and is_black(np.stack(self.luma))

    @property
    def are_frozen(self) -> bool:
        """Whether nearly all pictures are the same, over a second or more."""
        return bool(self.luma and np.ptp(self.times_s) >= FEWEST_SECONDS and is_frozen(np.stack(self.luma)))


def is_black(luma_THW: npt.NDArray[np.uint8]) -> bool:
    """Whether nearly all of nearly all pictures is black; luma from 0 (black) to 255."""
    dark = (luma_THW < BLACK_LUMA).mean(axis=(1, 2)) >= BLACK_PART
    return bool(dark.mean() >= NEARLY_ALL)


def is_frozen(luma_THW: npt.NDArray[np.uint8]) -> bool:
    """Whether nearly all pictures are the same as the typical one, block by block; False of fewer than four."""
    if len(luma_THW) < FEWEST_PICTURES:
        return False
    # Against the typical picture, not the one before: a slow pan changes little from one to the next.
    change = np.abs(luma_THW - np.median(luma_THW, axis=0)).max(axis=(1, 2))
    return bool((change <= FROZEN_LUMA).mean() >= NEARLY_ALL)
