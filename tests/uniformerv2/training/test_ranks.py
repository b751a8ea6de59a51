"""Several processes: the same result as one, and no rank left waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import EVERYTHING, assert_close, stop_at
from safetensors.torch import load_file
from small_build import clips_of_build, write_build

from k710.errors import FeedError, StoppedOnPurposeError, UsageError
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training import distributed
from uniformerv2.training.distributed import on_ranks
from uniformerv2.training.metrics import silent
from uniformerv2.training.saves import newest_checkpoint_path

SCRIPT = """
import sys
from pathlib import Path
from uniformerv2.pretrain import PretrainConfig, pretrain
if __name__ == "__main__":
    recipe, data, out = sys.argv[1:4]
    pretrain(PretrainConfig(recipe=recipe, data=data, out=Path(out), overrides=tuple(sys.argv[4:])))
"""


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "one")


def test_two_processes_equal_one_with_accumulation_for_21_steps(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=EVERYTHING)
    pretrain(config)
    two = replace(config, out=tmp_path / "two", devices=2)
    summary = pretrain(two)
    assert summary.steps == 21
    assert_close(config.out, two.out)
    assert_close(config.out, two.out, "model_ema.safetensors")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks_in_the_same_order(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=EVERYTHING)
    pretrain(config)
    moved = replace(config, out=tmp_path / "moved")
    for devices, step in ((2, 4), (1, 9)):
        with pytest.raises(StoppedOnPurposeError):
            pretrain(replace(moved, devices=devices), on_progress=stop_at(step))
    pretrain(replace(moved, devices=2))
    assert_close(config.out, moved.out)
    losses = [
        [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (config.out, moved.out)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_hole_on_one_rank_changes_nothing_for_the_other(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = [replace(c, data=b"no video") if c.id in ("train000002", "train000006") else c for c in clips_of_build()]
    config = replace(config, data=str(write_build(tmp_path / "holed", clips, drawn)))
    pretrain(config)
    two = replace(config, out=tmp_path / "two", devices=2)
    assert pretrain(two).holes > 0
    assert_close(config.out, two.out)
    logs = [
        [json.loads(line)["holes"] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (config.out, two.out)
    ]
    assert [sorted(h["clip"] for h in line) for line in logs[0]] == [
        sorted(h["clip"] for h in line) for line in logs[1]
    ]


@pytest.mark.slow
def test_an_error_ends_all_ranks(config: PretrainConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    clips = [replace(c, data=b"no video") if "train" in c.id else c for c in clips_of_build()]
    config = replace(config, data=str(write_build(tmp_path / "holed", clips, drawn)), devices=2)
    with pytest.raises(FeedError, match="could not be read"):
        pretrain(config)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_too(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run([*command, config.recipe, config.data, str(tmp_path / "two")], check=True, timeout=120)
    assert_close(config.out, tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_ranks_of_torchrun_save_when_it_is_told_to_stop(
    config: PretrainConfig, tmp_path: Path, number: signal.Signals
) -> None:
    config = replace(config, overrides=("optim.epochs=200",))
    script, out = tmp_path / "script.py", tmp_path / "stopped"
    script.write_text(SCRIPT)
    handled = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *handled]
    process = subprocess.Popen(
        [*command, str(script), config.recipe, config.data, str(out), *config.overrides],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while newest_checkpoint_path(out) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert errors.count("StoppedOnPurposeError: stopped at step") == 2


def test_a_killed_run_goes_on_to_the_same_bits(config: PretrainConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=("optim.epochs=20",))
    pretrain(config)
    script, out = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), config.recipe, config.data, str(out), *config.overrides]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while newest_checkpoint_path(out) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert newest_checkpoint_path(out) is not None
    assert not (out / "model.safetensors").exists()
    summary = pretrain(replace(config, out=out))
    assert summary.resumed_at_step is not None
    ours, theirs = (load_file(run / "model.safetensors") for run in (config.out, out))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not list(out.glob(".*.partial"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_to_all_stops_a_run_with_workers_at_a_point_from_which_it_goes_on(
    config: PretrainConfig, tmp_path: Path, number: signal.Signals
) -> None:
    # More micro-batches than a worker makes in advance: without it the step could not be ended.
    config = replace(config, overrides=("optim.epochs=20", "data.global_batch=12", "data.micro_batch=1"))
    script, out = tmp_path / "script.py", tmp_path / "stopped"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), config.recipe, config.data, str(out), *config.overrides, "data.workers=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while newest_checkpoint_path(out) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    # As a scheduler does it: to the trainer, its workers and whatever else it started.
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert "StoppedOnPurposeError" in errors
    summary = pretrain(replace(config, out=out))
    assert summary.resumed_at_step is not None
    assert summary.steps == 20


def test_more_ranks_than_devices_are_refused_before_one_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(distributed, "TCPStore", lambda *_, **__: pytest.fail("ranks were started"))
    with pytest.raises(UsageError, match="device cuda:1 is asked for, and there are 1"):
        on_ranks(lambda ranks, _: ranks.world, devices=2, device="auto", on_progress=silent)
