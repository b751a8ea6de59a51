"""Twelve training steps follow the published code, and would not with any other optimiser than the published one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uniformerv2.config import OptimConfig
from uniformerv2.training.optim import make_optimizer, set_learning_rate

CASES = ["a_kinetics", "b_ssv2"]
TOLERANCE = 1e-5
"""Relative: of loss and gradient norm at every step, and of each final tensor in L2."""

LoadGolden = Callable[[str], Any]


@pytest.mark.parametrize("case", CASES)
def test_twelve_training_steps_follow_the_published_code(golden: LoadGolden, case: str) -> None:
    assert departure(golden, case) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wrong", ["everything decays", "nothing decays", "no clipping", "eps 1e-6"])
def test_another_optimiser_would_leave_the_trajectory(golden: LoadGolden, case: str, wrong: str) -> None:
    assert departure(golden, case, wrong) > TOLERANCE


def departure(golden: LoadGolden, case: str, wrong: str = "") -> float:
    """Largest relative difference from the recorded run, over losses, gradient norms and final tensors."""
    trajectory, start = golden(f"trajectory_{case}"), golden(case)
    model = start.model().train()
    optimizer = make_optimizer(model, OptimConfig(eps=1e-6 if wrong == "eps 1e-6" else 1e-8))
    if wrong.endswith("decays"):
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.05 if wrong == "everything decays" else 0.0
    clip_norm = 1e9 if wrong == "no clipping" else 20.0
    gaps = []
    for step, lr in enumerate(trajectory.facts["lr"]):
        set_learning_rate(optimizer, lr)
        logits = model(trajectory.tensors["clips"][step].float())
        loss = nn.functional.cross_entropy(logits, trajectory.tensors["labels"][step])
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        for value, name in ((loss, "loss"), (norm, "grad_norm")):
            gaps.append(abs(value.item() / trajectory.facts[name][step] - 1))
    final = model.state_dict()
    gaps += [distance(final[key], value) for key, value in trajectory.named("final.").items()]
    return max(gaps)


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp_min(torch.finfo(torch.float32).tiny)).item()
