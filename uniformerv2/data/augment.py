"""Decoded frames to what the model takes. Axes: B clip, T frame, H height, W width, C channel, V test view."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

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

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must be two ascending shares in (0, 1], got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect must be two ascending positive ratios, got {self.aspect}")
        for name in ("flip", "brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")


def augment(frames_THWC: npt.NDArray[np.uint8], config: AugmentConfig, size: int, rng: random.Random) -> Tensor:
    """A training clip, uint8 [C, T, size, size], cropped, resized and mirrored at random.

    The resize rounds to whole pixel values, where the published code resizes normalised floats: a quarter of the time,
    and a quarter of the bytes from worker to trainer.
    """
    _, height, width, _ = frames_THWC.shape
    box = random_resized_crop(height, width, area=config.area, aspect=config.aspect, rng=rng)
    clip_TCHW = F.interpolate(_cut(frames_THWC, box), (size, size), mode="bilinear", align_corners=False)
    if rng.random() < config.flip:
        clip_TCHW = clip_TCHW.flip(3)
    brightness = 1 + rng.uniform(-config.brightness, config.brightness)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    if config.brightness or config.contrast:
        clip_TCHW = _relight(clip_TCHW, brightness, contrast)
    return clip_TCHW.permute(1, 0, 2, 3).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """Float32 in units of the standard deviation, from pixel values 0-255 of any shape."""
    return (pixels.float() / 255 - MEAN) / STD


def test_views(frames_THWC: npt.NDArray[np.uint8], size: int, num_crops: int) -> Tensor:
    """The ``num_crops`` spatial test views of a clip, float32 [V, C, T, size, size], as in the published test.

    Normalise, bilinear resize (no antialias) of the short side to ``size``, crop.
    """
    clip_TCHW = normalise(torch.from_numpy(frames_THWC).permute(0, 3, 1, 2))
    height, width = short_side_size(frames_THWC.shape[1], frames_THWC.shape[2], size)
    clip_TCHW = F.interpolate(clip_TCHW, (height, width), mode="bilinear", align_corners=False)
    boxes = test_boxes(height, width, size, num_crops)
    crops = [clip_TCHW[:, :, b.top : b.top + size, b.left : b.left + size] for b in boxes]
    return torch.stack(crops).transpose(1, 2).contiguous()


def _cut(frames_THWC: npt.NDArray[np.uint8], box: Box) -> Tensor:
    # Permuted, not copied: torch resizes channel-last uint8 three times as fast as contiguous channels.
    part = frames_THWC[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return torch.from_numpy(part).permute(0, 3, 1, 2)


def _relight(pixels: Tensor, brightness: float, contrast: float) -> Tensor:
    light = pixels.float() * brightness
    mean = light.mean()
    return ((light - mean) * contrast + mean).round().clamp(0, 255).to(torch.uint8)
