"""The official CSV: ``label,youtube_id,time_start,time_end,split`` with ``is_cc`` in Kinetics-400, without ``label`` in
some test lists; quotes where the writer liked them, columns in any order."""

from __future__ import annotations

import csv
from collections import Counter

from k710.errors import InputError
from k710.lists.dialects.delimited import read_cells
from k710.lists.dialects.options import ReadOptions
from k710.lists.dialects.raw import Body, RawRows, numbered

NAMES = {
    "label": "label",
    "youtube_id": "id",
    "time_start": "start",
    "time_end": "end",
    "split": "split",
    "is_cc": "is_cc",
}
"""Official name -> ours, in the published order."""
_SHOWN = 80
REQUIRED = ("youtube_id", "time_start", "time_end")


def is_official(names: list[str]) -> bool:
    """Whether a header is an official one without fault."""
    return len(set(names)) == len(names) and set(REQUIRED) <= set(names) <= set(NAMES)


def header(body: Body) -> list[str]:
    """The cells of the first line as a CSV; empty when it is not one."""
    try:
        return [n.strip() for n in next(csv.reader([body.first_line]), [])]
    except csv.Error:
        return []


def read_official(body: Body, _options: ReadOptions) -> RawRows:
    """The rows of an official CSV.

    Raises:
        InputError: the header is not an official one.
    """
    names = _checked_header(body)
    if b"\n" not in body.data:
        raise InputError(f"{body.where}: no rows", hint="fetch the file again; it may have been cut off")
    cells = read_cells(body, ",", len(names), skip=1)
    return RawRows(
        dialect="official",
        columns={NAMES[n]: c for n, c in zip(names, cells.columns, strict=True)},
        titles={ours: n for n, ours in NAMES.items()},
        numbers=cells.numbers,
        broken=cells.broken,
    )


def _checked_header(body: Body) -> list[str]:
    try:
        names = [n.strip() for n in next(csv.reader([body.first_line]), [])]
    except csv.Error as error:
        raise InputError(f"{body.where} row 1: not a readable CSV ({error})", hint="fetch it again") from error
    if is_official(names):
        return names
    problem = ""
    if any(n not in names for n in REQUIRED):
        problem = f"column {next(n for n in REQUIRED if n not in names)!r} is missing"
    elif any(n not in NAMES for n in names):
        problem = f"unknown column {next(n for n in names if n not in NAMES)[:_SHOWN]!r}"
    if len(set(names)) < len(names):
        problem = f"column {Counter(names).most_common(1)[0][0][:_SHOWN]!r} stands twice"
    raise InputError(
        f"{body.where} row 1: {problem}",
        hint=f"the official columns are {','.join(NAMES)}; others are named by --columns id=...,start=...,end=... "
        f"(row 1: {numbered(names)})",
    )
