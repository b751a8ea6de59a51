"""Checkpoints in a real run: the best epoch's weights, what a stop leaves undone, and damage that is got over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import assert_same, stop_at
from safetensors import safe_open
from safetensors.torch import load_file

from k710.errors import StoppedOnPurposeError
from uniformerv2.evaluate import EvaluateConfig, evaluate
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training import session
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.metrics import Progress, Validation
from uniformerv2.training.saves import newest_checkpoint_path, step_path

SCORED = ("validation.view=k710-val", "optim.ema_decay=0.5")


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run", overrides=SCORED)


def with_scores(
    monkeypatch: pytest.MonkeyPatch, *top1: float, ema_top1: float = 0.0, view: str = "k710-val"
) -> list[float]:
    """Have the epochs score so, one after the other; what is left to be given."""
    left = list(top1)

    def validate(*_: object) -> Validation:
        return Validation(view=view, clips=6, top1=left.pop(0), top5=1.0, ema_top1=ema_top1, ema_top5=1.0)

    monkeypatch.setattr(session, "validate", validate)
    return left


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_weights_of_the_best_epoch_are_kept_to_be_used(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, 0.2, 0.9, 0.9)
    pretrain(config)
    best = load_checkpoint(config.out / "checkpoints/best.pt")
    assert (best.state.epoch, best.validation and best.validation.top1) == (2, 0.9)
    weights = load_file(config.out / "model_best.safetensors")
    assert same(weights, best.model)
    assert not same(weights, load_file(config.out / "model.safetensors"))
    with safe_open(config.out / "model_best.safetensors", framework="pt") as handle:
        assert json.loads(handle.metadata()["uniformerv2"])["classes"]["taxonomy"] == "k710"
    exam = EvaluateConfig(
        view="k710-val", source=config.out / "model_best.safetensors", data=config.data, overrides=("workers=0",)
    )
    assert evaluate(exam).lineage == "seen: k710-train (13 videos); not checked: k700:train"


def test_the_average_of_the_weights_is_the_best_where_it_scores_higher(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, 0.2, 0.5, 0.4, ema_top1=0.45)
    pretrain(config)
    assert same(
        load_file(config.out / "model_best.safetensors"), load_checkpoint(config.out / "checkpoints/best.pt").model
    )
    with_scores(monkeypatch, 0.2, 0.5, 0.4, ema_top1=0.6)
    other = replace(config, out=config.out / "../other")
    pretrain(other)
    best = load_checkpoint(other.out / "checkpoints/best.pt")
    assert best.state.epoch == 1
    assert same(load_file(other.out / "model_best.safetensors"), best.ema)
    assert not same(best.ema, best.model)
    last = load_checkpoint(newest_checkpoint_path(other.out))  # type: ignore[arg-type]
    assert same(load_file(other.out / "model_ema.safetensors"), last.ema)


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(7, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_scores_what_a_whole_one_does(config: PretrainConfig, tmp_path: Path, step: int) -> None:
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(step))
    pretrain(config)
    scores = [
        [line for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if line["kind"] == "validation"]
        for out in (whole.out, config.out)
    ]
    assert [line["epoch"] for line in scores[0]] == [1, 2, 3]
    assert scores[0] == scores[1]
    for name in ("model.safetensors", "model_best.safetensors", "model_ema.safetensors"):
        assert_same(whole.out, config.out, name)


def test_a_stop_at_the_end_of_an_epoch_does_not_wait_for_its_scores(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = with_scores(monkeypatch, 0.3, 0.2, 0.1)
    with pytest.raises(StoppedOnPurposeError, match="stopped at step 3, saved"):
        pretrain(config, on_progress=stop_at(2))
    assert left == [0.3, 0.2, 0.1]
    pretrain(config)
    assert left == []
    assert load_checkpoint(config.out / "checkpoints/best.pt").state.step == 3


def test_an_epoch_is_on_the_disk_before_it_is_scored(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> Validation:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session, "validate", ended)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    saved = newest_checkpoint_path(config.out)
    assert saved is not None
    assert (load_checkpoint(saved).state.epoch, load_checkpoint(saved).validation) == (1, None)
    assert pretrain(config).resumed_at_step == 3
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "validation"] == [1, 2, 3]


def test_scores_of_before_a_stop_stay_the_best(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with_scores(monkeypatch, 0.9, 0.2, 0.1)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(4))
    pretrain(config)
    assert load_checkpoint(config.out / "checkpoints/best.pt").state.epoch == 1


def test_scores_on_another_view_say_nothing_of_those_on_this_one(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, 0.9, 0.2, 0.3)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(4))
    with_scores(monkeypatch, 0.2, 0.3, view="k400-val")
    pretrain(config)
    assert load_checkpoint(config.out / "checkpoints/best.pt").state.epoch == 3


def test_a_damaged_newest_checkpoint_costs_steps_and_changes_no_bit(config: PretrainConfig, tmp_path: Path) -> None:
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(6))
    path = step_path(config.out, 7)
    path.write_bytes(path.read_bytes()[:-100])
    seen: list[Progress] = []
    summary = pretrain(config, on_progress=seen.append)
    assert summary.resumed_at_step == 6
    [said] = summary.said
    assert f"{path}: not a weights file, or a damaged one" in said
    assert said.endswith("going on from step-00000006.pt instead")
    assert seen[0].said == summary.said
    assert [progress.step for progress in seen[1:]] == [7, 8, 9]
    assert_same(whole.out, config.out)


def test_a_damaged_best_checkpoint_does_not_cost_the_final_weights(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, 0.9, 0.2, 0.1)

    def damage(progress: Progress) -> None:
        if progress.step == 8:
            (config.out / "checkpoints/best.pt").write_bytes(b"")

    summary = pretrain(config, on_progress=damage)
    [said] = summary.said
    assert said.endswith("model_best.safetensors was not written")
    assert summary.model.is_file()
    assert not (config.out / "model_best.safetensors").exists()


def test_settings_of_the_machine_and_of_scoring_may_change_when_a_run_goes_on(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(2))
    changed = (
        "validation.view=k400-val",
        "validation.every_epochs=2",
        "test.clips=2",
        "runtime.keep_checkpoints=1",
        "runtime.log_every=7",
        "runtime.checkpoint_every=5",
        "optim.max_bad_steps=3",
    )
    assert pretrain(replace(config, overrides=(SCORED[1], *changed))).steps == 9
    assert sorted(path.name for path in (config.out / "checkpoints").iterdir()) == ["best.pt", "step-00000009.pt"]
