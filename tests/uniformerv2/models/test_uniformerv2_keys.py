"""The model has the published parameters, by name, order and shape, in every published size."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from uniformerv2 import UniFormerV2, UniFormerV2Config

VARIANTS = {
    "b16_k400_f8x224": 114_552_208,
    "b16_k600_f8x224": 114_706_008,
    "b16_k710_f8x224": 114_790_598,
    "b16_mit_f8x224": 114_505_299,
    "b16_ssv2_f16x224": 162_992_814,
    "frozen_l14_336_k400_f8x336": 354_426_256,
    "l14_336_k400_f32x336": 354_427_280,
    "l14_336_k400_f8x336": 354_427_280,
    "l14_336_k710_f8x336": 354_745_030,
    "l14_anet_f16x224": 353_894_600,
    "l14_k400_f8x224": 354_099_600,
    "l14_k710_f8x224": 354_417_350,
    "l14_ssv2_f16x224": 573_949_966,
}
NUM_CLASSES = {"k400": 400, "k600": 600, "k710": 710, "mit": 339, "ssv2": 174, "anet": 200}


def test_every_recorded_variant_is_tried(shared: Path) -> None:
    recorded = {p.stem.removeprefix("keys_") for p in (shared / "golden/uniformerv2").glob("keys_*.json")}
    assert recorded == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_state_dict_is_the_published_one(shared: Path, name: str) -> None:
    recorded = json.loads((shared / f"golden/uniformerv2/keys_{name}.json").read_text())["keys"]
    model = meta_model(name)
    assert [(key, list(value.shape)) for key, value in model.state_dict().items()] == list(recorded.items())


@pytest.mark.parametrize(("name", "num_parameters"), VARIANTS.items())
def test_parameter_totals_are_the_published_ones(name: str, num_parameters: int) -> None:
    assert sum(p.numel() for p in meta_model(name).parameters()) == num_parameters


def test_a_frozen_model_trains_only_the_global_part() -> None:
    model = meta_model("frozen_l14_336_k400_f8x336")
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 303_505_408
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 50_920_848
    trained = {re.sub(r"\d.*", "", name) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"transformer.temporal_cls_token", "transformer.dpe.", "transformer.dec.", "transformer.proj."}


def meta_model(name: str) -> UniFormerV2:
    matched = re.fullmatch(r"(frozen_)?(b16|l14|l14_336)_([a-z0-9]+)_f(\d+)x(\d+)", name)
    assert matched
    frozen, size, data, frames, pixels = matched.groups()
    kind = "ssv2" if data == "ssv2" else "kinetics"
    config = UniFormerV2Config.variant(size, kind=kind, frames=int(frames), classes=NUM_CLASSES[data])  # type: ignore[arg-type]
    assert config.image_size == int(pixels)
    with torch.device("meta"):
        return UniFormerV2(dataclasses.replace(config, frozen_backbone=bool(frozen)))
