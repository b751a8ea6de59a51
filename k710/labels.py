"""The class table: 725 names of three releases on 710 classes, and the rows each release owns.

A table of other taxonomies or merges is a CSV of the same columns: ``index,name``, for each taxonomy ``T`` the pair
``T_index,T_name`` (both empty where it has no such class), and ``merged_because``.
"""

from __future__ import annotations

import csv
import difflib
import functools
import hashlib
import io
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from k710.config import manifests_folder
from k710.errors import InputError, UsageError

TAXONOMIES = {"k400": 400, "k600": 600, "k700": 700}
"""Number of classes of each release's own taxonomy."""
NUM_CLASSES = 710
NUM_NAMES = 725
MERGED = "k710"
"""What stands for the merged classes wherever a taxonomy is named, in a user's table too."""
CANONICAL = "canonical"
"""Name of the merged classes of a table that is not the packaged one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One canonical class."""

    index: int
    """Canonical index, from 0; in the packaged table 0-399 are the Kinetics-400 classes in alphabetical order."""
    name: str
    """Canonical name."""
    names: Mapping[str, str]
    """Official name in each taxonomy that has the class."""
    indices: Mapping[str, int]
    """Index in each taxonomy that has the class (in the packaged table: alphabetical order of its official names)."""
    merged_because: str
    """Why classes of different names are one; empty when they are not."""


class LabelMap:
    """Canonical index <-> name <-> index in each taxonomy; checked when built.

    A class of one release may be called otherwise in another (``dying hair``, ``dyeing hair``), so a name means
    something only together with its taxonomy. ``k710`` names the canonical classes wherever a taxonomy is asked for.
    """

    def __init__(self, rows: Sequence[ClassRow], *, where: str = "class table", lines: Sequence[int] = ()) -> None:
        """Take ``rows``; ``where`` names the table in errors, ``lines`` the line of each row when it is from a file."""
        self.taxonomies = tuple(dict.fromkeys(t for r in rows for t in r.indices))
        """The releases' own taxonomies, in the order in which they are met."""
        self.where = where
        """What errors call the table."""
        _Checks(rows, self.taxonomies, where, lines or range(2, len(rows) + 2)).run()
        self.rows = tuple(rows)
        self._by_name = {t: {r.names[t]: r.index for r in rows if t in r.names} for t in self.taxonomies}
        self._by_name[MERGED] = {r.name: r.index for r in rows}

    @property
    def num_classes(self) -> int:
        """Number of canonical classes."""
        return len(self.rows)

    @property
    def is_packaged(self) -> bool:
        """Whether every name and index is that of the packaged table."""
        return self.digest == load_labels().digest

    @property
    def name(self) -> str:
        """What its canonical classes are called: ``k710``, or ``canonical`` when the table is another one."""
        return MERGED if self.is_packaged else CANONICAL

    @property
    def names(self) -> list[str]:
        """The canonical names in canonical order."""
        return [r.name for r in self.rows]

    @property
    def all_names(self) -> set[str]:
        """Every official name of every taxonomy."""
        return {name for row in self.rows for name in row.names.values()}

    @property
    def merges(self) -> list[ClassRow]:
        """The classes whose names differ between taxonomies."""
        return [r for r in self.rows if r.merged_because]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over every name and index."""
        lines = (f"{r.index}\t{r.name}\t{sorted(r.names.items())}\t{sorted(r.indices.items())}" for r in self.rows)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def taxonomy_names(self, taxonomy: str) -> list[str]:
        """Official class names of a taxonomy (``k710`` included) in the order of its indices."""
        if taxonomy == MERGED:
            return self.names
        return [self.rows[index].names[taxonomy] for index in self.rows_for(taxonomy)]

    def canonical(self, taxonomy: str, name: str) -> int | None:
        """Canonical index of the class that ``taxonomy`` calls ``name``; None when it has no such class."""
        return self.canonical_of(taxonomy).get(name)

    def canonical_of(self, taxonomy: str) -> Mapping[str, int]:
        """Canonical index of every official name of ``taxonomy``."""
        self._known(taxonomy)
        return self._by_name[taxonomy]

    def index_in(self, taxonomy: str, canonical: int) -> int | None:
        """Index in ``taxonomy`` of a canonical class; None when it is not one of its classes."""
        if taxonomy == MERGED:
            return canonical
        self._known(taxonomy)
        return self.rows[canonical].indices.get(taxonomy)

    def rows_for(self, taxonomy: str) -> list[int]:
        """Canonical index of class 0, 1, ... of ``taxonomy``: the rows that its head takes from a K710 head."""
        if taxonomy == MERGED:
            return list(range(self.num_classes))
        self._known(taxonomy)
        return [
            index for _, index in sorted((r.indices[taxonomy], r.index) for r in self.rows if taxonomy in r.indices)
        ]

    def membership(self) -> dict[tuple[str, ...], list[int]]:
        """Canonical indices by the taxonomies that have the class, the largest group first."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for row in self.rows:
            groups.setdefault(tuple(t for t in self.taxonomies if t in row.indices), []).append(row.index)
        return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))

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
    labels = read_labels(manifests_folder() / "classes.csv")
    require_k710(labels)
    return labels


def require_k710(labels: LabelMap) -> None:
    """Refuse a table that is not 725 names of Kinetics-400, -600 and -700 on 710 classes.

    Raises:
        InputError: another number of classes, names or taxonomies, or other sizes of these.
    """
    sizes = {t: len(labels.canonical_of(t)) for t in labels.taxonomies}
    found = {"classes": labels.num_classes, "names": len(labels.all_names), **sizes}
    wanted = {"classes": NUM_CLASSES, "names": NUM_NAMES, **TAXONOMIES}
    if found != wanted:
        said = ", ".join(f"{count} {what}" for what, count in found.items())
        expected = ", ".join(f"{count} {what}" for what, count in wanted.items())
        raise InputError(f"{labels.where}: expected {expected}, found {said}", hint="install k710 again")


def read_labels(path: Path) -> LabelMap:
    """A class table from a CSV with the columns of ``manifests/classes.csv``, of any taxonomies and any size.

    Raises:
        UsageError: no such file, or not a file.
        InputError: the file breaks a rule: indices 0, 1, ... in order, canonical names distinct, every taxonomy a
            permutation of its indices with distinct names, a reason exactly where names were merged.
    """
    try:
        # Opened, a pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path}: not a file", hint="give a class table")
        return parse_labels(path.read_bytes(), where=path.name)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", hint="give a class table") from error


def parse_labels(data: bytes, *, where: str) -> LabelMap:
    """The class table in the bytes of a CSV, as ``read_labels`` reads it; ``where`` names it in errors."""
    numbered = _lines_of(data, where)
    header = list(numbered[0][1])
    taxonomies = _taxonomies_of(where, header)
    rows = [_row(where, line, cells, taxonomies) for line, cells in numbered]
    return LabelMap(rows, where=where, lines=[line for line, _ in numbered])


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


def _lines_of(data: bytes, where: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV by column, each with the number of the line that it ends on."""
    try:
        # Spreadsheets begin a file with a mark.
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        cells = [(reader.line_num, line) for line in reader if line]
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error})", hint="save the table as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{where}: not a readable CSV ({error})", hint="save the table as CSV again") from error
    if len(cells) < 2:
        raise InputError(f"{where}: not a class table: no rows", hint=_COLUMNS_HINT)
    header = cells[0][1]
    for line, values in cells[1:]:
        if len(values) != len(header):
            raise InputError(
                f"{where} row {line}: {len(values)} columns, the header has {len(header)}",
                hint="quote what contains a comma; leave a cell empty rather than out",
            )
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise InputError(f"{where} row 1: column {repeated[0]!r} stands twice", hint="keep one of them")
    return [(line, dict(zip(header, values, strict=True))) for line, values in cells[1:]]


_COLUMNS_HINT = "the columns are index, name, T_index and T_name for each taxonomy T such as k400, and merged_because"


def _taxonomies_of(where: str, header: Sequence[str]) -> list[str]:
    """The taxonomies that the columns speak of."""
    own = [column for column in header if column not in ("index", "name", "merged_because")]
    taxonomies = list(dict.fromkeys(re.sub("_(index|name)$", "", column) for column in own))
    wanted = ["index", "name", "merged_because", *(f"{t}_{what}" for t in taxonomies for what in ("index", "name"))]
    for column in own:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9.-]*_(index|name)", column):
            raise InputError(f"{where} row 1: unknown column {column!r}", hint=_COLUMNS_HINT)
    missing = [column for column in wanted if column not in header]
    if missing or not taxonomies:
        raise InputError(f"{where} row 1: no column {(missing or ['T_index'])[0]!r}", hint=_COLUMNS_HINT)
    reserved = {MERGED, CANONICAL} & set(taxonomies)
    if reserved:
        name = min(reserved)
        raise InputError(
            f"{where} row 1, column {name}_index: {name!r} is the name of the merged classes",
            hint="the columns index and name are theirs; call the taxonomy otherwise",
        )
    return taxonomies


def _row(where: str, line: int, cells: Mapping[str, str], taxonomies: Sequence[str]) -> ClassRow:
    for column, value in cells.items():
        if value != value.strip():
            raise InputError(
                f"{where} row {line}, column {column}: blanks around {value!r}", hint="take the blanks away"
            )
    owners = [t for t in taxonomies if cells[f"{t}_name"] or cells[f"{t}_index"]]
    for taxonomy in owners:
        for what, other in (("name", "index"), ("index", "name")):
            if not cells[f"{taxonomy}_{what}"]:
                raise InputError(
                    f"{where} row {line}, column {taxonomy}_{what}: empty, although {taxonomy}_{other} is not",
                    hint="fill both, or neither when the taxonomy has no such class",
                )
    if not cells["name"]:
        raise InputError(f"{where} row {line}, column name: empty", hint="give the class a name")
    return ClassRow(
        index=_number(where, line, "index", cells["index"]),
        name=cells["name"],
        names={t: cells[f"{t}_name"] for t in owners},
        indices={t: _number(where, line, f"{t}_index", cells[f"{t}_index"]) for t in owners},
        merged_because=cells["merged_because"],
    )


def _number(where: str, line: int, column: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InputError(
            f"{where} row {line}, column {column}: expected an index such as 12, got {text[:40]!r}",
            hint="write it as a whole number from 0, without a sign or a decimal point",
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class _Checks:
    """The rules that make rows a label map."""

    rows: Sequence[ClassRow]
    taxonomies: Sequence[str]
    where: str
    lines: Sequence[int]

    def run(self) -> None:
        if not self.rows:
            raise InputError(f"{self.where}: no classes")
        for position, row in enumerate(self.rows):
            if row.index != position:
                last = len(self.rows) - 1
                self._refuse(
                    position,
                    "index",
                    f"expected {position}, got {row.index}",
                    f"expected indices 0 to {last} in order, one row each",
                )
            if not row.indices:
                self._refuse(
                    position, "name", f"no taxonomy has the class {row.name!r}", "give it to one, or leave it out"
                )
        self._distinct("name", {r.index: r.name for r in self.rows})
        for taxonomy in self.taxonomies:
            indices = {r.index: r.indices[taxonomy] for r in self.rows if taxonomy in r.indices}
            self._distinct(f"{taxonomy}_index", indices)
            self._distinct(f"{taxonomy}_name", {r.index: r.names[taxonomy] for r in self.rows if taxonomy in r.names})
            gap = min(set(range(len(indices))) - set(indices.values()), default=None)
            if gap is not None:
                large = max(indices, key=indices.__getitem__)
                self._refuse(
                    large,
                    f"{taxonomy}_index",
                    f"got {indices[large]}, but no class is {gap}",
                    f"the indices of {taxonomy} are 0 to {len(indices) - 1}, each once",
                )
        for row in self.rows:
            if bool(row.merged_because) != (len(set(row.names.values())) > 1):
                names = ", ".join(f"{name!r} ({t})" for t, name in row.names.items())
                problem = "a reason, but one name" if row.merged_because else f"empty, but the names differ: {names}"
                self._refuse(row.index, "merged_because", problem, "say why names were merged, and only then")

    def _distinct(self, column: str, values: Mapping[int, int | str]) -> None:
        """``values`` by position; one that stands twice is refused at the second place."""
        first: dict[int | str, int] = {}
        for position, value in values.items():
            other = first.setdefault(value, position)
            if other != position:
                self._refuse(
                    position,
                    column,
                    f"{value!r} is that of row {self.lines[other]} too",
                    f"no two classes share one {column}",
                )

    def _refuse(self, position: int, column: str, problem: str, hint: str) -> NoReturn:
        raise InputError(f"{self.where} row {self.lines[position]}, column {column}: {problem}", hint=hint)
