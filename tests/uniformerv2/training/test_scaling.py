"""The scale of the loss, and steps that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.config import Recipe
from uniformerv2.training.scaling import Guard, dtype_of, with_precision


def test_the_scale_moves_as_that_of_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniformerv2.training.scaling.FINITE_STEPS", 3)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", growth_interval=3)
    guard = Guard(scaled=True)
    for norm in [1.0, math.inf, 1.0, 1.0, 1.0, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.inf]:
        scaler.scale(weight.sum()).backward()
        assert scaler.get_scale() == guard.scale
        weight.grad = torch.tensor([norm])
        scaler.step(optimizer)
        scaler.update()
        assert guard.judge(1.0, norm, step=0, allowed=0) == math.isfinite(norm)
    assert scaler.get_scale() == guard.scale
    assert guard.bad_steps == 3


def test_without_fp16_nothing_is_scaled() -> None:
    guard = Guard()
    assert guard.judge(1.0, 1.0, step=0, allowed=0)
    assert (guard.scale, guard.factor) == (None, 1.0)


@pytest.mark.parametrize(("loss", "norm", "named"), [(math.nan, math.nan, "loss is nan"), (1.0, math.inf, "is inf")])
def test_the_first_bad_step_stops_a_run_that_allows_none(loss: float, norm: float, named: str) -> None:
    with pytest.raises(UsageError, match=f"{named} at step 7"):
        Guard().judge(loss, norm, step=7, allowed=0)


def test_only_bad_steps_in_a_row_stop_a_run() -> None:
    guard = Guard()
    norms = [math.inf, math.inf, 1.0, math.inf, math.inf]
    assert [guard.judge(1.0, norm, step=0, allowed=2) for norm in norms] == [False, False, True, False, False]
    with pytest.raises(UsageError, match="the last of 3 such steps in a row"):
        guard.judge(1.0, math.inf, step=5, allowed=2)
    assert guard.bad_steps == 5


def test_a_scale_that_is_too_large_does_not_stop_a_run_but_one_that_cannot_shrink_does() -> None:
    guard = Guard(scaled=True)
    for _ in range(16):
        assert not guard.judge(1.0, math.inf, step=0, allowed=0)
    assert guard.scale == 1.0
    with pytest.raises(UsageError, match="norm of the gradient is inf"):
        guard.judge(1.0, math.inf, step=0, allowed=0)
    with pytest.raises(UsageError, match="the loss is nan"):
        Guard(scaled=True).judge(math.nan, math.nan, step=0, allowed=0)


def test_what_is_saved_is_all_that_is_known() -> None:
    guard, other = Guard(scaled=True), Guard(scaled=True)
    for norm in [1.0, math.inf, 1.0, 1.0]:
        guard.judge(1.0, norm, step=0, allowed=0)
    other.load_state_dict(guard.state_dict())
    assert (
        other.state_dict()
        == guard.state_dict()
        == {
            "scale": 32768.0,
            "finite_steps": 2,
            "bad_steps": 1,
            "bad_in_a_row": 0,
        }
    )


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("fp32", "cuda", torch.float32),
        ("bf16", "cpu", torch.bfloat16),
        ("fp16", "cuda", torch.float16),
    ],
)
def test_auto_is_bf16_on_an_accelerator_alone(precision: str, device: str, dtype: torch.dtype) -> None:
    assert dtype_of(precision, torch.device(device)) is dtype


def test_a_run_records_the_precision_that_auto_meant() -> None:
    recipe = Recipe(about="", model=UniFormerV2Config())
    assert with_precision(recipe, torch.device("cpu")).runtime.precision == "fp32"
    assert with_precision(recipe, torch.device("cuda")).runtime.precision == "bf16"
