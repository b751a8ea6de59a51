"""One task of an array job: which shards are its own, by the plan alone, so that tasks need not speak to each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k710.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayTask:
    """Which task of how many."""

    index: int
    """Its number, from 0."""
    num: int
    """How many tasks there are."""

    def __post_init__(self) -> None:
        if self.num < 1:
            raise UsageError(f"num_tasks must be at least 1, got {self.num}")
        if not 0 <= self.index < self.num:
            raise UsageError(
                f"task_index must be between 0 and {self.num - 1} for {self.num} tasks, got {self.index}",
                hint=f"numbers begin with 0; in Slurm `--array=0-{self.num - 1}`",
            )

    def __str__(self) -> str:
        return f"task {self.index} of {self.num}"

    @property
    def name(self) -> str:
        """As it stands in names of files."""
        return f"task-{self.index:05d}-of-{self.num:05d}"

    def own(self, shards: Iterable[str]) -> list[str]:
        """The shards of this task: every ``num``-th in order of name. Each shard is some task's, and no other's."""
        return sorted(shards)[self.index :: self.num]
