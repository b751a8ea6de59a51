"""A pool of processes on this machine that outlives the death of one of them.

Each worker has a pipe of its own, so it is known which task a dead one was at, and nobody waits for a lock that died
with it (the pools of the standard library break as a whole).
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from k710.errors import SourceError
from k710.processes import require_room_for_sockets

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 2
"""Tasks that a worker has: the one it is at, and one more, so that it need not wait while results are stored."""
_MAX_VAIN_STARTS = 10
"""Workers in a row that end without having been at a task."""
_GRACE_S = 5.0
_STOPPED = 143
_OUT_OF_MEMORY = 137


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerDied:
    """What became of a task instead of a result."""

    exit_code: int
    """Of the process; the negative number of the signal that killed it."""


def run_local(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in order of completion; tasks are taken a few ahead of the workers.

    Raises:
        SourceError: a worker died. What was yielded before is done; the rest is for another run.
    """
    for batch in run_batches(function, tasks, workers=workers):
        for task, result in batch:
            if isinstance(result, WorkerDied):
                raise SourceError(
                    "a worker process died (out of memory, or killed)",
                    hint="run the same command again: it goes on where it was; --workers 1 needs the least memory",
                )
            yield task, result


def run_batches(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Iterator[list[tuple[Task, Result | WorkerDied]]]:
    """The tasks that are done, as they are done, each with its result or with the death of the worker that was at it.

    A dead worker is replaced, and what waited behind its task goes to others. An exception of ``function`` is raised
    here, and ends the workers.

    Raises:
        SourceError: workers cannot be started.
    """
    pool = _Pool(function, workers)
    todo = Todo(tasks)
    try:
        while True:
            pool.feed(todo)
            if not pool.is_busy:
                return
            done, error = pool.answers(todo)
            if done:
                yield done
            if error is not None:
                raise error
    finally:
        pool.end()


class Todo(Generic[Task]):
    """Tasks to hand out; those that come back go first."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._rest = iter(tasks)
        self._returned: deque[Task] = deque()

    def put_back(self, tasks: Iterable[Task]) -> None:
        self._returned.extendleft(reversed(list(tasks)))

    def take(self) -> list[Task]:
        """The next task; none when there is none left."""
        if self._returned:
            return [self._returned.popleft()]
        return list(islice(self._rest, 1))


class _Worker(Generic[Task, Result]):
    """One process with its pipe and the tasks that it has."""

    def __init__(self, function: Callable[[Task], Result]) -> None:
        require_room_for_sockets()
        # forkserver: a forked copy of a process with decoder threads hangs, spawn pays the imports for every worker.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_modules(function))
        self.pipe, theirs = context.Pipe()
        self.tasks: deque[Task] = deque()
        self.is_ready = False
        self.process = context.Process(target=_work, args=(function, theirs, str(Path.cwd())), daemon=True)
        self.process.start()
        theirs.close()

    def hand(self, task: Task) -> None:
        self.tasks.append(task)
        # One that has died says so when it is listened to.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(task)


class _Pool(Generic[Task, Result]):
    """The workers of one run."""

    def __init__(self, function: Callable[[Task], Result], size: int) -> None:
        self._function, self._size = function, size
        self._workers: list[_Worker[Task, Result]] = []
        self._vain_starts = 0

    @property
    def is_busy(self) -> bool:
        return any(worker.tasks for worker in self._workers)

    def feed(self, todo: Todo[Task]) -> None:
        """Give every worker something to do, and then something to do next."""
        for depth in range(1, AHEAD + 1):
            for place in range(self._size):
                if place < len(self._workers) and len(self._workers[place].tasks) >= depth:
                    continue
                for task in todo.take():
                    if place >= len(self._workers):
                        self._workers.append(_Worker(self._function))
                    self._workers[min(place, len(self._workers) - 1)].hand(task)

    def answers(self, todo: Todo[Task]) -> tuple[list[tuple[Task, Result | WorkerDied]], BaseException | None]:
        """What has been done by now, at least one thing unless a worker came or went; and what a task raised."""
        done: list[tuple[Task, Result | WorkerDied]] = []
        error: BaseException | None = None
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                answer: tuple[bool, Any] | None = worker.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                done += self._bury(worker, todo)
                continue
            self._vain_starts = 0
            if answer is None:
                worker.is_ready = True
                continue
            task = worker.tasks.popleft()
            if answer[0]:
                done.append((task, answer[1]))
            else:
                error = answer[1]
        return done, error

    def _bury(self, worker: _Worker[Task, Result], todo: Todo[Task]) -> list[tuple[Task, Result | WorkerDied]]:
        """Take a dead worker out; the task that it died of, if it did."""
        worker.process.join(_GRACE_S)
        worker.pipe.close()
        self._workers.remove(worker)
        code = worker.process.exitcode or 0
        # Before it was ready it was at no task; and who was told to stop did not die of one.
        if worker.is_ready and worker.tasks and code != _STOPPED:
            task = worker.tasks.popleft()
            todo.put_back(worker.tasks)
            return [(task, WorkerDied(exit_code=code))]
        todo.put_back(worker.tasks)
        self._vain_starts += 1
        if self._vain_starts >= _MAX_VAIN_STARTS:
            raise SourceError(
                f"worker processes end before they do anything (exit code {code})",
                hint="too little memory (--workers 1 needs the least), or a script of yours whose calls do not stand "
                "under `if __name__ == '__main__':`",
            )
        return []

    def end(self) -> None:
        """End all workers and what they run, at once."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.tasks:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _modules(function: Callable[..., Any]) -> list[str]:
    """Where a function is from, and the functions in it if it is a partial one: loaded once for all workers."""
    parts = (function.func, *function.args) if isinstance(function, functools.partial) else (function,)
    return [part.__module__ for part in parts if callable(part)]


def _work(function: Callable[[Task], Result], pipe: connection.Connection, folder: str) -> None:
    """The life of a worker."""
    # An interrupt from the keyboard reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.chdir(folder)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            task = pipe.recv()
            pipe.send(answer(function, task))


def answer(function: Callable[[Task], Result], task: Task) -> tuple[bool, Any]:
    """Whether a task came to a result, and that, or what it raised; ends the process when there is no memory."""
    try:
        return True, function(task)
    except MemoryError:
        # As if the system had killed it: what it was at may be tried again in a process of its own.
        os._exit(_OUT_OF_MEMORY)
    except Exception as error:
        return False, error


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    # A signal may come between the start of a child process and the hand that would end it.
    for child in _children():
        with contextlib.suppress(OSError):
            # One that leads a group ends with all that it has started: its name alone would leave the others.
            end = os.killpg if os.getpgid(child) == child else os.kill
            end(child, signal.SIGKILL)
    # An exception, so that whoever waits for a child process cleans up after it.
    sys.exit(_STOPPED)


def _children() -> list[int]:
    """The processes that this one has started and that still run; none where the system does not tell."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _stop_with_parent() -> None:
    """Without it the children of a parent that was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        # To the thread that may be waiting for a child process: a signal to the process need not wake it.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(_GRACE_S)
        os._exit(1)
