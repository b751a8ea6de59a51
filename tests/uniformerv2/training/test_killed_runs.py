"""A run of 60 steps that is killed again and again, also while it saves, ends in the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from runs import assert_same

from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.saves import CHECKPOINT_FOLDER, newest_checkpoint_path

KILLS = 10
SCRIPT = """
import sys
from pathlib import Path
from uniformerv2.pretrain import PretrainConfig, pretrain
if __name__ == "__main__":
    data, out = sys.argv[1:3]
    pretrain(PretrainConfig(recipe="tiny_cpu", data=data, out=Path(out), overrides=tuple(sys.argv[3:])))
"""
SIXTY_STEPS = (
    "data.global_batch=4",
    "data.micro_batch=2",
    "model.dropout=0.2",
    "model.drop_path_backbone=0.1",
    "optim.epochs=20",
    "optim.ema_decay=0.9",
    "runtime.checkpoint_every=2",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills_change_no_bit(build: Path, tmp_path: Path, workers: int) -> None:
    config = PretrainConfig(recipe="tiny_cpu", data=str(build), out=tmp_path / "whole", overrides=SIXTY_STEPS)
    assert pretrain(replace(config, overrides=(*SIXTY_STEPS, "data.workers=0"))).steps == 60
    out, rng = tmp_path / "killed", random.Random(workers)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(build), str(out), *SIXTY_STEPS, f"data.workers={workers}"]
    for number in range(KILLS):
        process = subprocess.Popen(command, start_new_session=True)
        try:
            _wait_for_a_moment(process, out, rng, mid_save=number % 3 == 2)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.returncode == -signal.SIGKILL, f"the run ended by itself before kill {number + 1}"
    subprocess.run(command, check=True)
    assert_same(config.out, out)
    assert_same(config.out, out, "model_ema.safetensors")
    assert not list(out.rglob("*.partial"))


def _wait_for_a_moment(process: subprocess.Popen[bytes], out: Path, rng: random.Random, *, mid_save: bool) -> None:
    """Until it has saved something new and then a little longer, or is in the middle of saving."""
    before = newest_checkpoint_path(out)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and newest_checkpoint_path(out) == before:
        time.sleep(0.002)
    if not mid_save:
        time.sleep(rng.uniform(0, 0.2))
        return
    while process.poll() is None and not list((out / CHECKPOINT_FOLDER).glob(".*.partial")):
        pass
