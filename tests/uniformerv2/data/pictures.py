"""Pictures for the tests of augmentation, and what each RandAugment operation makes of one, by its definition.

In numpy, for one picture [H, W, 3]; nothing here is shared with the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


def noise(height: int, width: int, seed: int = 0) -> Picture:
    """Independent pixels between 20 and 230, so that no table is the identity."""
    return np.random.default_rng(seed).integers(20, 231, (height, width, 3), dtype=np.uint8)


def waves(height: int, width: int) -> Picture:
    """A smooth picture: any way to interpolate gives about the same."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 17 + c) + np.cos(y / 13 - c) for c in range(3)]
    return (127 + 50 * np.stack(channels, axis=-1)).astype(np.uint8)


def by_definition(name: str, amount: float, picture: Picture) -> Values:
    """The picture after one operation, as floats that the product may round up or down."""
    return _DEFINITIONS[name](picture.astype(np.float64), amount)


def look_up(
    picture: Values, source: Callable[[Values, Values], tuple[Values, Values]], cubic: bool, size: tuple[int, int]
) -> Values:
    """Each pixel from the place that ``source`` gives for its middle; 128 from outside, the edge repeated inside."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    x, y = source(columns, rows)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x0, y0 = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    kernel, reach = (_cubic, range(-1, 3)) if cubic else (_linear, range(2))
    out = np.zeros((*size, 3))
    for j in reach:
        for i in reach:
            weight = kernel(x - 0.5 - (x0 + i)) * kernel(y - 0.5 - (y0 + j))
            out += weight[..., None] * picture[np.clip(y0 + j, 0, height - 1), np.clip(x0 + i, 0, width - 1)]
    return np.where(inside[..., None], np.clip(out, 0, 255), 128)


def _cubic(distance: Values) -> Values:
    """Cubic convolution (Keys 1981) with a = -1, which is PIL's when it transforms."""
    d = np.abs(distance)
    return np.where(d < 1, d**3 - 2 * d**2 + 1, np.where(d < 2, -(d**3) + 5 * d**2 - 8 * d + 4, 0))


def _linear(distance: Values) -> Values:
    return np.clip(1 - np.abs(distance), 0, None)


def _moved(picture: Values, source: Callable[[Values, Values], tuple[Values, Values]]) -> Values:
    height, width = picture.shape[:2]
    return look_up(picture, source, True, (height, width))


def _rotate(picture: Values, degrees: float) -> Values:
    height, width = picture.shape[:2]
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    middle = complex(width / 2, height / 2)

    def source(x: Values, y: Values) -> tuple[Values, Values]:
        # y grows downwards: what comes counter-clockwise to a place was clockwise of it.
        place = (x + 1j * y - middle) * turn + middle
        return place.real, place.imag

    return _moved(picture, source)


def _stretched(channel: Values) -> Values:
    low, high = channel.min(), channel.max()
    return (channel - low) * 255 / (high - low)


def _equalized(channel: Values) -> Values:
    """Values by the number of pixels that are darker, in steps of 1/255 of all but the brightest ones."""
    values = channel.astype(int)
    step = np.count_nonzero(values < values.max()) // 255
    darker = np.array([np.count_nonzero(values < v) for v in range(256)])
    return np.clip((darker[values] + step // 2) // step, 0, 255).astype(np.float64)


def _each(function: Callable[[Values], Values]) -> Callable[[Values, float], Values]:
    return lambda picture, _: np.stack([function(picture[..., c]) for c in range(3)], axis=-1)


def _grey(picture: Values) -> Values:
    """ITU-R BT.601 luma in fixed point of 16 bits."""
    return np.floor((picture @ [19595, 38470, 7471] + 32768) / 65536)


def _smooth(picture: Values) -> Values:
    height, width = picture.shape[:2]
    smooth = picture.copy()
    total = sum(picture[1 + j : height - 1 + j, 1 + i : width - 1 + i] for j in (-1, 0, 1) for i in (-1, 0, 1))
    smooth[1:-1, 1:-1] = np.round((total + 4 * picture[1:-1, 1:-1]) / 13)
    return smooth


def _between(zero: Callable[[Values], Values]) -> Callable[[Values, float], Values]:
    """From ``zero`` of the picture at factor 0 to the picture at 1, and on."""

    def blend(picture: Values, factor: float) -> Values:
        start = zero(picture)
        return np.clip(start + factor * (picture - start), 0, 255)

    return blend


_DEFINITIONS: Mapping[str, Callable[[Values, float], Values]] = {
    "auto_contrast": _each(_stretched),
    "equalize": _each(_equalized),
    "invert": lambda picture, _: 255 - picture,
    "rotate": _rotate,
    "posterize": lambda picture, bits: picture - picture % 2 ** (8 - bits),
    "solarize": lambda picture, threshold: np.where(picture >= threshold, 255 - picture, picture),
    "solarize_add": lambda picture, added: np.where(picture < 128, np.minimum(picture + added, 255), picture),
    "color": _between(lambda picture: _grey(picture)[..., None]),
    "contrast": _between(lambda picture: np.floor(_grey(picture).mean() + 0.5)),
    "brightness": _between(np.zeros_like),
    "sharpness": _between(_smooth),
    "shear_x": lambda picture, slope: _moved(picture, lambda x, y: (x + slope * y, y)),
    "shear_y": lambda picture, slope: _moved(picture, lambda x, y: (x, y + slope * x)),
    "translate_x": lambda picture, share: _moved(picture, lambda x, y: (x + share * picture.shape[1], y)),
    "translate_y": lambda picture, share: _moved(picture, lambda x, y: (x, y + share * picture.shape[0])),
}
