"""What the training commands share: progress on a bar, and a run's summary in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .progress import Stages

if TYPE_CHECKING:
    from uniformerv2.training.metrics import Progress
    from uniformerv2.training.task import RunSummary


def shown_on(stages: Stages, name: str) -> Callable[[Progress], None]:
    """A callback that moves the bar ``name`` of ``stages``."""

    def show(progress: Progress) -> None:
        parts = [
            f"epoch {progress.epoch}" if progress.loss is not None else "",
            f"loss {progress.loss:.3f}" if progress.loss is not None else "",
            f"{progress.clips_per_s:.0f} clips/s" if progress.clips_per_s is not None else "",
            f"{progress.holes} holes" if progress.holes else "",
        ]
        stages(name, progress.step, progress.total_steps, ", ".join(p for p in parts if p))

    return show


def describe_run(summary: RunSummary) -> str:
    """What a run did, in a few lines."""
    lines = [summary.lineage]
    if summary.leaks_allowed:
        lines.append("WARNING: leaks into the target's held-out lists were allowed by --allow-leaks")
    lines += [f"{o.view} shares {o.videos:,} videos with {o.held_out}" for o in summary.overlaps if o.videos]
    if not summary.leaks_checked:
        lines.append("leaks: not checked, because the lineage is unknown or there is no build to compare it with")
    elif not any(o.own for o in summary.overlaps):
        unseen = f"; not checked: {', '.join(summary.not_checked)}" if summary.not_checked else ""
        lines.append(f"leaks: none in the held-out lists of {summary.target} that the build was given{unseen}")
    if summary.already_done:
        lines.append("nothing to do: the run had finished")
    if summary.window:
        lines.append(f"order: blocks of {summary.window} are shuffled together")
    if summary.resumed_at_step is not None:
        lines.append(f"went on from step {summary.resumed_at_step:,}")
    taken_out = f", {summary.clips_taken_out:,} listed clips have no bytes" if summary.clips_taken_out else ""
    holes = f", {summary.holes:,} holes" if summary.holes else ""
    trained = f"{summary.epochs} epochs, {summary.steps:,} steps on {summary.view}" if summary.view else "no training"
    lines.append(f"done {trained}{taken_out}{holes} -> {summary.model}")
    return "\n".join(lines)
