"""Scores during training, the running average beside the weights, and steps that were skipped: all of it resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import assert_same, saved_in, stop_at
from safetensors.torch import load_file

from k710.errors import StoppedOnPurposeError, UsageError
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training import engine
from uniformerv2.training.loss import loss_sum
from uniformerv2.training.saves import Saves

SCORED = ("validation.view=k710-val", "optim.ema_decay=0.5")


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run")


def scores_of(out: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" not in line]


def test_scoring_leaves_the_weights_alone_and_keeps_the_best(config: PretrainConfig, tmp_path: Path) -> None:
    plain, scored = config, replace(config, out=tmp_path / "scored", overrides=SCORED)
    pretrain(plain)
    pretrain(scored)
    assert_same(plain.out, scored.out)
    last = saved_in(scored.out)
    assert last.validation is not None
    assert last.best is not None
    assert (last.validation.view, last.validation.clips) == ("k710-val", 6)
    assert last.best.best_top1 >= last.validation.best_top1
    assert len(scores_of(scored.out)) == 3
    assert Saves(scored.out, 2).best() is not None
    average = load_file(scored.out / "model_ema.safetensors")
    assert all(torch.equal(average[name], value) for name, value in last.ema.items())
    assert not torch.equal(average["class_embedding"], last.model["class_embedding"])


def test_epochs_between_two_scorings_are_not_scored_but_the_last_is(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=("validation.view=k710-val", "validation.every_epochs=2")))
    assert [line["epoch"] for line in scores_of(config.out)] == [2, 3]


@pytest.mark.parametrize("step", [4, 5])
def test_a_stopped_run_has_the_same_scores_and_average(config: PretrainConfig, tmp_path: Path, step: int) -> None:
    config = replace(config, overrides=SCORED)
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(step))
    pretrain(config)
    assert_same(whole.out, config.out)
    assert_same(whole.out, config.out, "model_ema.safetensors")
    ours, theirs = saved_in(config.out), saved_in(whole.out)
    assert (ours.validation, ours.best, ours.scaler) == (theirs.validation, theirs.best, theirs.scaler)
    assert scores_of(config.out) == scores_of(whole.out)


def test_an_unknown_view_is_refused_before_anything_is_made(config: PretrainConfig) -> None:
    with pytest.raises(UsageError, match="k710-test"):
        pretrain(replace(config, overrides=("validation.view=k710-test",)))
    assert not config.out.exists()


def spoil_steps(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the loss of these steps infinite, whichever process and call does them."""
    forward: Callable[..., tuple[torch.Tensor, torch.Tensor]] = engine._forward

    def spoiled(job: object, batch: object, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        with monkeypatch.context() as patch:
            if step in steps:
                patch.setattr(engine, "loss_sum", lambda *given: loss_sum(*given) * torch.inf)
            return forward(job, batch, step)

    monkeypatch.setattr(engine, "_forward", spoiled)


def test_a_run_goes_on_to_the_same_bits_across_skipped_steps(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_steps(monkeypatch, 2, 3, 4, 6)
    config = replace(config, overrides=("optim.ema_decay=0.5", "optim.max_bad_steps=3"))
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(3))
    pretrain(config)
    assert_same(whole.out, config.out)
    assert_same(whole.out, config.out, "model_ema.safetensors")
    saved = saved_in(config.out)
    assert (saved.scaler["bad_steps"], saved.scaler["bad_in_a_row"]) == (4, 0)


def test_the_scale_of_fp16_goes_on_where_it_was(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=("runtime.precision=fp16",))
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(3))
    pretrain(config)
    assert_same(whole.out, config.out)
    ours, theirs = saved_in(config.out), saved_in(whole.out)
    assert ours.scaler == theirs.scaler
    assert ours.scaler["scale"] < 65536
