"""Annotation files to tables: which lists a folder holds, and their rows in one schema, every one checked.

How each published form is read is in ``k710.lists.dialects``, what a row must be in ``k710.lists.rows``, and which
forms there are for people in ``docs/lists.md``.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from k710.config import Release, load_releases
from k710.errors import InputError, UsageError
from k710.labels import LabelMap
from k710.lists.dialects.classes import has_numbers, named
from k710.lists.dialects.container import (
    MAX_PACKED_BYTES,
    is_archive,
    member_names,
    read_file,
    read_members,
    unpacked,
)
from k710.lists.dialects.names import list_name
from k710.lists.dialects.options import DEFAULT_OPTIONS, ReadOptions, parse_columns
from k710.lists.dialects.paths import located
from k710.lists.dialects.raw import RawRows, printable
from k710.lists.dialects.recognise import read_raw
from k710.lists.rows import SPLIT_WORDS, Expected, checked

__all__ = [
    "SPLIT_WORDS",
    "AnnotationList",
    "ListFile",
    "ReadOptions",
    "find_lists",
    "parse_columns",
    "read_list",
]

_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_TAKE_OUT = "make it readable, or take it out of the folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFile:
    """One annotation file, recognised by its place and name."""

    release: Release
    """Whose list it is."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    path: Path
    """Where it is."""
    member: str | None = None
    """The file inside it, if it is an archive."""

    @property
    def name(self) -> str:
        """``release:split``, as reports and locks name a list."""
        return f"{self.release.name}:{self.split}"

    @property
    def short_path(self) -> str:
        """Folder and file name, and the file in an archive, for messages."""
        short = f"{self.path.parent.name}/{self.path.name}"
        return printable(short if self.member is None else f"{short}:{self.member}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationList:
    """The rows of one list."""

    file: ListFile
    """Where they are from."""
    sha256: str
    """Of the file's bytes as they lie on the disk; the archive's for a file inside one."""
    rows: pa.Table
    """``LIST_ROWS``, in file order."""
    bad_rows: pa.Table
    """``BAD_ROWS``: what was left out; empty unless bad rows are to be reported."""


def find_lists(folder: Path, releases: Sequence[str] | None = None) -> list[ListFile]:
    """The lists in the release folders of ``folder`` (``kinetics400/train.csv``, ...), in order of release and split.

    A list is a file whose name is a split word (``.csv``, ``.txt``, ``.tsv``, ``.json``, ``.parquet``, also ``.gz``) or
    ends in one and ``_list`` (``k400_train_list_videos.txt``), in a release folder or in an archive there or in
    ``folder`` itself (``kinetics400.tar.gz``). Where one place has several for a split, a list is taken before its
    JSON, and that before a list of files on a disk, without a word; two of one kind are an error.

    Args:
        folder: holds one folder or archive per release, named by any of the release's aliases.
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
    found: dict[str, list[ListFile]] = {}
    for child in _entries(folder):
        owner = _release_called(child.name)
        if owner is not None and stat.S_ISDIR(_mode(child)):
            found.setdefault(owner.name, [])
            candidates = _in_folder(child, owner)
        elif child.name.lower().endswith(_ARCHIVES):
            candidates = _in_archive(child, owner)
        else:
            continue
        for file in candidates:
            found.setdefault(file.release.name, []).append(file)
    absent = [r for r in releases or () if r not in found]
    if absent:
        raise UsageError(
            f"{folder}: no folder for {absent[0]}", hint=f"expected one of {', '.join(known[absent[0]].aliases)}"
        )
    files = [f for name in known if name in (releases or found) for f in _chosen(known[name], found.get(name, []))]
    if not files:
        raise InputError(
            f"{folder}: no annotation lists found", hint="expected kinetics400/train.csv, kinetics600/val.csv.gz, ..."
        )
    return files


def read_list(file: ListFile, labels: LabelMap, options: ReadOptions = DEFAULT_OPTIONS) -> AnnotationList:
    """The rows of one list of a build: each has a time range, and in train and val lists a class.

    Raises:
        InputError: the file cannot be read, its columns are wrong, or a row is; names file, row and column. With
            ``on_bad_row="report"`` bad rows are left out, unless all are bad.
        UsageError: ``options`` name a class order that does not exist.
    """
    where, release = file.short_path, file.release
    packed = read_file(file.path, where)
    if file.member is None:
        data = unpacked(packed, where)
    else:
        data = read_members(packed, f"{file.path.parent.name}/{file.path.name}", {file.member})[file.member]
    raw = located(read_raw(data, where, options), release.id_kind, release.pattern)
    raw = named(raw, where, labels, release.taxonomy, options.class_order)
    needs_label = file.split in ("train", "val")
    _require_columns(raw, where, options, needs_label=needs_label)
    expected = Expected(
        where=where,
        release=release.name,
        split=file.split,
        taxonomy=release.taxonomy,
        id_kind=release.id_kind,
        label=needs_label,
        report=options.on_bad_row == "report",
    )
    rows, bad_rows = checked(raw, expected, labels)
    return AnnotationList(file=file, sha256=hashlib.sha256(packed).hexdigest(), rows=rows, bad_rows=bad_rows)


def _require_columns(raw: RawRows, where: str, options: ReadOptions, *, needs_label: bool) -> None:
    if not len(raw.numbers):
        return  # the check of the rows says why
    times = [raw.columns.get(name) for name in ("start", "end")]
    if any(column is None or column.null_count == len(column) for column in times):
        raise InputError(
            f"{where}: the rows have no times",
            hint="a build needs the start and end of each clip: give the release's official list; lists without times "
            "serve audits only",
        )
    if needs_label and "label" not in raw.columns:
        raise InputError(
            f"{where} row 1: column 'label' is missing",
            hint="the official columns are label,youtube_id,time_start,time_end,split; others are named by --columns",
        )
    if options.class_order is None and has_numbers(raw):
        raise InputError(
            f"{where}: labels are numbers, and their order is not known",
            hint="name it: --class-order k400 (alphabetical, as mmaction2), uniformerv2_k400, ...",
        )


def _in_folder(folder: Path, release: Release) -> Iterator[ListFile]:
    for path in _entries(folder):
        if path.name.lower().endswith(_ARCHIVES):
            yield from _in_archive(path, release)
            continue
        known = list_name(path.name)
        if known is None:
            continue
        # A list that is passed over protects nothing, and nobody would know.
        if not stat.S_ISREG(_mode(path)):
            raise InputError(f"{path}: not a file", hint=_TAKE_OUT)
        owner = _release_called(known.owner)
        if owner is not None and owner != release:
            raise InputError(
                f"{path}: a list of {owner.name} in the folder of {release.name}", hint="move it to its own folder"
            )
        yield ListFile(release=release, split=known.split, path=path)


def _in_archive(path: Path, release: Release | None) -> Iterator[ListFile]:
    """The lists in an archive; their release is that of a folder in it, else that of its name or place."""
    mode, named_by_us = _mode(path), release is not None and _release_called(path.name) is not None
    # Archives of videos may lie beside the lists; only those that are called like a release are ours for sure.
    if not named_by_us and (not stat.S_ISREG(mode) or path.stat().st_size > MAX_PACKED_BYTES):
        return
    short = f"{path.parent.name}/{path.name}"
    raw = read_file(path, short)
    if not is_archive(raw, short):
        if named_by_us:
            raise InputError(f"{path}: not a tar archive", hint="fetch it again, or take it out of the folder")
        return
    for member in dict.fromkeys(member_names(raw, short)):
        inside = PurePosixPath(member)
        known = list_name(inside.name)
        folders = [r for part in inside.parts[:-1] if (r := _release_called(part)) is not None]
        owner = folders[-1] if folders else release
        if known is None or owner is None:
            continue
        if release is not None and owner != release:
            raise InputError(
                f"{path}: {member} is of {owner.name}, but the archive's name or place says {release.name}",
                hint="rename or move the archive",
            )
        yield ListFile(release=owner, split=known.split, path=path, member=member)


def _chosen(release: Release, files: Sequence[ListFile]) -> list[ListFile]:
    by_split: dict[str, ListFile] = {}
    for file in sorted(files, key=lambda f: (_rank(f), f.path, f.member or "")):
        first = by_split.setdefault(file.split, file)
        if first is not file and _rank(first) == _rank(file):
            raise InputError(
                f"{_place(file)}: second file for {file.name}", hint=f"the first is {_place(first)}; keep one"
            )
    order = [*release.splits, *release.optional_splits]
    return [by_split[s] for s in order if s in by_split]


def _rank(file: ListFile) -> int:
    known = list_name(PurePosixPath(file.member or file.path.name).name)
    assert known is not None
    return known.rank


def _place(file: ListFile) -> str:
    return str(file.path) if file.member is None else f"{file.path}:{file.member}"


def _release_called(name: str) -> Release | None:
    """The release of which a folder or archive bears an alias."""
    lower = name.lower()
    bare = next((lower.removesuffix(a) for a in _ARCHIVES if lower.endswith(a)), lower)
    return next((r for r in load_releases().values() if bare in r.aliases or bare in r.archives), None)


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
