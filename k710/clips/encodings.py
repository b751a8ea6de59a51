"""How a source video becomes a clip: five named ways, and what x264 is told for those that encode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Encode = Literal["sparse8", "sparse32", "intra", "copy", "none"]
"""``sparse8`` and ``sparse32`` are quick to read 8 or 32 frames from, ``intra`` any; ``copy`` changes the container
only, ``none`` nothing at all."""

PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
"""Of x264, from the fastest to the smallest files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """How a source video becomes a clip; the defaults are quick to read 8 frames from, for 1.2 times the bytes."""

    encode: Encode = "sparse8"
    """One of the named ways; with ``copy`` and ``none`` the next three fields decide nothing."""
    short_side_px: int = 256
    """Short side after scaling; a smaller source is never enlarged."""
    crf: int = 23
    """x264 quality: 0 is lossless, 51 is worst."""
    preset: str = "veryfast"
    """x264 speed preset."""
    keep_audio: bool = False
    """Whether the clip has the sound of its source."""

    def __post_init__(self) -> None:
        if self.encode not in get_args(Encode):
            raise ValueError(f"encode must be one of {', '.join(get_args(Encode))}, got {self.encode}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be between 0 and 51, got {self.crf}")
        if self.short_side_px < 16:
            raise ValueError(f"short_side_px must be at least 16, got {self.short_side_px}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset}")

    @property
    def needs_trimmed(self) -> bool:
        """Whether only files that are trimmed already can be taken."""
        return self.encode not in GROUPS


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The order of pictures in an encoded clip."""

    gop: int
    """Largest distance of two keyframes, frames."""
    bframes: int
    """Consecutive B-frames; none of them is a reference, so a reader may drop those it does not want."""


# Measured on four 10 s clips at 256 px, medium, crf 23: CPU-ms to decode 8 / 32 frames by packet selection, and bytes
# at equal PSNR, against x264's defaults (50.5 / 72.8 ms, 1.00):
#   GOP 16, 3 B-frames   18.8 / 56.7 ms, 1.23      GOP 64, 7 B-frames   21.5 / 43.5 ms, 1.25
#   GOP 32, 7 B-frames   20.9 / 48.8 ms, 1.29      intra                 8.0 / 31.2 ms, 3.90
# With 32 of 300 frames wanted every group of pictures is visited, so a short one saves nothing: what counts is how
# many pictures between the wanted ones can be dropped. GOP 64 with 7 is the fastest that costs no more than sparse8.
GROUPS: dict[str, Pictures] = {
    "sparse8": Pictures(gop=16, bframes=3),
    "sparse32": Pictures(gop=64, bframes=7),
    "intra": Pictures(gop=1, bframes=0),
}
"""The ways that encode."""


def x264_options(config: EncodeConfig, *, gop: int | None = None) -> dict[str, str | int]:
    """Options of the video encoder; ``gop`` replaces the distance of keyframes that ``config`` stands for."""
    pictures = GROUPS[config.encode]
    return {
        "vcodec": "libx264",
        "preset": config.preset,
        "crf": config.crf,
        "g": pictures.gop if gop is None else gop,
        "bf": pictures.bframes,
        "x264-params": "b-adapt=0:b-pyramid=none",
        "pix_fmt": "yuv420p",
        "threads": 1,
    }


def scaled_size(width_px: int, height_px: int, short_side_px: int) -> tuple[int, int]:
    """Even width and height with the short side at ``short_side_px``, or as it is when that is smaller."""
    scale = min(1.0, short_side_px / min(width_px, height_px))
    # An odd side loses a pixel: rounding it up would enlarge it.
    return tuple(max(2, min(2 * round(side * scale / 2), side - side % 2)) for side in (width_px, height_px))  # type: ignore[return-value]
