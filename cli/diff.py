"""`k710 diff`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import policy
from .options import AsJson

if TYPE_CHECKING:
    from k710.diff import Diff, StayingBytes, ViewDiff

SIDE_HELP = "A build folder, FOLDER:VIEW for one view of a build, or a list file in any known form."
_SHOWN = 20
"""Lines of lock differences on the screen; `--json` has all."""
_TITLES = {
    "only_a": "only in A",
    "only_b": "only in B",
    "class_changed": "another class",
    "segment_changed": "another segment",
    "more_a": "further rows in A",
    "more_b": "further rows in B",
}


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=SIDE_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help=SIDE_HELP)],
    out: Annotated[
        Path | None, typer.Option("--out", help="File for all differences, .csv or .parquet; default: none.")
    ] = None,
    fail_on_difference: Annotated[
        bool, typer.Option("--fail-on-difference", help="Exit with 1 when anything differs.")
    ] = False,
    columns: policy.Columns = None,
    on_bad_row: policy.OnBadRow = "stop",
    class_order: policy.ClassOrder = None,
    taxonomy: Annotated[
        str | None,
        typer.Option("--taxonomy", help="Whose class names the labels of lists are, such as k600; default: found out."),
    ] = None,
    class_table: policy.ClassTable = None,
    as_json: AsJson = False,
) -> None:
    """Compare two builds, views or lists: videos that only one has, other classes, other segments, other shards."""
    from k710 import diff as library
    from k710.errors import AnswerIsNo
    from k710.objects.copies import folder_of_build

    for side in (a, b):
        folder_of_build(side, "diff")
    if out is not None:
        library.check_out(out, (a, b))
    config = library.DiffConfig(
        a=a,
        b=b,
        options=policy.read_options(columns, on_bad_row, class_order),
        taxonomy=taxonomy,
        class_table=class_table,
    )
    found = library.diff(config)
    if out is not None:
        library.write_differences(out, found.rows())
    typer.echo(json.dumps(library.diff_document(found), indent=1) if as_json else describe(found, out))
    if fail_on_difference and not found.is_empty:
        raise AnswerIsNo(f"{a} and {b} differ", hint="--out FILE.csv lists every row that does")


def describe(found: Diff, out: Path | None) -> str:
    """What differs, for people."""
    lines = [f"A: {found.a}", f"B: {found.b}", *_table(found.views)]
    for view in found.views:
        lines += _examples(view)
    for side, names in (("A", found.only_a), ("B", found.only_b)):
        lines += [f"only in {side}: {', '.join(names)}"] if names else []
    lines += _listed("settings and lists that differ", found.lock)
    lines += found.shards.lines() if found.shards else []
    lines += _staying(found.staying) if found.staying else []
    lines += [f"note: {note}" for note in found.notes]
    num = sum(v.found.rows.num_rows for v in found.views)
    said = "nothing differs" if found.is_empty else "1 row differs" if num == 1 else f"{num:,} rows differ"
    where = f" -> {out}" if out is not None else "" if found.is_empty else " (--out FILE.csv has every one)"
    return "\n".join([*lines, f"done: {said}{where}"])


def _table(views: Sequence[ViewDiff]) -> list[str]:
    """Videos of each view: one line a view, columns aligned."""
    kinds = [k for k in _TITLES if not k.startswith("more") or any(v.found.ids[k] for v in views)]
    rows = [["videos", "in A", "in B", "equal", *(_TITLES[k] for k in kinds)]]
    for view in views:
        counts = view.found.ids_a, view.found.ids_b, view.found.ids_equal, *(view.found.ids[k] for k in kinds)
        rows.append([_title(view), *(f"{n:,}" for n in counts)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _title(view: ViewDiff) -> str:
    return view.a if view.a == view.b else f"{view.a} (A), {view.b} (B)"


def _examples(view: ViewDiff) -> list[str]:
    """The first videos of each kind."""
    from k710.lists.compare import examples

    lines = []
    for kind, rows in examples(view.found).items():
        total = view.found.ids[kind]
        lines.append(f"{_title(view)}: {_TITLES[kind]}: {total:,}{f', the first {len(rows)}' * (total > len(rows))}")
        lines += [f"  {_example(row)}" for row in rows]
    return lines


def _example(row: dict[str, Any]) -> str:
    sides = [_row(row, side) for side in "ab"]
    if None in sides:
        # Neither side of a list without times and labels has anything to show.
        return f"{row['id']}  {sides[0] or sides[1] or ''}".rstrip()
    overlap = "" if row["overlap_s"] is None else f"  ({row['overlap_s']:g} s in common)"
    return f"{row['id']}  {sides[0]} -> {sides[1]}{overlap}"


def _row(row: dict[str, Any], side: str) -> str | None:
    """Times and class of one side; None when the difference has no such side."""
    start, end, label = (row[f"{side}_{name}"] for name in ("start_s", "end_s", "label"))
    times = [] if start is None else [f"{start:g}-{end:g} s"]
    return " ".join([*times, *([] if label is None else [label])]) or None


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    more = [f"  ... and {len(lines) - _SHOWN:,} more (--json has all)"] if len(lines) > _SHOWN else []
    return [f"{title}:", *(f"  {line}" for line in lines[:_SHOWN]), *more] if lines else []


def _staying(staying: StayingBytes) -> list[str]:
    total, untouched, copied = (f"{n / 1e9:,.3f} GB" for n in (staying.total, staying.untouched, staying.copied))
    return [f"encoded video of A: {total}, of which {untouched} stay where they are and {copied} are copied"]
