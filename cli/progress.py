"""Progress bars on stderr, when it is a terminal; one line at the end of a stage when it is not."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .options import is_first_rank


class Stages:
    """A bar for each stage of a long task; call it with the stage's name, what is done and the total."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not sys.stderr.isatty() or not is_first_rank(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._finished: set[str] = set()
        self._is_quiet = not is_first_rank()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` steps of ``stage`` are done."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
        if done >= total and stage not in self._finished:
            self._finished.add(stage)
            if not sys.stderr.isatty() and not self._is_quiet:
                self._console.print(f"{stage}: {done} of {total} {note}".rstrip(), markup=False, soft_wrap=True)
