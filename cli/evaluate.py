"""`k710 evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_DATA, DEFAULT_RUN, AsJson, Data, Settings

if TYPE_CHECKING:
    from uniformerv2.report import EvaluationReport


def evaluate(
    view: Annotated[str, typer.Option("--view", help="View to score on, such as k400-val.")],
    source: Annotated[Path, typer.Option("--from", help="Run folder or weights file.")] = DEFAULT_RUN,
    data: Data = str(DEFAULT_DATA),
    clips: Annotated[int, typer.Option("--clips", help="Test clips along time.")] = 4,
    crops: Annotated[int, typer.Option("--crops", help="Crops of each test clip: 1 or 3.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="File for the report as JSON.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a view: top-1 and top-5, what was covered, and what the weights have seen."""
    from uniformerv2.evaluate import EvaluateConfig
    from uniformerv2.evaluate import evaluate as library

    from .progress import Stages
    from .training import shown_on

    config = EvaluateConfig(
        view=view, source=source, data=data, clips=clips, crops=crops, out=out, overrides=tuple(settings or ())
    )
    with Stages() as stages:
        report = library(config, on_progress=shown_on(stages, f"evaluate {view}"))
    typer.echo(json.dumps(report.to_json(), indent=1) if as_json else describe(report, out))


def describe(report: EvaluationReport, out: Path | None) -> str:
    """A score in a few lines."""
    any_of = f", any-of top-1 {report.any_of_top1:.2%}" if report.any_of_top1 is not None else ""
    lines = [
        f"{report.view}: top-1 {report.top1:.2%}, top-5 {report.top5:.2%}{any_of} (chance {report.chance:.2%})",
        f"covered {report.clips_scored:,} of {report.clips_listed:,} clips, "
        f"{report.test_clips} x {report.test_crops} test views",
        f"{report.seen_statement}; {report.lineage}",
    ]
    lines += [f"failed: {key}: {reason}" for key, reason in report.failed]
    lines.append(f"done in {report.seconds:.0f} s{f' -> {out}' if out else ''}")
    return "\n".join(lines)
