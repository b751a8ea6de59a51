"""Options that several commands share, spelled once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path("k710-data")
DEFAULT_RUN = Path("runs/pretrain")

Data = Annotated[str, typer.Option("--data", help="Build to read: a folder or an fsspec URL.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override one setting of the recipe; repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, which must exist.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start a new run in --out, which must be empty or absent.")]
AllowLeaks = Annotated[
    bool, typer.Option("--allow-leaks", help="Train although videos stand in the target's held-out lists.")
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Local folder that keeps clips read from an object store; none by default."),
]
Stream = Annotated[
    list[str] | None,
    typer.Option("--stream", help="WebDataset shards to train on instead of a build; {000..099} and *; repeatable."),
]
StreamClips = Annotated[int | None, typer.Option("--stream-clips", min=1, help="Clips of --stream that make an epoch.")]
CacheGb = Annotated[int, typer.Option("--cache-gb", min=1, help="The most that --cache takes, in GiB.")]
Devices = Annotated[int, typer.Option("--devices", min=1, help="Processes to train with, one per device.")]
Accumulate = Annotated[
    str,
    typer.Option(
        "--accumulate",
        metavar="auto|N",
        help="Micro-batches of a step on each device; the global batch stays the recipe's, auto keeps its micro-batch.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def is_first_rank() -> bool:
    """Whether this process speaks: alone, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def words(values: str) -> tuple[str, ...]:
    """The comma-separated words of an option; ``none`` is no word at all."""
    found = tuple(w.strip() for w in values.split(",") if w.strip())
    return () if found == ("none",) else found
