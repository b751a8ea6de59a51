"""The pool of worker processes: every task comes back, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k710.errors import SourceError, UsageError
from k710.shards.executors.local import WorkerDied, run_batches, run_local

ROOT = Path(__file__).resolve().parents[3]


def double(number: int) -> int:
    return 2 * number


def die_on_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def run_out_of_memory(number: int) -> int:
    if number == 1:
        raise MemoryError
    return number


def refuse_two(number: int) -> int:
    if number == 2:
        raise UsageError("two is not welcome", hint="take three")
    return number


def folder(_: int) -> str:
    return str(Path.cwd())


def sleep(seconds: float) -> float:
    subprocess.run(["sleep", str(seconds)], check=True)
    return seconds


def test_every_task_comes_back_once() -> None:
    found = dict(run_local(double, range(50), workers=3))
    assert found == {n: 2 * n for n in range(50)}


def test_tasks_are_taken_a_few_ahead_only() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    for place, _ in enumerate(run_local(double, tasks(), workers=2), start=1):
        assert len(taken) <= place + 4


def test_no_tasks_start_no_workers() -> None:
    assert list(run_batches(double, [], workers=4)) == []


def test_a_death_is_told_of_the_task_that_was_at_work_and_the_others_are_done() -> None:
    found = dict(item for batch in run_batches(die_on_five, range(12), workers=2) for item in batch)
    assert found.pop(5) == WorkerDied(exit_code=-signal.SIGKILL)
    assert found == {n: n for n in range(12) if n != 5}


def test_a_task_that_is_out_of_memory_counts_as_a_death() -> None:
    found = dict(item for batch in run_batches(run_out_of_memory, range(3), workers=1) for item in batch)
    assert found == {0: 0, 1: WorkerDied(exit_code=137), 2: 2}


def test_where_a_death_has_no_meaning_it_is_an_error() -> None:
    with pytest.raises(SourceError, match="a worker process died"):
        list(run_local(die_on_five, range(12), workers=1))


def test_an_error_of_a_task_is_raised_as_it_is() -> None:
    with pytest.raises(UsageError, match="two is not welcome") as caught:
        list(run_local(refuse_two, range(5), workers=1))
    assert caught.value.hint == "take three"


def test_workers_are_in_the_folder_of_their_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [found for _, found in run_local(folder, [1], workers=1)] == [str(tmp_path.resolve())]


def test_leaving_early_ends_the_workers_and_what_they_run_at_once() -> None:
    began = time.monotonic()
    batches = run_batches(sleep, [0.01, 61.7, 61.7], workers=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 20
    assert not running("sleep 61.7")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_and_what_they_run_do_not_outlive_their_parent(number: int) -> None:
    length = f"6{int(number)}.3"
    code = (
        "from k710.shards.executors.local import run_local\n"
        "from test_local_pool import sleep\n"
        f"if __name__ == '__main__': list(run_local(sleep, [{length}], workers=1))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_until(lambda: running(f"sleep {length}"))
    process.send_signal(number)
    process.wait()
    wait_until(lambda: not running(f"sleep {length}"))


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(command: str) -> bool:
    """Whether a process with this command line is there, zombies apart."""
    wanted = command.encode().replace(b" ", b"\0")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in path.read_bytes():
                return True
        except OSError:
            continue
    return False
