"""`k710 finetune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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


def finetune(
    target: Annotated[str, typer.Option("--target", help="Release to fine-tune to: k400, k600 or k700.")],
    source: Annotated[Path, typer.Option("--from", help="Run folder or weights file to start from.")] = DEFAULT_RUN,
    data: Data = str(DEFAULT_DATA),
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default: runs/finetune-TARGET.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe, by name or as a TOML file; default: the one --from names.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs; 0 only carries the head over, ready to evaluate.")
    ] = None,
    train_view: Annotated[
        str | None, typer.Option("--train-view", help="View to train on; default: the target release's train view.")
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
    """Fine-tune a K710 model to one release, its head's rows carried over by class name."""
    from k710.config import to_mapping
    from uniformerv2.finetune import FinetuneConfig
    from uniformerv2.finetune import finetune as library

    from .progress import Stages
    from .training import describe_run, shown_on

    config = FinetuneConfig(
        target=target,
        source=source,
        data=data,
        out=out,
        recipe=recipe,
        epochs=epochs,
        train_view=train_view,
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
        summary = library(config, on_progress=shown_on(stages, f"finetune {target}"))
    if is_first_rank():
        typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe_run(summary))
