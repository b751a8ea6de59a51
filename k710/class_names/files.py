"""Label files as people have them: which name stands at which index, or an index list between two numberings."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import stat
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710 import atomic
from k710.class_names.orders import ClassOrder, class_order, index_map, map_orders
from k710.errors import InputError, UsageError
from k710.labels import CANONICAL, LabelMap

MAX_BYTES = 16 * 2**20
"""No label file is larger; a video or a checkpoint given by mistake is not read whole."""
FORMATS = ("txt", "csv", "json")
"""What label files are written as."""
_GZIP = b"\x1f\x8b"
NO_PLACE = -1
"""What stands for a class without a place in an index list that is text; JSON has ``null``."""
_NAME_COLUMNS = ("name", "class_name", "label_name", "class", "category", "label")
_INDEX_COLUMNS = ("index", "id", "class_id", "class_index", "label_id", "label_index", "row", "label")
_EXPECTED = "a class name on each line, with or without its index, or JSON, or a CSV with a header"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """One class as a file names it."""

    index: int
    """The index that the file gives it: written, or its place."""
    name: str
    """As written."""
    line: int
    """Line of a text file; place from 1 in a JSON one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFile:
    """What a label file says."""

    path: Path
    form: str
    """In words, such as ``names, one a line``."""
    rows: tuple[LabelRow, ...]
    """In order of the file; none in an index list."""
    indices: tuple[int | None, ...] = ()
    """An index list; None where a class has no place."""
    unread: tuple[str, ...] = ()
    """Columns of a CSV that were not looked at."""


def read_label_file(path: Path) -> LabelFile:
    """The names or indices in a label file of any of the usual forms.

    Raises:
        UsageError: no such file.
        InputError: it is no label file; where a line is at fault, it is named.
    """
    text = _text_of(path)
    if path.name.lower().removesuffix(".gz").endswith(".json") or text.lstrip()[:1] in ("[", "{"):
        return _from_json(path, text)
    lines = _lines_of(path, text)
    columns = lines[0][1].replace('"', "").split(",")
    if {"youtube_id", "time_start"} & {c.strip() for c in columns}:
        raise InputError(
            f"{path.name}: an annotation list, not a label file", hint="`k710 build --annotations` reads these"
        )
    if (found := _columns_of(columns)) is not None:
        return _from_csv(path, text, *found)
    return _from_lines(path, lines)


def write_order(order: ClassOrder, labels: LabelMap, form: str) -> str:
    """A label file in ``order``: names one a line, CSV (index, name, canonical index) or a JSON list of names.

    Raises:
        UsageError: an unknown form.
    """
    names = order.names(labels)
    if form == "txt":
        return "".join(f"{name}\n" for name in names)
    if form == "json":
        return json.dumps(names, ensure_ascii=False, indent=1) + "\n"
    _require_form(form)
    rows = zip(range(len(names)), names, order.canonical, strict=True)
    return _csv_text(("index", "name", "canonical_index"), rows)


def write_map(source: ClassOrder, target: ClassOrder, labels: LabelMap, form: str) -> str:
    """The index list ``source:target``, an entry for each class of ``target``: its row in ``source``.

    Where ``source`` lacks the class stands ``null`` in JSON, -1 in text, nothing in CSV.

    Raises:
        UsageError: an unknown form.
    """
    indices = index_map(source, target)
    if form == "txt":
        return "".join(f"{NO_PLACE if i is None else i}\n" for i in indices)
    if form == "json":
        return json.dumps(indices) + "\n"
    _require_form(form)
    cells = ("" if i is None else i for i in indices)
    rows = zip(range(len(indices)), target.names(labels), cells, strict=True)
    return _csv_text(("index", "name", "source_index"), rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelExport:
    """A label file or index list that was made."""

    what: str
    """The order, or the index list as ``A:B``."""
    form: str
    """``txt``, ``csv`` or ``json``."""
    num_rows: int
    num_without_place: int
    """Entries of an index list whose class the source lacks."""
    out: Path | None
    """File written; None: nothing was."""
    text: str
    """Its content."""


def export_labels(
    labels: LabelMap, *, order: str | None = None, pair: str | None = None, form: str | None = None, out: Path | None
) -> LabelExport:
    """A label file in ``order`` (default: canonical), or the index list ``pair``; written when ``out`` is given.

    ``form`` is by default what the suffix of ``out`` says, else ``txt``.

    Raises:
        UsageError: both an order and a pair, an unknown order or form, or ``out`` cannot be written.
    """
    if order is not None and pair is not None:
        raise UsageError("--order and --map: one of them", hint="--order writes names, --map an index list")
    suffix = out.suffix.lower().removeprefix(".") if out is not None else ""
    chosen = form if form is not None else suffix if suffix in FORMATS else FORMATS[0]
    num_without_place = 0
    if pair is not None:
        source, target = map_orders(pair, labels)
        what, num_rows = f"{source.name}:{target.name}", len(target.canonical)
        num_without_place = index_map(source, target).count(None)
        text = write_map(source, target, labels, chosen)
    else:
        named = class_order(order or CANONICAL, labels)
        what, num_rows = named.name, len(named.canonical)
        text = write_order(named, labels, chosen)
    if out is not None:
        save(out, text)
    return LabelExport(
        what=what, form=chosen, num_rows=num_rows, num_without_place=num_without_place, out=out, text=text
    )


def save(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all; a file of other content is left as it is.

    Raises:
        UsageError: something else is there, or the folder takes no files.
    """
    if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
        raise UsageError(f"{path}: exists and is not this label file", hint="give another --out")
    with atomic.writable(path.parent):
        atomic.write_text(path, text)


def _require_form(form: str) -> None:
    if form not in FORMATS:
        raise UsageError(f"--format {form}: unknown", hint=f"known: {', '.join(FORMATS)}")


def _csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _text_of(path: Path) -> str:
    try:
        # Opened, a pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a file", hint="give a label file")
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", hint="give a label file") from error
    if data[:2] == _GZIP and len(data) <= MAX_BYTES:
        data = _gunzipped(path, data)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path.name}: larger than {MAX_BYTES // 2**20} MiB: not a label file", hint=_EXPECTED)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not UTF-8 ({error})", hint="save the file as UTF-8 text") from error
    if "\0" in text:
        raise InputError(f"{path.name}: not a text file", hint=_EXPECTED)
    if not text.strip():
        raise InputError(f"{path.name}: empty", hint=_EXPECTED)
    return text


def _gunzipped(path: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: not a whole gzip file ({error})", hint="fetch it again") from error


def _lines_of(path: Path, text: str) -> list[tuple[int, str]]:
    """Lines with their numbers, without the empty ones at the end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(
                f"{path.name} row {number}: empty, so readers differ on the index of what follows",
                hint="take the line out, or write its class",
            )
    return list(enumerate(lines, 1))


def _columns_of(header: Sequence[str]) -> tuple[str, str | None] | None:
    """Columns of the name and of the index, as they are written; None: this is no header."""
    folded = {column.strip().casefold(): column for column in reversed(header)}  # of two, the first
    name = next((c for c in _NAME_COLUMNS if c in folded), None)
    if name is None:
        # A table of several numberings, such as k710_id,k710_name,k400_id,...: the first pair counts.
        name = next((c.strip().casefold() for c in header if c.strip().casefold().endswith("_name")), None)
        if name is None:
            return None
        stem = name.removesuffix("_name")
        index = next((c for c in (f"{stem}_id", f"{stem}_index") if c in folded), None)
        return folded[name], None if index is None else folded[index]
    index = next((c for c in _INDEX_COLUMNS if c in folded and c != name), None)
    return folded[name], None if index is None else folded[index]


def _from_csv(path: Path, text: str, name: str, index: str | None) -> LabelFile:
    rows: list[LabelRow] = []
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        for place, line in enumerate(reader):
            if None in line or None in line.values():
                raise InputError(
                    f"{path.name} row {reader.line_num}: not as many columns as the header",
                    hint="quote names that contain a comma",
                )
            written = place if index is None else _index(path, reader.line_num, line[index])
            rows.append(LabelRow(index=written, name=line[name], line=reader.line_num))
    except csv.Error as error:
        raise InputError(f"{path.name}: not a readable CSV ({error})", hint="save it as CSV again") from error
    if not rows:
        raise InputError(f"{path.name}: a header and no classes", hint=_EXPECTED)
    unread = tuple(c for c in reader.fieldnames or () if c not in (name, index))
    words = f"CSV, column {name}" + (", in order of the lines" if index is None else f" by column {index}")
    return LabelFile(path=path, form=words, rows=tuple(rows), unread=unread)


_DIGITS, _BETWEEN = "0123456789", " \t,;:"


def _from_lines(path: Path, lines: Sequence[tuple[int, str]]) -> LabelFile:
    alone = [line.strip().rstrip(", ") for _, line in lines]
    if all(text == str(NO_PLACE) or _is_digits(text) for text in alone):
        numbers = [_index(path, n, text, lowest=NO_PLACE) for (n, _), text in zip(lines, alone, strict=True)]
        return _index_list(path, "indices, one a line", numbers)
    for words, split in (("index and name", _index_first), ("name and index", _index_last)):
        parts = [split(line) for _, line in lines]
        if 2 * sum(part is not None for part in parts) <= len(parts):
            continue
        rows = []
        for (number, line), part in zip(lines, parts, strict=True):
            if part is None:
                raise InputError(
                    f"{path.name} row {number}: {line[:60]!r} has no index, other lines have one",
                    hint=f"write {words} on every line",
                )
            rows.append(LabelRow(index=_index(path, number, part[0]), name=part[1], line=number))
        return LabelFile(path=path, form=f"{words} on each line", rows=tuple(rows))
    names = tuple(LabelRow(index=place, name=line, line=n) for place, (n, line) in enumerate(lines))
    return LabelFile(path=path, form="names, one a line", rows=names)


# By hand and not by pattern: a pattern takes quadratic time on a line of blanks.
def _index_first(line: str) -> tuple[str, str] | None:
    """Index and name of ``12 name``; None when the line is another."""
    body = line.lstrip()
    rest = body.lstrip(_DIGITS)
    name = rest.lstrip(_BETWEEN)
    return (body[: len(body) - len(rest)], name) if name and len(name) < len(rest) < len(body) else None


def _index_last(line: str) -> tuple[str, str] | None:
    """Index and name of ``name 12``; None when the line is another."""
    body = line.rstrip()
    rest = body.rstrip(_DIGITS)
    name = rest.rstrip(_BETWEEN)
    return (body[len(rest) :], name) if name.strip() and len(name) < len(rest) < len(body) else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with repeated keys kept."""


def _from_json(path: Path, text: str) -> LabelFile:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: not readable JSON ({error})", hint=_EXPECTED) from error
    if isinstance(value, _Pairs):
        return _from_pairs(path, value)
    if not isinstance(value, list) or not value:
        raise InputError(f"{path.name}: expected a JSON list of names or indices, or an object", hint=_EXPECTED)
    if all(isinstance(v, str) for v in value):
        rows = tuple(LabelRow(index=i, name=v, line=i + 1) for i, v in enumerate(value))
        return LabelFile(path=path, form="JSON list of names", rows=rows)
    if all(v is None or _is_number(v) for v in value):
        numbers = [None if v is None else _index(path, i + 1, v, lowest=NO_PLACE) for i, v in enumerate(value)]
        return _index_list(path, "JSON index list", numbers)
    kind = str if isinstance(value[0], str) else int
    place = next(i for i, v in enumerate(value) if not isinstance(v, kind) or isinstance(v, bool))
    raise InputError(
        f"{path.name} entry {place}: {str(value[place])[:60]} is not what the other entries are",
        hint="a list is all names, or all indices (null or -1: no place)",
    )


def _from_pairs(path: Path, pairs: _Pairs) -> LabelFile:
    """An object name -> index or index -> name, or an index list with its places as keys."""
    if not pairs:
        raise InputError(f"{path.name}: an empty JSON object", hint=_EXPECTED)
    numbers_left = all(_is_digits(key) for key, _ in pairs)
    numbers_right = all(_is_number(v) or _is_digits(v) for _, v in pairs)
    if numbers_left and all(v is None or _is_number(v) or _is_digits(v) or v == "-1" for _, v in pairs):
        entries = {
            _index(path, n, key): None if v is None else _index(path, n, v, lowest=NO_PLACE)
            for n, (key, v) in enumerate(pairs, 1)
        }
        if sorted(entries) != list(range(len(pairs))):
            raise InputError(f"{path.name}: its keys are not 0 to {len(pairs) - 1}, each once", hint=_EXPECTED)
        return _index_list(path, "JSON object index -> index", [entries[i] for i in range(len(entries))])
    if numbers_right:
        rows = [LabelRow(index=_index(path, n, v), name=key, line=n) for n, (key, v) in enumerate(pairs, 1)]
        return LabelFile(path=path, form="JSON object name -> index", rows=tuple(rows))
    if numbers_left and all(isinstance(v, str) for _, v in pairs):
        rows = [LabelRow(index=_index(path, n, key), name=v, line=n) for n, (key, v) in enumerate(pairs, 1)]
        return LabelFile(path=path, form="JSON object index -> name", rows=tuple(rows))
    key = next((k for k, v in pairs if not (_is_number(v) or _is_digits(v))), pairs[0][0])
    raise InputError(
        f"{path.name} entry {key[:60]!r}: neither name -> index nor index -> name",
        hint="an object has names on one side and whole numbers on the other",
    )


def _index_list(path: Path, form: str, numbers: Sequence[int | None]) -> LabelFile:
    indices = tuple(None if n == NO_PLACE else n for n in numbers)
    return LabelFile(path=path, form=form, rows=(), indices=indices)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_digits(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9]+", value) is not None


def _index(path: Path, line: int, value: Any, lowest: int = 0) -> int:
    text = str(value).strip() if isinstance(value, str) or abs(value) < 10**9 else "a huge number"
    if not re.fullmatch("-?[0-9]{1,9}", text) or int(text) < lowest:
        raise InputError(f"{path.name} row {line}: expected an index, got {text[:40]!r}", hint="whole numbers from 0")
    return int(text)
