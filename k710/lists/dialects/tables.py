"""CSV, text and parquet tables of any layout: columns named by the user, or told apart by what stands in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k710.errors import InputError
from k710.lists.dialects.delimited import DELIMITERS, MAX_LINES, read_cells, split_line
from k710.lists.dialects.ids import holds_youtube_id
from k710.lists.dialects.official import NAMES
from k710.lists.dialects.options import ReadOptions
from k710.lists.dialects.paths import is_path
from k710.lists.dialects.raw import Body, RawRows, numbered
from k710.tables import compute

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_SPLIT = re.compile(r"train|training|val|validate|validation|test|testing|holdout|holdout_test", re.IGNORECASE)
_SAMPLE_BYTES = 1 << 15
_MAX_PARQUET_BYTES = 1 << 30
_ALIASES = {**NAMES, "start_s": "start", "end_s": "end"} | {n: n for n in ("id", "start", "end", "path")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where a table without known header has its columns."""

    delimiter: str | None
    """None: spaces."""
    width: int
    """Number of columns."""
    columns: Mapping[str, int]
    """Ours -> position from 0."""
    skip: int
    """Lines of header."""


def sample(body: Body) -> list[str]:
    """Whole lines from the start, the middle and the end of a text; the first line is the file's."""
    text, size = body.data, len(body.data)
    if size <= 3 * _SAMPLE_BYTES:
        lines = text.decode().split("\n")
    else:
        lines = text[:_SAMPLE_BYTES].decode(errors="replace").split("\n")[:-1]
        for start in (size // 2, size - _SAMPLE_BYTES):
            lines += text[start : start + _SAMPLE_BYTES].decode(errors="replace").split("\n")[1:-1]
    # A first line longer than the sample leaves none.
    return [line.removesuffix("\r") for line in lines[:3000]] or [""]


def guess_layout(body: Body) -> Layout | None:
    """The layout that the cells of a sample show; None when it cannot be told."""
    lines = sample(body)
    if not lines[0].strip():
        return None
    for delimiter in DELIMITERS:
        try:
            rows = [split_line(line, delimiter) for line in lines if line.strip()]
        except csv.Error:
            continue
        width = len(rows[len(rows) // 2]) if rows else 0
        fitting = [row for row in rows if len(row) == width]
        if not 1 <= width <= 64 or len(fitting) * 20 < len(rows) * 19:
            continue
        skip = int(len(rows) > 1 and rows[0] in fitting[:1] and not any(map(_holds_data, rows[0])))
        columns = _roles(fitting[skip:])
        if columns is not None:
            return Layout(delimiter=delimiter, width=width, columns=columns, skip=skip)
    return None


def read_guessed(body: Body, _options: ReadOptions) -> RawRows:
    """The rows of a table whose columns are told by what stands in them.

    Raises:
        InputError: they cannot be told.
    """
    layout = guess_layout(body)
    if layout is None:
        line = body.first_line[:1000]
        cells = next(c for d in DELIMITERS if len(c := line.split(d)) > 1 or d is None)
        raise InputError(
            f"{body.where} row 1: which columns hold id and times cannot be told",
            hint=f"name them, such as --columns id=1,start=2,end=3,label=4; row 1: {numbered(cells)}",
        )
    cells_ = read_cells(body, layout.delimiter, layout.width, layout.skip)
    return RawRows(
        dialect="table",
        columns={name: cells_.columns[at] for name, at in layout.columns.items()},
        numbers=cells_.numbers,
        broken=cells_.broken,
    )


def read_named(body: Body, options: ReadOptions) -> RawRows:
    """The rows of a table whose columns ``--columns`` names.

    Raises:
        InputError: a named column is not there, or stands twice.
    """
    layout = _named_layout(body, options.columns)
    cells = read_cells(body, layout.delimiter, layout.width, layout.skip)
    return RawRows(
        dialect="columns",
        columns={name: cells.columns[at] for name, at in layout.columns.items()},
        titles={ours: theirs if layout.skip else f"column {theirs}" for ours, theirs in options.columns.items()},
        numbers=cells.numbers,
        broken=cells.broken,
    )


def read_parquet(body: Body, options: ReadOptions) -> RawRows:
    """The rows of a parquet file: columns as ``--columns`` names them, else by our or the official names.

    Raises:
        InputError: it is damaged, too large, or a column is missing or not of a plain type.
    """
    again = "fetch or write the file again"
    try:
        file = pq.ParquetFile(pa.BufferReader(body.data))
        names = file.schema_arrow.names
        chosen = _parquet_columns(names, options.columns, body)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if size > _MAX_PARQUET_BYTES or file.metadata.num_rows > MAX_LINES:
            raise InputError(f"{body.where}: too large for a list ({file.metadata.num_rows} rows)", hint=again)
        table = file.read(columns=list(chosen.values()))
        columns = {ours: _as_text(table[theirs]) for ours, theirs in chosen.items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{body.where}: not a readable parquet list ({str(error)[:200]})", hint=again) from error
    return RawRows(
        dialect="parquet", columns=columns, titles=chosen, numbers=np.arange(1, table.num_rows + 1, dtype=np.int64)
    )


def _named_layout(body: Body, columns: Mapping[str, str]) -> Layout:
    line = body.first_line
    by_number = all(c.isdecimal() for c in columns.values())
    seen: list[str] = []
    for delimiter in DELIMITERS:
        try:
            cells = [c.strip() for c in split_line(line, delimiter)]
        except csv.Error:
            continue
        seen = cells if len(cells) > len(seen) else seen
        if by_number and len(cells) >= max(int(c) for c in columns.values()):
            places = {ours: int(theirs) - 1 for ours, theirs in columns.items()}
            if min(places.values()) >= 0:
                return Layout(delimiter=delimiter, width=len(cells), columns=places, skip=0)
        if not by_number and all(c in cells for c in columns.values()):
            twice = [c for c in columns.values() if cells.count(c) > 1]
            if twice:
                raise InputError(f"{body.where} row 1: column {twice[0]!r} stands twice", hint="rename one of them")
            places = {ours: cells.index(theirs) for ours, theirs in columns.items()}
            return Layout(delimiter=delimiter, width=len(cells), columns=places, skip=1)
    missing = next((c for c in columns.values() if c not in seen and not (by_number and 0 < int(c) <= len(seen))), "")
    raise InputError(
        f"{body.where} row 1: column {missing!r} is missing", hint=f"--columns names it; row 1: {numbered(seen)}"
    )


def _parquet_columns(names: list[str], columns: Mapping[str, str], body: Body) -> dict[str, str]:
    wanted = dict(columns) or {_ALIASES[n]: n for n in names if n in _ALIASES}
    missing = [c for c in wanted.values() if names.count(c) != 1]
    if missing or not {"id", "path"} & set(wanted):
        what = f"column {missing[0]!r}" if missing else "a column 'id'"
        raise InputError(
            f"{body.where}: {what} is missing or stands twice", hint=f"name columns by --columns; {numbered(names)}"
        )
    return wanted


def _as_text(values: Any) -> pa.Array[Any]:
    text = compute.cast(values, pa.string()).combine_chunks()
    whole = text if isinstance(text, pa.Array) else pa.concat_arrays(text.chunks)
    # Parquet does not promise that its text is UTF-8.
    whole.validate(full=True)
    return whole


def _holds_data(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell.strip()) or _SPLIT.fullmatch(cell.strip()) or is_path(cell))


def _roles(rows: list[list[str]]) -> dict[str, int] | None:
    """Which column is what, by the cells of a sample; None when it cannot be told."""
    columns = [[c.strip() for c in column] for column in zip(*rows, strict=True)]
    kinds = [_kind(c) for c in columns]
    ids = [i for i, k in enumerate(kinds) if k == "id"]
    paths = [i for i, k in enumerate(kinds) if k == "path"]
    if not ids and not paths:
        return None
    # A class name can have 11 characters too; of ids there are more.
    name, at = ("id", max(ids, key=lambda i: len(set(columns[i])))) if ids else ("path", paths[0])
    roles = {name: at}
    texts = [i for i, k in enumerate(kinds) if i != at and k in ("text", "id")]
    numbers = [i for i, k in enumerate(kinds) if k == "number"]
    if len(numbers) == 3 and set(columns[numbers[2]]) <= {"0", "1"}:
        roles["is_cc"] = numbers.pop()
    if len(numbers) == 2 and all(float(a) < float(b) for a, b in _numeric(columns, numbers)):
        roles |= {"start": numbers[0], "end": numbers[1]}
    elif len(numbers) == 1 and not texts:
        roles["label"] = numbers[0]
    elif numbers:
        return None
    if len(texts) > 1:
        return None
    if texts:
        roles["label"] = texts[0]
    if "split" in kinds:
        roles["split"] = kinds.index("split")
    return roles


def _numeric(columns: list[list[str]], numbers: list[int]) -> list[tuple[str, str]]:
    pairs = zip(columns[numbers[0]], columns[numbers[1]], strict=True)
    return [(a, b) for a, b in pairs if _NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)]


def _kind(cells: list[str]) -> str:
    tests: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("number", _NUMBER.fullmatch),
        ("split", _SPLIT.fullmatch),
        ("id", holds_youtube_id),
    )
    for name, test in tests:
        if cells and sum(bool(test(c)) for c in cells) * 20 >= len(cells) * 19:
            return name
    return "path" if cells and sum(map(is_path, cells)) * 20 >= len(cells) * 19 else "text"
