"""What a difference says about classes: those that could not be compared, and those that another table moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from k710.errors import InputError, UsageError
from k710.labels import LabelMap, load_labels, read_labels
from k710.lists.compare import ListDiff
from k710.tables import compute

_SHOWN = 5


def own_table(path: Path, digest: str) -> LabelMap | None:
    """The class table of this digest: the packaged one, or the one at ``path`` in a build; None: it is neither."""
    if load_labels().digest == digest:
        return load_labels()
    try:
        table = read_labels(path)
    except (UsageError, InputError):
        return None
    return table if table.digest == digest else None


def moved_classes(found: Sequence[ListDiff]) -> list[str]:
    """The classes whose rows have another name, with the number of rows in all views; most rows first."""
    moved: Counter[tuple[str, str]] = Counter()
    for one in found:
        rows = one.rows.filter(compute.equal(one.rows["kind"], "class_changed"))
        moved.update(zip(map(str, rows["a_label"].to_pylist()), map(str, rows["b_label"].to_pylist()), strict=True))
    ranked = sorted(moved.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return ["no row has another class by name: only the numbers of classes differ"]
    told = [f"{a} -> {b} ({num:,} row{'' if num == 1 else 's'})" for (a, b), num in ranked[:_SHOWN]]
    more = f", and {len(ranked) - _SHOWN:,} more" if len(ranked) > _SHOWN else ""
    return [f"classes whose rows moved: {', '.join(told)}{more}"]


def lock_line(line: str, by_view: Mapping[str, ListDiff]) -> str:
    """A line on two locks; of a view of ``by_view`` whose rows were compared by class name it says what they show."""
    name = line.removeprefix("view ").partition(": ")[0]
    found = by_view.get(name) if line.startswith("view ") else None
    if found is None or any(found.ids[kind] for kind in found.ids if kind != "class_changed"):
        return line
    moved = found.ids["class_changed"]
    classes = f"another class in {moved:,} of them" if moved else "class numbers by another class table"
    return f"view {name}: the same clips, {classes}"


def cautions(found: Sequence[ListDiff]) -> list[str]:
    """What could not be compared."""
    classes = sum(one.classes_not_compared for one in found)
    segments = sum(one.segments_not_compared for one in found)
    notes = []
    if classes:
        notes.append(
            f"classes of {counted_rows(classes)} not compared: one side has none, or labels that are no class names "
            "(--class-order or --taxonomy says what they mean)"
        )
    if segments:
        notes.append(f"segments of {counted_rows(segments)} not compared: one side has no times")
    return notes


def counted_rows(count: int, what: str = "") -> str:
    """``1 row is`` or ``2 rows are``."""
    return f"1 {what}row is" if count == 1 else f"{count:,} {what}rows are"
