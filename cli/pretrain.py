"""`k710 pretrain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    DEFAULT_DATA,
    DEFAULT_RUN,
    Accumulate,
    AllowLeaks,
    AsJson,
    Cache,
    CacheGb,
    Data,
    Devices,
    Fresh,
    Resume,
    Settings,
    Stream,
    StreamClips,
    is_first_rank,
)

if TYPE_CHECKING:
    from uniformerv2.weights.load_report import LoadReport

INIT_HELP = (
    "First weights: run:PATH, official:PATH, or an image transformer: clip, open_clip, open_clip_quickgelu, hf_clip, "
    "hf_clip_gelu, dino, dinov2, mae, beit, deit3, timm or timm_quickgelu:PATH; none are random."
)


def pretrain(
    recipe: Annotated[str, typer.Option("--recipe", help="A packaged recipe by name, or a TOML file.")] = "tiny_cpu",
    data: Data = str(DEFAULT_DATA),
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = DEFAULT_RUN,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="KIND:PATH", help=INIT_HELP),
    ] = None,
    resume: Resume = False,
    fresh: Fresh = False,
    allow_leaks: AllowLeaks = False,
    stream: Stream = None,
    stream_clips: StreamClips = None,
    cache: Cache = None,
    cache_gb: CacheGb = 100,
    devices: Devices = 1,
    accumulate: Accumulate = "auto",
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
        stream=tuple(stream or ()),
        stream_clips=stream_clips,
        cache=cache,
        cache_gb=cache_gb,
        devices=devices,
        accumulate=accumulate,
        overrides=tuple(settings or ()),
    )
    with Stages() as stages:
        summary = library(config, on_progress=shown_on(stages, "pretrain"), on_loaded=show_loaded)
    if is_first_rank():
        typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe_run(summary))


def show_loaded(report: LoadReport) -> None:
    """Print on stderr what became of the initial weights."""
    for line in str(report).splitlines():
        typer.echo(f"init: {line}", err=True)
