"""`k710 audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_DATA, AsJson


def audit(
    data: Annotated[Path, typer.Option("--data", help="Folder of the build.")] = DEFAULT_DATA,
    fail_on_leak: Annotated[
        bool,
        typer.Option("--fail-on-leak", help="Exit with 1 when a training view shares videos with a protected list."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the leak audit of a build: what the lists share, what was removed, what was not checked."""
    from k710.errors import AnswerIsNo
    from k710.report.stored import read_audit

    stored = read_audit(data)
    typer.echo(stored.json_text if as_json else stored.markdown, nl=False)
    if fail_on_leak and stored.leaking:
        listed = "; ".join(f"{r['view']} shares {r['videos']:,} videos with {r['list']}" for r in stored.leaking)
        raise AnswerIsNo(f"training views leak: {listed}", hint="build with --protect val,test and --leaks drop-train")
