"""RandAugment as published: every operation on every frame as a PIL picture, at the size that the frame has.

Axes: T frame, H height, W width, C channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from uniformerv2.data.randaugment.policy import FILL, Operation

_FILL = (FILL, FILL, FILL)


def apply_published(frames_THWC: npt.NDArray[np.uint8], operations: Sequence[Operation]) -> npt.NDArray[np.uint8]:
    """All frames after ``operations``, of the same size; geometry is bicubic, each operation by itself."""
    if not operations:
        return frames_THWC
    return np.stack([np.asarray(_applied(Image.fromarray(frame), operations)) for frame in frames_THWC])


def _applied(picture: Image.Image, operations: Sequence[Operation]) -> Image.Image:
    for operation in operations:
        picture = _APPLY[operation.name](picture, operation.amount)
    return picture


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=_FILL)


def _solarize_add(picture: Image.Image, added: float) -> Image.Image:
    table = [min(255, value + int(added)) if value < 128 else value for value in range(256)]
    return picture.point(table * 3)


def _affine(picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return picture.transform(picture.size, affine, matrix, resample=bicubic, fillcolor=_FILL)


_APPLY: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "auto_contrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "rotate": _rotate,
    "posterize": lambda picture, bits: ImageOps.posterize(picture, int(bits)),
    "solarize": lambda picture, threshold: ImageOps.solarize(picture, int(threshold)),
    "solarize_add": _solarize_add,
    "color": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "sharpness": lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor),
    "shear_x": lambda picture, slope: _affine(picture, (1, slope, 0, 0, 1, 0)),
    "shear_y": lambda picture, slope: _affine(picture, (1, 0, 0, slope, 1, 0)),
    "translate_x": lambda picture, share: _affine(picture, (1, 0, share * picture.width, 0, 1, 0)),
    "translate_y": lambda picture, share: _affine(picture, (1, 0, 0, 0, 1, share * picture.height)),
}
