"""Which known order a label file is in, the rows that contradict it, and what two lists of classes do not share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.class_names.files import LabelFile, LabelRow, read_label_file
from k710.class_names.orders import ClassOrder, class_order, distinct_orders, fold, index_map
from k710.errors import InputError, UsageError
from k710.labels import MERGED, LabelMap

NEAREST_SHOWN = 50
"""Unknown names that get the nearest ones beside them; finding these takes milliseconds each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contradiction:
    """A row that is not what the order has there."""

    row: int
    """Index, from 0."""
    found: str
    """What the file has; empty when it has nothing there."""
    expected: str
    """What the order has; empty when it ends before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownName:
    """A name that no taxonomy knows."""

    row: int
    name: str
    nearest: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """One class on several rows."""

    name: str
    """Its name in the taxonomy of the order."""
    rows: tuple[int, ...]
    written: tuple[str, ...]
    """What the file calls it there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelling:
    """A name that is read as another one; the class is beyond doubt."""

    row: int
    found: str
    meant: str
    why: str
    """``spelling`` (capitals, ``_``, quotes, blanks) or ``other name`` (of another taxonomy)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What a label file is."""

    path: Path
    form: str
    """How the file is written."""
    is_index_list: bool
    """Whether it has indices and no names."""
    num_rows: int
    orders: tuple[str, ...]
    """Every known order (or ``A:B`` index list) that it is exactly; none when something contradicts."""
    nearest: tuple[str, ...]
    """The order that it contradicts least, by all its names."""
    origins: dict[str, str]
    """For each of these names, who numbers so."""
    num_classes: int
    """Classes of that order."""
    same_classes: bool
    """Whether the file has the classes of that order, each once, in whatever order."""
    contradictions: tuple[Contradiction, ...]
    unknown: tuple[UnknownName, ...]
    repeated: tuple[Repeated, ...]
    missing: tuple[str, ...]
    """Classes of that order which the file does not have."""
    problems: tuple[str, ...]
    """What is wrong with the indices as such."""
    spellings: tuple[Spelling, ...]
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the file is exactly a known order."""
        return bool(self.orders)


def check_label_file(path: Path, labels: LabelMap) -> CheckReport:
    """The known order that a label file is exactly, or the nearest one with every row that contradicts it.

    Raises:
        UsageError: no such file.
        InputError: it is no label file, or one of other classes altogether.
    """
    file = read_label_file(path)
    if file.indices:
        return _check_indices(file, labels)
    placed, problems = _placed(file)
    readers = {t: _Reader(labels, t) for t in (MERGED, *labels.taxonomies)}
    if not any(reader.read(row.name)[0] is not None for reader in readers.values() for row in file.rows):
        known = ", ".join((*labels.taxonomies, labels.name))
        raise InputError(
            f"{path.name}: none of its {len(file.rows):,} names is a class of {known}",
            hint="labels of another data set? --class-table FILE takes its class table",
        )
    read = {t: {i: reader.read(row.name) for i, row in placed.items()} for t, reader in readers.items()}
    best, called = min(
        distinct_orders(labels).items(),
        key=lambda item: _distance(read[item[0].taxonomy], item[0]),
    )
    return _report(file, placed, problems, read[best.taxonomy], best, called, labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Renamed:
    """One class under two names."""

    a: str
    b: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """One class at two indices."""

    name: str
    """As the first list calls it."""
    a: int
    b: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelDiff:
    """What two lists of classes do not share."""

    a: str
    b: str
    num_a: int
    """Rows."""
    num_b: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    renamed: tuple[Renamed, ...]
    moved: tuple[Moved, ...]
    repeated_a: tuple[str, ...]
    """Names of rows whose class stood before; only the first was compared."""
    repeated_b: tuple[str, ...]


def diff_labels(a: str, b: str, labels: LabelMap) -> LabelDiff:
    """What differs between two taxonomies, orders or label files, class by class.

    Raises:
        UsageError: neither the name of an order nor a file.
        InputError: a file that is no list of class names.
    """
    (in_a, twice_a, num_a), (in_b, twice_b, num_b) = _listed(a, labels), _listed(b, labels)
    both = [key for key in in_a if key in in_b]
    return LabelDiff(
        a=a,
        b=b,
        num_a=num_a,
        num_b=num_b,
        only_a=tuple(name for key, (_, name) in in_a.items() if key not in in_b),
        only_b=tuple(name for key, (_, name) in in_b.items() if key not in in_a),
        renamed=tuple(Renamed(a=in_a[k][1], b=in_b[k][1]) for k in both if in_a[k][1] != in_b[k][1]),
        moved=tuple(Moved(name=in_a[k][1], a=in_a[k][0], b=in_b[k][0]) for k in both if in_a[k][0] != in_b[k][0]),
        repeated_a=twice_a,
        repeated_b=twice_b,
    )


_Read = tuple[int | None, str]
"""Canonical class (None: unknown), and why the name is not the taxonomy's own (empty: it is)."""
_Listed = tuple[dict[int | str, tuple[int, str]], tuple[str, ...], int]
"""Index and name by class, names of repeated rows, number of rows."""


class _Reader:
    """Names to canonical classes: by the taxonomy itself, then by the others, then but for spelling."""

    def __init__(self, labels: LabelMap, taxonomy: str) -> None:
        own = labels.canonical_of(taxonomy)
        members = set(own.values())
        others = [labels.canonical_of(t) for t in (MERGED, *labels.taxonomies) if t != taxonomy]
        self._exact: dict[str, _Read] = {name: (index, "") for name, index in own.items()}
        # Of classes that share a name, the one that the taxonomy has: the other could not be meant.
        pairs = [(name, index) for names in others for name, index in names.items()]
        for name, index in sorted(pairs, key=lambda pair: pair[1] not in members):
            self._exact.setdefault(name, (index, "other name"))
        self._folded: dict[str, _Read] = {}
        for name, (canonical, _) in self._exact.items():
            self._folded.setdefault(fold(name), (canonical, "spelling"))

    def read(self, name: str) -> _Read:
        return self._exact.get(name) or self._folded.get(fold(name)) or (None, "")


def _placed(file: LabelFile) -> tuple[dict[int, LabelRow], list[str]]:
    """The first row of each index from 0, and what is wrong with the indices."""
    problems = []
    indices = [row.index for row in file.rows]
    shift = 1 if min(indices) == 1 and set(range(1, len(indices) + 1)) == set(indices) else 0
    if shift:
        problems.append(f"indices are 1 to {max(indices)}: orders begin at 0; compared from 0")
    placed: dict[int, LabelRow] = {}
    for row in file.rows:
        first = placed.setdefault(row.index - shift, row)
        if first is not row:
            problems.append(
                f"index {row.index} stands on line {first.line} ({first.name!r}) and {row.line} ({row.name!r})"
            )
    return placed, problems


def _differing(read: Mapping[int, _Read], order: ClassOrder) -> list[int]:
    """The indices where a file and an order do not have one class."""
    num = len(order.canonical)
    outside = [i for i in read if i >= num]
    return [i for i in range(num) if read.get(i, (None, ""))[0] != order.canonical[i]] + sorted(outside)


def _distance(read: Mapping[int, _Read], order: ClassOrder) -> int:
    """How far a file is from an order: indices that differ, and classes that only one of them has."""
    classes = {canonical for canonical, _ in read.values() if canonical is not None}
    return len(_differing(read, order)) + len(classes ^ set(order.canonical))


def _report(
    file: LabelFile,
    placed: Mapping[int, LabelRow],
    problems: Sequence[str],
    read: Mapping[int, _Read],
    order: ClassOrder,
    called: tuple[str, ...],
    labels: LabelMap,
) -> CheckReport:
    names = order.names(labels)
    differing = _differing(read, order)
    exact = not differing and not problems
    rows_of: dict[int, list[int]] = {}
    for index in sorted(read):
        canonical = read[index][0]
        if canonical is not None:
            rows_of.setdefault(canonical, []).append(index)
    unknown = [i for i in sorted(read) if read[i][0] is None]
    return CheckReport(
        path=file.path,
        form=file.form,
        num_rows=len(file.rows),
        orders=called if exact else (),
        nearest=called,
        is_index_list=False,
        origins={name: class_order(name, labels).origin for name in called},
        num_classes=len(names),
        same_classes=len(placed) == len(names) and rows_of.keys() == set(order.canonical) and not problems,
        contradictions=tuple(
            Contradiction(
                row=i, found=placed[i].name if i in placed else "", expected=names[i] if i < len(names) else ""
            )
            for i in differing
        ),
        unknown=tuple(
            UnknownName(
                row=i,
                name=placed[i].name,
                nearest=tuple(labels.nearest(order.taxonomy, fold(placed[i].name))) if n < NEAREST_SHOWN else (),
            )
            for n, i in enumerate(unknown)
        ),
        repeated=tuple(
            Repeated(
                name=_name_in(labels, order.taxonomy, canonical),
                rows=tuple(rows),
                written=tuple(placed[i].name for i in rows),
            )
            for canonical, rows in rows_of.items()
            if len(rows) > 1
        ),
        missing=tuple(n for n, c in zip(names, order.canonical, strict=True) if c not in rows_of),
        problems=tuple(problems),
        spellings=tuple(
            Spelling(row=i, found=placed[i].name, meant=_name_in(labels, order.taxonomy, canonical), why=why)
            for i, (canonical, why) in sorted(read.items())
            if why and canonical is not None
        ),
        notes=tuple([f"columns not looked at: {', '.join(file.unread)}"] if file.unread else []),
    )


def _name_in(labels: LabelMap, taxonomy: str, canonical: int) -> str:
    row = labels.rows[canonical]
    return row.names.get(taxonomy, row.name)


def _check_indices(file: LabelFile, labels: LabelMap) -> CheckReport:
    """Which index list between two orders a list of indices is."""
    num = len(file.indices)
    orders = distinct_orders(labels)
    pairs = {(a, b): index_map(a, b) for b in orders if len(b.canonical) == num for a in orders if a is not b}
    if not pairs:
        sizes = sorted({len(order.canonical) for order in orders})
        raise InputError(
            f"{file.path.name}: {num:,} indices, and no order has so many classes",
            hint=f"an index list has an entry for each of {', '.join(map(str, sizes))} classes",
        )
    wrong = {pair: [i for i in range(num) if indices[i] != file.indices[i]] for pair, indices in pairs.items()}
    fewest = min(map(len, wrong.values()))
    best = [pair for pair, rows in wrong.items() if len(rows) == fewest]
    source, target = best[0]
    called = tuple(f"{orders[a][0]}:{orders[b][0]}" for a, b in best)
    names, expected = target.names(labels), pairs[best[0]]
    several = len(best) > 1 and not fewest
    return CheckReport(
        path=file.path,
        form=file.form,
        num_rows=num,
        orders=() if fewest else called,
        nearest=called,
        is_index_list=True,
        origins={
            name: f"for each class of {orders[b][0]}, its row in {orders[a][0]}"
            for name, (a, b) in zip(called, best, strict=True)
        },
        num_classes=num,
        same_classes=Counter(file.indices) == Counter(expected),
        contradictions=tuple(
            Contradiction(
                row=i,
                found=_entry(file.indices[i], source, labels),
                expected=f"{_entry(expected[i], source, labels)} for {names[i]!r}",
            )
            for i in wrong[best[0]]
        ),
        unknown=(),
        repeated=(),
        missing=(),
        problems=(),
        spellings=(),
        notes=("the numbers alone do not say which of these it is: ask where it is from",) if several else (),
    )


def _entry(index: int | None, order: ClassOrder, labels: LabelMap) -> str:
    if index is None:
        return "no place"
    if index >= len(order.canonical):
        return f"{index} (no row)"
    return f"{index} ({labels.rows[order.canonical[index]].name!r})"


def _listed(what: str, labels: LabelMap) -> _Listed:
    """Classes of an order or a label file, each with its first index."""
    try:
        order = class_order(what, labels)
    except UsageError as error:
        if not Path(what).is_file():
            raise UsageError(f"{what}: no such order and no such file", hint=error.hint) from error
        return _listed_file(Path(what), labels)
    return _first((c, i, n) for i, (c, n) in enumerate(zip(order.canonical, order.names(labels), strict=True)))


def _listed_file(path: Path, labels: LabelMap) -> _Listed:
    file = read_label_file(path)
    if file.indices:
        raise InputError(f"{path.name}: an index list has no names to compare", hint="`k710 labels check` names it")
    nearest = check_label_file(path, labels).nearest[0]
    reader = _Reader(labels, class_order(nearest, labels).taxonomy)
    read = [(reader.read(row.name)[0], row) for row in file.rows]
    return _first((fold(row.name) if key is None else key, row.index, row.name) for key, row in read)


def _first(entries: Iterable[tuple[int | str, int, str]]) -> _Listed:
    first: dict[int | str, tuple[int, str]] = {}
    repeated, num = [], 0
    for key, index, name in entries:
        num += 1
        if key in first:
            repeated.append(name)
        first.setdefault(key, (index, name))
    return first, tuple(repeated), num
