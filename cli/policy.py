"""The options that say which rows a build takes and what happens to videos that several lists name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import words

if TYPE_CHECKING:
    from k710.lists.annotations import ReadOptions
    from k710.lists.policy import Policy, Selection

Annotations = Annotated[
    Path, typer.Option("--annotations", help="Folder with kinetics400/, kinetics600/, ... of lists, or archives.")
]
Releases = Annotated[
    str | None, typer.Option("--releases", help="Releases to take, such as k400,k600; default: the folders found.")
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Columns of lists in no known form: id=video,start=t0,end=t1,label=class."),
]
OnBadRow = Annotated[
    str, typer.Option("--on-bad-row", help="stop at a row that cannot be used, or report it and go on.")
]
ClassOrder = Annotated[
    str | None, typer.Option("--class-order", help="Order of labels that are numbers, such as uniformerv2_k400.")
]
ClassTable = Annotated[
    Path | None, typer.Option("--class-table", help="Class table to use instead of the packaged one.")
]
RequireComplete = Annotated[
    bool, typer.Option("--require-complete", help="Refuse to build when a list of a chosen release was not given.")
]
Protect = Annotated[
    str, typer.Option("--protect", help="Held-out lists whose videos leave k710-train: val, test, both, or none.")
]
Leaks = Annotated[
    str | None,
    typer.Option("--leaks", help="Which side gives way: drop-train, drop-eval or report; default: drop-train."),
]
Unit = Annotated[str, typer.Option("--unit", help="What k710 views have one clip of: video or segment.")]
Prefer = Annotated[
    str, typer.Option("--prefer", help="Whose clip of a video is kept: newest, oldest, or releases in order.")
]
Conflicts = Annotated[
    str, typer.Option("--conflicts", help="keep or drop, in k710 views, videos that lists put into different classes.")
]
OnlyCc = Annotated[bool, typer.Option("--only-cc", help="Take only rows that their list marks as Creative Commons.")]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Classes to take, by name, comma-separated, or @FILE; default: all.")
]
ExcludeClasses = Annotated[
    str | None, typer.Option("--exclude-classes", help="Classes to leave out, by name, comma-separated, or @FILE.")
]
ExcludeIds = Annotated[
    Path | None, typer.Option("--exclude-ids", help="File of video ids to leave out of every view, one a line.")
]
DropNearDuplicates = Annotated[
    Path | None,
    typer.Option(
        "--drop-near-duplicates",
        metavar="FILE",
        help="near_duplicates.parquet of `k710 audit --level content`; by --leaks and --protect, videos whose clips "
        "look like others give way; of those that are trained on, one stays.",
    ),
]
PerClass = Annotated[
    int | None, typer.Option("--per-class", min=1, help="Most clips of a class in each view, for trials; default: all.")
]
Seed = Annotated[int, typer.Option("--seed", help="Which clips --per-class draws; a larger draw holds the smaller.")]
ClipsPerShard = Annotated[int, typer.Option("--clips-per-shard", min=1, help="Most clips in one shard.")]
Views = Annotated[
    str, typer.Option("--views", help="Views to build; default stands for train and val of k710 and each release.")
]


def read_options(columns: str | None, on_bad_row: str, class_order: str | None) -> ReadOptions:
    """How lists are read, by the options."""
    from k710.lists.annotations import ReadOptions
    from k710.lists.dialects.options import parse_columns

    named = parse_columns(columns) if columns else {}
    return ReadOptions(columns=named, on_bad_row=on_bad_row, class_order=class_order)  # type: ignore[arg-type]


def policy(
    *,
    protect: str,
    leaks: str | None,
    unit: str,
    prefer: str,
    conflicts: str,
    selection: Selection,
    drop_near_duplicates: Path | None = None,
) -> Policy:
    """What happens to videos that several lists name, by the options."""
    from k710.config import from_mapping, to_mapping
    from k710.errors import UsageError
    from k710.lists.policy import Policy

    if not words(protect) and leaks is not None:
        raise UsageError(
            f"--leaks {leaks} says what happens to protected videos, and --protect none protects none",
            hint="leave one of the two out",
        )
    values = {
        "protect": words(protect),
        "leaks": leaks or "drop-train",
        "unit": unit,
        "prefer": words(prefer),
        "conflicts": conflicts,
        "selection": to_mapping(selection),
    }
    found = from_mapping(Policy, values, where="build")
    if drop_near_duplicates is None:
        return found
    from k710.fingerprints.giving_way import without_near_duplicates

    return without_near_duplicates(found, drop_near_duplicates)


def selection(
    *,
    only_cc: bool,
    classes: str | None,
    exclude_classes: str | None,
    exclude_ids: Path | None,
    per_class: int | None,
    seed: int,
    class_table: Path | None,
) -> Selection:
    """Which rows are taken, by the options."""
    from k710.labels import load_labels, read_labels
    from k710.lists.policy import Selection
    from k710.lists.selection import classes_named, read_ids

    labels = load_labels() if class_table is None else read_labels(class_table)
    return Selection(
        only_cc=only_cc,
        classes=classes_named(words(classes), labels, "--classes") if classes else (),
        exclude_classes=classes_named(words(exclude_classes), labels, "--exclude-classes") if exclude_classes else (),
        exclude_ids=read_ids(exclude_ids, "--exclude-ids") if exclude_ids else (),
        per_class=per_class,
        seed=seed,
    )
