"""What every reader of a dialect takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.errors import InputError

MAX_LINE = 1 << 20
"""Bytes up to which a line can be a row: its cells take many times its space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """The content of one file, unpacked, its BOM and blank tail cut off, and known to be UTF-8 (but for parquet)."""

    data: bytes
    """Never empty."""
    where: str
    """How messages name the file."""

    @property
    def first_line(self) -> str:
        """The first line, or as much of it as could be a header."""
        return self.data[:MAX_LINE].split(b"\n", 1)[0].decode(errors="replace").removesuffix("\r")


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenRow:
    """A row that has no columns to check."""

    row: int
    """Line or entry number, from 1."""
    reason: str
    """What is wrong with it."""
    value: str = ""
    """What stands there."""
    hint: str = "correct the row, or fetch the file again"
    """What to do."""

    @property
    def message(self) -> str:
        """Reason and value."""
        return f"{self.reason}: {self.value!r}" if self.value else self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRows:
    """Text columns of one file, in its order."""

    dialect: str
    """What the file was recognised as."""
    columns: Mapping[str, pa.Array[Any]]
    """``id, start, end, label, split, is_cc, path``, those that there are, all of type string; null: nothing there."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column, for messages; ours where absent."""
    numbers: npt.NDArray[np.int64]
    """Line or entry number of each row, from 1."""
    broken: tuple[BrokenRow, ...] = ()
    """Rows that are in no column."""

    def title(self, column: str) -> str:
        """The file's name of a column."""
        return self.titles.get(column, column)

    def where_row(self, index: int) -> int:
        """Line or entry number of row ``index`` of the columns."""
        return int(self.numbers[index])


def body(data: bytes, where: str) -> Body:
    """The content of a text or parquet file.

    Raises:
        InputError: it is empty or not UTF-8.
    """
    if data[:4] == b"PAR1":
        return Body(data=data, where=where)
    text = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n \t")
    if b"\n" not in text:  # lines may end as they did on old Macs
        text = text.replace(b"\r", b"\n")
    if not text:
        raise InputError(f"{where}: empty file", hint="fetch it again, or take it out of the folder")
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            row = text[: error.start].count(b"\n") + 1
            raise InputError(f"{where} row {row}: not UTF-8", hint="save the file as UTF-8") from error
    return Body(data=text, where=where)


def strings(values: Sequence[str | None]) -> pa.Array[Any]:
    """An arrow array of text; lone surrogates, which JSON can hold, become question marks."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([v if v is None else printable(v) for v in values], pa.string())


def printable(text: str) -> str:
    """``text`` with question marks for lone surrogates: JSON, file names and names in archives can hold them."""
    return text.encode("utf-8", "replace").decode()


def numbered(text: Iterable[str], limit: int = 12) -> str:
    """Columns as ``1='a', 2='b'``, for a hint."""
    cells = list(text)
    more = ", ..." if len(cells) > limit else ""
    return ", ".join(f"{i}={c[:40]!r}" for i, c in enumerate(cells[:limit], 1)) + more
