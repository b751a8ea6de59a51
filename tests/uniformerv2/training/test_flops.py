"""Multiply-accumulates by formula."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.models.fusion import Fusion
from uniformerv2.training.flops import count_macs, peak_flops

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


def test_fusions_cost_what_they_add_to_the_sequential_one() -> None:
    base = UniFormerV2Config.variant("b16")
    plain = count_macs(base).total
    cost = {fusion: count_macs(dataclasses.replace(base, fusion=fusion)).total - plain for fusion in get_args(Fusion)}
    one_block = plain - count_macs(dataclasses.replace(base, global_layers=(8, 9, 10))).total - 27 * 8 * 196 * 768
    assert cost == {
        "sequential": 0,
        "parallel": 4 * 768**2,
        "hierarchical_kv": 3 * 2 * 12 * 768,
        "hierarchical_q": (1 + 2 + 3) * one_block,
    }


@pytest.mark.parametrize("fusion", get_args(Fusion))
@pytest.mark.parametrize("kind", ["kinetics", "ssv2"])
def test_the_count_of_our_algorithm_is_what_torch_counts(fusion: Fusion, kind: str) -> None:
    base = UniFormerV2Config.variant("b16", kind=kind, frames=4)  # type: ignore[arg-type]
    config = dataclasses.replace(base, layers=3, global_layers=(0, 2), image_size=(32, 48), fusion=fusion)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UniFormerV2(config).train()(torch.empty(1, 3, 4, 32, 48))
    counted = counter.get_total_flops()
    # Torch sees no convolution over time: it runs as scaled sums of neighbouring frames.
    temporal = 2 * 3 * 2 * 512 * 3 * 2 * 6 if kind == "ssv2" else 0
    assert counted + temporal == 2 * count_macs(config).total


@pytest.mark.parametrize("frozen", [False, True])
def test_a_training_step_costs_what_torch_counts(frozen: bool) -> None:
    base = UniFormerV2Config.variant("b16", frames=4, classes=2000)
    config = dataclasses.replace(base, layers=3, global_layers=(2,), image_size=(64, 64), frozen_backbone=frozen)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UniFormerV2(config).train()(torch.empty(2, 3, 4, 64, 64)).sum().backward()
    # The first product has no gradient of its input, a fused backward counts scores twice, and torch takes the
    # gradient of a depth-wise convolution for a dense one.
    dense = sum(count for name, count in _by_operation(counter).items() if "convolution_backward" in name)
    assert (counter.get_total_flops() - dense) / 2 == pytest.approx(count_macs(config).training_flops, rel=0.05)


def _by_operation(counter: FlopCounterMode) -> dict[str, int]:
    return {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("NVIDIA H200", torch.bfloat16, 989.4),
        ("NVIDIA GH200 480GB", torch.bfloat16, 989.4),
        ("NVIDIA H100 80GB HBM3", torch.float16, 989.4),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756),
        ("NVIDIA H100 NVL", torch.bfloat16, 835.5),
        ("NVIDIA A100-SXM4-80GB", torch.float32, 19.5),
        ("NVIDIA A10", torch.bfloat16, 125),
        ("NVIDIA L40S", torch.bfloat16, 362.05),
        ("NVIDIA L4", torch.bfloat16, 121),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2),
        ("Tesla V100-SXM2-16GB", torch.float16, 125),
        ("Tesla V100-SXM2-16GB", torch.bfloat16, None),
        ("NVIDIA GeForce RTX 4090 D", torch.bfloat16, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", torch.bfloat16, None),
        ("NVIDIA A10G", torch.bfloat16, None),
        ("NVIDIA H200", torch.float64, None),
        ("AMD Instinct MI300X", torch.bfloat16, None),
    ],
)
def test_the_peak_of_a_device_goes_by_its_name_and_an_unknown_one_has_none(
    name: str, dtype: torch.dtype, tflops: float | None
) -> None:
    assert peak_flops(name, dtype) == (tflops * 1e12 if tflops is not None else None)
