"""The model gives the numbers of the published code: outputs, gradients, statistics, and twelve training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CASES = ["a_kinetics", "b_ssv2", "c3_frozen"]
TOLERANCE = 2e-5
"""Of outputs and gradients, absolute; of values above 1 (tokens reach thousands in b_ssv2), of the largest value."""

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


@pytest.mark.parametrize("case", ["a_kinetics", "b_ssv2"])
def test_twelve_training_steps_follow_the_published_code(golden: LoadGolden, case: str) -> None:
    trajectory, start = golden(f"trajectory_{case}"), golden(case)
    model = start.model().train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for step, lr in enumerate(trajectory.facts["lr"]):
        for group in optimiser.param_groups:
            group["lr"] = lr
        logits = model(trajectory.tensors["clips"][step].float())
        loss = nn.functional.cross_entropy(logits, trajectory.tensors["labels"][step])
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimiser.step()
        assert loss.item() == pytest.approx(trajectory.facts["loss"][step], rel=1e-5), step
        assert norm.item() == pytest.approx(trajectory.facts["grad_norm"][step], rel=1e-5), step
    final = model.state_dict()
    for key, value in trajectory.named("final.").items():
        assert gap(final[key], value) < TOLERANCE * max(1.0, value.abs().max().item()), key


def record(model: Any) -> dict[str, Tensor]:
    """Hooks that fill the returned dict with the model's intermediates in the recorded, sequence-first layouts."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, layout: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: layout(output)})

    def keep_input(name: str, layout: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: layout(inputs[0])})

    transformer = model.transformer
    model.conv1.register_forward_hook(keep("patch_embed", lambda x: x.permute(0, 4, 1, 2, 3)))
    model.ln_pre.register_forward_hook(keep("after_ln_pre_NT_L_C", lambda x: x.flatten(0, 1)))
    for i, block in enumerate(transformer.resblocks):
        block.register_forward_hook(keep(f"resblock{i}_L_NT_C", lambda x: x.flatten(0, 1).transpose(0, 1)))
    for j, block in enumerate(transformer.dec):
        block.register_forward_hook(keep(f"global_cls_after_dec{j}_1_N_C", lambda x: x[None]))
        block.ln_3.register_forward_hook(keep_input(f"global_kv_input{j}_TL_N_C", lambda x: x.transpose(0, 1)))
    transformer.proj.register_forward_hook(keep_input("head_input", lambda x: x))
    transformer.proj[0].register_forward_hook(keep("head_after_norm", lambda x: x))
    return seen


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()
