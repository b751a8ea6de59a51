"""Ranks end together: when asked to, when one of them is killed, when their parent is gone."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from k710.errors import CheckpointError, FeedError, StoppedOnPurposeError
from uniformerv2.training.distributed import Ranks, on_ranks
from uniformerv2.training.metrics import OnProgress, Progress, silent
from uniformerv2.training.stopping import stop_flag

PARENT = """
import functools, sys
from pathlib import Path
from test_supervisor import wait_for_each_other
from uniformerv2.training.distributed import on_ranks
from uniformerv2.training.metrics import silent
if __name__ == "__main__":
    on_ranks(functools.partial(wait_for_each_other, Path(sys.argv[1])), devices=2, device="cpu", on_progress=silent)
"""


def wait_for_each_other(folder: Path, ranks: Ranks, _: OnProgress) -> None:
    """Rank 0 waits in a collective for the other, which never joins in."""
    (folder / f"{ranks.rank}").write_text(str(os.getpid()))
    if ranks.rank == 0:
        ranks.sum_(torch.zeros(1))
    time.sleep(600)


def kill_rank_1(ranks: Ranks, _: OnProgress) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.sum_(torch.zeros(1))


def fail_on_rank_1(ranks: Ranks, _: OnProgress) -> None:
    if ranks.rank == 1:
        raise CheckpointError("no room", hint="make room")
    ranks.sum_(torch.zeros(1))


def fail_by_our_bug(ranks: Ranks, _: OnProgress) -> None:
    raise ZeroDivisionError(f"on rank {ranks.rank}")


def ask_the_parent_to_stop(number: int, ranks: Ranks, _: OnProgress) -> int:
    parent = multiprocessing.parent_process()
    assert parent is not None
    dist.barrier()
    if ranks.rank == 0:
        assert parent.pid is not None
        os.kill(parent.pid, number)
    time.sleep(600)
    return 0


def save_when_asked(ranks: Ranks, show: OnProgress) -> None:
    with stop_flag() as stop:
        for step in range(6000):
            show(Progress(stage="train", step=step, total_steps=6000))
            if ranks.sum_(torch.tensor([float(stop.asked)])).item():
                stop.leave(f"at step {step}, saved")
            time.sleep(0.01)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_killed_rank_is_named_within_seconds(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with pytest.raises(FeedError, match="rank 1 was killed by SIGKILL"):
        on_ranks(kill_rank_1, devices=2, device="cpu", on_progress=silent)
    assert time.monotonic() - began < 40
    assert "Traceback" not in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_what_one_rank_says_is_raised_though_the_others_only_see_it_gone() -> None:
    with pytest.raises(CheckpointError, match="no room") as caught:
        on_ranks(fail_on_rank_1, devices=2, device="cpu", on_progress=silent)
    assert caught.value.hint == "make room"


def test_a_bug_in_a_rank_is_shown_with_its_own_traceback() -> None:
    with pytest.raises(RuntimeError, match="in fail_by_our_bug"):
        on_ranks(fail_by_our_bug, devices=2, device="cpu", on_progress=silent)


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGTERM, StoppedOnPurposeError),
        pytest.param(signal.SIGUSR1, StoppedOnPurposeError, marks=pytest.mark.slow),
        (signal.SIGINT, KeyboardInterrupt),
    ],
)
def test_a_signal_to_the_parent_ends_ranks_that_hear_nothing(number: int, raised: type[BaseException]) -> None:
    with pytest.raises(raised):
        on_ranks(functools.partial(ask_the_parent_to_stop, number), devices=2, device="cpu", on_progress=silent)
    assert multiprocessing.active_children() == []


def test_ranks_that_train_save_before_they_end() -> None:
    def stop_early(progress: Progress) -> None:
        if progress.step == 3:
            # To the ranks too, as to a whole process group: what it means is for their parent to say.
            for child in multiprocessing.active_children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(StoppedOnPurposeError, match=r"stopped at step \d+, saved"):
        on_ranks(save_when_asked, devices=2, device="cpu", on_progress=stop_early)


def test_ranks_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": paths})
    files = [tmp_path / "0", tmp_path / "1"]
    deadline = time.monotonic() + 60
    while not all(f.exists() and f.read_text() for f in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    pids = [int(file.read_text()) for file in files]
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))
