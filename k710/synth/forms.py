"""The form of a toy video: small and short for most, and a dozen like what is met on real disks."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """Rate, length and picture of one clip."""

    num_frames: int
    """Frames inside the segment."""
    fps: float = 15.0
    """Frames a second."""
    width_px: int = 128
    """Width of the picture, even."""
    height_px: int = 96
    """Height of the picture, even."""
    tone_hz: float | None = None
    """Pitch of the sound; None for a silent file."""

    @property
    def segment_s(self) -> int:
        """Length of the segment in the lists: the clip's, rounded up to whole seconds."""
        return math.ceil(self.num_frames / self.fps - 1e-9)


UNUSUAL = (
    Form(num_frames=48, width_px=144, height_px=256, fps=24.0, tone_hz=440.0),
    Form(num_frames=24, width_px=1280, height_px=720, fps=24.0),
    Form(num_frames=150),
    Form(num_frames=59, width_px=320, height_px=240, fps=30000 / 1001),
    Form(num_frames=45, width_px=96, height_px=128),
    Form(num_frames=240, fps=24.0, tone_hz=330.0),
    Form(num_frames=25, width_px=1280, height_px=720, fps=25.0, tone_hz=262.0),
    Form(num_frames=250, fps=25.0),
    Form(num_frames=60, width_px=180, height_px=320, fps=30.0, tone_hz=523.0),
    Form(num_frames=72, width_px=240, height_px=240, fps=24.0),
    Form(num_frames=300, fps=30.0),
    Form(num_frames=50, width_px=426, height_px=240, fps=25.0, tone_hz=392.0),
)
"""Portrait, 720p, ten seconds, other rates, sound; a small data set has the first ones only."""
_MIN_UNUSUAL = 4


def unusual_form(family: int, num_families: int, number: int, num_clips: int) -> Form | None:
    """The form from ``UNUSUAL`` that base clip ``number`` of a family takes; None for most.

    The forms go round the families, one each and turn by turn, so that no class is known by its form.
    """
    place = family + num_families * (number - 1)
    return UNUSUAL[place] if 0 <= place < max(_MIN_UNUSUAL, min(len(UNUSUAL), num_clips // 40)) else None


def usual_form(name: str, *, whole: bool) -> Form:
    """The form of the base clip called ``name``: small, of one to three seconds.

    A ``whole`` one fills its whole seconds, as a segment that is cut from a longer video must.
    """
    chance = random.Random(name)
    return Form(num_frames=15 * chance.randint(2, 3) if whole else chance.randint(15, 36))
