"""Which class each row of a classifier is: by name, never by position."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710.errors import CheckpointError, UsageError
from k710.labels import NUM_CLASSES, TAXONOMIES, LabelMap, published_order

ORDER_HINT = (
    "name the order: --set head.class_order=canonical (alphabetical; for K710 as in mmaction2), =uniformerv2 "
    "(heads published by OpenGVLab) or =FILE.csv with a `name` column in row order; or, to train, start a new "
    "classifier with --set head.init=random"
)
CANONICAL_ORDERS = ("canonical", "mmaction2")
"""Names of the order of the taxonomy's indices: alphabetical for a release, and for K710 the one that mmaction2 set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTable:
    """The classes of a classifier in the order of its rows."""

    taxonomy: str
    """``k710``, ``k400``, ``k600`` or ``k700``."""
    names: tuple[str, ...]
    """The taxonomy's own name of row 0, 1, ..."""

    @classmethod
    def of(cls, labels: LabelMap, taxonomy: str) -> ClassTable:
        """The table of the classifiers that are trained here: rows in the order of the taxonomy's indices."""
        return cls(taxonomy=taxonomy, names=tuple(labels.taxonomy_names(taxonomy)))

    def to_plain(self) -> dict[str, Any]:
        """The form in checkpoints and headers."""
        return {"taxonomy": self.taxonomy, "names": list(self.names)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ClassTable:
        """The table that ``to_plain`` wrote."""
        return cls(taxonomy=str(plain["taxonomy"]), names=tuple(plain["names"]))

    def canonical_rows(self, labels: LabelMap, whose: str = "the checkpoint") -> dict[int, int]:
        """Row of each canonical class; ``whose`` head the table is of, for an error.

        Raises:
            CheckpointError: a name that the taxonomy does not have, or one on two rows.
        """
        known = (
            {row.name: row.index for row in labels.rows}
            if self.taxonomy == "k710"
            else labels.canonical_of(self.taxonomy)
        )
        rows: dict[int, int] = {}
        for row, name in enumerate(self.names):
            if name not in known:
                near = ", ".join(map(repr, labels.nearest(self.taxonomy, name)))
                raise CheckpointError(
                    f"row {row} of {whose}'s class table is {name!r}, and {self.taxonomy} has no class of that name in "
                    "the class table of the data",
                    hint=f"nearest: {near}" if near else f"the table is not one of {self.taxonomy}",
                )
            if known[name] in rows:
                both = f"rows {rows[known[name]]} and {row}"
                raise CheckpointError(
                    f"{both} of {whose}'s class table are both {name!r}",
                    hint="a head has one row for each class: use another copy, or name its rows by "
                    "--set head.class_order=FILE.csv",
                )
            rows[known[name]] = row
        return rows

    def rows_from(self, source: ClassTable, labels: LabelMap) -> list[int]:
        """Row of ``source`` for row 0, 1, ... of this table, found by class: any subset, in any order.

        Raises:
            CheckpointError: a class is not in ``source``, or a table has a name that is none.
        """
        # Orders agree on where the K400 classes are, not on their order among themselves: rows go by name.
        row_of = source.canonical_rows(labels)
        wanted = list(self.canonical_rows(labels, "the target"))
        missing = [labels.rows[c].name for c in wanted if c not in row_of]
        if missing:
            raise CheckpointError(
                f"the checkpoint's head lacks {len(missing)} classes of {self.taxonomy}, such as {missing[0]!r}",
                hint="start a new classifier with --set head.init=random",
            )
        return [row_of[c] for c in wanted]


def taxonomy_of(num_rows: int) -> str:
    """The taxonomy that a head of so many rows is of, such as ``k400``; empty: none that is known."""
    return _TAXONOMY_OF.get(num_rows, "")


def named_order(order: str, num_rows: int, labels: LabelMap) -> ClassTable:
    """The class table that ``head.class_order`` gives a head of ``num_rows`` rows.

    Raises:
        UsageError: no such order, or one of another size.
    """
    taxonomy = taxonomy_of(num_rows)
    if not taxonomy:
        known = ", ".join(map(str, sorted(_TAXONOMY_OF)))
        raise UsageError(f"a head of {num_rows} classes is of no known taxonomy", hint=f"known sizes: {known}")
    if order in CANONICAL_ORDERS:
        return ClassTable.of(labels, taxonomy)
    if order == "uniformerv2":
        rows = [labels.rows[index] for index in published_order(f"uniformerv2_{taxonomy}")]
        names = tuple(r.name if taxonomy == "k710" else r.names[taxonomy] for r in rows)
        return ClassTable(taxonomy=taxonomy, names=names)
    if order.endswith(".csv"):
        return ClassTable(taxonomy=taxonomy, names=_names_of(Path(order), num_rows))
    known = ", ".join((*CANONICAL_ORDERS, "uniformerv2"))
    raise UsageError(f"unknown head.class_order {order!r}", hint=f"{known}, or a path that ends in .csv")


_TAXONOMY_OF = {NUM_CLASSES: "k710"} | {size: taxonomy for taxonomy, size in TAXONOMIES.items()}
"""Classes -> taxonomy."""


def _names_of(path: Path, num_rows: int) -> tuple[str, ...]:
    """The column ``name`` of a CSV with a line for each of ``num_rows`` rows."""
    if not path.is_file():
        raise UsageError(f"head.class_order: {path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:  # spreadsheets begin a file with a mark
            lines = _lines_of(path, csv.DictReader(handle))
    except UnicodeDecodeError as error:
        raise UsageError(f"head.class_order: {path}: not UTF-8: {error}") from error
    if not lines or "name" not in lines[0][1]:
        raise UsageError(f"head.class_order: {path} has no column 'name'")
    if len(lines) != num_rows:
        raise UsageError(f"head.class_order: {path} names {len(lines)} classes, the head has {num_rows} rows")
    for row, line in lines:
        if not line["name"]:
            raise UsageError(f"head.class_order: {path} row {row}: no name", hint="every row of the head is a class")
    return tuple(line["name"] for _, line in lines)


def _lines_of(path: Path, reader: csv.DictReader[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV, each with the number that it has in the file."""
    try:
        return [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        row = reader.reader.line_num
        raise UsageError(f"head.class_order: {path} row {row}: not a readable CSV ({error})") from error
