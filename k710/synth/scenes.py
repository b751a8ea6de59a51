"""Frames of the toy videos, drawn with numpy: a scene and its seed in, RGB frames out.

Array axes: T time, H height, W width, C colour (RGB). Coordinates run from -1 to 1 along the short side.
Scenes of order classes are bright near-grey shapes on a dark ground and differ from their own mirror image in time
only; random colours or polarity there were measured to keep a small model from learning the order.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One base clip: equal scenes are equal frames, but for ``backward``."""

    family: str
    """What is drawn: a key of ``ORDER_FAMILIES`` or ``APPEARANCE_FAMILIES``."""
    seed: int
    """Seed of the whole data set."""
    number: int
    """Which base clip of the family."""
    num_frames: int
    """Frames to draw."""
    width_px: int
    """Width of the picture."""
    height_px: int
    """Height of the picture."""
    backward: bool = False
    """Whether the frames come in the opposite order."""


def draw(scene: Scene) -> Frames:
    """The frames of ``scene`` as ``frames_THWC``."""
    rng = np.random.default_rng([scene.seed, zlib.crc32(scene.family.encode()), scene.number])
    # Pictures much larger than the rest are drawn coarsely and magnified: the demo has little time for them.
    zoom = 4 if scene.height_px >= 720 else 1
    canvas = _canvas(rng, scene.width_px // zoom, scene.height_px // zoom)
    paint = ORDER_FAMILIES[scene.family](rng) if scene.family in ORDER_FAMILIES else _appearance(rng, scene.family)
    start, end = _between(rng, 0.0, 0.12), _between(rng, 0.88, 1.0)
    gamma = _between(rng, 0.8, 1.25)
    times = start + (end - start) * np.linspace(0.0, 1.0, scene.num_frames) ** gamma
    frames_THWC = np.stack([_frame(canvas, paint, float(t)) for t in times]).transpose(0, 2, 3, 1)
    if zoom > 1:
        frames_THWC = frames_THWC.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return np.ascontiguousarray(frames_THWC[::-1]) if scene.backward else frames_THWC


@dataclass(frozen=True, kw_only=True, slots=True)
class _Canvas:
    x: Floats
    """Coordinate to the right, (H, W)."""
    y: Floats
    """Coordinate downwards, (H, W)."""
    tint: Floats
    """Colour behind the shape, (C, 1, 1)."""
    ground: Floats
    """Picture without the shape, (C, H, W)."""


Paint = Callable[[Floats, Floats, float], tuple[Floats, Floats]]
"""Coverage (H, W) in 0-1 and colour of the shape at coordinates x, y and at progress 0-1."""


def _canvas(rng: np.random.Generator, width: int, height: int) -> _Canvas:
    short = min(width, height)
    x_HW, y_HW = np.meshgrid(
        (2 * np.arange(width, dtype=np.float32) + 1 - width) / short,
        (2 * np.arange(height, dtype=np.float32) + 1 - height) / short,
    )
    tint_C = (_between(rng, 25, 75) + rng.uniform(-6, 6, 3)).astype(np.float32)
    coarse = rng.uniform(-8, 8, (6, 8)).astype(np.float32)
    texture_HW = coarse[np.arange(height) * 6 // height][:, np.arange(width) * 8 // width]
    tint_C11 = tint_C[:, None, None]
    return _Canvas(x=x_HW, y=y_HW, tint=tint_C11, ground=tint_C11 + texture_HW)


def _frame(canvas: _Canvas, paint: Paint, progress: float) -> Frames:
    cover_HW, colour_C = paint(canvas.x, canvas.y, progress)
    # Every colour, texture added, lies well inside 0-255. Channels first: a last axis of 3 makes numpy slow.
    picture_CHW = cover_HW * (colour_C[:, None, None] - canvas.tint) + canvas.ground
    return picture_CHW.astype(np.uint8)


def _soft(distance_HW: Floats) -> Floats:
    """Coverage of the side where ``distance_HW`` is positive, with an edge of a few pixels."""
    return (distance_HW * 24 + 0.5).clip(0, 1)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    # A Python float, unlike numpy's, leaves the float32 arrays that it meets as they are.
    return float(rng.uniform(low, high))


def _point(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    return _between(rng, -reach, reach), _between(rng, -reach, reach)


def _near_grey(rng: np.random.Generator) -> Floats:
    return (_between(rng, 170, 235) + rng.uniform(-8, 8, 3)).astype(np.float32)


def _blob(rng: np.random.Generator) -> Callable[[Floats, Floats, float], Floats]:
    """Signed distance from the edge of a disc, a square or a diamond of a given radius."""
    shape = int(rng.integers(3))

    def inside(x_HW: Floats, y_HW: Floats, radius: float) -> Floats:
        if shape == 0:
            return radius - np.hypot(x_HW, y_HW)
        if shape == 1:
            return radius * 0.9 - np.maximum(abs(x_HW), abs(y_HW))
        return radius * 1.2 - (abs(x_HW) + abs(y_HW))

    return inside


def _grow(rng: np.random.Generator) -> Paint:
    colour, inside, (cx, cy) = _near_grey(rng), _blob(rng), _point(rng, 0.25)
    small, large = _between(rng, 0.1, 0.2), _between(rng, 0.65, 0.9)
    return lambda x, y, p: (_soft(inside(x - cx, y - cy, small + (large - small) * p)), colour)


def _fill(rng: np.random.Generator) -> Paint:
    colour, cx, half = _near_grey(rng), _between(rng, -0.25, 0.25), _between(rng, 0.45, 0.8)
    bottom, height = _between(rng, 0.7, 0.9), _between(rng, 1.3, 1.6)

    def paint(x: Floats, y: Floats, p: float) -> tuple[Floats, Floats]:
        level = bottom - height * (0.04 + 0.96 * p)
        return _soft(half - abs(x - cx)) * _soft(np.minimum(y - level, bottom - y)), colour

    return paint


def _open(rng: np.random.Generator) -> Paint:
    colour, cx, wide = _near_grey(rng), _between(rng, -0.2, 0.2), _between(rng, 0.7, 1.0)
    cy, tall = _between(rng, -0.1, 0.1), _between(rng, 0.75, 0.95)
    return lambda x, y, p: (
        _soft(np.minimum(wide * (0.04 + 0.96 * p) - abs(x - cx), tall - abs(y - cy))),
        colour,
    )


def _light(rng: np.random.Generator) -> Paint:
    colour, inside, (cx, cy) = _near_grey(rng), _blob(rng), _point(rng, 0.2)
    radius = _between(rng, 0.6, 0.85)
    return lambda x, y, p: (_soft(inside(x - cx, y - cy, radius)) * np.float32(0.08 + 0.92 * p), colour)


def _meet(rng: np.random.Generator) -> Paint:
    colour, inside, (cx, cy) = _near_grey(rng), _blob(rng), _point(rng, 0.15)
    radius, far = _between(rng, 0.25, 0.35), _between(rng, 0.85, 1.05)

    def paint(x: Floats, y: Floats, p: float) -> tuple[Floats, Floats]:
        gap = far + (0.1 - far) * p
        pair = np.maximum(inside(x - cx - gap, y - cy, radius), inside(x - cx + gap, y - cy, radius))
        return _soft(pair), colour

    return paint


def _build(rng: np.random.Generator) -> Paint:
    colour, order = _near_grey(rng), rng.permutation(16)
    size, (cx, cy) = _between(rng, 0.36, 0.44), _point(rng, 0.1)

    def paint(x: Floats, y: Floats, p: float) -> tuple[Floats, Floats]:
        cover = np.zeros_like(x)
        for block in order[: 1 + int(p * 15.99)]:
            bx, by = cx + (block % 4 - 1.5) * size, cy + (block // 4 - 1.5) * size
            cover = np.maximum(cover, _soft(size * 0.42 - np.maximum(abs(x - bx), abs(y - by))))
        return cover, colour

    return paint


ORDER_FAMILIES: dict[str, Callable[[np.random.Generator], Paint]] = {
    "grow": _grow,
    "fill": _fill,
    "open": _open,
    "light": _light,
    "meet": _meet,
    "build": _build,
}
"""Scenes whose backward showing is another class; a flip from left to right changes none of them."""

_HUES: dict[str, tuple[float, float, float]] = {
    "red": (215, 45, 40),
    "green": (45, 190, 60),
    "blue": (50, 70, 220),
    "yellow": (220, 205, 50),
    "cyan": (50, 200, 205),
    "magenta": (205, 50, 190),
}

_PATTERNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "checker": lambda x, y: np.sin(x) * np.sin(y),
    "upright_stripes": lambda x, _: np.sin(x),
    "level_stripes": lambda _, y: np.sin(y),
    "slanted_stripes": lambda x, y: np.sin((x + y) * 0.7),
    "rings": lambda x, y: np.sin(np.hypot(x, y)),
    "dots": lambda x, y: np.cos(x) * np.cos(y) - 0.55,
}

APPEARANCE_FAMILIES = (*_HUES, *_PATTERNS)
"""Scenes told apart by a single frame: a shape of one hue, or a pattern in grey; both drift a little."""


def _appearance(rng: np.random.Generator, family: str) -> Paint:
    (cx, cy), (dx, dy) = _point(rng, 0.2), _point(rng, 0.3)
    if family in _HUES:
        colour = (np.array(_HUES[family]) + rng.uniform(-15, 15, 3)).astype(np.float32)
        inside, radius = _blob(rng), _between(rng, 0.5, 0.8)
        return lambda x, y, p: (_soft(inside(x - cx - dx * p, y - cy - dy * p, radius)), colour)
    grey, pattern, rate = _near_grey(rng), _PATTERNS[family], _between(rng, 7.0, 11.0)
    return lambda x, y, p: (_soft(pattern((x - cx - dx * p) * rate, (y - cy - dy * p) * rate) / 8), grey)
