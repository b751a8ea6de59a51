"""`k710 plan`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from . import policy
from .options import AsJson, words

if TYPE_CHECKING:
    from k710.list_stage import Lists
    from k710.policies import PolicyFigures

Policies = Annotated[
    str,
    typer.Option("--policies", help="all, given, or names such as protect-none,unit-segment beside the given policy."),
]


def plan(
    annotations: policy.Annotations,
    releases: policy.Releases = None,
    columns: policy.Columns = None,
    on_bad_row: policy.OnBadRow = "stop",
    class_order: policy.ClassOrder = None,
    class_table: policy.ClassTable = None,
    protect: policy.Protect = "val,test",
    leaks: policy.Leaks = None,
    unit: policy.Unit = "video",
    prefer: policy.Prefer = "newest",
    conflicts: policy.Conflicts = "keep",
    only_cc: policy.OnlyCc = False,
    classes: policy.Classes = None,
    exclude_classes: policy.ExcludeClasses = None,
    exclude_ids: policy.ExcludeIds = None,
    per_class: policy.PerClass = None,
    seed: policy.Seed = 0,
    views: policy.Views = "default",
    require_complete: policy.RequireComplete = False,
    clips_per_shard: policy.ClipsPerShard = 1000,
    policies: Policies = "all",
    as_json: AsJson = False,
) -> None:
    """Show what each policy would keep and drop of the lists, side by side, and write nothing."""
    from k710 import policies as library
    from k710.list_stage import Inputs, read_lists

    from .progress import Stages

    taken = policy.selection(
        only_cc=only_cc,
        classes=classes,
        exclude_classes=exclude_classes,
        exclude_ids=exclude_ids,
        per_class=per_class,
        seed=seed,
        class_table=class_table,
    )
    given = policy.policy(protect=protect, leaks=leaks, unit=unit, prefer=prefer, conflicts=conflicts, selection=taken)
    named = library.named_policies(given, words(policies))
    inputs = Inputs(
        annotations=annotations,
        releases=words(releases) if releases else None,
        options=policy.read_options(columns, on_bad_row, class_order),
        class_table=class_table,
        require_complete=require_complete,
    )
    with Stages() as stages:
        lists = read_lists(inputs, stages)
        figures = library.compare_policies(
            lists, lists.view_specs(words(views)), named, clips_per_shard=clips_per_shard, progress=stages
        )
    if as_json:
        typer.echo(json.dumps(library.plan_document(lists, figures), indent=1))
    else:
        _print_figures(lists, figures)


def _print_figures(lists: Lists, figures: Sequence[PolicyFigures]) -> None:
    _print_table(*_table(figures))
    for line in _remarks(lists, figures):
        typer.echo(line)


def _table(figures: Sequence[PolicyFigures]) -> tuple[list[str], list[list[str]]]:
    """The heading and one row for each policy; reasons that no policy has are left out."""
    dropped = [_dropped(f) for f in figures]
    from k710.lists.dedupe import REASONS

    reasons = [reason for reason in REASONS if any(reason in d for d in dropped)]
    heading = ["policy", "k710-train", "videos", "classes", *reasons, "k710-val", "clips", "hours", "GB (est.)"]
    rows = []
    for f, reasons_of in zip(figures, dropped, strict=True):
        train = ["-"] * 3 if f.train is None else [f"{n:,}" for n in (f.train.clips, f.train.videos, f.train.classes)]
        rows.append(
            [
                f.name,
                *train,
                *(f"{reasons_of.get(reason, 0):,}" for reason in reasons),
                "-" if f.val is None else f"{f.val.clips:,}",
                f"{f.clips:,}",
                f"{f.hours:,.1f}",
                f"{f.estimated_bytes / 1e9:,.1f}",
                f"{f.shards:,}",
                f"{f.download_days:,.1f}",
                f"{f.leaks_protected:,}",
                f"{f.leaks_unprotected:,}",
            ]
        )
    return [*heading, "tarballs", "days", "leaks", "unprotected"], rows


def _dropped(figures: PolicyFigures) -> dict[str, int]:
    """Rows that `k710-train` does not take, by reason; `in_train` is what `k710-val` gives up to it."""
    train, val = (dict(view.excluded) if view is not None else {} for view in (figures.train, figures.val))
    return train | ({"in_train": val["in_train"]} if "in_train" in val else {})


def _print_table(heading: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal; else lines with the same columns, aligned by spaces."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    if not sys.stdout.isatty():
        for row in (heading, *rows):
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            typer.echo("  ".join(cells))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(heading):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A number that is cut off is another number: wide tables wrap in the terminal instead.
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, sum(widths) + 2 * len(widths))
    console.print(table)


def _remarks(lists: Lists, figures: Sequence[PolicyFigures]) -> list[str]:
    """What the columns mean, what was not given, and that nothing was written."""
    from k710.policies import ENCODED_BYTES_PER_SECOND, POLITE_VIDEOS_PER_HOUR

    lines = [
        "k710-train, videos, classes: of k710-train; the reasons count rows of its lists that it does not take"
        + (" (in_train: of k710-val's)" if any("in_train" in _dropped(f) for f in figures) else ""),
        "clips, hours, GB, tarballs: of all views together; GB is an estimate at "
        f"{ENCODED_BYTES_PER_SECOND / 1000:,.1f} kB a second of the default encode",
        f"days: to download every video at {POLITE_VIDEOS_PER_HOUR} an hour",
        "leaks: videos of k710-train in held-out lists that are protected; unprotected: in others only",
    ]
    if lists.bad_rows.num_rows:
        lines.append(f"WARNING: {lists.bad_rows.num_rows:,} rows could not be used")
    if lists.not_checked:
        lines.append(f"WARNING: not given: {', '.join(lists.not_checked)}; not checked for leaks")
    counted = f"{len(figures)} policies" if len(figures) > 1 else "1 policy"
    return [*lines, f"done: {counted} over {len(lists.catalog):,} rows; nothing was written"]
