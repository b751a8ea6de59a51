"""The class table: 725 names of three releases on 710 classes, and the rows each release owns."""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.config import manifests_folder
from k710.errors import InputError, UsageError

TAXONOMIES = {"k400": 400, "k600": 600, "k700": 700}
"""Number of classes of each release's own taxonomy."""
NUM_CLASSES = 710
NUM_NAMES = 725


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One canonical class."""

    index: int
    """Canonical index, 0-709; 0-399 are the Kinetics-400 classes in alphabetical order."""
    name: str
    """Canonical name."""
    names: Mapping[str, str]
    """Official name in each taxonomy that has the class."""
    indices: Mapping[str, int]
    """Index in each taxonomy that has the class (alphabetical order of its official names)."""
    merged_because: str
    """Why classes of different names are one; empty when they are not."""


class LabelMap:
    """Canonical index <-> name <-> index in each taxonomy; checked when built.

    A class of one release may be called otherwise in another (``dying hair``, ``dyeing hair``), so a name means
    something only together with its taxonomy.
    """

    def __init__(self, rows: Sequence[ClassRow], *, where: str = "class table") -> None:
        _check(rows, where)
        self.rows = tuple(rows)
        self._by_name = {t: {r.names[t]: r.index for r in rows if t in r.names} for t in TAXONOMIES}
        self._by_name["k710"] = {r.name: r.index for r in rows}

    @property
    def names(self) -> list[str]:
        """The 710 canonical names in canonical order."""
        return [r.name for r in self.rows]

    @property
    def digest(self) -> str:
        """sha256 over every name and index."""
        lines = (f"{r.index}\t{r.name}\t{sorted(r.names.items())}\t{sorted(r.indices.items())}" for r in self.rows)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def taxonomy_names(self, taxonomy: str) -> list[str]:
        """Official class names of a taxonomy (``k710`` included) in the order of its indices."""
        if taxonomy == "k710":
            return self.names
        self._known(taxonomy)
        members = sorted((r.indices[taxonomy], r.names[taxonomy]) for r in self.rows if taxonomy in r.indices)
        return [name for _, name in members]

    def canonical(self, taxonomy: str, name: str) -> int | None:
        """Canonical index of the class that ``taxonomy`` calls ``name``; None when it has no such class."""
        self._known(taxonomy)
        return self._by_name[taxonomy].get(name)

    def canonical_of(self, taxonomy: str) -> Mapping[str, int]:
        """Canonical index of every official name of ``taxonomy``."""
        self._known(taxonomy)
        return self._by_name[taxonomy]

    def index_in(self, taxonomy: str, canonical: int) -> int | None:
        """Index in ``taxonomy`` of a canonical class; None when it is not one of its classes."""
        if taxonomy == "k710":
            return canonical
        self._known(taxonomy)
        return self.rows[canonical].indices.get(taxonomy)

    def rows_for(self, taxonomy: str) -> list[int]:
        """Canonical index of class 0, 1, ... of ``taxonomy``: the rows that its head takes from a K710 head."""
        if taxonomy == "k710":
            return list(range(NUM_CLASSES))
        self._known(taxonomy)
        return [
            index for _, index in sorted((r.indices[taxonomy], r.index) for r in self.rows if taxonomy in r.indices)
        ]

    def nearest(self, taxonomy: str, name: str, count: int = 3) -> list[str]:
        """The official names of ``taxonomy`` that look most like ``name``."""
        folded = {n.casefold(): n for n in self._by_name[taxonomy]}
        return [folded[m] for m in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)]

    def _known(self, taxonomy: str) -> None:
        if taxonomy not in self._by_name:
            raise UsageError(f"unknown taxonomy {taxonomy!r}", hint=f"known: {', '.join(self._by_name)}")


@functools.cache
def load_labels() -> LabelMap:
    """The packaged class table, ``manifests/classes.csv``."""
    return read_labels(manifests_folder() / "classes.csv")


def read_labels(path: Path) -> LabelMap:
    """A class table from a CSV with the columns of ``manifests/classes.csv``.

    Raises:
        InputError: the file breaks a rule: 710 rows, 725 names, every taxonomy a permutation of its indices.
    """
    with path.open(newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    try:
        rows = [_row(line) for line in lines]
    except (KeyError, ValueError) as error:
        raise InputError(f"{path.name}: not a class table ({error})") from error
    return LabelMap(rows, where=path.name)


def published_order(name: str) -> list[int]:
    """Canonical index of each row of a published head order, such as ``uniformerv2_k710``.

    Raises:
        UsageError: no such order.
    """
    with (manifests_folder() / "class_orders.csv").open(newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    known = [c for c in lines[0] if c != "index"]
    if name not in known:
        raise UsageError(f"unknown class order {name!r}", hint=f"known: {', '.join(known)}")
    return [index for _, index in sorted((int(line[name]), int(line["index"])) for line in lines if line[name])]


def _row(line: Mapping[str, str]) -> ClassRow:
    owners = [t for t in TAXONOMIES if line[f"{t}_name"]]
    return ClassRow(
        index=int(line["index"]),
        name=line["name"],
        names={t: line[f"{t}_name"] for t in owners},
        indices={t: int(line[f"{t}_index"]) for t in owners},
        merged_because=line["merged_because"],
    )


def _check(rows: Sequence[ClassRow], where: str) -> None:
    if [r.index for r in rows] != list(range(NUM_CLASSES)):
        raise InputError(f"{where}: expected indices 0 to {NUM_CLASSES - 1} in order, one row each")
    if len({r.name for r in rows}) != NUM_CLASSES:
        raise InputError(f"{where}: two classes have one canonical name")
    for taxonomy, size in TAXONOMIES.items():
        if sorted(r.indices[taxonomy] for r in rows if taxonomy in r.indices) != list(range(size)):
            raise InputError(f"{where}: the indices of {taxonomy} are not 0 to {size - 1}, each once")
        if len({r.names[taxonomy] for r in rows if taxonomy in r.names}) != size:
            raise InputError(f"{where}: {taxonomy} has one name on two classes")
    names = {n for r in rows for n in r.names.values()}
    if len(names) != NUM_NAMES:
        raise InputError(f"{where}: expected {NUM_NAMES} distinct names, found {len(names)}")
    for row in rows:
        if bool(row.merged_because) != (len(set(row.names.values())) > 1):
            raise InputError(f"{where}: row {row.index} ({row.name}) must say why names were merged, and only then")
