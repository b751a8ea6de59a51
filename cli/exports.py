"""`k710 export mmaction2|slowfast|...|csv`: a command for each form that other tools read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_DATA, AsJson

if TYPE_CHECKING:
    from k710.exports.job import Format
    from k710.exports.summary import ExportSummary

Build = Annotated[str, typer.Argument(metavar="[OUT]", help="Build to read: a folder or an fsspec URL.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write; default: exports/FORMAT in the build.")
]
Views = Annotated[
    list[str] | None,
    typer.Option("--view", metavar="VIEW", help="View to export; repeatable; default: all that have classes."),
]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="k400|k600|k700|k710", help="Classes to number; default: those of each view."),
]
Order = Annotated[
    str | None,
    typer.Option("--order", help="Order of the class numbers, as `k710 labels show` lists; default: the tool's."),
]
Extract = Annotated[
    Path | None, typer.Option("--extract", metavar="DIR", help="Write the clips as files to DIR; needed for shards.")
]
Planned = Annotated[bool, typer.Option("--planned", help="List clips without a usable video too.")]


def data_command(name: str, kind: Format) -> Callable[..., None]:
    """The command that exports a build for one format, with the options that the format takes."""

    def command(
        build: Build = str(DEFAULT_DATA),
        out: Out = None,
        view: Views = None,
        target: Target = None,
        order: Order = None,
        extract: Extract = None,
        planned: Planned = False,
        as_json: AsJson = False,
    ) -> None:
        from k710.config import to_mapping
        from k710.exports.export import ExportConfig, export

        from .progress import Stages

        config = ExportConfig(
            format=name,
            build=build,
            out=out,
            views=tuple(view or ()),
            target=target,
            order=order,
            extract=extract,
            planned=planned,
        )
        with Stages() as stages:
            summary = export(config, stages)
        typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))

    unused = {flag for flag in ("target", "order", "extract", "planned") if flag not in kind.flags}
    given = inspect.signature(command, eval_str=True)
    # The parser reads options off the signature: one that a format does not take is not there.
    command.__signature__ = given.replace(  # type: ignore[attr-defined]
        parameters=[p for p in given.parameters.values() if p.name not in unused]
    )
    command.__doc__ = kind.summary
    return command


def describe(summary: ExportSummary) -> str:
    """What an export wrote, in a few lines; the last one sums it up."""
    from k710.exports.summary import reasons

    lines = []
    for name, view in summary.views.items():
        left = f", left out: {reasons(view.left_out)}" if view.left_out else ""
        order = f", classes as {view.order}" if view.order else ""
        lines.append(f"{name}: {view.clips:,} of {view.planned:,} clips{order}{left} -> {view.file}")
    lines += [f"note: {note}" for note in summary.notes]
    if summary.extract is not None:
        lines.append(f"files: {summary.files_written:,} written, {summary.files_kept:,} kept -> {summary.extract}")
    left = f" ({reasons(summary.left_out)} left out)" if summary.left_out else ""
    views = f"{len(summary.views):,} view{'s' * (len(summary.views) != 1)}"
    return "\n".join([*lines, f"done {summary.num_clips:,} clips in {views}{left} -> {summary.out}"])
