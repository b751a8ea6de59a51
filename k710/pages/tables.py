"""Tables of a page: what a template shows at once, and what the page can search and sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | int | float | None
Kind = Literal["text", "code", "count", "share"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table."""

    label: str
    """Its header."""
    kind: Kind = "text"
    """``text``, ``code`` (ids and digests), ``count`` (grouped by thousands) or ``share`` (of 1, shown as per cent)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table; the macro ``data_table`` of ``macros.html`` draws it."""

    id: str
    """Name of its element; unique in the page."""
    caption: str
    """What it shows, for those who cannot see where it stands."""
    columns: tuple[Column, ...]
    """From left to right; the first names the row."""
    rows: Sequence[Sequence[Cell]]
    """One value per column; None: not known."""
    searchable: bool = False
    """Whether it is searched, sorted and paged: for tables that may be long."""
    page_rows: int = 25
    """Rows of a searchable table that are shown at once."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.id}: a row has not one value for each of {len(self.columns)} columns")
