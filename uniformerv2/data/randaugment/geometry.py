"""All that moves pixels, as one map from a pixel of the model's picture to its place in the decoded frame.

Places are in pixels from the frame's corner, so that pixel 0 lies at 0.5. Axes: T frame, H height, W width, C channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from uniformerv2.data.randaugment.policy import FILL, Operation
from uniformerv2.data.sampling import Box

GEOMETRIC = frozenset({"rotate", "shear_x", "shear_y", "translate_x", "translate_y"})

Value = TypeVar("Value", np.uint8, np.float32)
_Matrix = npt.NDArray[np.float64]


def moves(operations: Sequence[Operation]) -> bool:
    """Whether any of the operations moves pixels."""
    return any(operation.name in GEOMETRIC for operation in operations)


def warp(
    frames_THWC: npt.NDArray[np.uint8], operations: Sequence[Operation], box: Box, size: int, *, mirrored: bool
) -> npt.NDArray[np.uint8]:
    """The clip [C, T, size, size] after the operations that move pixels, the crop, the resize and the mirror.

    One bilinear look-up for each pixel, without antialias. The operations act on the whole frame, before the crop, as
    published; what one of them moves out of the frame, a later one can bring back.
    """
    height, width = frames_THWC.shape[1:3]
    matrix = _source_of_output(operations, box, size, height, width, mirrored=mirrored)
    part = _touched(matrix, size, height, width)
    matrix[:, 2] -= part.left, part.top
    # From places to numbers of pixels.
    matrix[:, 2] += matrix[:, 0] / 2 + matrix[:, 1] / 2 - 0.5
    # Four channels: opencv has a quick path for them that three do not get, worth more than the copies.
    clip_THWA = np.empty((len(frames_THWC), size, size, 4), np.uint8)
    for frame_HWC, target_HWA in zip(frames_THWC, clip_THWA, strict=True):
        source = frame_HWC[part.top : part.top + part.height, part.left : part.left + part.width]
        cv2.warpAffine(
            cv2.cvtColor(source, cv2.COLOR_RGB2RGBA),
            matrix,
            (size, size),
            dst=target_HWA,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(FILL, FILL, FILL, FILL),
        )
    return planes(clip_THWA)


def planes(clip_THWA: npt.NDArray[Value], *, mirrored: bool = False) -> npt.NDArray[Value]:
    """The first three channels of a clip [T, H, W, 3 or 4] as [C, T, H, W], left and right exchanged or not."""
    num_frames, height, width, channels = clip_THWA.shape
    planes_ATHW = np.empty((channels, num_frames, height, width), clip_THWA.dtype)
    flat = planes_ATHW.reshape(channels, num_frames * height, width)
    cv2.split(clip_THWA.reshape(num_frames * height, width, channels), list(flat))
    if mirrored:
        sheet = planes_ATHW.reshape(-1, width)
        cv2.flip(sheet, 1, dst=sheet)
    return planes_ATHW[:3]


def _source_of_output(
    operations: Sequence[Operation], box: Box, size: int, height: int, width: int, *, mirrored: bool
) -> _Matrix:
    matrix = np.eye(3)
    for operation in operations:
        if operation.name in GEOMETRIC:
            matrix = matrix @ _inverse(operation, height, width)
    crop = _affine(box.width / size, 0, box.left, 0, box.height / size, box.top)
    mirror = _affine(-1, 0, size, 0, 1, 0) if mirrored else np.eye(3)
    whole: _Matrix = matrix @ crop @ mirror
    return np.ascontiguousarray(whole[:2])


def _inverse(operation: Operation, height: int, width: int) -> _Matrix:
    """From a place in the picture after the operation to the place before."""
    amount = operation.amount
    match operation.name:
        case "shear_x":
            return _affine(1, amount, 0, 0, 1, 0)
        case "shear_y":
            return _affine(1, 0, 0, amount, 1, 0)
        case "translate_x":
            return _affine(1, 0, amount * width, 0, 1, 0)
        case "translate_y":
            return _affine(1, 0, 0, 0, 1, amount * height)
    cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
    x, y = width / 2, height / 2
    return _affine(cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)


def _affine(xx: float, xy: float, x: float, yx: float, yy: float, y: float) -> _Matrix:
    return np.array([[xx, xy, x], [yx, yy, y], [0, 0, 1]], np.float64)


def _touched(matrix: _Matrix, size: int, height: int, width: int) -> Box:
    """The part of the frame that has all pixels of which the map asks, at least one pixel large."""
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]], np.float64) @ matrix.T
    # A pixel more on each side, for the neighbours of a look-up.
    left, top = (np.floor(corners.min(axis=0)) - 1).astype(int)
    right, bottom = (np.ceil(corners.max(axis=0)) + 1).astype(int)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = max(min(right, width), left + 1), max(min(bottom, height), top + 1)
    return Box(top=int(top), left=int(left), height=int(bottom - top), width=int(right - left))
