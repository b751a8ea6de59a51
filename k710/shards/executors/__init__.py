"""Ways to run many independent tasks: one module an executor, and the dict that names them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol, get_args

from k710.errors import UsageError
from k710.shards.executors.array import ArrayTask
from k710.shards.executors.local import WorkerDied, run_batches
from k710.shards.executors.on_ray import run_ray

Executor = Literal["local", "array", "ray"]
"""What a build is told: an array task runs its own part by the executor ``local``."""


class RunBatches(Protocol):
    """What an executor is."""

    def __call__(
        self, function: Callable[[Any], Any], tasks: Iterable[Any], *, workers: int
    ) -> Iterator[list[tuple[Any, Any | WorkerDied]]]:
        """The tasks that are done, as they are done, each with its result or with the death of its worker."""
        ...


EXECUTORS: dict[str, RunBatches] = {"local": run_batches, "ray": run_ray}
"""Executors by name; another is one module and one line."""


def on_ray(address: str) -> RunBatches:
    """The executor ``ray`` on the cluster at ``address``; empty: on one of its own."""
    return functools.partial(run_ray, address=address or None)


def chosen_task(executor: str, task_index: int | None, num_tasks: int | None, ray_address: str) -> ArrayTask | None:
    """The task that a run is, by its settings; None when it is the whole build.

    Raises:
        UsageError: the settings do not go together.
    """
    if executor not in get_args(Executor):
        raise UsageError(f"executor must be one of {', '.join(get_args(Executor))}, got {executor}")
    if ray_address and executor != "ray":
        raise UsageError(f"ray_address is of executor ray, and this is {executor}", hint="--executor ray")
    if executor != "array":
        if task_index is not None or num_tasks is not None:
            raise UsageError(
                f"task_index and num_tasks are of executor array, and this is {executor}", hint="--executor array"
            )
        return None
    if task_index is None or num_tasks is None:
        raise UsageError(
            "executor array needs task_index and num_tasks",
            hint="--task-index I --num-tasks N, in Slurm --task-index $SLURM_ARRAY_TASK_ID",
        )
    return ArrayTask(index=task_index, num=num_tasks)
