"""All that changes colours, on the planes of a clip: what is a table of values becomes one table per channel and frame.

Axes: C channel, T frame, H height, W width, V value of a pixel (256).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from uniformerv2.data.randaugment.policy import Operation

STATIC = frozenset({"invert", "posterize", "solarize", "solarize_add", "brightness"})
"""Tables that do not depend on the picture."""
ADAPTIVE = frozenset({"auto_contrast", "equalize", "contrast"})
"""Tables that depend on how often each value occurs in the frame."""

_VALUES = np.arange(256)
_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B in grey (ITU-R BT.601), as in PIL."""
_DOWN = -0.499
"""Makes rounding cut off, as PIL's blending does."""

Planes = npt.NDArray[np.uint8]
Tables = npt.NDArray[np.uint8]


def recolour(planes_CTHW: Planes, operations: Sequence[Operation]) -> Planes:
    """The clip after the operations that change colours, in their order; others are passed over.

    The tables of neighbouring operations are applied at once. Statistics are of each frame, as published, but of what
    is left of it after crop and resize. ``planes_CTHW`` must be contiguous, and may be changed.
    """
    clip = _Clip(planes_CTHW)
    for operation in operations:
        clip.apply(operation)
    return clip.finished()


class _Clip:
    """Planes, and the tables that are still to be applied to them."""

    def __init__(self, planes_CTHW: Planes) -> None:
        self._planes_CTHW = planes_CTHW
        self._pending: Tables | None = None  # [256], or [C, T, 256]
        self._counts_CTV: npt.NDArray[np.int64] | None = None  # of the planes, before the pending tables

    def apply(self, operation: Operation) -> None:
        if operation.name in STATIC:
            self._then(static_table(operation))
        elif operation.name in ADAPTIVE:
            self._then(adaptive_tables(operation, self._counts()))
        elif operation.name == "color":
            self._replace(saturated(self.finished(), operation.amount))
        elif operation.name == "sharpness":
            self._replace(sharpened(self.finished(), operation.amount))

    def finished(self) -> Planes:
        """The planes with every table applied."""
        if self._pending is not None:
            self._replace(looked_up(self._planes_CTHW, self._pending))
        return self._planes_CTHW

    def _replace(self, planes_CTHW: Planes) -> None:
        self._planes_CTHW, self._pending, self._counts_CTV = planes_CTHW, None, None

    def _then(self, tables: Tables) -> None:
        if self._pending is None:
            self._pending = tables
        elif tables.ndim == 1:
            self._pending = tables[self._pending]
        else:
            before_CTV = np.broadcast_to(self._pending, tables.shape)
            self._pending = np.take_along_axis(tables, before_CTV.astype(np.intp), axis=2)

    def _counts(self) -> npt.NDArray[np.int64]:
        if self._counts_CTV is None:
            self._counts_CTV = _count(self._planes_CTHW)
        if self._pending is None:
            return self._counts_CTV
        shape = self._counts_CTV.shape
        tables = np.broadcast_to(self._pending, shape).reshape(-1, 256)
        rows = zip(tables, self._counts_CTV.reshape(-1, 256), strict=True)
        moved = [np.bincount(table, weights=counts, minlength=256) for table, counts in rows]
        return np.stack(moved).astype(np.int64).reshape(shape)


def static_table(operation: Operation) -> Tables:
    """What becomes of each value, uint8 [256]."""
    match operation.name:
        case "invert":
            return _to_uint8(255 - _VALUES)
        case "posterize":
            return _to_uint8(_VALUES & ~((1 << (8 - int(operation.amount))) - 1))
        case "solarize":
            return _to_uint8(np.where(operation.amount <= _VALUES, 255 - _VALUES, _VALUES))
        case "solarize_add":
            return _to_uint8(np.where(_VALUES < 128, np.minimum(_VALUES + operation.amount, 255), _VALUES))
        case "brightness":
            return _to_uint8(_VALUES * operation.amount)
    raise ValueError(f"no table for {operation.name!r}")


def adaptive_tables(operation: Operation, counts_CTV: npt.NDArray[np.int64]) -> Tables:
    """What becomes of each value in each channel of each frame, uint8 [C, T, 256], by how often values occur there."""
    if operation.name == "contrast":
        return _contrast(counts_CTV, operation.amount)
    of_one = _stretched if operation.name == "auto_contrast" else _equalized
    tables = np.stack([of_one(counts) for counts in counts_CTV.reshape(-1, 256)])
    return tables.reshape(counts_CTV.shape)


def looked_up(planes_CTHW: Planes, tables: Tables) -> Planes:
    """Every pixel through its table: one for all, or one of [C, T, 256]."""
    out_CTHW = np.empty_like(planes_CTHW)
    if tables.ndim == 1:
        cv2.LUT(_sheet(planes_CTHW), tables, dst=_sheet(out_CTHW))
        return out_CTHW
    for channel, frame in np.ndindex(planes_CTHW.shape[:2]):
        cv2.LUT(planes_CTHW[channel, frame], tables[channel, frame], dst=out_CTHW[channel, frame])
    return out_CTHW


def saturated(planes_CTHW: Planes, factor: float) -> Planes:
    """Between grey (0) and the picture (1), or beyond."""
    red, green, blue = (_sheet(plane[None]) for plane in planes_CTHW)
    grey = cv2.addWeighted(cv2.addWeighted(red, _LUMA[0], green, _LUMA[1], 0), 1.0, blue, _LUMA[2], 0)
    out_CTHW = np.empty_like(planes_CTHW)
    for plane, out in zip((red, green, blue), out_CTHW, strict=True):
        cv2.addWeighted(plane, factor, grey, 1 - factor, _DOWN, dst=_sheet(out[None]))
    return out_CTHW


def sharpened(planes_CTHW: Planes, factor: float) -> Planes:
    """Between smooth (0) and the picture (1), or beyond; the outermost pixels stay.

    Smooth is PIL's: the mean of 3 x 3 pixels with the middle one counted five times.
    """
    sheet = _sheet(planes_CTHW)
    out_CTHW = np.empty_like(planes_CTHW)
    # All frames of all channels as one tall picture: the rows where they touch are outermost ones.
    mean = cv2.boxFilter(sheet, -1, (3, 3))
    smooth = 1 - factor
    cv2.addWeighted(sheet, factor + smooth * 4 / 13, mean, smooth * 9 / 13, _DOWN, dst=_sheet(out_CTHW))
    for edge in np.s_[..., 0, :], np.s_[..., -1, :], np.s_[..., 0], np.s_[..., -1]:
        out_CTHW[edge] = planes_CTHW[edge]
    return out_CTHW


def _contrast(counts_CTV: npt.NDArray[np.int64], factor: float) -> Tables:
    """Between the frame's mean grey (0) and the picture (1), or beyond."""
    means_CT = counts_CTV @ _VALUES / counts_CTV.sum(axis=2)
    grey_T = np.floor(_LUMA @ means_CT + 0.5)
    tables_TV = grey_T[:, None] + factor * (_VALUES[None] - grey_T[:, None])
    return np.broadcast_to(_to_uint8(tables_TV), counts_CTV.shape)


def _stretched(counts_V: npt.NDArray[np.int64]) -> Tables:
    """The values that occur, spread over 0 to 255."""
    present = np.flatnonzero(counts_V)
    low, high = int(present[0]), int(present[-1])
    if high <= low:
        return _to_uint8(_VALUES)
    scale = 255 / (high - low)
    return _to_uint8(_VALUES * scale - low * scale)


def _equalized(counts_V: npt.NDArray[np.int64]) -> Tables:
    """Values such that about as many pixels have each."""
    present = np.flatnonzero(counts_V)
    step = int(counts_V.sum() - counts_V[present[-1]]) // 255
    if len(present) <= 1 or not step:
        return _to_uint8(_VALUES)
    below_V = np.cumsum(counts_V) - counts_V
    return _to_uint8((step // 2 + below_V) // step)


def _count(planes_CTHW: Planes) -> npt.NDArray[np.int64]:
    channels, num_frames = planes_CTHW.shape[:2]
    counts_CTV = np.empty((channels, num_frames, 256), np.int64)
    for channel, frame in np.ndindex(channels, num_frames):
        counts = cv2.calcHist([planes_CTHW[channel, frame]], [0], None, [256], [0, 256])
        counts_CTV[channel, frame] = counts.reshape(-1)
    return counts_CTV


def _sheet(planes_CTHW: Planes) -> Planes:
    """The same memory as one tall picture."""
    return planes_CTHW.reshape(-1, planes_CTHW.shape[-1])


def _to_uint8(values: npt.NDArray[np.number]) -> Tables:
    """Cut off, not rounded, as PIL does."""
    table: Tables = np.clip(values, 0, 255).astype(np.uint8)
    return table
