"""The log of a run: what a line stands for, that both files say the same, and that each step is told of once."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import stop_at
from small_build import clips_of_build, write_build

from k710.errors import StoppedOnPurposeError
from uniformerv2.data.feed import Hole
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.engine import StepReport
from uniformerv2.training.log import COLUMNS, RunLog, Yardstick, line_of
from uniformerv2.training.metrics import Progress, TrainLine, Validation

STATE = RunState(view_digest="v", data_digest="d", window=0, taken_out_digest="t", global_batch=4, step=7, epoch=1)
STEP = StepReport(
    state=STATE,
    loss=2.0,
    lr=1e-3,
    grad_norm=1.0,
    clips_per_s=2.0,
    holes=(),
    epoch_holes=0,
    stop=False,
    accuracy=0.5,
    data_wait_s=0.5,
    compute_s=1.5,
    step_s=2.0,
    memory_bytes=100,
)
HOLE = Hole(position=3, reason="broken")
UNKNOWN_DEVICE = Yardstick(flops_per_clip=10, peak_flops=None)


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run")


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def as_rows(lines: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What the table should say of ``lines``."""
    return [{name: "" if (v := line.get(name)) is None else str(v) for name in COLUMNS} for line in lines]


def test_a_line_is_the_mean_of_its_steps() -> None:
    last = replace(
        STEP,
        state=replace(STATE, step=9),
        loss=4.0,
        lr=2e-3,
        grad_norm=3.0,
        accuracy=1.0,
        step_s=6.0,
        data_wait_s=0.0,
        holes=(HOLE,),
        epoch_holes=1,
        memory_bytes=200,
        bad_steps=1,
        scale=8.0,
    )
    skipped = replace(STEP, loss=None, grad_norm=None, accuracy=None)
    assert line_of([STEP, skipped, last], Yardstick(flops_per_clip=10, peak_flops=22.0)) == TrainLine(
        step=9,
        epoch=1,
        steps=3,
        loss=3.0,
        accuracy=0.75,
        lr=2e-3,
        grad_norm=2.0,
        clips_per_s=1.2,  # 12 clips in 10 s
        data_wait=0.1,  # 1 s of 10
        limit="data",
        step_s=3.333333,
        flops_per_s=11,  # of the 11 clips that could be read
        mfu=0.5,
        memory_bytes=200,
        bad_steps=1,
        scale=8.0,
        epoch_holes=1,
    )


@pytest.mark.parametrize(("wait_s", "limit"), [(0.0, "compute"), (0.1, "compute"), (0.11, "data"), (1.9, "data")])
def test_data_limits_a_run_that_waits_for_it_more_than_a_twentieth_of_the_time(wait_s: float, limit: str) -> None:
    assert line_of([replace(STEP, data_wait_s=wait_s)], UNKNOWN_DEVICE).limit == limit


def test_without_a_known_peak_there_are_operations_and_no_utilisation() -> None:
    line = line_of([STEP], UNKNOWN_DEVICE)
    assert (line.flops_per_s, line.mfu) == (20, None)


def test_repeats_of_a_clip_are_operations_too(config: PretrainConfig) -> None:
    two = replace(config, out=config.out / "../two", overrides=("optim.epochs=1", "data.repeats=2"))
    pretrain(replace(config, overrides=("optim.epochs=1",)))
    pretrain(two)
    once, twice = (lines_of(out)[0] for out in (config.out, two.out))
    assert twice["flops_per_s"] * twice["step_s"] == pytest.approx(2 * once["flops_per_s"] * once["step_s"], rel=1e-3)


def test_lines_come_when_due_at_the_end_of_an_epoch_and_where_a_clip_failed(
    config: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    clips[2] = replace(clips[2], data=b"not a video at all")
    holed = replace(
        config,
        data=str(write_build(tmp_path / "broken", clips, drawn)),
        overrides=("data.global_batch=2", "optim.epochs=2", "runtime.log_every=5"),
    )
    pretrain(holed)
    lines = lines_of(config.out)
    with_hole = [line["step"] for line in lines if line["holes"]]
    assert len(with_hole) >= 1
    assert [line["step"] for line in lines] == sorted({5, 6, 10, 12, *with_hole})
    assert [line["steps"] for line in lines] == [
        after["step"] - before["step"] for before, after in zip([{"step": 0}, *lines], lines, strict=False)
    ]


def test_the_table_says_what_the_lines_say(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=("validation.view=k710-val", "optim.ema_decay=0.5")))
    lines = lines_of(config.out)
    assert [line["kind"] for line in lines] == (["train"] * 3 + ["validation"]) * 3
    assert rows_of(config.out) == as_rows(lines)
    assert (config.out / "log.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    scored = lines[3]
    assert (scored["view"], scored["clips"], scored["step"], scored["epoch"]) == ("k710-val", 6, 3, 1)
    assert 0 <= scored["top1"] <= scored["top5"] <= 1
    assert scored["ema_top1"] is not None
    train = lines[0]
    assert train["accuracy"] is not None
    assert train["memory_bytes"] > 2**20
    assert 0 <= train["data_wait"] <= 1
    assert train["step_s"] > 0
    assert train["mfu"] is None


@pytest.mark.parametrize("cut", [b'{"kind": "train", "st', b"[]\n\xff\n"])
def test_after_a_kill_each_step_is_told_of_once_in_both_files(config: PretrainConfig, cut: bytes) -> None:
    config = replace(config, overrides=("validation.view=k710-val",))
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(4))
    log = RunLog(config.out)
    line = line_of([replace(STEP, state=replace(STATE, step=6, epoch=2))], UNKNOWN_DEVICE)
    log.write(line)  # of steps that no checkpoint knows of
    log.write_validation(replace(STATE, step=6, epoch=2), Validation(view="k710-val", clips=6, top1=1.0, top5=1.0))
    with (config.out / "log.jsonl").open("ab") as handle:
        handle.write(cut)
    with (config.out / "log.csv").open("ab") as handle:
        handle.write(b"train,6,")
    pretrain(config)
    lines = lines_of(config.out)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 10))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 9]
    assert rows_of(config.out) == as_rows(lines)


@pytest.mark.parametrize("scored", [True, False])
def test_scores_that_no_checkpoint_knows_of_are_dropped(tmp_path: Path, scored: bool) -> None:
    log = RunLog(tmp_path)
    log.write(line_of([STEP], UNKNOWN_DEVICE))
    log.write_validation(STATE, Validation(view="k710-val", clips=6, top1=1.0, top5=1.0))
    log.keep_until(STATE.step, scored=scored)
    assert [line["kind"] for line in lines_of(tmp_path)] == ["train", "validation"][: 1 + scored]


def test_a_run_from_before_the_table_gets_one_when_it_goes_on(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(4))
    old = [{k: line[k] for k in ("step", "epoch", "loss", "lr", "holes")} for line in lines_of(config.out)]
    (config.out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    (config.out / "log.csv").unlink()
    pretrain(config)
    assert [row["step"] for row in rows_of(config.out)] == [str(step) for step in range(1, 10)]
    assert rows_of(config.out)[0]["loss"] == str(old[0]["loss"])
    assert {row["kind"] for row in rows_of(config.out)} == {"train"}


def test_progress_carries_the_lines_that_are_logged(config: PretrainConfig) -> None:
    seen: list[Progress] = []
    pretrain(replace(config, overrides=("runtime.log_every=2", "validation.view=k710-val")), on_progress=seen.append)
    logged = [progress.logged for progress in seen if progress.logged is not None]
    assert [line.step for line in logged] == [2, 3, 4, 6, 8, 9]
    assert [line.loss for line in logged] == [line["loss"] for line in lines_of(config.out) if line["kind"] == "train"]
    recent = [progress.recent for progress in seen]
    assert [line and line.steps for line in recent] == list(range(1, 10))
    assert [progress.scored_step for progress in seen] == [0, 0, 3, 3, 3, 6, 6, 6, 9]
    assert {progress.epochs for progress in seen} == {3}
