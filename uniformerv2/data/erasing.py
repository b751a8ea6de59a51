"""Random erasing: a box of the picture, the same in all frames, that tells nothing. Axes: C channel, T frame, H, W.

Zhong et al., Random Erasing Data Augmentation; boxes and noise as in common video training.
"""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from uniformerv2.data.sampling import random_box

ErasedBy = Literal["noise", "mean"]

_MEAN = 0.45 * 255
_DEVIATION = 0.225 * 255
"""Of normalisation, in pixel values: noise is standard normal to the model, up to rounding and the ends 0 and 255."""


def erase(
    clip_CTHW: Tensor, *, area: tuple[float, float], aspect: tuple[float, float], by: ErasedBy, rng: random.Random
) -> None:
    """Erase a random box of the uint8 clip in place; nothing when 10 tries give no box that fits."""
    box = random_box(*clip_CTHW.shape[2:], area=area, aspect=aspect, rng=rng)
    if box is None:
        return
    part = clip_CTHW[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
    if by == "mean":
        part.fill_(round(_MEAN))
        return
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(part.shape, np.float32)
    pixels = np.clip(np.rint(noise * np.float32(_DEVIATION) + np.float32(_MEAN)), 0, 255).astype(np.uint8)
    part.copy_(torch.from_numpy(pixels))
