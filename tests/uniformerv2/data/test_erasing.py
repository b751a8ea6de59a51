"""Random erasing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uniformerv2.data.augment import normalise
from uniformerv2.data.erasing import ErasedBy, erase


def erased(seed: int, by: ErasedBy = "noise", size: int = 40, **ranges: tuple[float, float]) -> Tensor:
    """What is left of a clip of one colour, which neither noise nor mean is."""
    asked: dict[str, Any] = {"area": (0.02, 1 / 3), "aspect": (0.3, 10 / 3), **ranges}
    clip_CTHW = torch.full((3, 4, size, size), 255, dtype=torch.uint8)
    erase(clip_CTHW, by=by, rng=random.Random(seed), **asked)
    return clip_CTHW


@given(seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_one_box_of_the_size_asked_for_is_erased_in_all_frames(seed: int) -> None:
    gone_CTHW = erased(seed, "mean") != 255
    assert bool((gone_CTHW == gone_CTHW[:1, :1]).all())
    rows, columns = torch.nonzero(gone_CTHW[0, 0], as_tuple=True)
    height, width = (int(i.max() - i.min()) + 1 for i in (rows, columns))
    assert len(rows) == height * width
    assert 0.02 - 0.01 < len(rows) / 1600 < 1 / 3 + 0.03


def test_boxes_lie_everywhere() -> None:
    gone = torch.stack([erased(seed, "mean")[0, 0] != 255 for seed in range(200)])
    assert bool(gone.any(0).all())


def test_the_mean_is_nothing_to_the_model() -> None:
    clip = erased(0, "mean", area=(1.0, 1.0), aspect=(1.0, 1.0))
    assert normalise(clip).abs().max() < 0.01


def test_noise_is_standard_normal_to_the_model_and_new_in_each_pixel() -> None:
    noise = normalise(erased(0, size=200, area=(1.0, 1.0), aspect=(1.0, 1.0)))
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(0.96, abs=0.03)  # the ends 0 and 255 cut 2 % off at each side
    assert abs(torch.corrcoef(torch.stack([noise[0, 0].flatten(), noise[0, 1].flatten()]))[0, 1]) < 0.05
    assert abs(torch.corrcoef(torch.stack([noise[0, 0].flatten(), noise[1, 0].flatten()]))[0, 1]) < 0.05


def test_a_clip_is_a_function_of_its_generator() -> None:
    assert torch.equal(erased(1), erased(1))
    assert not torch.equal(erased(1), erased(2))


def test_a_box_that_cannot_fit_erases_nothing() -> None:
    assert bool((erased(0, area=(1.0, 1.0), aspect=(2.0, 2.0)) == 255).all())
