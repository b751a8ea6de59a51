"""The checks that every row of every list goes through, whatever its file looked like, and the table that they give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.errors import InputError
from k710.labels import LabelMap
from k710.lists.dialects.raw import RawRows, printable, strings
from k710.tables import compute, named_schema, picked

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "holdout": "holdout",
    "holdout_test": "holdout",
}
"""Every word that published files use for a split, and the one used here."""

LIST_ROWS = named_schema(
    "list_rows",
    1,
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),  # null only in lists without times
        pa.field("end_s", pa.float64()),
        pa.field("label", pa.string()),  # null: none
        pa.field("canonical", pa.int16(), nullable=False),  # -1: none
        pa.field("is_cc", pa.bool_()),
    ],
)
"""The rows of one list."""

BAD_ROWS = named_schema(
    "bad_rows",
    1,
    [
        pa.field("release", pa.string()),
        pa.field("split", pa.string()),
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),  # line, or entry number in JSON and parquet; from 1
        pa.field("column", pa.string()),
        pa.field("value", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("id", pa.string()),  # this and the rest: what could be read, else null
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("label", pa.string()),
    ],
)
"""Rows that were left out, and why."""

_MAX_TIME_S = 999_999
_MAX_DIGITS = 80
_SHOWN = 200
_CORRECT = "correct the row, or fetch the file again"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_IS_ID = "^[A-Za-z0-9_-]{11}$"
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the rows of a list must be."""

    where: str
    """How messages name the file."""
    release: str | None = None
    """Whose list it is, if anyone's."""
    split: str | None = None
    """What a split column must say; None: anything."""
    taxonomy: str | None = None
    """Whose class names the labels must be; None: anything."""
    id_kind: str = "youtube"
    """``youtube`` or ``opaque``."""
    times: bool = True
    """Whether each row must have a start and an end."""
    label: bool = False
    """Whether each row must have a label."""
    report: bool = False
    """Leave bad rows out instead of stopping at them."""
    may_be_empty: bool = False
    """Whether all rows may be bad: of one split of a file, say."""


def checked(raw: RawRows, expected: Expected, labels: LabelMap) -> tuple[pa.Table, pa.Table]:
    """``LIST_ROWS`` of the good rows, and ``BAD_ROWS`` of the others.

    Raises:
        InputError: there are no rows; a row is bad and bad rows are not to be reported; or not one is good.
    """
    where = expected.where
    if not len(raw.numbers) and not raw.broken:
        raise InputError(f"{where}: no rows", hint="fetch the file again; it may have been cut off")
    if raw.broken and not expected.report:
        first = raw.broken[0]
        raise InputError(f"{where} row {first.row}: {first.message}", hint=first.hint)
    table = _Table(raw, expected, labels)
    bad = np.zeros(table.num_rows, bool)
    found: list[tuple[_Mask, _Problem]] = []
    for problem in table.problems():
        new = problem.mask & ~bad
        if not new.any():
            continue
        if not expected.report:
            raise _error(raw, expected, problem)
        found.append((new, problem))
        bad |= new
    if not (~bad).any() and not (expected.may_be_empty and expected.report):
        why = _error(raw, expected, found[0][1]).message if found else f"{where}: {raw.broken[0].message}"
        raise InputError(f"not one good row: {why}", hint="this is no list of the kind that it is taken for")
    rows = table.rows()
    good = rows if not bad.any() else rows.filter(pa.array(~bad))
    return good.cast(LIST_ROWS), table.bad_rows(found)


def with_bad_rows(rows: pa.Table, bad: pa.Table) -> pa.Table:
    """``rows`` and those of ``BAD_ROWS`` whose id could be read, which have no times and no label: to compare by id."""
    ids = bad["id"].drop_null()
    columns: dict[str, Any] = {"id": ids, "canonical": pa.repeat(-1, len(ids))}
    arrays = [columns.get(f.name, pa.nulls(len(ids), f.type)) for f in LIST_ROWS]
    return pa.concat_tables([rows, pa.table(arrays, names=LIST_ROWS.names).cast(LIST_ROWS)]) if len(ids) else rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """One kind of damage and the rows that have it."""

    mask: _Mask
    column: str
    why: Callable[[int], str]
    hint: Callable[[int], str] = lambda _: _CORRECT


def _error(raw: RawRows, expected: Expected, problem: _Problem) -> InputError:
    first, count = int(np.flatnonzero(problem.mask)[0]), int(problem.mask.sum())
    more = f" (and {count - 1} more rows)" if count > 1 else ""
    what = problem.why(first)
    if problem.column:
        what = f"{raw.title(problem.column)} {_value(raw, problem.column, first)!r} {what}"
    return InputError(f"{expected.where} row {raw.where_row(first)}: {what}{more}", hint=problem.hint(first))


def _value(raw: RawRows, column: str, index: int) -> str:
    values = raw.columns.get(column)
    return "" if values is None else str(values[index].as_py() or "")[:_SHOWN]


class _Table:
    """The columns of one file in their types, and what is wrong with them."""

    def __init__(self, raw: RawRows, expected: Expected, labels: LabelMap) -> None:
        self.num_rows = len(raw.numbers)
        self._raw = raw
        self._expected = expected
        self._labels = labels
        # Blanks around an id are what editors and spreadsheets leave: no id has any.
        self._ids = compute.utf8_trim_whitespace(self._column("id"))
        self._times = {c: _seconds(self._column(c)) for c in ("start", "end")}
        self._label = self._column("label")
        self._canonical = np.full(self.num_rows, -1, np.int16)
        self._strange_ids = np.zeros(self.num_rows, bool)

    def problems(self) -> Iterator[_Problem]:
        """Every kind of damage, in the order in which one row's is named."""
        yield _Problem(
            mask=self._empty(),
            column="",
            why=lambda _: "empty row",
            hint=lambda _: "take the empty line out, or fetch the file again",
        )
        yield self._id_problem()
        yield from self._time_problems()
        yield from self._split_problems()
        yield from self._label_problems()

    def rows(self) -> pa.Table:
        """All rows, the bad ones included."""
        is_cc = self._raw.columns.get("is_cc")
        return pa.table(
            {
                "id": self._ids,
                "start_s": _nullable(self._times["start"]),
                "end_s": _nullable(self._times["end"]),
                "label": self._label,
                "canonical": pa.array(self._canonical),
                "is_cc": pa.nulls(self.num_rows, pa.bool_()) if is_cc is None else _flags(is_cc),
            }
        )

    def bad_rows(self, found: list[tuple[_Mask, _Problem]]) -> pa.Table:
        """``BAD_ROWS`` of the rows found, in the order of the file."""
        owner = {
            "release": self._expected.release,
            "split": self._expected.split,
            "file": printable(self._expected.where),
        }
        nothing = {"id": None, "start_s": None, "end_s": None, "label": None}
        bad: list[dict[str, Any]] = [
            {**owner, **nothing, "row": b.row, "column": "", "value": printable(b.value), "reason": b.reason}
            for b in self._raw.broken
        ]
        for mask, problem in found:
            for index in map(int, np.flatnonzero(mask)):
                start, end = (float(self._times[c][index]) for c in ("start", "end"))
                bad.append(
                    {
                        **owner,
                        "row": self._raw.where_row(index),
                        "column": self._raw.title(problem.column) if problem.column else "",
                        "value": _value(self._raw, problem.column, index),
                        "reason": problem.why(index),
                        "id": None if self._strange_ids[index] else self._ids[index].as_py(),
                        "start_s": start if np.isfinite(start) else None,
                        "end_s": end if np.isfinite(end) else None,
                        "label": self._label[index].as_py(),
                    }
                )
        return pa.Table.from_pylist(sorted(bad, key=lambda b: int(b["row"])), schema=BAD_ROWS)

    def _column(self, name: str) -> pa.Array[Any]:
        found = self._raw.columns.get(name)
        return pa.nulls(self.num_rows, pa.string()) if found is None else found

    def _empty(self) -> _Mask:
        mask = _mask(compute.equal(self._ids, ""))
        if mask.any():
            for values in self._raw.columns.values():
                mask &= _mask(compute.equal(values, "")) | _mask(compute.is_null(values))
        return mask

    def _id_problem(self) -> _Problem:
        if self._expected.id_kind == "youtube":
            good, why = compute.match_substring_regex(self._ids, _IS_ID), "is not 11 characters of A-Za-z0-9_-"
        else:
            good, why = compute.not_equal(self._ids, ""), "is not an id"
        self._strange_ids = ~_mask(good)
        return _Problem(mask=self._strange_ids, column="id", why=lambda _: why)

    def _time_problems(self) -> Iterator[_Problem]:
        nothing = np.zeros(self.num_rows, bool)
        for column, seconds in self._times.items():
            absent = nothing
            if not self._expected.times:
                absent = _mask(compute.is_null(self._column(column)))
            with np.errstate(invalid="ignore"):
                strange = ~(np.isfinite(seconds) & (seconds >= 0) & (seconds <= _MAX_TIME_S)) & ~absent
            yield _Problem(mask=strange, column=column, why=lambda _: "is not a time in seconds")
        start, end = self._times.values()
        if not self._expected.times:
            half = np.isnan(start) != np.isnan(end)
            yield _Problem(mask=half, column="end", why=lambda _: "and the start: only one of the two is there")
        with np.errstate(invalid="ignore"):
            late = end <= start
        title = self._raw.title("start")
        yield _Problem(mask=late, column="end", why=lambda i: f"is not after {title} {start[i]:g}")

    def _split_problems(self) -> Iterator[_Problem]:
        if "split" not in self._raw.columns or self._expected.split is None:
            return
        wanted = self._expected.split
        words, codes = encoded(self._raw.columns["split"])
        fits = np.array([split_of(word) == wanted for word in words] + [False], dtype=bool)
        yield _Problem(mask=~fits[codes], column="split", why=lambda _: f"does not belong in the {wanted} list")

    def _label_problems(self) -> Iterator[_Problem]:
        taxonomy = self._expected.taxonomy
        absent = _mask(compute.is_null(self._label))
        if self._expected.label:
            yield _Problem(mask=absent, column="", why=lambda _: "has no label")
        if taxonomy is None:
            return
        classes = self._labels.canonical_of(taxonomy)
        names, codes = encoded(self._label)
        self._canonical = np.array([classes.get(name, -1) for name in names] + [-1], dtype=np.int16)[codes]

        def hint(index: int) -> str:
            near = self._labels.nearest(taxonomy, _value(self._raw, "label", index)[:100])
            return f"nearest {taxonomy} names: {', '.join(near)}" if near else f"no {taxonomy} name is like it"

        unknown = (self._canonical < 0) & ~absent
        yield _Problem(mask=unknown, column="label", why=lambda _: f"is not a class of {taxonomy}", hint=hint)


def split_of(word: str) -> str | None:
    """The split that a published word means; None when it is none."""
    return SPLIT_WORDS.get(word.strip().lower())


def encoded(values: pa.Array[Any]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The distinct texts, and the place of each row's among them; -1 (the last place) where there is none."""
    coded: Any = values.dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def recoded(values: pa.Array[Any], change: Callable[[str], str | None]) -> pa.Array[Any]:
    """``values`` with each distinct text changed once."""
    texts, codes = encoded(values)
    changed = [change(t) for t in texts]
    if changed == texts:
        return values
    return picked(strings(changed), codes)


def _seconds(texts: pa.Array[Any]) -> npt.NDArray[np.float64]:
    try:
        numbers = compute.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        numbers = pa.array([_number(t) for t in texts.to_pylist()], pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def _number(text: str | None) -> float:
    bare = (text or "").strip()
    return float(bare) if len(bare) < _MAX_DIGITS and _NUMBER.fullmatch(bare) else float("nan")


def _nullable(seconds: npt.NDArray[np.float64]) -> pa.Array[Any]:
    made: pa.Array[Any] = pa.array(seconds, from_pandas=True)
    return made


def _flags(texts: pa.Array[Any]) -> Any:
    words, codes = encoded(texts)
    flags = np.array([w.strip().lower() in ("1", "true") for w in words] + [False], dtype=bool)
    return pa.array(flags[codes], mask=codes < 0)


def _mask(values: Any) -> _Mask:
    """A boolean arrow column as numpy; null is False."""
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)
