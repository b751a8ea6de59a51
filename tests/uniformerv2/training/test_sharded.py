"""Weights, gradients and optimiser split over two processes: the results and the files of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import EVERYTHING, assert_close, assert_same, saved_in, stop_at
from small_build import clips_of_build, write_build

from k710.errors import StoppedOnPurposeError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import OptimConfig
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.distributed import Ranks, on_ranks
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.optim import make_optimizer
from uniformerv2.training.sharded import local, shard

SHARDED = "runtime.sharding=fsdp"


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "one", overrides=EVERYTHING)


def sharded(config: PretrainConfig, out: Path) -> PretrainConfig:
    return replace(config, out=out, devices=2, overrides=(*config.overrides, SHARDED))


def test_two_shards_equal_one_process_with_accumulation_for_21_steps(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    assert pretrain(two).steps == 21
    assert_close(config.out, two.out)
    assert_close(config.out, two.out, "model_ema.safetensors")
    # Adam does not see by what factor all gradients are wrong.
    assert _log(config.out, "grad_norm") == pytest.approx(_log(two.out, "grad_norm"), rel=1e-5)


def share_of_rank(ranks: Ranks, _: OnProgress) -> list[float]:
    """Values of the weights and of the optimiser that each rank keeps, over those of the whole model."""
    model = UniFormerV2(UniFormerV2Config(image_size=32, width=32, layers=4, heads=2, global_layers=(3,)))
    whole = sum(parameter.numel() for parameter in model.parameters())
    shard(model, ranks)
    optimizer = make_optimizer(model, OptimConfig())
    model(torch.zeros(1, 3, 8, 32, 32)).sum().backward()
    optimizer.step()
    kept = [*model.parameters(), *(v for state in optimizer.state.values() for v in state.values() if v.ndim)]
    return ranks.gather(sum(local(tensor).numel() for tensor in kept) / (3 * whole))


@pytest.mark.slow
def test_each_rank_keeps_its_part_alone() -> None:
    shares = on_ranks(share_of_rank, devices=2, device="cpu", on_progress=silent)
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.52


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["data.micro_batch=1", "runtime.recompute_layers=2", "runtime.precision=bf16", "optim.layer_decay=0.5"]
)
def test_shards_equal_one_process_in_every_mode(config: PretrainConfig, tmp_path: Path, setting: str) -> None:
    config = replace(config, overrides=(*config.overrides, setting))
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    pretrain(two)
    assert_close(config.out, two.out, atol=1e-3 if "bf16" in setting else 1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_blocks_are_split_too(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=("optim.epochs=2",))
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    pretrain(replace(two, overrides=(*two.overrides, "runtime.compile=true")))
    assert _log(config.out, "loss") == pytest.approx(_log(two.out, "loss"), rel=1e-4)


@pytest.mark.slow
def test_a_frozen_backbone_is_split_too(config: PretrainConfig, tmp_path: Path) -> None:
    settings = [s for s in config.overrides if "drop_path_backbone" not in s]
    config = replace(config, overrides=(*settings, "model.frozen_backbone=true", "model.local_blocks=0"))
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    pretrain(two)
    assert_close(config.out, two.out)


@pytest.mark.slow
def test_a_rank_without_samples_still_takes_part(config: PretrainConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    clips = [replace(c, data=b"no video") if c.id in ("train000002", "train000006") else c for c in clips_of_build()]
    data = str(write_build(tmp_path / "holed", clips, drawn))
    config = replace(config, data=data, overrides=(*config.overrides, "data.micro_batch=1"))
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    assert pretrain(two).holes > 0
    assert_close(config.out, two.out)


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_one_process_and_back(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    moved = sharded(config, tmp_path / "moved")
    with pytest.raises(StoppedOnPurposeError):
        pretrain(moved, on_progress=stop_at(4))
    saved = saved_in(moved.out)
    assert all(type(value) is torch.Tensor for value in (*saved.model.values(), *saved.ema.values()))
    alone = replace(config, out=moved.out)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(alone, on_progress=stop_at(saved.state.step + 4))
    assert pretrain(moved).resumed_at_step is not None
    assert_close(config.out, moved.out)
    assert _log(config.out, "step") == _log(moved.out, "step")
    assert _log(config.out, "loss") == pytest.approx(_log(moved.out, "loss"), abs=1e-5)


@pytest.mark.slow
def test_a_sharded_run_that_was_stopped_goes_on_to_the_same_bits(config: PretrainConfig, tmp_path: Path) -> None:
    whole, stopped = sharded(config, tmp_path / "whole"), sharded(config, tmp_path / "stopped")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(stopped, on_progress=stop_at(4))
    pretrain(stopped)
    assert_same(whole.out, stopped.out)
    assert_same(whole.out, stopped.out, "model_ema.safetensors")


@pytest.mark.slow
def test_validation_of_shards_equals_that_of_one_process(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=(*config.overrides, "validation.view=k710-val", "optim.epochs=2"))
    pretrain(config)
    two = sharded(config, tmp_path / "two")
    pretrain(two)
    one, other = (saved_in(run).validation for run in (config.out, two.out))
    assert one is not None
    assert one.ema_top1 is not None
    assert one == other
    assert_close(config.out, two.out)


def _log(out: Path, name: str) -> list[float]:
    return [line[name] for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if name in line]
