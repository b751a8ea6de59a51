"""Progress bars on stderr, when it is a terminal; a line now and then, and at the end of a stage, when it is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .options import is_first_rank

if TYPE_CHECKING:
    from k710.clip_figures import SoFar

_LINE_EVERY_S = 30.0
"""Time between two lines of a stage, where there is no terminal."""


class _Bars(Progress):
    """Bars with something under them."""

    below: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, and what is under them if anything is."""
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


class Stages:
    """A bar for each stage of a long task; call it with the stage's name, what is done and the total."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._progress = _Bars(
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
        self._said: dict[str, float] = {}
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
            # What was done before is no sign of how fast it goes.
            self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done, note=note)
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
        if sys.stderr.isatty() or self._is_quiet or stage in self._finished:
            return
        now = time.monotonic()
        if done >= total:
            self._finished.add(stage)
        elif now - self._said.setdefault(stage, now) < _LINE_EVERY_S:
            return
        self._said[stage] = now
        self.say(f"{stage}: {done} of {total} {note}".rstrip())

    @property
    def is_live(self) -> bool:
        """Whether bars are shown, and change in place."""
        return not self._progress.disable

    def show_below(self, rows: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Show pairs of a name and a value under the bars, in place of those before."""
        table = Table.grid(padding=(0, 2))
        for row in rows:
            # As text: a line that is printed above takes what it says of markup to all that is under it.
            table.add_row(*(cell for name, value in row for cell in (Text(name, style="dim"), Text(value))))
        self._progress.below = table

    def clips(self, so_far: SoFar) -> None:
        """Show how far the clips of a build are, how fast they come, and what came of them."""
        self("clips", so_far.done, so_far.total, so_far.note())

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        if not self._is_quiet:
            self._console.print(line, markup=False, soft_wrap=True)
