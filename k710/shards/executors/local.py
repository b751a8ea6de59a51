"""A pool of processes on this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from k710.errors import SourceError
from k710.processes import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_local(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in order of completion; tasks are taken a few ahead of the workers.

    Raises:
        SourceError: a worker died. What was yielded before is done; the rest is for another run.
    """
    # forkserver: a forked copy of a process with decoder threads hangs, spawn pays the imports for every worker.
    context = multiprocessing.get_context("forkserver")
    queue = iter(tasks)
    with ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_begin_worker) as pool:
        running: dict[Future[Result], Task] = {}
        try:
            while True:
                for task in islice(queue, 2 * workers - len(running)):
                    running[pool.submit(function, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise SourceError(
                "a worker process died (out of memory, or killed)",
                hint="run the same command again: it goes on where it was; --workers 1 needs the least memory",
            ) from error
        finally:
            for future in running:
                future.cancel()


def _begin_worker() -> None:
    # An interrupt from the keyboard reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
