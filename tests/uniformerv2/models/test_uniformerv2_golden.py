"""The model gives the numbers of the published code: outputs, gradients and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

CASES = ["a_kinetics", "b_ssv2", "c3_frozen"]
TOLERANCE = 2e-5
"""Of outputs and gradients, absolute; of values above 1 (tokens reach thousands in b_ssv2), of the largest value."""
BF16_BOUND = 0.075
"""Of bf16 logits, absolute, where logits have a standard deviation of 0.8 to 1.6; the published code errs as much."""

LoadGolden = Callable[[str], Any]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_published_ones(golden: LoadGolden, case: str) -> None:
    recorded = golden(case)
    logits = recorded.model().eval()(recorded.tensors["input"])
    assert gap(logits, recorded.tensors["logits"]) < TOLERANCE
    assert gap(logits, recorded.tensors["logits_fp64"]) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_train_mode_gives_the_published_logits_and_running_statistics(golden: LoadGolden, case: str) -> None:
    recorded = golden(case)
    model = recorded.model().train()
    assert gap(model(recorded.tensors["input"]), recorded.tensors["logits_train_mode_no_dropout"]) < TOLERANCE
    after = model.state_dict()
    for key, value in recorded.named("buffer_after_train_forward.").items():
        assert gap(after[key], value) < TOLERANCE, key


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_published_ones(golden: LoadGolden, case: str) -> None:
    recorded = golden(case)
    model = recorded.model().eval()
    (model(recorded.tensors["input"]) * recorded.tensors["loss_weight"]).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    norms = recorded.facts["grad_norms"]
    assert set(grads) == set(norms)
    for name, grad in grads.items():
        assert grad.norm().item() == pytest.approx(norms[name], rel=1e-5), name
    for name, value in recorded.named("grad.").items():
        assert gap(grads[name], value) < TOLERANCE, name


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_intermediate_is_the_published_one(golden: LoadGolden, case: str) -> None:
    recorded = golden(case)
    model = recorded.model().eval()
    seen = record(model)
    model(recorded.tensors["input"])
    expected = recorded.named("inter.")
    assert set(seen) == set(expected)
    for name, value in expected.items():
        assert gap(seen[name], value) < TOLERANCE * max(1.0, value.abs().max().item()), name


@pytest.mark.parametrize("case", ["a_kinetics", "b_ssv2", "c3_frozen"])
@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bf16_stays_within_its_bound(golden: LoadGolden, case: str, way: str) -> None:
    recorded = golden(case)
    model, clip = recorded.model().eval(), recorded.tensors["input"]
    if way == "weights":
        model, clip = model.bfloat16(), clip.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
        logits = model(clip)
    assert gap(logits, recorded.tensors["logits_fp64"]) < BF16_BOUND


def record(model: Any) -> dict[str, Tensor]:
    """Hooks that fill the returned dict with the model's intermediates in the recorded, sequence-first layouts."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, layout: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: layout(output)})

    def keep_parts(name: str, num_frames: int) -> Callable[..., None]:
        def keep_them(module: Any, inputs: Any, parts: tuple[Tensor, Tensor]) -> None:
            class_BTC, patch_BMC = parts
            patch_BTSC = patch_BMC.unflatten(1, (num_frames, -1))
            seen[name] = torch.cat([class_BTC[:, :, None], patch_BTSC], dim=2).flatten(1, 2).transpose(0, 1)

        return keep_them

    def keep_input(name: str, layout: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: layout(inputs[0])})

    transformer = model.transformer
    model.conv1.register_forward_hook(
        keep("patch_embed", lambda x: x.unflatten(2, model.config.grid).permute(0, 4, 1, 2, 3))
    )
    model.ln_pre.register_forward_hook(keep("after_ln_pre_NT_L_C", lambda x: x.flatten(0, 1)))
    for i, block in enumerate(transformer.resblocks):
        block.register_forward_hook(keep(f"resblock{i}_L_NT_C", lambda x: x.flatten(0, 1).transpose(0, 1)))
    for j, block in enumerate(transformer.dec):
        block.register_forward_hook(keep(f"global_cls_after_dec{j}_1_N_C", lambda x: x.transpose(0, 1)))
    num_frames = model.config.num_frames // (2 if model.config.temporal_downsample else 1)
    for j, encoding in enumerate(transformer.dpe):
        encoding.register_forward_hook(keep_parts(f"global_kv_input{j}_TL_N_C", num_frames))
    transformer.proj.register_forward_hook(keep_input("head_input", lambda x: x))
    transformer.proj[0].register_forward_hook(keep("head_after_norm", lambda x: x))
    return seen


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()
