"""Decoded frames to what the model takes. Axes: T frame, H height, W width, C channel, V test view."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from uniformerv2.data.erasing import ErasedBy, erase
from uniformerv2.data.randaugment.colour import recolour
from uniformerv2.data.randaugment.geometry import moves, planes, warp
from uniformerv2.data.randaugment.policy import Operation, draw, parse_policy
from uniformerv2.data.randaugment.published import apply_published
from uniformerv2.data.sampling import Box, random_resized_crop, short_side_size, test_boxes

MEAN = 0.45
STD = 0.225
"""Of pixels in [0, 1], all channels, as in the published training; not the values of CLIP."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What happens to a training clip; every frame of a clip gets the same."""

    area: tuple[float, float] = (0.08, 1.0)
    """Share of the picture's area that the random crop takes."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the random crop, drawn log-uniform."""
    flip: float = 0.5
    """Probability of a mirror image; 0 where left and right are different classes."""
    brightness: float = 0.0
    """Pixels are multiplied by 1 +- this; not in the published recipe."""
    contrast: float = 0.0
    """Distances to the clip's mean are multiplied by 1 +- this; not in the published recipe."""
    randaugment: str = ""
    """A policy such as the published ``rand-m7-n4-mstd0.5-inc1``; empty: none."""
    randaugment_mode: Literal["fast", "published"] = "fast"
    """``published``: each operation by itself on whole frames; ``fast``: merged, see ``augment``."""
    erase: float = 0.0
    """Probability that a box is erased, the same one in all frames; not in the published recipe."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Share of the picture's area that is erased."""
    erase_aspect: tuple[float, float] = (0.3, 10 / 3)
    """Width / height of the erased box, drawn log-uniform."""
    erase_mode: ErasedBy = "noise"
    """What stands in the box: ``noise``, normal and anew for each pixel, or the ``mean`` of normalisation."""
    mixup: float = 0.0
    """Both parameters of the Beta distribution of the weight that a clip keeps when it is mixed with another; 0: off.
    Not in the published recipe."""
    cutmix: float = 0.0
    """The same for the share of the picture that a clip keeps when a box of another replaces the rest; 0: off."""
    mix_probability: float = 1.0
    """Of mixing the clips of a micro-batch at all, where either is on."""
    mix_switch: float = 0.5
    """Probability of cutmix where both are on."""

    def __post_init__(self) -> None:
        for name in ("area", "erase_area"):
            if not 0 < getattr(self, name)[0] <= getattr(self, name)[1] <= 1:
                raise ValueError(f"{name} must be two ascending shares in (0, 1], got {getattr(self, name)}")
        for name in ("aspect", "erase_aspect"):
            if not 0 < getattr(self, name)[0] <= getattr(self, name)[1]:
                raise ValueError(f"{name} must be two ascending positive ratios, got {getattr(self, name)}")
        for name in ("flip", "brightness", "contrast", "erase", "mix_probability", "mix_switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.randaugment:
            parse_policy(self.randaugment)


def augment(frames_THWC: npt.NDArray[np.uint8], config: AugmentConfig, size: int, rng: random.Random) -> Tensor:
    """A training clip, uint8 [C, T, size, size]: RandAugment, crop, resize, mirror, light, erasing.

    The resize rounds to whole pixel values, where the published code resizes normalised floats: a quarter of the time,
    and a quarter of the bytes from worker to trainer.

    The ``fast`` RandAugment draws the same operations as ``published`` from the same generator, and differs in this:
    all that moves pixels is one bilinear look-up together with crop, resize and mirror, where published does one after
    the other, bicubic; colours change after that, so that the fill changes too, at ``size``, and the statistics of
    ``auto_contrast``, ``equalize`` and ``contrast`` are those of what the crop left.
    """
    operations = draw(parse_policy(config.randaugment), rng) if config.randaugment else []
    if config.randaugment_mode == "published":
        frames_THWC, operations = apply_published(frames_THWC, operations), []
    height, width = frames_THWC.shape[1:3]
    box = random_resized_crop(height, width, area=config.area, aspect=config.aspect, rng=rng)
    mirrored = rng.random() < config.flip
    if operations:
        clip_TCHW = _fast(frames_THWC, operations, box, size, mirrored=mirrored)
    else:
        clip_TCHW = _resized(frames_THWC, box, size)
        clip_TCHW = clip_TCHW.flip(3) if mirrored else clip_TCHW
    brightness = 1 + rng.uniform(-config.brightness, config.brightness)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    if config.brightness or config.contrast:
        clip_TCHW = _relight(clip_TCHW, brightness, contrast)
    clip_CTHW = clip_TCHW.permute(1, 0, 2, 3).contiguous()
    if config.erase and rng.random() < config.erase:
        erase(clip_CTHW, area=config.erase_area, aspect=config.erase_aspect, by=config.erase_mode, rng=rng)
    return clip_CTHW


def normalise(pixels: Tensor) -> Tensor:
    """Float32 in units of the standard deviation, from pixel values 0-255 of any shape."""
    return _normalise_in_place(pixels.to(torch.float32, copy=True))


def test_views(frames_THWC: npt.NDArray[np.uint8], size: int, num_crops: int) -> Tensor:
    """The ``num_crops`` spatial test views of a clip, float32 [V, C, T, size, size], as in the published test.

    Bilinear resize (no antialias) of the short side to ``size``, normalise, crop.
    """
    return all_test_views(frames_THWC, size, num_clips=1, num_crops=num_crops)


def all_test_views(frames_THWC: npt.NDArray[np.uint8], size: int, *, num_clips: int, num_crops: int) -> Tensor:
    """The same for ``num_clips`` test clips, whose frames follow each other: view v is of clip v // num_crops."""
    num_frames = len(frames_THWC) // num_clips
    height, width = short_side_size(frames_THWC.shape[1], frames_THWC.shape[2], size)
    boxes = test_boxes(height, width, size, num_crops)
    # All views in one piece from the start: to put them together later would take as long as to make them. From numpy,
    # which asks Linux for huge pages: with small ones the memory takes longer to come than to be filled.
    views_VCTHW = torch.from_numpy(np.empty((num_clips * num_crops, 3, num_frames, size, size), np.float32))
    for clip in range(num_clips):
        whole_CTHW = _whole(frames_THWC[clip * num_frames : (clip + 1) * num_frames], height, width)
        for crop, box in enumerate(boxes):
            part_CTHW = whole_CTHW[:, :, box.top : box.top + size, box.left : box.left + size]
            views_VCTHW[clip * num_crops + crop] = part_CTHW
    return views_VCTHW


def _fast(
    frames_THWC: npt.NDArray[np.uint8], operations: Sequence[Operation], box: Box, size: int, *, mirrored: bool
) -> Tensor:
    cv2.setNumThreads(1)  # workers are the parallelism
    if moves(operations):
        clip_CTHW = warp(frames_THWC, operations, box, size, mirrored=mirrored)
    else:
        clip_CTHW = planes(_resized(frames_THWC, box, size).permute(0, 2, 3, 1).numpy(), mirrored=mirrored)
    return torch.from_numpy(recolour(clip_CTHW, operations)).transpose(0, 1)


def _resized(frames_THWC: npt.NDArray[np.uint8], box: Box, size: int) -> Tensor:
    part_THWC = frames_THWC[:, box.top : box.top + box.height, box.left : box.left + box.width]
    # Permuted, not copied: torch resizes channel-last uint8 three times as fast as contiguous channels.
    part_TCHW = torch.from_numpy(part_THWC).permute(0, 3, 1, 2)
    return F.interpolate(part_TCHW, (size, size), mode="bilinear", align_corners=False)


def _relight(pixels: Tensor, brightness: float, contrast: float) -> Tensor:
    light = pixels.float() * brightness
    mean = light.mean()
    return ((light - mean) * contrast + mean).round().clamp(0, 255).to(torch.uint8)


def _whole(frames_THWC: npt.NDArray[np.uint8], height: int, width: int) -> Tensor:
    pixels_TCHW = torch.from_numpy(frames_THWC.astype(np.float32)).permute(0, 3, 1, 2)
    clip_TCHW = F.interpolate(pixels_TCHW, (height, width), mode="bilinear", align_corners=False)
    return _normalise_in_place(torch.from_numpy(planes(clip_TCHW.permute(0, 2, 3, 1).numpy())))


def _normalise_in_place(pixels: Tensor) -> Tensor:
    return pixels.div_(255).sub_(MEAN).div_(STD)
