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
Devices = Annotated[int, typer.Option("--devices", min=1, help="Processes to train with, one per device.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def is_first_rank() -> bool:
    """Whether this process speaks: alone, or rank 0 of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def words(values: str) -> tuple[str, ...]:
    """The comma-separated words of an option; ``none`` is no word at all."""
    found = tuple(w.strip() for w in values.split(",") if w.strip())
    return () if found == ("none",) else found
