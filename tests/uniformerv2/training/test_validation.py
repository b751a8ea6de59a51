"""Scores during training, the running average beside the weights, and steps that were skipped: all of it resumes."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same, saved_in, stop_at
from safetensors.torch import load_file

from k710.errors import StoppedOnPurposeError, UsageError
from uniformerv2 import UniFormerV2, scores
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training import engine, validation
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.loss import loss_sum
from uniformerv2.training.saves import Saves
from uniformerv2.weights.remap import HEAD_KEYS

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


def with_weights_that_are_not_finite(monkeypatch: pytest.MonkeyPatch, *, average_too: bool) -> None:
    """Spoil the batch statistics while they are scored: training does not look at them."""
    score_view = validation.score_view
    calls = itertools.count()

    def spoiled(model: UniFormerV2, *given: Any, **named: Any) -> Any:
        if next(calls) % 2 and not average_too:
            return score_view(model, *given, **named)
        bias = dict(model.named_parameters())[HEAD_KEYS[1]]
        own = bias.detach().clone()
        bias.data[0] = torch.nan
        try:
            return score_view(model, *given, **named)
        finally:
            bias.data.copy_(own)

    monkeypatch.setattr(validation, "score_view", spoiled)


def test_weights_whose_scores_are_not_finite_are_never_the_best_and_are_named(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_weights_that_are_not_finite(monkeypatch, average_too=True)
    said: list[str] = []
    summary = pretrain(replace(config, overrides=SCORED), on_progress=lambda progress: said.extend(progress.said))
    assert said == list(summary.said)
    assert [text.partition(":")[0] for text in said] == [f"scores after step {step}" for step in (3, 6, 9)]
    assert "the weights give scores that are not finite for 6 of 6 clips" in said[0]
    assert [line["not_finite"] for line in scores_of(config.out)] == [6, 6, 6]
    assert Saves(config.out, 2).best() is None
    assert not (config.out / "model_best.safetensors").exists()


def test_an_average_with_finite_scores_is_the_best_beside_weights_without(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_weights_that_are_not_finite(monkeypatch, average_too=False)
    pretrain(replace(config, overrides=SCORED))
    best = Saves(config.out, 2).best()
    assert best is not None
    average = load_checkpoint(best).ema
    assert torch.equal(load_file(config.out / "model_best.safetensors")["class_embedding"], average["class_embedding"])


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_told_to_stop_while_it_scores_ends_at_once_and_scores_when_it_goes_on(
    config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    config = replace(config, overrides=SCORED)
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    calls = itertools.count(1)
    scored = scores._scored

    def told_to_stop(*given: Any) -> Any:
        # The first batch of an epoch, which has 3 for the weights and 3 for their average.
        if next(calls) == 6 * (epoch - 1) + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return scored(*given)

    monkeypatch.setattr(scores, "_scored", told_to_stop)
    with pytest.raises(StoppedOnPurposeError, match=f"stopped at step {3 * epoch}, saved; its scores will be found"):
        pretrain(config)
    assert next(calls) <= 6 * (epoch - 1) + 3
    assert (saved_in(config.out).state.epoch, saved_in(config.out).validation) == (epoch, None)
    assert len(scores_of(config.out)) == epoch - 1
    pretrain(config)
    assert_same(whole.out, config.out)
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
