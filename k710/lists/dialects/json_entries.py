"""JSON lists: DeepMind's ``{id: {"annotations": {"label", "segment"}, "subset"}}``, and ``{"database": {id: ...}}`` of
ActivityNet and HACS, where a video has any number of annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from k710.errors import InputError
from k710.lists.dialects.options import ReadOptions
from k710.lists.dialects.raw import Body, BrokenRow, RawRows, strings

MAX_BYTES = 1 << 28
"""Twice the largest published JSON list: its objects take many times the space of its text."""
_COLUMNS = ("id", "start", "end", "label", "split")
_Cells = tuple[str | None, ...]


class _Pairs(list[tuple[str, Any]]):
    """The entries of an object that has a key twice: both count."""


def read_json(body: Body, _options: ReadOptions) -> RawRows:
    """The rows of a JSON list, entry by entry; one without annotations gives a row without label and times.

    Raises:
        InputError: it is no JSON, too large, or of no known form.
    """
    entries, form = _entries(_parsed(body), body)
    rows: list[_Cells] = []
    numbers: list[int] = []
    broken: list[BrokenRow] = []
    for number, (video, entry) in enumerate(entries, 1):
        for found in _rows(video, entry):
            if isinstance(found, str):
                broken.append(BrokenRow(row=number, reason=found, value=video[:200]))
            else:
                rows.append(found)
                numbers.append(number)
    by_column = zip(*rows, strict=True) if rows else iter([()] * len(_COLUMNS))
    columns = {name: strings(values) for name, values in zip(_COLUMNS, by_column, strict=True)}
    return RawRows(
        dialect=form,
        columns={n: c for n, c in columns.items() if n in ("id", "start", "end") or c.null_count < len(c)},
        titles={"id": "id", "start": "segment[0]", "end": "segment[1]", "split": "subset"},
        numbers=np.asarray(numbers, dtype=np.int64),
        broken=tuple(broken),
    )


def _parsed(body: Body) -> Any:
    if len(body.data) > MAX_BYTES:
        raise InputError(f"{body.where}: {len(body.data)} bytes are too many for a JSON list", hint="fetch it again")
    try:
        # Decoded here: given bytes, json would guess UTF-16 at a NUL.
        # Numbers stay text: the shared check reads them, and says what stood there.
        return json.loads(
            body.data.decode(), object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=str
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{body.where} row {error.lineno}: not readable JSON ({error.msg})", hint="fetch it again"
        ) from error
    except RecursionError as error:
        raise InputError(f"{body.where}: not a JSON list (nested too deeply)", hint="fetch it again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Pairs:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Pairs(pairs)


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    return iter(value) if isinstance(value, _Pairs) else iter(value.items())


def _entries(content: Any, body: Body) -> tuple[Iterator[tuple[str, Any]], str]:
    if isinstance(content, (dict, _Pairs)):
        databases = [v for k, v in _items(content) if k == "database" and isinstance(v, (dict, _Pairs))]
        if databases:
            return (item for database in databases for item in _items(database)), "activitynet"
        if any(isinstance(v, dict) and ("annotations" in v or "subset" in v) for _, v in _items(content)):
            return _items(content), "deepmind"
    raise InputError(
        f"{body.where}: a JSON file of no known form",
        hint='known: {id: {"annotations": {"label", "segment"}}} and {"database": {id: {"annotations": [...]}}}',
    )


def _rows(video: str, entry: Any) -> Iterator[_Cells | str]:
    """The rows of one entry, or what is wrong with it."""
    if not isinstance(entry, dict):
        yield "an entry is not an object, or has a field twice"
        return
    split = _text(entry.get("subset"))
    annotations = entry.get("annotations")
    if isinstance(annotations, dict):
        annotations = [annotations]
    if annotations is not None and not isinstance(annotations, list):
        yield "annotations are neither an object nor a list"
        return
    for one in annotations or [{}]:
        segment = one.get("segment") if isinstance(one, dict) else None
        if not isinstance(one, dict):
            yield "an annotation is not an object, or has a field twice"
        elif segment is not None and (not isinstance(segment, list) or len(segment) != 2):
            yield "segment is not [start, end]"
        else:
            start, end = segment or (None, None)
            yield video, _text(start), _text(end), _text(one.get("label")), split


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else repr(value)[:200]
