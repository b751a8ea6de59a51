"""A whole pre-training on a small build: what is written, what is refused, what is counted."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_build import clips_of_build, write_build

from k710.errors import AnswerIsNo, CheckpointError, FeedError, StoppedOnPurposeError, UsageError
from uniformerv2 import UniFormerV2
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.metrics import Progress
from uniformerv2.training.saves import newest_checkpoint_path


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run")


def stop_at(step: int, number: signal.Signals = signal.SIGTERM):  # type: ignore[no-untyped-def]
    def progress(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), number)

    return progress


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_weights_with_all_that_is_known_about_them(config: PretrainConfig) -> None:
    summary = pretrain(config)
    with safe_open(config.out / "model.safetensors", framework="pt") as handle:
        header = json.loads(handle.metadata()["uniformerv2"])
    assert header["classes"]["taxonomy"] == "k710"
    assert len(header["classes"]["names"]) == 710
    assert header["data_digest"] == summary.data_digest
    assert header["config"]["recipe"]["optim"]["epochs"] == 3
    assert header["not_checked"] == ["k700:train"]
    assert str(config.out.parent) not in json.dumps(header)
    assert (config.out / "model.lineage.parquet").is_file()
    assert summary.lineage == "seen: k710-train (13 videos); not checked: k700:train"
    assert (summary.steps, summary.clips_per_epoch, summary.clips_taken_out) == (9, 13, 1)
    assert not torch.equal(weights(config.out)["class_embedding"], torch.zeros(16))


def test_progress_tells_every_step(config: PretrainConfig) -> None:
    seen: list[Progress] = []
    pretrain(config, on_progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 10))
    assert all(p.total_steps == 9 and p.loss is not None and p.lr is not None for p in seen)


def test_a_finished_run_returns_at_once(config: PretrainConfig) -> None:
    pretrain(config)
    before = (config.out / "model.safetensors").stat().st_mtime_ns
    again = pretrain(config)
    assert again.already_done
    assert again.steps == 9
    assert (config.out / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_stopped_run_goes_on_to_the_same_bits(config: PretrainConfig, tmp_path: Path, step: int) -> None:
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError, match=f"stopped at step {step + 1}, saved"):
        pretrain(config, on_progress=stop_at(step))
    summary = pretrain(config)
    assert summary.resumed_at_step == step + 1
    assert same(weights(whole.out), weights(config.out))
    a, b = (load_checkpoint(newest_checkpoint_path(run)) for run in (whole.out, config.out))
    assert a.state == b.state
    assert all(
        torch.equal(a.optimizer["state"][i]["exp_avg_sq"], b.optimizer["state"][i]["exp_avg_sq"])
        for i in a.optimizer["state"]
    )
    steps = [json.loads(line)["step"] for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))


@pytest.mark.parametrize("setting", ["data.repeats=2", "data.micro_batch=1", "model.drop_path_mode=official"])
def test_repeats_accumulation_and_holes_go_on_to_the_same_bits_with_other_workers(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes], setting: str
) -> None:
    config = replace(config, data=str(broken_build(tmp_path, drawn, 2, 6)), overrides=(setting,))
    whole = replace(config, out=tmp_path / "whole")
    pretrain(whole)
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(4))
    pretrain(replace(config, overrides=(setting, "data.workers=1")))
    assert same(weights(whole.out), weights(config.out))


def test_repeats_are_samples_of_their_own(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = UniFormerV2.forward
    monkeypatch.setattr(UniFormerV2, "forward", lambda model, clips: seen.append(len(clips)) or forward(model, clips))
    pretrain(replace(config, overrides=("data.repeats=3", "optim.epochs=1")))
    assert set(seen) == {2 * 3}


def test_an_interrupt_saves_too(config: PretrainConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, on_progress=stop_at(2, signal.SIGINT))
    assert load_checkpoint(newest_checkpoint_path(config.out)).state.step == 3


def test_worker_processes_change_nothing(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    apart = replace(config, out=tmp_path / "apart", overrides=("data.workers=2",))
    pretrain(apart)
    assert same(weights(config.out), weights(apart.out))


def test_other_settings_are_refused_by_name_and_workers_are_not(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(2))
    with pytest.raises(UsageError, match=r"recipe.optim.base_lr: 0.001 -> 0.002"):
        pretrain(replace(config, overrides=("optim.base_lr=2e-3",)))
    assert pretrain(replace(config, overrides=("runtime.log_every=5", "data.workers=1"))).steps == 9


def test_a_folder_that_holds_something_else_is_refused_and_kept(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something that is not a run"):
        pretrain(config)
    assert [p.name for p in config.out.iterdir()] == ["thesis.tex"]


def test_resume_needs_a_run_and_fresh_needs_none(config: PretrainConfig) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        pretrain(replace(config, resume=True))
    pretrain(replace(config, fresh=True))
    with pytest.raises(UsageError, match="--fresh needs an empty folder"):
        pretrain(replace(config, fresh=True))
    assert pretrain(replace(config, resume=True)).already_done


def test_changed_data_is_refused_with_the_way_to_go_on(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(3))
    clips = clips_of_build()
    clips[7] = replace(clips[7], status="unavailable")
    changed = replace(config, data=str(write_build(tmp_path / "changed", clips, drawn)))
    with pytest.raises(CheckpointError, match="taken_out_digest") as caught:
        pretrain(changed)
    assert "--set runtime.restart_epoch=true" in caught.value.hint
    summary = pretrain(replace(changed, overrides=("runtime.restart_epoch=true",)))
    assert summary.steps == 4 + 3  # four steps of the first order, then the third epoch of the new one


def test_another_global_batch_is_a_change_of_state(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(3))
    with pytest.raises(CheckpointError, match="global_batch 4 -> 2"):
        pretrain(replace(config, overrides=("data.global_batch=2",)))


def broken_build(tmp_path: Path, drawn: list[bytes], *positions: int) -> Path:
    clips = clips_of_build()
    for position in positions:
        clips[position] = replace(clips[position], data=b"not a video at all")
    return write_build(tmp_path / "broken", clips, drawn)


def test_a_hole_is_named_and_left_out_of_the_mean(config: PretrainConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    holed = replace(config, data=str(broken_build(tmp_path, drawn, 2)))
    summary = pretrain(holed)
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    named = [hole["clip"] for line in lines for hole in line["holes"]]
    assert set(named) == {"train000002_000000_000010"}
    assert len(named) == summary.holes
    assert all(line["loss"] < 10 for line in lines)


def test_a_run_in_two_calls_tells_of_the_holes_and_the_loss_of_both(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    config = replace(config, data=str(broken_build(tmp_path, drawn, 2)))
    whole = pretrain(replace(config, out=tmp_path / "whole"))
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(5))
    assert [(s.holes, s.loss) for s in (pretrain(config), pretrain(config))] == [(whole.holes, whole.loss)] * 2


def test_a_cache_that_a_local_build_does_not_need_is_said_to_be_unused(config: PretrainConfig, tmp_path: Path) -> None:
    said: list[str] = []
    pretrain(replace(config, cache=tmp_path / "cache"), on_progress=lambda progress: said.extend(progress.said))
    assert said == [f"--cache {tmp_path / 'cache'}: not used, the build is on a local disk already"]
    assert not (tmp_path / "cache").exists()


def test_too_many_holes_stop_the_run(config: PretrainConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    holed = replace(config, data=str(broken_build(tmp_path, drawn, 0, 1, 2, 3, 4)))
    with pytest.raises(FeedError, match="of 13 clips of an epoch could not be read, more than 20%"):
        pretrain(holed)


def test_a_leak_stops_before_training_and_can_be_allowed(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    clips[0] = replace(clips[0], views={**clips[0].views, "k400-val": 0})
    leaky = replace(config, data=str(write_build(tmp_path / "leaky", clips, drawn)))
    with pytest.raises(AnswerIsNo, match="leak into k710: k710-train has 1 videos of k400:val"):
        pretrain(leaky)
    assert not config.out.exists()
    summary = pretrain(replace(leaky, allow_leaks=True))
    assert summary.leaks_allowed
    assert [(o.view, o.held_out, o.videos) for o in summary.overlaps] == [("k710-train", "k400:val", 1)]


def test_a_loss_that_is_not_finite_stops_the_run(config: PretrainConfig) -> None:
    wild = ("optim.base_lr=1e30", "optim.clip_norm=1e30", "optim.warmup_epochs=0", "optim.max_bad_steps=2")
    with pytest.raises(UsageError, match="the loss is nan at step 3, the last of 3 such steps in a row"):
        pretrain(replace(config, overrides=wild))


def test_a_small_view_names_the_setting_to_lower(config: PretrainConfig) -> None:
    with pytest.raises(UsageError, match="13 usable clips, less than one global batch of 64"):
        pretrain(replace(config, overrides=("data.global_batch=64",)))


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        ("resnet:x.pt", UsageError, "expected KIND:PATH"),
        ("weights.pt", UsageError, "expected KIND:PATH"),
        ("clip:none.pt", CheckpointError, "no such file"),
        ("run:nowhere", CheckpointError, "no such run or checkpoint"),
    ],
)
def test_a_wrong_start_is_refused(config: PretrainConfig, init: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pretrain(replace(config, init=init))


def test_a_run_can_start_from_another_and_carries_its_lineage(config: PretrainConfig, tmp_path: Path) -> None:
    first = pretrain(config)
    second = replace(
        config,
        out=tmp_path / "second",
        init=f"run:{config.out}",
        overrides=("optim.epochs=0", "optim.warmup_epochs=0"),
    )
    assert pretrain(second).lineage == first.lineage
    assert same(weights(config.out), weights(second.out))


def test_published_weights_start_a_run_and_leave_its_lineage_unknown(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    bare = tmp_path / "published.safetensors"
    save_file({f"backbone.{k}": v for k, v in weights(config.out).items()}, bare)
    start = replace(config, out=tmp_path / "second", init=f"official:{bare}")
    with pytest.raises(CheckpointError, match="does not say which class"):
        pretrain(start)
    summary = pretrain(replace(start, overrides=("head.class_order=uniformerv2",)))
    assert summary.lineage.startswith("lineage unknown")
