"""Annotation files to tables: which lists a folder holds, and their rows in one schema, every one checked.

The official CSV is read here: ``label,youtube_id,time_start,time_end,split`` with ``is_cc`` in Kinetics-400 and without
``label`` in some test lists; plain or gzip, with or without BOM, LF or CRLF, quotes where the writer liked them.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from k710.config import Release, load_releases
from k710.errors import InputError, UsageError
from k710.labels import LabelMap
from k710.segments import YOUTUBE_ID

SPLIT_WORDS = {
    "train": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "holdout": "holdout",
    "holdout_test": "holdout",
}
"""Every word that published files use for a split, and the one used here."""

REQUIRED = ("youtube_id", "time_start", "time_end")
KNOWN = ("label", *REQUIRED, "split", "is_cc")
_MAX_TIME_S = 999_999
_TAKE_OUT = "make it readable, or take it out of the folder"
_NO_EMPTY_ROW = "take the empty line out, or fetch the file again"
_CORRECT = "correct the row, or fetch the file again"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFile:
    """One annotation file, recognised by its place and name."""

    release: Release
    """Whose list it is."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    path: Path
    """Where it is."""

    @property
    def name(self) -> str:
        """``release:split``, as reports and locks name a list."""
        return f"{self.release.name}:{self.split}"

    @property
    def short_path(self) -> str:
        """Folder and file name, for messages."""
        return f"{self.path.parent.name}/{self.path.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationList:
    """The rows of one list."""

    file: ListFile
    """Where they are from."""
    sha256: str
    """Of the file's bytes as they lie on the disk."""
    rows: pd.DataFrame
    """``id, start_s, end_s, label`` (or None), ``canonical`` (-1 without a label), ``is_cc``, in file order."""


def find_lists(folder: Path, releases: Sequence[str] | None = None) -> list[ListFile]:
    """The lists in the release folders of ``folder`` (``kinetics400/train.csv``, ...), in order of release and split.

    Args:
        folder: holds one folder per release, named by any of the release's aliases.
        releases: names of the releases wanted; None for those that are there.

    Raises:
        UsageError: the folder is missing, or a release that is asked for is unknown or has no folder.
        InputError: no list at all, two files for one list, or one that is there but cannot be read as a file.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder", hint="--annotations takes the folder that holds kinetics400/ etc."
        )
    known = load_releases()
    unknown = [r for r in releases or () if r not in known]
    if unknown:
        raise UsageError(f"unknown release {unknown[0]!r}", hint=f"known: {', '.join(known)}")
    by_alias = {alias: release for release in known.values() for alias in release.aliases}
    found: dict[str, list[Path]] = {}
    for child in _entries(folder):
        release = by_alias.get(child.name.lower())
        if release is not None and stat.S_ISDIR(_mode(child)):
            found.setdefault(release.name, []).append(child)
    absent = [r for r in releases or () if r not in found]
    if absent:
        raise UsageError(
            f"{folder}: no folder for {absent[0]}", hint=f"expected one of {', '.join(known[absent[0]].aliases)}"
        )
    files = [f for name in known if name in (releases or found) for f in _lists_of(known[name], found.get(name, []))]
    if not files:
        raise InputError(
            f"{folder}: no annotation lists found", hint="expected kinetics400/train.csv, kinetics600/val.csv.gz, ..."
        )
    return files


def read_list(file: ListFile, labels: LabelMap) -> AnnotationList:
    """The rows of one official CSV.

    Raises:
        InputError: the file cannot be read, its columns are wrong, or a row is; names file, row and column.
    """
    try:
        raw = file.path.read_bytes()
    except OSError as error:
        raise _unreadable(file.path, error) from error
    text = _decoded(raw, file)
    table = _parsed(text, _header(text, file), file)
    return AnnotationList(file=file, sha256=hashlib.sha256(raw).hexdigest(), rows=_checked(table, file, labels))


def _lists_of(release: Release, folders: list[Path]) -> list[ListFile]:
    by_split: dict[str, Path] = {}
    for path in sorted(p for folder in folders for p in _entries(folder)):
        name = path.name.lower().removesuffix(".gz")
        split = SPLIT_WORDS.get(name.removesuffix(".csv")) if name.endswith(".csv") else None
        if split is None:
            continue
        # A list that is passed over protects nothing, and nobody would know.
        if not stat.S_ISREG(_mode(path)):
            raise InputError(f"{path}: not a file", hint=_TAKE_OUT)
        if split in by_split:
            raise InputError(
                f"{path}: second file for {release.name}:{split}", hint=f"the first is {by_split[split]}; keep one"
            )
        by_split[split] = path
    order = [*release.splits, *release.optional_splits]
    return [ListFile(release=release, split=s, path=by_split[s]) for s in order if s in by_split]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror or error})", hint=_TAKE_OUT)


def _decoded(raw: bytes, file: ListFile) -> bytes:
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file.short_path}: not a whole gzip file ({error})", hint="fetch it again") from error
    text = raw.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n \t")
    if not text:
        raise InputError(f"{file.short_path}: empty file", hint="fetch it again, or take it out of the folder")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        row = text[: error.start].count(b"\n") + 1
        raise InputError(f"{file.short_path} row {row}: not UTF-8", hint="save the file as UTF-8") from error
    return text


def _header(text: bytes, file: ListFile) -> list[str]:
    first = text.split(b"\n", 1)[0].decode().rstrip("\r")
    try:
        names = [n.strip() for n in next(csv.reader([first]))]
    except csv.Error as error:
        raise InputError(f"{file.short_path} row 1: not a readable CSV ({error})", hint="fetch it again") from error
    problem = ""
    if len(set(names)) < len(names):
        problem = f"column {next(n for n in names if names.count(n) > 1)!r} stands twice"
    elif any(n not in names for n in REQUIRED):
        problem = f"column {next(n for n in REQUIRED if n not in names)!r} is missing"
    elif any(n not in KNOWN for n in names):
        problem = f"unknown column {next(n for n in names if n not in KNOWN)!r}"
    elif "label" not in names and file.split in ("train", "val"):
        problem = "column 'label' is missing"
    if problem:
        raise InputError(f"{file.short_path} row 1: {problem}", hint=f"the official columns are {','.join(KNOWN)}")
    return names


def _parsed(text: bytes, names: list[str], file: ListFile) -> pd.DataFrame:
    if b"\n" not in text:
        raise InputError(f"{file.short_path}: no rows", hint="fetch the file again; it may have been cut off")
    bad: list[Any] = []

    def handle(row: Any) -> Literal["skip"]:
        bad.append(row)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(text),
            # One thread, or the handler is not told row numbers.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=handle, ignore_empty_lines=False),
            # Everything as text: ids such as 1e2 or NaN-like ones must not become numbers.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={n: pa.string() for n in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"{file.short_path}: not a readable CSV ({error})", hint="fetch it again") from error
    if bad:
        row = f" row {bad[0].number}" if bad[0].number is not None else ""
        if not bad[0].text.strip():
            raise InputError(f"{file.short_path}{row}: empty row", hint=_NO_EMPTY_ROW)
        raise InputError(
            f"{file.short_path}{row}: expected {len(names)} columns, found {bad[0].actual_columns}: {bad[0].text!r}",
            hint=_CORRECT,
        )
    return table.to_pandas()


def _checked(table: pd.DataFrame, file: ListFile, labels: LabelMap) -> pd.DataFrame:
    empty = np.flatnonzero((table == "").all(axis=1))
    if len(empty):
        raise InputError(f"{file.short_path} row {empty[0] + 2}: empty row", hint=_NO_EMPTY_ROW)
    ids = table["youtube_id"]
    if file.release.id_kind == "youtube":
        _refuse(file, ~ids.str.fullmatch(YOUTUBE_ID.pattern), ids, "youtube_id", "is not 11 characters of A-Za-z0-9_-")
    times = {c: pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in ("time_start", "time_end")}
    for column, seconds in times.items():
        strange = ~np.isfinite(seconds) | (seconds < 0) | (seconds > _MAX_TIME_S)
        _refuse(file, strange, table[column], column, "is not a time in seconds")
    late = times["time_end"] <= times["time_start"]
    _refuse(file, late, table["time_end"], "time_end", f"is not after time_start {_at(times['time_start'], late)}")
    if "split" in table:
        other = table["split"].map(SPLIT_WORDS).fillna("") != file.split
        _refuse(file, other, table["split"], "split", f"does not belong in the {file.split} list")
    label, canonical = _classes(table, file, labels)
    return pd.DataFrame(
        {
            "id": ids,
            "start_s": times["time_start"],
            "end_s": times["time_end"],
            "label": label,
            "canonical": canonical,
            "is_cc": table["is_cc"].str.strip() == "1" if "is_cc" in table else pd.NA,
        }
    )


def _classes(table: pd.DataFrame, file: ListFile, labels: LabelMap) -> tuple[Any, Any]:
    if "label" not in table:
        return None, np.full(len(table), -1, np.int16)
    label, taxonomy = table["label"], file.release.taxonomy
    canonical = label.map(dict(labels.canonical_of(taxonomy))).fillna(-1).to_numpy(np.int16)
    bad = canonical < 0
    if bad.any():
        name = str(label[bad].iloc[0])
        near = labels.nearest(taxonomy, name)
        hint = f"nearest {taxonomy} names: {', '.join(near)}" if near else f"no {taxonomy} name is like it"
        _refuse(file, bad, label, "label", f"is not a class of {taxonomy}", hint)
    return label, canonical


def _refuse(file: ListFile, bad: Any, values: pd.Series, column: str, why: str, hint: str = _CORRECT) -> None:
    mask = np.asarray(bad, dtype=bool)
    if mask.any():
        first = int(np.flatnonzero(mask)[0])
        more = f" (and {int(mask.sum()) - 1} more rows)" if mask.sum() > 1 else ""
        raise InputError(f"{file.short_path} row {first + 2}: {column} {values.iloc[first]!r} {why}{more}", hint=hint)


def _at(values: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> str:
    return f"{values[mask][0]:g}" if mask.any() else ""
