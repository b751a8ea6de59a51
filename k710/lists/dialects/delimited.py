"""Lines with a delimiter to columns: by arrow when every row is in order, else line by line with exact numbers."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from k710.errors import InputError
from k710.lists.dialects.raw import MAX_LINE, Body, BrokenRow, strings

DELIMITERS = (",", "\t", ";", "|", None)
"""What columns are parted by, the likeliest first; None is any run of spaces."""
MAX_LINES = 5_000_000
"""Lines up to which a file that is not in order is read line by line."""
MAX_COLUMNS = 1000
_FAST_BYTES = 1 << 16
_SHOWN = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """A file's columns by position."""

    columns: list[pa.Array[Any]]
    """Text."""
    numbers: npt.NDArray[np.int64]
    """Line number of each row."""
    broken: tuple[BrokenRow, ...]
    """Lines that do not have all columns."""


def split_line(line: str, delimiter: str | None) -> list[str]:
    """The cells of one line, quotes undone.

    Raises:
        csv.Error: quotes or control characters that no CSV has.
    """
    if '"' not in line and "\r" not in line:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter or " ", skipinitialspace=delimiter is None), [])


def read_cells(body: Body, delimiter: str | None, width: int, skip: int) -> Cells:
    """The ``width`` columns of every line after the first ``skip``.

    Raises:
        InputError: there are too many columns, or too many lines for a file that is not in order.
    """
    if width > MAX_COLUMNS:
        raise InputError(f"{body.where} row 1: {width} columns are too many", hint="is this a list of videos?")
    if delimiter is not None and len(body.data) >= _FAST_BYTES:
        cells = _by_arrow(body, delimiter, width, skip)
        if cells is not None:
            return cells
    return _by_line(body, delimiter, width, skip)


def _by_arrow(body: Body, delimiter: str, width: int, skip: int) -> Cells | None:
    text = body.data
    # A lone carriage return ends a line for arrow, and for nobody else.
    if text.count(b"\r") != text.count(b"\r\n"):
        return None
    names = [str(i) for i in range(width)]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(text),
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=skip),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            # Everything as text: ids such as 1e2 or NaN-like ones must not become numbers.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    # Fewer rows than lines: a quoted line end, after which line numbers would be wrong.
    if table.num_rows != text.count(b"\n") + 1 - skip:
        return None
    numbers = np.arange(skip + 1, skip + 1 + table.num_rows, dtype=np.int64)
    return Cells(columns=[c.combine_chunks() for c in table.columns], numbers=numbers, broken=())


def _by_line(body: Body, delimiter: str | None, width: int, skip: int) -> Cells:
    if body.data.count(b"\n") > MAX_LINES:
        raise InputError(f"{body.where}: more than {MAX_LINES} lines, not all in order", hint="fetch it again")
    rows, numbers, broken = [], [], []
    for number, line in enumerate(body.data.decode().split("\n")[skip:], skip + 1):
        text = line.removesuffix("\r")
        found = _row(text, delimiter, width, number)
        if isinstance(found, BrokenRow):
            broken.append(found)
        else:
            rows.append(found)
            numbers.append(number)
    columns = [strings(c) for c in zip(*rows, strict=True)] if rows else [strings([]) for _ in range(width)]
    return Cells(columns=columns, numbers=np.asarray(numbers, dtype=np.int64), broken=tuple(broken))


def _row(line: str, delimiter: str | None, width: int, number: int) -> list[str] | BrokenRow:
    if not line.strip():
        return BrokenRow(row=number, reason="empty row", hint="take the empty line out, or fetch the file again")
    if len(line) > MAX_LINE:
        return BrokenRow(row=number, reason="too long for a row", value=line[:_SHOWN])
    try:
        cells = split_line(line, delimiter)
    except csv.Error as error:
        return BrokenRow(row=number, reason=f"not a readable CSV ({error})", value=line[:_SHOWN])
    if len(cells) != width:
        return BrokenRow(row=number, reason=f"expected {width} columns, found {len(cells)}", value=line[:_SHOWN])
    return cells
