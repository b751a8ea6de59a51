"""`k710 evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_DATA, DEFAULT_RUN, AsJson, Data, Settings, is_first_rank

if TYPE_CHECKING:
    from uniformerv2.report import EvaluationReport
    from uniformerv2.training.metrics import Progress

    from .progress import Stages

_SHOWN = 5
"""Confused pairs on the screen; the report has more."""


def evaluate(
    view: Annotated[str, typer.Option("--view", help="View to score on, such as k400-val.")],
    source: Annotated[Path, typer.Option("--from", help="Run folder or weights file.")] = DEFAULT_RUN,
    data: Data = str(DEFAULT_DATA),
    clips: Annotated[
        int | None, typer.Option("--clips", help="Test clips along time; default: what the weights' recipe says.")
    ] = None,
    crops: Annotated[
        int | None, typer.Option("--crops", help="Crops of each test clip, 1 or 3; default: as for --clips.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the report as JSON.")] = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="File for the probabilities of every class, .parquet.")
    ] = None,
    confusion: Annotated[
        Path | None, typer.Option("--confusion", help="File for the confusion matrix, .parquet.")
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes to score with, one per device.")] = 1,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a view: top-1 and top-5, what was covered, and what the weights have seen."""
    from uniformerv2.evaluate import EvaluateConfig
    from uniformerv2.evaluate import evaluate as library

    from .progress import Stages

    config = EvaluateConfig(
        view=view,
        source=source,
        data=data,
        clips=clips,
        crops=crops,
        out=out,
        scores=scores,
        confusion=confusion,
        devices=devices,
        overrides=tuple(settings or ()),
    )
    with Stages() as stages:
        report = library(config, on_progress=shown_on(stages, f"evaluate {view}"))
    if is_first_rank():
        files = [path for path in (out, scores, confusion) if path is not None]
        typer.echo(json.dumps(report.to_json(), indent=1) if as_json else describe(report, *files))


def describe(report: EvaluationReport, *files: Path) -> str:
    """A score in a few lines."""
    any_of = f", any-of top-1 {report.any_of_top1:.2%}" if report.any_of_top1 is not None else ""
    lines = [
        f"{report.view}: top-1 {report.top1:.2%}, top-5 {report.top5:.2%}{any_of} (chance {report.chance:.2%})",
        f"mean over {len(report.classes):,} classes: top-1 {report.mean_class_top1:.2%}",
        f"covered {report.clips_scored:,} of {report.clips_listed:,} clips{_left_out(report)}, "
        f"{report.test_clips} x {report.test_crops} test views ({report.test_views_from})",
        f"lineage: {report.lineage.removeprefix('lineage ')}",
        report.seen_statement.removeprefix("lineage unknown: "),
    ]
    lines += [f"{c.clips:,} x {c.label_name!r} taken for {c.predicted_name!r}" for c in report.confusions[:_SHOWN]]
    lines += [f"failed: {key}: {reason}" for key, reason in report.failed]
    where = f" -> {', '.join(map(str, files))}" if files else ""
    return "\n".join([*lines, f"done in {report.seconds:.0f} s{where}"])


def _left_out(report: EvaluationReport) -> str:
    counts = {
        "without bytes": report.clips_without_bytes,
        "without a class": report.clips_without_class,
        "failed": len(report.failed),
    }
    named = [f"{count:,} {what}" for what, count in counts.items() if count]
    return f" ({', '.join(named)})" if named else ""


def shown_on(stages: Stages, name: str) -> Callable[[Progress], None]:
    """A callback that moves the bar ``name``, with speed and time left beside it, and says what is to be said."""
    from k710.clip_figures import lasting

    def show(progress: Progress) -> None:
        for sentence in progress.said:
            stages.say(sentence)
        if progress.said:
            return
        speed = progress.clips_per_s
        left = (progress.total_steps - progress.step) / speed if speed else None
        parts = [
            f"{speed:.1f} clips/s" if speed is not None else "",
            f"{lasting(left)} left" if left is not None and progress.step < progress.total_steps else "",
            f"{progress.holes} could not be read" if progress.holes else "",
        ]
        stages(name, progress.step, progress.total_steps, ", ".join(part for part in parts if part))

    return show
