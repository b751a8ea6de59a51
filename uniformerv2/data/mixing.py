"""Mixup and cutmix: clips of a micro-batch two by two, and targets that say how much of each there is.

Zhang et al., mixup; Yun et al., CutMix. Axes: N sample, C channel, T frame, H height, W width, K class.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.sampling import Box


def mixes(config: AugmentConfig) -> bool:
    """Whether micro-batches may be mixed, so that targets are shares of classes, not one class each."""
    return bool((config.mixup or config.cutmix) and config.mix_probability)


def mix(
    clips_NCTHW: Tensor,
    labels_N: Tensor,
    *,
    config: AugmentConfig,
    num_classes: int,
    smoothing: float,
    rng: random.Random,
) -> tuple[Tensor, Tensor]:
    """The clips mixed with the same micro-batch in reverse order, and float32 targets [N, K] that sum to 1.

    One weight, and one box in all frames, for the whole micro-batch. A clip that would meet itself stays as it is.
    The clips that are given do not change.
    """
    targets_NK = smoothed(labels_N, num_classes, smoothing)
    if len(clips_NCTHW) < 2 or rng.random() >= config.mix_probability:
        return clips_NCTHW, targets_NK
    if config.cutmix and (not config.mixup or rng.random() < config.mix_switch):
        height, width = clips_NCTHW.shape[-2:]
        box = cutmix_box(height, width, rng.betavariate(config.cutmix, config.cutmix), rng)
        clips_NCTHW, kept = cut_in(clips_NCTHW, box)
    elif config.mixup:
        kept = rng.betavariate(config.mixup, config.mixup)
        clips_NCTHW = torch.lerp(clips_NCTHW.flip(0), clips_NCTHW, kept)
    else:
        kept = 1.0
    return clips_NCTHW, torch.lerp(targets_NK.flip(0), targets_NK, kept)


def smoothed(labels_N: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Float32 [N, K]: ``1 - smoothing`` for the label, and ``smoothing`` spread over all classes, the label too."""
    targets_NK = torch.full(
        (len(labels_N), num_classes), smoothing / num_classes, dtype=torch.float32, device=labels_N.device
    )
    return targets_NK.scatter_add_(1, labels_N[:, None], torch.full_like(targets_NK[:, :1], 1 - smoothing))


def cutmix_box(height: int, width: int, kept: float, rng: random.Random) -> Box:
    """A box of the picture's shape with ``1 - kept`` of its area around a random pixel, cut off at the border."""
    share = math.sqrt(1 - kept)
    box_height, box_width = int(height * share), int(width * share)
    middle_y, middle_x = rng.randrange(height), rng.randrange(width)
    top, left = max(middle_y - box_height // 2, 0), max(middle_x - box_width // 2, 0)
    bottom, right = min(middle_y + box_height // 2, height), min(middle_x + box_width // 2, width)
    return Box(top=top, left=left, height=bottom - top, width=right - left)


def cut_in(clips_NCTHW: Tensor, box: Box) -> tuple[Tensor, float]:
    """Copies of the clips with the box from the reversed micro-batch, and the share of the picture that they keep."""
    height, width = clips_NCTHW.shape[-2:]
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    mixed_NCTHW = clips_NCTHW.clone()
    mixed_NCTHW[..., rows, columns] = clips_NCTHW.flip(0)[..., rows, columns]
    return mixed_NCTHW, 1 - box.height * box.width / (height * width)
