"""What the engine's share is measured with: it times what it says, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from train import _recipe, measure_recipe

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.training import engine

SMALL = UniFormerV2Config(
    image_size=64, patch_size=16, width=64, layers=2, heads=1, num_frames=4, num_classes=5, global_layers=(1,)
)
CPU = torch.device("cpu")


def test_the_share_of_a_small_model_is_between_none_and_all() -> None:
    before = UniFormerV2.forward
    found = measure_recipe(_recipe(SMALL, 2, CPU, recompute=True), CPU, rounds=3)
    assert found["clips"] == 2
    assert 0 < found["remainder"] < 1  # type: ignore[operator]
    assert found["product_s"] > found["product_s"] * found["remainder"]  # type: ignore[operator]
    assert UniFormerV2.forward is before


def test_what_the_loop_does_beside_its_four_calls_is_in_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(_recipe(SMALL, 2, CPU, recompute=False))
    normalise = engine.normalise

    def slowly(clips: torch.Tensor) -> torch.Tensor:
        for _ in range(200):
            normalise(clips)
        return normalise(clips)

    plain = measure_recipe(recipe, CPU, rounds=3)["remainder"]
    monkeypatch.setattr(engine, "normalise", slowly)
    assert measure_recipe(recipe, CPU, rounds=3)["remainder"] > plain + 0.2  # type: ignore[operator]
