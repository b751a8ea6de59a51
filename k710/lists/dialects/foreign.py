"""Anyone's lists, for audits and differences: a file of any dialect, no release named, times and classes optional."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.class_names.orders import class_order
from k710.errors import InputError
from k710.labels import MERGED, LabelMap
from k710.lists.dialects.classes import has_numbers, named
from k710.lists.dialects.container import is_archive, member_names, read_file, read_members, unpacked
from k710.lists.dialects.ids import bare_id, youtube_mask
from k710.lists.dialects.names import list_name
from k710.lists.dialects.options import DEFAULT_OPTIONS, ReadOptions
from k710.lists.dialects.paths import located
from k710.lists.dialects.raw import RawRows, printable
from k710.lists.dialects.recognise import read_raw
from k710.lists.rows import Expected, checked, encoded, recoded, split_of

_NEARLY_ALL = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignList:
    """One list of which nothing is known but its content."""

    name: str
    """File name (after ``archive/``, if it is in one), and ``:split`` when the file holds several."""
    split: str | None
    """What the split column says, else the file's name; None when neither does."""
    taxonomy: str | None
    """The smallest whose names hold all labels of the file (``k710``: the merged names); None: none does."""
    dialect: str
    """What the file was recognised as."""
    sha256: str
    """Of the file's bytes as they lie on the disk; the archive's for a member."""
    rows: pa.Table
    """``LIST_ROWS``; ``canonical`` is -1 without a taxonomy. An id is YouTube's where it has that form, else opaque."""
    bad_rows: pa.Table
    """``BAD_ROWS``."""
    member: str | None = None
    """Its name in the archive; None: the file is the list."""


def read_foreign(
    path: Path, labels: LabelMap, options: ReadOptions = DEFAULT_OPTIONS, *, taxonomy: str | None = None
) -> list[ForeignList]:
    """The lists in a file, one per split, or in an archive, one per list and split.

    Labels that are numbers stay so when neither ``options.class_order`` nor the folders of the paths name them. Of a
    CSV and a JSON of one list in an archive the CSV is taken.

    Args:
        path: a file of any dialect, gzipped or not, or a tar archive.
        labels: the class table.
        options: what the file does not say itself.
        taxonomy: whose names the labels must be; None: found out.

    Raises:
        InputError: it cannot be read, holds no list, or a row is bad and bad rows are not to be reported.
        UsageError: the taxonomy or the class order is unknown.
    """
    if taxonomy is not None:
        labels.canonical_of(taxonomy)
    raw = read_file(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    if not is_archive(raw, path.name):
        return _lists(unpacked(raw, path.name), path.name, sha256, labels, options, taxonomy)
    wanted = _lists_in(member_names(raw, path.name))
    if not wanted:
        raise InputError(f"{path.name}: no annotation lists in the archive", hint="expected train.csv, val.json, ...")
    found = read_members(raw, path.name, set(wanted))
    return [
        dataclasses.replace(f, member=m)
        for m in wanted
        for f in _lists(found[m], f"{path.name}/{m}", sha256, labels, options, taxonomy)
    ]


def _lists_in(members: Sequence[str]) -> list[str]:
    """The members that are lists; of those of one folder and split only the kind that ``find_lists`` takes first."""
    ranks: dict[tuple[str, str], int] = {}
    found: list[tuple[str, tuple[str, str], int]] = []
    for member in dict.fromkeys(members):
        known = list_name(PurePosixPath(member).name)
        if known is not None:
            place = (str(PurePosixPath(member).parent), known.split)
            ranks[place] = min(known.rank, ranks.get(place, known.rank))
            found.append((member, place, known.rank))
    return [member for member, place, rank in found if rank == ranks[place]]


def _lists(
    data: bytes, name: str, sha256: str, labels: LabelMap, options: ReadOptions, taxonomy: str | None
) -> list[ForeignList]:
    name = printable(name)
    raw = read_raw(data, name, options)
    if "id" in raw.columns:
        raw = dataclasses.replace(raw, columns={**raw.columns, "id": recoded(raw.columns["id"], bare_id)})
    kind = _id_kind(raw)
    raw = located(raw, None)
    if taxonomy is None and options.class_order is not None and has_numbers(raw):
        taxonomy = class_order(options.class_order, labels).taxonomy
    raw = named(raw, name, labels, taxonomy, options.class_order)
    if taxonomy is None:
        taxonomy = _taxonomy_of(raw, labels)
    expected = Expected(where=name, taxonomy=taxonomy, id_kind=kind, times=False, report=options.on_bad_row == "report")
    known = list_name(PurePosixPath(name).name)
    own_split = known.split if known is not None else None
    found = [
        ForeignList(
            name=f"{name}:{split}" if several and split else name,
            split=split or own_split,
            taxonomy=taxonomy,
            dialect=raw.dialect,
            sha256=sha256,
            rows=rows,
            bad_rows=bad,
        )
        for split, several, part in _by_split(raw)
        for rows, bad in [
            checked(part, dataclasses.replace(expected, split=split or own_split, may_be_empty=several), labels)
        ]
    ]
    if not any(one.rows.num_rows for one in found):
        raise InputError(f"{name}: not one good row", hint="this is no list of the kind that it is taken for")
    return found


def _id_kind(raw: RawRows) -> str:
    """What an id must be: YouTube's where the column says so and nearly all are, so that another is damage."""
    if raw.dialect != "official":
        return "opaque"
    found = youtube_mask(raw.columns["id"])
    return "youtube" if found.sum() >= _NEARLY_ALL * len(found) else "opaque"


def _taxonomy_of(raw: RawRows, labels: LabelMap) -> str | None:
    found = set(encoded(raw.columns["label"])[0]) if "label" in raw.columns else set()
    by_size = sorted(labels.taxonomies, key=lambda t: len(labels.canonical_of(t)))
    if not found:
        return None
    return next((t for t in (*by_size, MERGED) if found <= labels.canonical_of(t).keys()), None)


def _by_split(raw: RawRows) -> list[tuple[str | None, bool, RawRows]]:
    """Each split with whether there are several, and its rows; broken rows go with the first."""
    if "split" not in raw.columns:
        return [(None, False, raw)]
    words, codes = encoded(raw.columns["split"])
    splits = [split_of(w) or w.strip().lower() or None for w in words] + [None]
    distinct = list(dict.fromkeys(splits[c] for c in np.unique(codes)))
    rest = {n: c for n, c in raw.columns.items() if n != "split"}
    raw = dataclasses.replace(raw, columns=rest)
    if len(distinct) < 2:
        return [(distinct[0] if distinct else None, False, raw)]
    owner = np.array([distinct.index(s) if s in distinct else -1 for s in splits])[codes]
    return [(split, True, _part(raw, owner == i, first=i == 0)) for i, split in enumerate(distinct)]


def _part(raw: RawRows, mask: npt.NDArray[np.bool_], *, first: bool) -> RawRows:
    places: Any = pa.array(np.flatnonzero(mask))
    return dataclasses.replace(
        raw,
        columns={n: c.take(places) for n, c in raw.columns.items()},
        numbers=raw.numbers[mask],
        broken=raw.broken if first else (),
    )
