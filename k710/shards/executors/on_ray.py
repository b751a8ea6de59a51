"""Ray core tasks, one for each task: a cluster of this process's own on this machine, or one that is there.

Ray is asked for no retries of its own: whoever calls knows which tasks may be run again, and under which name. Only a
task whose whole machine went away, which is nobody's fault, is handed out again here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from k710.errors import SourceError, UsageError
from k710.shards.executors.local import AHEAD, Todo, WorkerDied, answer

Task = TypeVar("Task")
Result = TypeVar("Result")

_MAX_LOST_MACHINES = 5
"""How often one task is handed out again because its machine went away."""
_STORE_BYTES = 128 * 2**20
"""Ray's store of objects: tasks and results are small, files go by the folder."""
_ANSWER_S = 10.0
_KILLED = -int(signal.SIGKILL)


def run_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, address: str | None = None
) -> Iterator[list[tuple[Task, Result | WorkerDied]]]:
    """The tasks that are done, as they are done, each with its result or with the death of the worker that was at it.

    Args:
        function: importable on every machine of the cluster.
        tasks: taken a few ahead of the workers.
        workers: processors to use; twice as many tasks are in flight.
        address: of a cluster that is there, or ``auto``; None: one is started here, and ended with the last task.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at ``address``.
        SourceError: a task cannot be run where it was sent to.
    """
    ray = _ray(own=address is None)
    with _cluster(ray, workers, address):
        submit = ray.remote(num_cpus=1, max_retries=0)(_work)
        flying: dict[Any, Task] = {}
        todo, lost = Todo(tasks), _Lost(ray)
        try:
            while True:
                while len(flying) < workers * AHEAD and (taken := todo.take()):
                    flying[submit.remote(function, taken[0], str(Path.cwd()))] = taken[0]
                if not flying:
                    return
                ray.wait(list(flying), num_returns=1)
                ready, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0)
                done: list[tuple[Task, Result | WorkerDied]] = []
                error: BaseException | None = None
                for ref in ready:
                    task = flying.pop(ref)
                    try:
                        is_good, value = lost.fetched(ref, task)
                    except _MachineGone:
                        todo.put_back([task])
                        continue
                    if is_good:
                        done.append((task, value))
                    else:
                        error = value
                if done:
                    yield done
                if error is not None:
                    raise error
        finally:
            # A cluster of our own ends as a whole; and of a task that is just done, cancelling can end this process.
            for ref in flying if address is not None else ():
                with contextlib.suppress(Exception):
                    ray.cancel(ref, force=True)


class _MachineGone(Exception):  # noqa: N818 - an event that is dealt with here
    """The machine of a task is no more."""


class _Lost:
    """What came of tasks, and how often each has lost its machine."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._errors = ray, ray.exceptions
        self._times: dict[int, int] = {}

    def fetched(self, ref: Any, task: Any) -> tuple[bool, Any]:
        """Whether a task came to a result, and that, or what it raised; a death is a result."""
        errors = self._errors
        try:
            is_good, value = self._ray.get(ref)
            return is_good, value
        except (errors.NodeDiedError, errors.ObjectLostError):
            self._times[id(task)] = self._times.get(id(task), 0) + 1
            if self._times[id(task)] <= _MAX_LOST_MACHINES:
                raise _MachineGone from None
            return True, WorkerDied(exit_code=_KILLED)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError):
            return True, WorkerDied(exit_code=_KILLED)
        except errors.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return False, SourceError(
                f"a Ray worker cannot run a task ({lines[-1] if lines else type(error).__name__})",
                hint="the same k710 has to be installed on every machine of the cluster",
            )


def _work(function: Callable[[Any], Any], task: Any, folder: str) -> tuple[bool, Any]:
    """What runs in a Ray worker; relative paths are meant from ``folder``, where there is one."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return answer(function, task)


def _ray(*, own: bool) -> Any:
    if own and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # The ports of a cluster are open to the network, so nobody without the word of this run may use it. Ray reads
        # this once, when it is loaded; without it, it would write a word into the home folder.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError("Ray is not installed", hint="pip install 'k710[ray]'") from error
    return ray


@contextlib.contextmanager
def _cluster(ray: Any, workers: int, address: str | None) -> Iterator[None]:
    """Be connected to a cluster; to the one that this process is connected to already, if it is."""
    if ray.is_initialized():
        yield
    elif address is not None:
        with _joined(ray, address):
            yield
    else:
        with _own(ray, workers):
            yield


@contextlib.contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    if "://" in address:
        raise UsageError(f"--ray-address {address}: not HOST:PORT", hint="start k710 on a machine of the cluster")
    try:
        _require_listener(address)
        with _same_signals():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"--ray-address {address}: no cluster answers ({first})",
            hint="`ray status --address ...` tells whether it is there; `ray start --head` begins one",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Ask for an answer first: Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


@contextlib.contextmanager
def _own(ray: Any, workers: int) -> Iterator[None]:
    """A cluster on this machine that leaves nothing behind."""
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        with _same_signals():
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=_STORE_BYTES,
                _temp_dir=folder,
            )
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        _remove(Path(folder))


def _remove(folder: Path) -> None:
    """Remove a folder that processes which are just ending may still write to."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Keep what the program does on SIGTERM, which Ray would change."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
