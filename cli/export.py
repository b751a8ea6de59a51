"""`k710 export`: a model as one file, and a build in the forms that other tools read."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from .options import DEFAULT_RUN, AsJson, Settings

if TYPE_CHECKING:
    from uniformerv2.export import ExportSummary

OUT_HELP = "File to write: .onnx, .pt2 (torch.export), or .pyth, .pth, .safetensors (published names)."


class Formats(typer.core.TyperGroup):
    """A group with a command for each format, made when a command of the group is first looked for.

    Otherwise every start of the program would wait for them.
    """

    _made: MutableMapping[str, Any] | None = None

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """By name: first the commands that were given, then the formats."""
        if self._made is None:
            self._made = {**self._given, **_format_commands()}
        return self._made

    @commands.setter
    def commands(self, given: MutableMapping[str, Any]) -> None:
        self._given, self._made = given, None


def make_export_app() -> typer.Typer:
    """The commands under `k710 export`."""
    app = typer.Typer(
        cls=Formats,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Write a model, or the views of a build, for other programs.",
    )
    # A group, although it has but one command of its own.
    app.callback()(_nothing)
    app.command(name="model")(model)
    return app


def _nothing() -> None:
    """Write a model, or the views of a build, for other programs."""


def _format_commands() -> dict[str, Any]:
    from k710.exports.formats import FORMATS

    from .exports import data_command

    app = typer.Typer(rich_markup_mode=None)
    for name, kind in FORMATS.items():
        app.command(name=name)(data_command(name, kind))
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return commands


def model(
    out: Annotated[Path, typer.Option("--out", help=OUT_HELP)],
    source: Annotated[Path, typer.Option("--from", help="Run folder or weights file.")] = DEFAULT_RUN,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, after a comparison of what it computes with the model itself."""
    from k710.config import to_mapping
    from uniformerv2.export import ExportConfig, export

    summary = export(ExportConfig(out=out, source=source, force=force, overrides=tuple(settings or ())))
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))


def describe(summary: ExportSummary) -> str:
    """What an export wrote, in a few lines."""
    shape = " x ".join(map(str, summary.input_shape))
    names = "" if summary.class_names else " without names"
    batches = " and ".join(map(str, summary.batch_sizes))
    unknown = () if summary.input_known else ("how its clips were made (colours, frames, size) is unknown",)
    beside = f" and {summary.external_data}, to be kept together" if summary.external_data else ""
    return "\n".join(
        [
            f"clips of {shape} to {summary.num_classes:,} classes{names}, in batches of any size",
            *unknown,
            f"largest difference of logits from the model, batches of {batches}: {summary.largest_difference:.1e}",
            f"done {summary.format} of {summary.source}, {summary.size_bytes / 1e6:,.1f} MB -> {summary.out}{beside}",
        ]
    )
