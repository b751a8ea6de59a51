"""The published checkpoints whose keys are recorded, and the configuration of each."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch

from uniformerv2 import UniFormerV2, UniFormerV2Config

ARCHITECTURES = {
    "b16_k400_f8x224": "b16 kinetics",
    "b16_k600_f8x224": "b16 kinetics",
    "b16_k710_f8x224": "b16 kinetics",
    "b16_mit_f8x224": "b16 kinetics",
    "b16_ssv2_f16x224": "b16 ssv2",
    "frozen_l14_336_k400_f8x336": "l14_336 frozen",
    "l14_336_k400_f32x336": "l14_336 kinetics",
    "l14_336_k400_f8x336": "l14_336 kinetics",
    "l14_336_k710_f8x336": "l14_336 kinetics",
    "l14_anet_f16x224": "l14 kinetics",
    "l14_k400_f8x224": "l14 kinetics",
    "l14_k710_f8x224": "l14 kinetics",
    "l14_ssv2_f16x224": "l14 ssv2",
}
"""Name of a checkpoint -> of its architecture."""
NUM_CLASSES = {"k400": 400, "k600": 600, "k710": 710, "mit": 339, "ssv2": 174, "anet": 200}


def num_classes_of(name: str) -> int:
    return next(count for data, count in NUM_CLASSES.items() if f"_{data}_" in name)


def config_of(name: str) -> UniFormerV2Config:
    """The configuration of a published checkpoint, told by its name."""
    matched = re.fullmatch(r"(frozen_)?(b16|l14|l14_336)_([a-z0-9]+)_f(\d+)x\d+", name)
    assert matched
    frozen, size, data, frames = matched.groups()
    kind: Any = "ssv2" if data == "ssv2" else "kinetics"
    config = UniFormerV2Config.variant(size, kind=kind, frames=int(frames), classes=NUM_CLASSES[data])  # type: ignore[arg-type]
    return dataclasses.replace(config, frozen_backbone=bool(frozen))


def meta_model(config: UniFormerV2Config) -> UniFormerV2:
    """A model without values, which costs nothing."""
    with torch.device("meta"):
        return UniFormerV2(config)
