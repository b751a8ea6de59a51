"""`k710 labels show|diff|export|check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson
from .rows import print_rows

if TYPE_CHECKING:
    from k710.class_names.checks import CheckReport, LabelDiff
    from k710.class_names.orders import ClassFacts, Membership, MergedClass, TableSummary
    from k710.labels import LabelMap

SHOWN = 20
"""Rows of each kind on the screen; `--json` has all."""

ClassTable = Annotated[
    Path | None,
    typer.Option("--class-table", help="CSV with your own merges and taxonomies; default: the packaged table."),
]


def make_labels_app() -> typer.Typer:
    """The commands under `k710 labels`."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show, compare, write and check class names.")
    for command in (show, diff, export, check):
        app.command(name=command.__name__)(command)
    return app


def show(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Classes to show everywhere.")] = None,
    taxonomy: Annotated[
        str | None, typer.Option("--taxonomy", help="List the classes of a taxonomy or order, such as k600.")
    ] = None,
    merges: Annotated[bool, typer.Option("--merges", help="List the merged names with the reasons.")] = False,
    membership: Annotated[
        bool, typer.Option("--membership", help="List which taxonomies share which classes.")
    ] = False,
    class_table: ClassTable = None,
    as_json: AsJson = False,
) -> None:
    """Show the class table: counts, merges, orders, one taxonomy, or single classes in every taxonomy and order."""
    from k710.class_names.orders import class_facts, order_rows, summarise
    from k710.config import to_mapping
    from k710.errors import UsageError

    labels = _table(class_table)
    if sum((bool(names), taxonomy is not None, merges or membership)) > 1:
        raise UsageError("NAME, --taxonomy and --merges or --membership: one of them", hint="run it once for each")
    if names:
        facts = [fact for name in names for fact in class_facts(labels, name)]
        typer.echo(json.dumps(to_mapping(facts), indent=1) if as_json else "\n\n".join(map(_class_lines, facts)))
        return
    if taxonomy is not None:
        rows = order_rows(labels, taxonomy)
        if as_json:
            typer.echo(json.dumps(to_mapping(rows), indent=1))
        else:
            cells = [(r.index, r.name, r.canonical_index, r.canonical_name) for r in rows]
            print_rows(("index", "name", "canonical_index", "canonical_name"), cells)
        return
    summary = summarise(labels)
    if as_json:
        plain = to_mapping(summary)
        wanted = [key for key, chosen in (("merges", merges), ("membership", membership)) if chosen]
        typer.echo(json.dumps({key: plain[key] for key in wanted} if wanted else plain, indent=1))
        return
    if merges:
        _print_merges(summary.merges)
    if membership:
        print_rows(("taxonomies", "name"), [(_who(g), name) for g in summary.membership for name in g.names])
    if not merges and not membership:
        _print_summary(labels, summary)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Taxonomy, order or label file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Taxonomy, order or label file.")],
    class_table: ClassTable = None,
    as_json: AsJson = False,
) -> None:
    """Compare two taxonomies, orders or label files: classes that only one has, other names, other indices."""
    from k710.class_names.checks import diff_labels
    from k710.config import to_mapping

    found = diff_labels(a, b, _table(class_table))
    typer.echo(json.dumps(to_mapping(found), indent=1) if as_json else _diff_text(found))


def export(
    order: Annotated[
        str | None, typer.Option("--order", help="Order of the names, such as uniformerv2_k710; default: canonical.")
    ] = None,
    index_list: Annotated[
        str | None,
        typer.Option("--map", metavar="A:B", help="Index list instead: for each class of B, its row in A."),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="txt, csv or json; default: the suffix of --out, else txt.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output.")] = None,
    class_table: ClassTable = None,
    as_json: AsJson = False,
) -> None:
    """Write a label file in an order, or the index list between two orders, such as k710:k400."""
    from k710.class_names.files import export_labels
    from k710.config import to_mapping

    made = export_labels(_table(class_table), order=order, pair=index_list, form=form, out=out)
    if as_json:
        typer.echo(json.dumps(to_mapping(made), indent=1))
    elif out is None:
        typer.echo(made.text, nl=False)
    else:
        lacking = f" ({made.num_without_place} without a place)" if made.num_without_place else ""
        typer.echo(f"done {made.num_rows:,} rows of {made.what}{lacking} -> {out}")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Label file or index list: text, CSV or JSON.")],
    class_table: ClassTable = None,
    as_json: AsJson = False,
) -> None:
    """Name the order that a label file is in, or the rows that contradict it; exit with 1 when some do."""
    from k710.class_names.checks import check_label_file
    from k710.config import to_mapping
    from k710.errors import AnswerIsNo

    report = check_label_file(file, _table(class_table))
    plain = {**to_mapping(report), "agrees": report.agrees}
    typer.echo(json.dumps(plain, indent=1) if as_json else _check_text(report))
    if not report.agrees:
        wrong = _counted(len(report.contradictions), "row") if report.contradictions else "the indices"
        option = "map" if report.is_index_list else "order"
        raise AnswerIsNo(
            f"{file.name} is no known order: {wrong} of {report.nearest[0]} contradicted",
            hint=f"`k710 labels export --{option} {report.nearest[0]}` writes that one",
        )


def _table(path: Path | None) -> LabelMap:
    from k710.labels import load_labels, read_labels

    return load_labels() if path is None else read_labels(path)


def _print_summary(labels: LabelMap, summary: TableSummary) -> None:
    sizes = ", ".join(f"{t} {size}" for t, size in summary.sizes.items())
    typer.echo(f"{summary.num_names} names ({sizes}) on {summary.num_classes} classes ({labels.name})\n")
    _print_merges(summary.merges)
    typer.echo()
    print_rows(("classes", "in"), [(g.num_classes, _who(g)) for g in summary.membership])
    typer.echo()
    rows = [(o.name, o.num_classes, ", ".join(o.same_as) or "-", o.origin) for o in summary.orders]
    print_rows(("order", "classes", "same as", "origin"), rows)


def _print_merges(merges: Sequence[MergedClass]) -> None:
    typer.echo(f"{_counted(len(merges), 'class', 'classes')} with more than one name")
    print_rows(
        ("index", "class", "called", "merged because"), [(m.index, m.name, _others(m), m.because) for m in merges]
    )


def _others(merged: MergedClass) -> str:
    return "; ".join(f"{t}: {name}" for t, name in merged.names.items() if name != merged.name)


def _who(group: Membership) -> str:
    return " + ".join(group.taxonomies)


def _class_lines(facts: ClassFacts) -> str:
    merged = [f"merged: {facts.merged_because}"] if facts.merged_because else []
    named = [f"name in {taxonomy}: {name}" for taxonomy, name in facts.names.items()]
    rows = [f"row in {order}: {'none' if row is None else row}" for order, row in facts.rows.items()]
    return "\n".join([f"{facts.name} (class {facts.index})", *merged, *named, *rows])


def _diff_text(found: LabelDiff) -> str:
    lines = [f"{found.a}: {_counted(found.num_a, 'row')}; {found.b}: {_counted(found.num_b, 'row')}"]
    lines += _listed(f"only in {found.a}", found.only_a)
    lines += _listed(f"only in {found.b}", found.only_b)
    lines += _listed("other name", [f"{r.a} -> {r.b}" for r in found.renamed])
    lines += _listed("other index", [f"{m.name}: {m.a} -> {m.b}" for m in found.moved])
    lines += _listed(f"repeated in {found.a}", found.repeated_a)
    lines += _listed(f"repeated in {found.b}", found.repeated_b)
    return "\n".join(lines if len(lines) > 1 else [*lines, "the same classes, names and indices"])


def _check_text(report: CheckReport) -> str:
    what = " = ".join(report.nearest)
    lines = [f"{report.path}: {_counted(report.num_rows, 'row')}, {report.form}"]
    if report.agrees:
        lines.append(f"exactly {what}")
    elif report.same_classes:
        lines.append(f"the {report.num_classes} classes of {report.nearest[0]}, in no known order; nearest: {what}")
    else:
        lines.append(f"no known order; nearest: {what}")
    lines += [f"  {name}: {origin}" for name, origin in report.origins.items()]
    lines += [f"note: {note}" for note in report.notes]
    lines += _listed("problems", report.problems)
    quote = str if report.is_index_list else _quoted
    wrong = [f"row {c.row}: {quote(c.found)}, expected {quote(c.expected)}" for c in report.contradictions]
    lines += _listed("rows that contradict it", wrong)
    near = [
        f"row {u.row}: {u.name!r}" + (f", nearest: {', '.join(u.nearest)}" if u.nearest else "") for u in report.unknown
    ]
    lines += _listed("names that no taxonomy has", near)
    again = [
        f"{r.name!r} on rows {', '.join(map(str, r.rows))}: {', '.join(map(repr, r.written))}" for r in report.repeated
    ]
    lines += _listed("classes that stand more than once", again)
    lines += _listed("classes that are missing", report.missing)
    spelled = [f"row {s.row}: {s.found!r} is {s.meant!r} ({s.why})" for s in report.spellings]
    return "\n".join(lines + _listed("note: names read as others", spelled))


def _quoted(name: str) -> str:
    return repr(name) if name else "nothing"


def _listed(title: str, items: Sequence[str]) -> list[str]:
    """A heading with the count and the first items; nothing when there are none."""
    if not items:
        return []
    more = [f"  ... and {len(items) - SHOWN:,} more (--json has all)"] if len(items) > SHOWN else []
    return [f"{title}: {len(items):,}", *(f"  {item}" for item in items[:SHOWN]), *more]


def _counted(number: int, word: str, words: str = "") -> str:
    return f"{number:,} {word if number == 1 else words or word + 's'}"
