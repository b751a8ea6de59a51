"""Models small enough for every test, and clips for them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from uniformerv2 import UniFormerV2, UniFormerV2Config

TINY = UniFormerV2Config(
    image_size=32, patch_size=16, width=32, layers=3, heads=2, num_frames=4, num_classes=5, global_layers=(1, 2)
)
"""The Kinetics kind: global blocks only."""
LOCAL = dataclasses.replace(
    TINY, local_blocks=2, temporal_downsample=True, drop_path_backbone=0.2, drop_path_global=0.4
)
"""The Something-Something kind: temporal convolutions too."""


def clips(config: UniFormerV2Config, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, config.num_frames, *config.frame_size, generator=generator)


def randomised(model: UniFormerV2) -> UniFormerV2:
    """Fresh blocks are identities and would hide mistakes: every parameter gets a value of its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
