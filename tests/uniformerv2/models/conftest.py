"""Golden cases: small models whose every number was recorded from the published code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from uniformerv2 import UniFormerV2, UniFormerV2Config


@dataclass(frozen=True)
class Golden:
    """One recorded case."""

    config: UniFormerV2Config
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def named(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def model(self) -> UniFormerV2:
        model = UniFormerV2(self.config)
        model.load_official(self.named("state."))
        return model


@pytest.fixture
def golden(shared: Path) -> Callable[[str], Golden]:
    def load(case: str) -> Golden:
        folder = shared / "golden/uniformerv2"
        facts = json.loads((folder / f"{case}.json").read_text())
        return Golden(config_of(facts), load_file(folder / f"{case}.safetensors"), facts)

    return load


def config_of(facts: dict[str, Any]) -> UniFormerV2Config:
    """Config of a recorded case, without dropout and drop path: the recordings have none."""
    return UniFormerV2Config(
        image_size=facts["input_resolution"],
        patch_size=facts["patch_size"],
        width=facts["width"],
        layers=facts["layers"],
        heads=facts["heads"],
        num_frames=facts["num_frames"],
        num_classes=facts["num_classes"],
        local_blocks=0 if facts["no_lmhra"] else 1 + facts["double_lmhra"],
        dw_reduction=facts.get("dw_reduction", 1.5),
        temporal_downsample=facts["temporal_downsample"],
        global_layers=tuple(facts["return_list"]),
        frozen_backbone=facts.get("frozen", False),
        dropout=0.0,
    )
