"""A run with compiled blocks is the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from uniformerv2.pretrain import PretrainConfig, pretrain


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.timeout(600)
def test_a_compiled_run_ends_in_the_weights_of_an_eager_one(build: Path, recipe: str, tmp_path: Path) -> None:
    eager = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "eager")
    compiled = replace(eager, out=tmp_path / "compiled", overrides=("runtime.compile=true",))
    torch._dynamo.utils.counters.clear()
    losses = [pretrain(config).loss for config in (eager, compiled)]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = (load_file(config.out / "model.safetensors") for config in (eager, compiled))
    assert list(first) == list(second)
    for key in first:
        # The true gradient of a key bias is zero, and AdamW makes steps of whatever rounding leaves.
        a, b = (w[key].chunk(3)[::2] if key.endswith("in_proj_bias") else (w[key],) for w in (first, second))
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4, msg=key)
