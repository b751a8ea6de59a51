"""What the model is measured against: the published algorithm, and its own matrix products."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from golden_cases import recorded_config
from matrix_products import record_products, run_all
from published_model import PublishedUniFormerV2
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_step import TrainingStep, kept_bytes

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.training.flops import count_macs

SMALL = UniFormerV2Config(
    image_size=32, patch_size=16, width=64, layers=3, heads=1, num_frames=4, num_classes=5, global_layers=(1, 2)
)


@pytest.mark.parametrize("case", ["a_kinetics", "b_ssv2"])
def test_the_baseline_is_the_published_algorithm_bit_for_bit(shared: Path, case: str) -> None:
    folder = shared / "golden/uniformerv2"
    facts, tensors = json.loads((folder / f"{case}.json").read_text()), load_file(folder / f"{case}.safetensors")
    config = recorded_config(facts)
    model = PublishedUniFormerV2(config).eval()
    model.load_state_dict({k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")})
    assert torch.equal(model(tensors["input"]), tensors["logits"])


def test_the_recorded_products_are_all_products_of_the_model_and_no_more() -> None:
    products = record_products(UniFormerV2(SMALL).eval(), torch.randn(2, 3, 4, 32, 32))
    with FlopCounterMode(display=False) as counter:
        run_all(products)
    position_encodings = 2 * 2 * 27 * 4 * 4 * 64 * 2
    assert counter.get_total_flops() == 2 * 2 * count_macs(SMALL).total - position_encodings


def test_ours_keeps_less_than_the_published_algorithm() -> None:
    clip = torch.randn(2, 3, 4, 32, 32)
    kept = {
        kind: kept_bytes(TrainingStep(kind(SMALL), clip, torch.float32)) for kind in (UniFormerV2, PublishedUniFormerV2)
    }
    assert kept[UniFormerV2] < 0.8 * kept[PublishedUniFormerV2]


def test_a_training_step_moves_every_parameter() -> None:
    torch.manual_seed(0)
    model = UniFormerV2(dataclasses.replace(SMALL, dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TrainingStep(model, torch.randn(2, 3, 4, 32, 32), torch.float32)()
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "config",
    [
        UniFormerV2Config.variant("b16"),
        UniFormerV2Config.variant("b16", kind="ssv2", frames=16, classes=174),
        UniFormerV2Config.variant("l14"),
        UniFormerV2Config.variant("l14_336"),
    ],
    ids=["b16", "b16 ssv2", "l14", "l14_336"],
)
def test_full_size_models_give_the_logits_of_the_published_algorithm(config: UniFormerV2Config) -> None:
    torch.manual_seed(0)
    ours, published = UniFormerV2(config).eval(), PublishedUniFormerV2(config).eval()
    _randomise(ours)
    published.load_state_dict(ours.state_dict())
    clip = torch.randn(1, 3, config.num_frames, *config.frame_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), published(clip), rtol=0, atol=2e-5)


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Fresh blocks are identities, fresh statistics too."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.5 / math.sqrt(768)))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
