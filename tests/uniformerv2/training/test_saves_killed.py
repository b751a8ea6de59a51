"""Saving, killed at any moment: what is on the disk is always a whole checkpoint, the last or the one before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from saved_state import checkpoint_of, is_whole, scores_of

from k710 import atomic
from uniformerv2.training import saves as saves_module
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.saves import Saves, leftovers

BEST = scores_of(0.5)


class KilledError(BaseException):
    """Stands for SIGKILL inside this process."""


OPERATIONS: tuple[tuple[object, str], ...] = (
    (atomic, "sync_file"),
    (atomic, "sync_folder"),
    (saves_module, "write_checkpoint"),
    (os, "link"),
    (Path, "replace"),
    (Path, "chmod"),
    (Path, "unlink"),
    (Path, "mkdir"),
)
"""All that touches the disk in a save."""


@contextmanager
def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Raise just before or just after one of the operations, and at all that follow; yields whether it came to that."""
    count = -1

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            nonlocal count
            result = None
            for turn in (0, 1):
                count += 1
                if count >= moment:
                    raise KilledError
                result = real(*given, **named) if turn == 0 else result
            return result

        return run

    with monkeypatch.context() as patched:
        for owner, name in OPERATIONS:
            patched.setattr(owner, name, counting(getattr(owner, name)))
        yield lambda: count >= moment


def save_two(out: Path, step: int) -> None:
    """What a run saves at ``step`` and the step after it, which is its best so far."""
    saves = Saves(out, 1)
    saves.save(checkpoint_of(step))
    saves.save(checkpoint_of(step + 1, scores=BEST, best=BEST), best=True)
    saves.wait()


@pytest.mark.parametrize("links", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_kill_at_any_operation_leaves_a_whole_checkpoint_and_a_best_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def no_links(*_: object) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", no_links)
    # What a process sees of files does not wait for the disk: only the order of the calls matters here.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    out = tmp_path / "run"
    seen = set()
    for moment in range(200):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if moment % 2:  # every moment of a first save too, and of one beside older ones
            save_two(out, 1)
        with killed_at(moment // 2, monkeypatch) as was_killed, suppress(KilledError):
            save_two(out, 3)
        newest = Saves(out, 1).newest()
        steps = (2, 3, 4) if moment % 2 else (None, 3, 4)
        assert (newest and newest.state.step) in steps, moment
        assert newest is None or is_whole(newest)
        best = Saves(out, 1).best()
        assert best is None or is_whole(load_checkpoint(best))
        if newest is not None and newest.best is not None:
            assert best is not None, moment
            assert load_checkpoint(best).validation == newest.best
        seen.add(newest and newest.state.step)
        # The next run comes to the same end, whatever it found.
        for leftover in leftovers(out):
            leftover.unlink()
        save_two(out, 3)
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["best.pt", "step-00000004.pt"], moment
        if not was_killed() and moment % 2:
            break
    assert 30 < moment < 199
    assert seen == {None, 2, 3, 4}


def save_until_killed(out: Path, begin: int, said: int) -> None:
    """Save step after step; write a line to ``said`` when one is durable, as a byte for each."""
    saves = Saves(out, 2)
    for step in range(begin, begin + 10_000):
        saves.save(checkpoint_of(step, numbers=300_000, scores=BEST, best=BEST), best=step % 3 == 0)
        if step > begin:
            os.write(said, b".")  # the one before is on the disk: at most one is under way


def kill_while_saving(out: Path, begin: int, after_s: float) -> int:
    """Kill a process that saves from step ``begin`` on, so long after two are durable; the last it knew to be so."""
    listens, says = os.pipe()
    if (child := os.fork()) == 0:
        os.close(listens)
        try:
            save_until_killed(out, begin, says)
        finally:
            os._exit(1)
    os.close(says)
    with os.fdopen(listens, "rb") as heard:
        durable = len(heard.read(2))
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        return begin - 1 + durable + len(heard.read())


def kill_often(out: Path, moments: int) -> int:
    """Kill so often, each time going on from what is there; how many of the kills hit a file half written."""
    rng, durable, torn = random.Random(3), 0, 0
    for _ in range(moments):
        durable = kill_while_saving(out, durable + 1, rng.uniform(0, 0.05))
        saves = Saves(out, 2)
        newest = saves.newest()
        assert saves.said == ()
        assert newest is not None
        assert is_whole(newest)
        assert newest.state.step in (durable, durable + 1)
        best = saves.best()
        assert best is None or is_whole(load_checkpoint(best))
        assert len(list((out / "checkpoints").glob("step-*"))) <= 3
        torn += bool(leftovers(out))
        for leftover in leftovers(out):
            leftover.unlink()
    assert durable >= 2 * moments
    return torn


def test_a_real_kill_in_the_middle_of_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_often(tmp_path, 5)


@pytest.mark.slow
def test_real_kills_at_25_moments_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    assert kill_often(tmp_path, 25) >= 5
