"""The ranks of one machine as child processes: started, listened to, and ended together.

The supervisor computes nothing, so it can always act: a rank that waits for another inside a collective hears nothing.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from k710.errors import FeedError, K710Error, StoppedOnPurposeError
from k710.processes import end_with_parent
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.stopping import STOP_SIGNALS, StopFlag, stop_flag

R = TypeVar("R")

_TICK_S = 0.2
_GOODBYE_S = 5.0
"""How long the others live on when a rank has failed, to say what they have to say."""
_SAVE_S = 120.0
"""How long all ranks may take to end their step and save when a stop was asked for."""
_HINT = "run the same command again to go on"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    kind: str
    """``ready``, ``progress``, ``result``, ``error`` (one of ours, or of the system) or ``crash`` (a traceback)."""
    value: Any = None


@dataclass(slots=True)
class _Rank:
    process: BaseProcess
    voice: Connection
    ready: bool = False
    """It knows what to do with a signal."""
    last: _Said | None = None
    """Its result, error or crash."""
    exitcode: int | None = None
    """Of a process that ended by itself, not by us."""

    @property
    def ended_well(self) -> bool:
        said = self.last
        return said is not None and (said.kind == "result" or isinstance(said.value, StoppedOnPurposeError))


@dataclass(slots=True)
class _Team:
    ranks: list[_Rank] = field(default_factory=list)
    errors: list[_Said] = field(default_factory=list)
    """In the order in which they came: what follows the first is mostly its consequence."""


def supervise(work: Callable[[int, OnProgress], R], *, world: int, on_progress: OnProgress) -> R:
    """What ``work`` returns on rank 0 of ``world`` new processes; no process outlives the call.

    Raises:
        K710Error: the one that a rank raised.
        StoppedOnPurposeError: SIGTERM or SIGUSR1 came; KeyboardInterrupt for SIGINT. Ranks that train have saved.
        FeedError: a rank was killed from outside.
        RuntimeError: a rank failed in a way that is our bug.
    """
    team = _Team()
    with stop_flag() as stop:
        try:
            _start(team, work, world)
            _listen(team, stop, on_progress)
        finally:
            _end([rank.process for rank in team.ranks])
    return _outcome(team, stop)  # type: ignore[no-any-return]


def _start(team: _Team, work: Callable[[int, OnProgress], object], world: int) -> None:
    context = multiprocessing.get_context("spawn")
    with _signals_blocked():
        for number in range(world):
            hears, speaks = context.Pipe(duplex=False)
            process = context.Process(target=_be_rank, args=(work, number, speaks), name=f"rank {number}")
            process.start()
            team.ranks.append(_Rank(process, hears))
            speaks.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Children begin with these signals blocked too: none of them is hit before it knows what to do with one."""
    resource_tracker.ensure_running()  # first, because it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_rank(work: Callable[[int, OnProgress], object], number: int, voice: Connection) -> None:
    # SIGINT and SIGUSR1 stay blocked: they may go to the whole process group, and what they mean is for the supervisor
    # to say.
    # SIGTERM ends a rank at once wherever it waits; inside the training loop ``stop_flag`` has it save first.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    faulthandler.enable()  # a crash of native code has no other way to say where
    voice.send(_Said(kind="ready"))
    end_with_parent()

    def show(progress: object) -> None:
        voice.send(_Said(kind="progress", value=progress))

    try:
        said = _Said(kind="result", value=work(number, show if number == 0 else silent))
    except (K710Error, OSError) as error:
        # Without its frames: they hold the queues of the workers, whose semaphores would be left behind.
        said = _Said(kind="error", value=error.with_traceback(None))
    except Exception:
        said = _Said(kind="crash", value=traceback.format_exc())
    gc.collect()
    try:
        voice.send(said if number == 0 or said.kind != "result" else _Said(kind="result", value=None))
    finally:
        sys.stdout.flush()
        # Not by the usual way out, on which libraries wait for peers that may be gone.
        os._exit(0 if said.kind == "result" else 1)


def _listen(team: _Team, stop: StopFlag, on_progress: OnProgress) -> None:
    """Until all ranks have ended, or those that are left have had their time."""
    asked, deadline = False, float("inf")
    while any(rank.exitcode is None for rank in team.ranks) and time.monotonic() < deadline:
        if stop.asked and not asked:
            asked, deadline = True, min(deadline, time.monotonic() + _SAVE_S)
            for rank in team.ranks:
                # One that is still starting has nothing to save, and would hear of it only when it has started.
                (rank.process.terminate if rank.ready else rank.process.kill)()
        alive = [rank for rank in team.ranks if rank.exitcode is None]
        voices = [rank.voice for rank in alive if not rank.voice.closed]
        connection.wait([*voices, *(rank.process.sentinel for rank in alive)], timeout=_TICK_S)
        for rank in alive:
            code = rank.process.exitcode  # before its last words are read, so that none are missed
            _hear(team, rank, on_progress)
            rank.exitcode = code
            if code is not None and not rank.ended_well:
                deadline = min(deadline, time.monotonic() + _GOODBYE_S)


def _hear(team: _Team, rank: _Rank, on_progress: OnProgress) -> None:
    try:
        while not rank.voice.closed and rank.voice.poll():
            said: _Said = rank.voice.recv()
            rank.ready = True
            if said.kind == "progress":
                on_progress(said.value)
            elif said.kind != "ready":
                rank.last = said
                team.errors += [said] if said.kind != "result" else []
    except (EOFError, ConnectionError):
        rank.voice.close()


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        # No grace here: who is left has had it, and may be inside a call that hears nothing.
        process.kill()
    for process in processes:
        process.join()


def _outcome(team: _Team, stop: StopFlag) -> Any:
    first = team.ranks[0].last
    if first is not None and first.kind == "result":
        return first.value
    named = [said.value for said in team.errors if said.kind == "error"]
    if stop.signal == signal.SIGINT and all(isinstance(error, StoppedOnPurposeError) for error in named):
        raise KeyboardInterrupt
    if named:
        raise named[0]
    codes = {number: rank.exitcode for number, rank in enumerate(team.ranks) if rank.exitcode and rank.last is None}
    if stop.asked or -signal.SIGTERM in codes.values():
        name = signal.Signals(stop.signal or signal.SIGTERM).name
        raise StoppedOnPurposeError(f"stopped by {name}", hint=_HINT)
    for number, code in codes.items():
        if code < 0:
            raise FeedError(
                f"rank {number} was killed by {signal.Signals(-code).name}",
                hint="the usual cause is too little memory: lower the batch or the number of workers; what was "
                f"checkpoint is whole, {_HINT}",
            )
    crashes = [str(said.value) for said in team.errors]
    raise RuntimeError(
        f"a rank failed:\n{crashes[0]}" if crashes else f"ranks ended without a word: exit codes {codes}"
    )
