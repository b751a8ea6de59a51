"""The published input pipeline, step by step as its description says: the baseline of `bench/feed.py`.

Written to be compared with, not to be used. A clip goes from a file to the float32 clip that the model takes: decoded
with `decord` (PyAV from the first frame on where it is not installed), RandAugment on every frame as a PIL picture at
full size, normalised, random resized crop on floats, mirrored.

Axes: C channel, T frame, H height, W width.
"""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
FILL = (128, 128, 128)
MAX_MAGNITUDE = 10

Frames = npt.NDArray[np.uint8]
Picture = Image.Image
Operation = Callable[[Picture, float, int], Picture]


def train_clip(path: Path, num_frames: int, size: int, rng: random.Random) -> Tensor:
    """A training clip, float32 [C, T, size, size]."""
    frames_THWC = decode(path, lambda num_source: train_indices(num_source, num_frames, rng))
    pictures = rand_augment([Image.fromarray(frame) for frame in frames_THWC], rng)
    clip_TCHW = torch.stack([to_tensor(picture) for picture in pictures])
    clip_THWC = normalise(clip_TCHW.permute(0, 2, 3, 1))
    clip_CTHW = random_resized_crop(clip_THWC.permute(3, 0, 1, 2), size, rng)
    return clip_CTHW.flip((-1,)) if rng.random() < 0.5 else clip_CTHW


def test_view(path: Path, num_frames: int, size: int, view: int, *, clips: int, crops: int) -> Tensor:
    """One test view, float32 [C, T, size, size]: the whole video is opened again for each of the clips x crops."""
    clip, crop = divmod(view, crops)
    frames_THWC = decode(path, lambda num_source: test_indices(num_source, num_frames, clip, clips))
    clip_CTHW = normalise(torch.from_numpy(frames_THWC)).permute(3, 0, 1, 2)
    height, width = clip_CTHW.shape[2:]
    resized = (size, int(width / height * size)) if height < width else (int(height / width * size), size)
    clip_CTHW = F.interpolate(clip_CTHW, resized, mode="bilinear", align_corners=False)
    spare = max(resized) - size
    offset = math.ceil(spare / 2) if crops == 1 else (0, math.ceil(spare / 2), spare)[crop]
    top, left = (offset, 0) if resized[0] > resized[1] else (0, offset)
    return clip_CTHW[:, :, top : top + size, left : left + size]


def decoder_name() -> str:
    """What ``decode`` uses here."""
    return "decord" if find_spec("decord") else "PyAV, every frame"


def decode(path: Path, choose: Callable[[int], list[int]]) -> Frames:
    """RGB frames [T, H, W, 3] at ``choose(number of frames)``."""
    if find_spec("decord") is None:
        return _decode_all(path, choose)
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=1, ctx=decord.cpu(0))
    frames: Frames = reader.get_batch(choose(len(reader))).asnumpy()
    return frames


def train_indices(num_source: int, num_frames: int, rng: random.Random) -> list[int]:
    """One random frame of each of ``num_frames`` equal segments."""
    segment = (num_source - 1) / num_frames
    return [rng.randint(round(segment * i), round(segment * (i + 1))) for i in range(num_frames)]


def test_indices(num_source: int, num_frames: int, clip: int, clips: int) -> list[int]:
    """The frames of one of ``clips`` test clips."""
    segment = (num_source - 1) / num_frames
    shift = int(segment / (clips + 1) * (clip + 1))
    return [min(round(segment * i) + shift, num_source - 1) for i in range(num_frames)]


def to_tensor(picture: Picture) -> Tensor:
    """Float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)


def normalise(clip_THWC: Tensor) -> Tensor:
    """Float32 in units of the standard deviation."""
    if clip_THWC.dtype == torch.uint8:
        clip_THWC = clip_THWC.float() / 255
    return (clip_THWC - torch.tensor(MEAN)) / torch.tensor(STD)


def random_resized_crop(clip_CTHW: Tensor, size: int, rng: random.Random) -> Tensor:
    """A random part of 8 to 100 % of the picture, its aspect 3/4 to 4/3, resized as floats without antialias."""
    height, width = clip_CTHW.shape[2:]
    top, left, box_height, box_width = _random_box(height, width, rng)
    part = clip_CTHW[:, :, top : top + box_height, left : left + box_width]
    return F.interpolate(part, (size, size), mode="bilinear", align_corners=False)


def rand_augment(pictures: Sequence[Picture], rng: random.Random) -> list[Picture]:
    """``rand-m7-n4-mstd0.5-inc1``: four operations with replacement, each with probability 0.5, alike on all frames."""
    now = list(pictures)
    for operation in rng.choices(OPERATIONS, k=4):
        if rng.random() > 0.5:
            continue
        magnitude = min(max(rng.gauss(7, 0.5), 0), MAX_MAGNITUDE)
        sign = -1 if rng.random() > 0.5 else 1
        now = [operation(picture, magnitude, sign) for picture in now]
    return now


def _auto_contrast(picture: Picture, *_: float) -> Picture:
    return ImageOps.autocontrast(picture)


def _equalize(picture: Picture, *_: float) -> Picture:
    return ImageOps.equalize(picture)


def _invert(picture: Picture, *_: float) -> Picture:
    return ImageOps.invert(picture)


def _rotate(picture: Picture, magnitude: float, sign: int) -> Picture:
    degrees = sign * 30 * magnitude / MAX_MAGNITUDE
    return picture.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=FILL)


def _posterize(picture: Picture, magnitude: float, _: int) -> Picture:
    return ImageOps.posterize(picture, 4 - int(0.4 * magnitude))


def _solarize(picture: Picture, magnitude: float, _: int) -> Picture:
    return ImageOps.solarize(picture, 256 - int(25.6 * magnitude))


def _solarize_add(picture: Picture, magnitude: float, _: int) -> Picture:
    added = int(11 * magnitude)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return picture.point(table * 3)


def _color(picture: Picture, magnitude: float, sign: int) -> Picture:
    return ImageEnhance.Color(picture).enhance(1 + sign * 0.09 * magnitude)


def _contrast(picture: Picture, magnitude: float, sign: int) -> Picture:
    return ImageEnhance.Contrast(picture).enhance(1 + sign * 0.09 * magnitude)


def _brightness(picture: Picture, magnitude: float, sign: int) -> Picture:
    return ImageEnhance.Brightness(picture).enhance(1 + sign * 0.09 * magnitude)


def _sharpness(picture: Picture, magnitude: float, sign: int) -> Picture:
    return ImageEnhance.Sharpness(picture).enhance(1 + sign * 0.09 * magnitude)


def _shear_x(picture: Picture, magnitude: float, sign: int) -> Picture:
    return _affine(picture, (1, sign * 0.03 * magnitude, 0, 0, 1, 0))


def _shear_y(picture: Picture, magnitude: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, 0, sign * 0.03 * magnitude, 1, 0))


def _translate_x(picture: Picture, magnitude: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, sign * 0.045 * magnitude * picture.width, 0, 1, 0))


def _translate_y(picture: Picture, magnitude: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, 0, 0, 1, sign * 0.045 * magnitude * picture.height))


OPERATIONS: Sequence[Operation] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)


def _affine(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )


def _random_box(height: int, width: int, rng: random.Random) -> tuple[int, int, int, int]:
    for _ in range(10):
        target = height * width * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_width, box_height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return rng.randint(0, height - box_height), rng.randint(0, width - box_width), box_height, box_width
    ratio = min(max(width / height, 3 / 4), 4 / 3)
    box_width, box_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _decode_all(path: Path, choose: Callable[[int], list[int]]) -> Frames:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = list(container.decode(video=0))
    return np.stack([frames[i].to_ndarray(format="rgb24") for i in choose(len(frames))])
