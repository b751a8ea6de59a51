"""`k710 compare`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson

if TYPE_CHECKING:
    from rich.console import RenderableType

    from uniformerv2.compare import Change, Comparison

REPORT_HELP = "Report that `k710 evaluate --out` wrote."
_SHOWN = 10
"""Classes, and clips, on the screen; `--json` has all."""


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=REPORT_HELP)],
    b: Annotated[Path, typer.Argument(metavar="B", help=REPORT_HELP)],
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations on the clips that both have scored, with the interval of the difference."""
    from rich.console import Console

    from uniformerv2.compare import compare_files

    found = compare_files(a, b)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    for line in found.warnings:
        typer.echo(f"WARNING: {line}", err=True)
    # Off a terminal rich assumes 80 columns, which would break class names.
    console = Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else 120)
    for part in described(found):
        console.print(part, soft_wrap=isinstance(part, str))


def described(found: Comparison) -> list[RenderableType]:
    """A comparison as lines and Markdown tables."""
    agreement = found.agreement
    lines: list[RenderableType] = [
        f"A: {found.a.name} ({found.a.checkpoint}, {found.a.view})",
        f"B: {found.b.name} ({found.b.checkpoint}, {found.b.view})",
        f"clips that both have scored: {found.clips:,}",
        _table(("", "A", "B", "B - A, points", f"{found.confidence:.0%} interval"), _rows(found)),
        _table(
            ("right, by top-1", "both", "only A", "only B", "neither"),
            [("clips", *(f"{n:,}" for n in (agreement.both, agreement.only_a, agreement.only_b, agreement.neither)))],
        ),
    ]
    if found.classes:
        shown = [
            (c.name, f"{c.clips:,}", f"{c.a / c.clips:.1%}", f"{c.b / c.clips:.1%}", f"{c.b - c.a:+,}")
            for c in found.classes[:_SHOWN]
        ]
        lines.append(_table(("classes that change most", "clips", "A", "B", "clips right"), shown))
    for side, keys in (("A", found.only_a), ("B", found.only_b)):
        more = ", ..." if len(keys) > _SHOWN else ""
        lines += [f"only in {side}: {len(keys):,} of its clips: {', '.join(keys[:_SHOWN])}{more}"] if keys else []
    return [*lines, f"intervals: paired bootstrap over clips, {found.resamples:,} resamples, seed {found.seed}"]


def _rows(found: Comparison) -> list[tuple[str, ...]]:
    return [("top-1", *_cells(found.top1)), ("top-5", *_cells(found.top5))]


def _cells(change: Change) -> tuple[str, ...]:
    points = [f"{100 * value:+.2f}" for value in (change.difference, change.low, change.high)]
    return f"{change.a:.2%}", f"{change.b:.2%}", points[0], f"{points[1]} to {points[2]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
