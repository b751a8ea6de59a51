"""`k710 pretrain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DEFAULT_DATA,
    DEFAULT_RUN,
    AllowLeaks,
    AsJson,
    Data,
    Devices,
    Fresh,
    Resume,
    Settings,
    is_first_rank,
)


def pretrain(
    recipe: Annotated[str, typer.Option("--recipe", help="A packaged recipe by name, or a TOML file.")] = "tiny_cpu",
    data: Data = str(DEFAULT_DATA),
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = DEFAULT_RUN,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="KIND:PATH", help="First weights: run:, official: or clip:PATH."),
    ] = None,
    resume: Resume = False,
    fresh: Fresh = False,
    allow_leaks: AllowLeaks = False,
    devices: Devices = 1,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train UniFormerV2 on the K710 view of a build, or go on with the run in --out."""
    from k710.config import to_mapping
    from uniformerv2.pretrain import PretrainConfig
    from uniformerv2.pretrain import pretrain as library

    from .progress import Stages
    from .training import describe_run, shown_on

    config = PretrainConfig(
        recipe=recipe,
        data=data,
        out=out,
        init=init,
        resume=resume,
        fresh=fresh,
        allow_leaks=allow_leaks,
        devices=devices,
        overrides=tuple(settings or ()),
    )
    with Stages() as stages:
        summary = library(config, on_progress=shown_on(stages, "pretrain"))
    if is_first_rank():
        typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe_run(summary))
