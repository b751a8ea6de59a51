"""A table of addresses: a CSV file, here or at an address of its own, with one row for each video or clip."""

from __future__ import annotations

import csv
import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from k710.clips.outcomes import Unusable
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.file_names import Times, times_of
from k710.clips.sources.url_origin import UrlOrigin, require_plain, shown
from k710.errors import InputError, SourceError, UsageError

_COLUMNS = {
    "id": ("id", "youtube_id"),
    "url": ("url",),
    "start": ("start", "time_start"),
    "end": ("end", "time_end"),
    "sha256": ("sha256",),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HINT = "its first line names the columns: id,url and, where they are known, start,end,sha256"


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where one video or clip is."""

    url: str
    """Its address."""
    is_timed: bool
    """Whether it is of one segment alone, by its times."""
    release: str = ""
    """The release that it names; empty: none."""
    sha256: str = ""
    """Of its bytes; empty: not known."""


class AddressTable:
    """Addresses by id, and by times where these are given."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Times | None, str, str]]] = {}

    def add(self, video_id: str, times: Times | None, url: str, sha256: str) -> None:
        """Take in a row."""
        self._rows.setdefault(video_id, []).append((times, url, sha256))

    def of(self, item: Wanted) -> list[Address]:
        """The addresses of a clip, in order of rows."""
        wanted = times_of(item.segment)
        return [
            Address(url=url, is_timed=times is not None, sha256=sha256)
            for times, url, sha256 in self._rows.get(item.segment.id, ())
            if times in (None, wanted)
        ]


def read_table(text: str) -> AddressTable:
    """The table in the file, or at the address, ``text``.

    Raises:
        UsageError: there is no such file.
        SourceError: the address does not give it.
        InputError: a row is wrong.
    """
    if "://" not in text:
        if not Path(text).is_file():
            raise UsageError(f"--videos url:{shown(text)}: no such file, and no template", hint=_EXAMPLE)
        return _read(Path(text), text)
    require_plain(text, f"--videos url:{shown(text)}")
    if text.startswith("file://"):
        return _read(Path(unquote(text.removeprefix("file://"))), text)
    with tempfile.TemporaryDirectory() as folder:
        brought = UrlOrigin(url=text, name="table.csv").bring(Path(folder))
        if isinstance(brought, Unusable):
            raise SourceError(f"{text}: cannot be had ({brought.status}: {brought.detail})", hint=_NO_ID)
        return _read(brought.path, text)


_NO_ID = "without {id} it is taken as the address of a CSV table; a template has {id} in it"
_EXAMPLE = "a template has {id} in it, such as url:https://host/{id}.mp4; a table is a CSV file"


def _read(path: Path, name: str) -> AddressTable:
    table = AddressTable()
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.reader(handle, strict=True)
            header = next(rows, [])
            places = _places(header, name)
            for row in filter(None, rows):
                if len(row) > len(header):
                    what = f"{name} row {rows.line_num}: more cells than columns"
                    raise InputError(f"{what}; an address with a comma needs quotes", hint=_HINT)
                table.add(*_parsed(row, places, f"{name} row {rows.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: cannot be read as a table ({error})", hint=_HINT) from error
    return table


def _places(header: list[str], name: str) -> dict[str, int]:
    known = {column.strip().lower(): place for place, column in enumerate(header)}
    places = {
        column: known[spelling] for column, spellings in _COLUMNS.items() for spelling in spellings if spelling in known
    }
    missing = [column for column in ("id", "url") if column not in places]
    if missing or ("start" in places) != ("end" in places):
        lacks = missing or [column for column in ("start", "end") if column not in places]
        raise InputError(f"{name}: no column {' and none '.join(lacks)}", hint=_HINT)
    return places


def _parsed(row: list[str], places: dict[str, int], where: str) -> tuple[str, Times | None, str, str]:
    values = {column: row[place].strip() if place < len(row) else "" for column, place in places.items()}
    if not values["id"]:
        raise InputError(f"{where}: no id", hint=_HINT)
    try:
        require_plain(values["url"], where)
    except UsageError as error:
        raise InputError(error.message, hint=error.hint) from error
    sha256 = values.get("sha256", "").lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise InputError(f"{where}: sha256 is not 64 hexadecimal digits", hint=_HINT)
    return values["id"], _times(values.get("start", ""), values.get("end", ""), where), values["url"], sha256


def _times(start: str, end: str, where: str) -> Times | None:
    if not start and not end:
        return None
    try:
        times = float(start), float(end)
    except ValueError as error:
        raise InputError(f"{where}: start {start!r} and end {end!r} are not both seconds", hint=_HINT) from error
    if not all(map(math.isfinite, times)) or not 0 <= times[0] < times[1]:
        raise InputError(f"{where}: end {end} is not after start {start}", hint=_HINT)
    return round(times[0] * 1000), round(times[1] * 1000)
