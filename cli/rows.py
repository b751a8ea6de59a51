"""Rows of cells on stdout: a table on a terminal, tabs elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; else a line for each row with tabs between the cells."""
    if not sys.stdout.isatty():
        typer.echo("\n".join("\t".join(map(str, row)) for row in (columns, *rows)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console(markup=False, emoji=False, highlight=False).print(table)
