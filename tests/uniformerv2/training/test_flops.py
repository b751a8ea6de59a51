"""Multiply-accumulates by formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from uniformerv2 import UniFormerV2Config
from uniformerv2.training.flops import count_macs

NAMES = (
    "b16_f8_224_k400",
    "l14_f8_224_k400",
    "l14_f16_224_k400",
    "l14_f32_224_k400",
    "l14_f8_336_k400",
    "l14_f32_336_k400",
    "l14_f64_336_k400",
    "b16_f16_ssv2",
    "l14_f16_ssv2",
    "b16_f32_ssv2",
    "l14_f32_ssv2",
)


def _config(name: str) -> UniFormerV2Config:
    variant, frames, *rest = name.split("_")
    sizes: dict[str, Any] = {"frames": int(frames[1:]), "classes": 174 if "ssv2" in rest else 400}
    kind: Any = "ssv2" if "ssv2" in rest else "kinetics"
    return UniFormerV2Config.variant("l14_336" if "336" in rest else variant, kind=kind, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_published_algorithm_counts_as_published(shared: Path, name: str) -> None:
    published = json.loads((shared / "golden/uniformerv2/flops.json").read_text())
    assert set(published) == set(NAMES)
    assert count_macs(_config(name), "published").total / 1e9 == pytest.approx(published[name]["gmac"], rel=5e-3)


def test_only_the_global_blocks_cost_less_here() -> None:
    config = UniFormerV2Config.variant("b16")
    ours, published = count_macs(config), count_macs(config, "published")
    assert ours.total == published.total - (published.global_blocks - ours.global_blocks)
    assert ours.total / published.total == pytest.approx(0.951, abs=1e-3)


def test_a_training_step_costs_three_forward_passes_of_two_operations_each() -> None:
    count = count_macs(UniFormerV2Config.variant("b16"))
    assert count.training_flops == 6 * count.total
