"""`k710 export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_RUN, AsJson, Settings

if TYPE_CHECKING:
    from uniformerv2.export import ExportSummary

OUT_HELP = "File to write: .onnx, .pt2 (torch.export), or .pyth, .pth, .safetensors (published names)."


def export(
    out: Annotated[Path, typer.Option("--out", help=OUT_HELP)],
    source: Annotated[Path, typer.Option("--from", help="Run folder or weights file.")] = DEFAULT_RUN,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, after a comparison of what it computes with the model itself."""
    from k710.config import to_mapping
    from uniformerv2.export import ExportConfig
    from uniformerv2.export import export as library

    summary = library(ExportConfig(out=out, source=source, force=force, overrides=tuple(settings or ())))
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
