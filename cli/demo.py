"""`k710 demo`: the whole path on a toy Kinetics, and one table of what came of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .progress import Stages


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for all that the demo makes.")] = Path("demo-out"),
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Encoding processes; default: one per core.")
    ] = None,
) -> None:
    """Run the whole path on a toy data set: synth, build, audit, pretrain, evaluate, finetune, evaluate."""
    from rich.console import Console
    from rich.markdown import Markdown

    from k710.errors import AnswerIsNo, UsageError

    from . import demo_path

    if out.is_dir() and any(out.iterdir()) and not (out / "toy" / "synth.json").is_file():
        raise UsageError(f"{out}: not empty, and not a demo's folder", hint="name a new folder: k710 demo OUT")
    started = time.monotonic()
    with Stages() as stages:
        curated = demo_path.curate(out, workers or os.cpu_count() or 1, stages)
    # Off a terminal rich assumes 80 columns, which is too few for the audit's tables.
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 120)
    console.print(Markdown((curated.data / "audit.md").read_text(encoding="utf-8")))
    with Stages() as stages:
        scores = demo_path.train(curated, stages)
    rows = demo_path.closing_rows(curated, scores)
    console.print(demo_path.closing_table(rows, time.monotonic() - started))
    console.print("next: your own copy of Kinetics, with `k710 build --annotations DIR --videos DIR`", markup=False)
    missed = [row.what for row in rows if row.met is False]
    if missed:
        raise AnswerIsNo(f"the demo missed its mark: {'; '.join(missed)}")
