"""What the training commands share: a live table or lines of progress, and a run's summary in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .progress import Stages

if TYPE_CHECKING:
    from uniformerv2.training.metrics import Progress, TrainLine, Validation
    from uniformerv2.training.task import RunSummary


def shown_on(stages: Stages, name: str) -> Callable[[Progress], None]:
    """A callback that keeps a table under the bar ``name`` on a terminal, and says the lines of the log elsewhere."""
    last_scored = 0

    def show(progress: Progress) -> None:
        nonlocal last_scored
        for sentence in progress.said:
            stages.say(f"WARNING: {sentence}")
        if progress.recent is None:
            return
        if stages.is_live:
            stages(name, progress.step, progress.total_steps)
            stages.show_below(_table(progress, progress.recent))
        elif progress.logged is not None:
            stages.say(_line(name, progress, progress.logged))
        if progress.scored is not None and progress.scored_step != last_scored:
            last_scored = progress.scored_step
            is_best = "; the best so far" if progress.scored_is_best else ""
            stages.say(f"scores after step {last_scored:,}: {_scores(progress.scored)}{is_best}")

    return show


def _table(progress: Progress, recent: TrainLine) -> list[list[tuple[str, str]]]:
    """Rows of names and values: the last step's, and means of the last few."""
    scored, best = progress.scored, progress.best
    rows = [
        [
            ("epoch", f"{progress.epoch} of {progress.epochs} done"),
            ("left", _left(progress, recent)),
            ("memory", _memory(recent)),
        ],
        [
            ("loss", _number(recent.loss)),
            ("accuracy", _share(recent.accuracy)),
            ("grad norm", _number(recent.grad_norm)),
        ],
        [
            ("clips/s", f"{recent.clips_per_s:.1f}"),
            ("step", f"{recent.step_s:.3g} s"),
            ("lr", f"{recent.lr:.3g}"),
        ],
        [
            ("data wait", f"{recent.data_wait:.1%}"),
            ("limited by", recent.limit),
            ("speed", _speed(recent)),
        ],
        [
            ("holes", f"{recent.epoch_holes:,} this epoch"),
            ("bad steps", f"{recent.bad_steps:,}"),
            ("scale", f"{recent.scale:g}" if recent.scale is not None else "none"),
        ],
    ]
    if scored is not None and best is not None:
        average = f", average {scored.ema_top1:.2%}" if scored.ema_top1 is not None else ""
        rows.append(
            [
                ("val top-1", f"{scored.top1:.2%}{average}"),
                ("best", f"{best.best_top1:.2%}"),
                ("val top-5", f"{scored.top5:.2%}"),
            ]
        )
    return rows


def _line(name: str, progress: Progress, line: TrainLine) -> str:
    parts = [
        f"loss {_number(line.loss)}",
        f"accuracy {_share(line.accuracy)}" if line.accuracy is not None else "",
        f"lr {line.lr:.3g}",
        f"grad norm {_number(line.grad_norm)}",
        f"{line.clips_per_s:.1f} clips/s",
        f"step {line.step_s:.3g} s",
        f"data wait {line.data_wait:.1%} (limited by {line.limit})",
        _speed(line),
        _memory(line),
        f"{line.epoch_holes:,} holes" if line.epoch_holes else "",
        f"{line.bad_steps:,} bad steps" if line.bad_steps else "",
        f"scale {line.scale:g}" if line.scale is not None else "",
        f"{_left(progress, line)} left" if progress.step < progress.total_steps else "",
    ]
    where = f"step {line.step:,} of {progress.total_steps:,}, epoch {line.epoch} of {progress.epochs} done"
    return f"{name}: {where}: {', '.join(part for part in parts if part)}"


def _scores(scored: Validation) -> str:
    average = f" (average of the weights {scored.ema_top1:.2%})" if scored.ema_top1 is not None else ""
    return f"{scored.view} top-1 {scored.top1:.2%}{average}, top-5 {scored.top5:.2%} of {scored.clips:,} clips"


def _left(progress: Progress, line: TrainLine) -> str:
    from k710.clip_figures import lasting

    return lasting((progress.total_steps - progress.step) * line.step_s)


def _memory(line: TrainLine) -> str:
    return f"{line.memory_bytes / 2**30:.1f} GiB"


def _speed(line: TrainLine) -> str:
    flops = line.flops_per_s
    speed = f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP/s"
    return f"{speed}, MFU {line.mfu:.1%}" if line.mfu is not None else speed


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None else "none"


def _share(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "unknown"


def describe_run(summary: RunSummary) -> str:
    """What a run did, in a few lines."""
    lines = [summary.lineage, *(f"WARNING: {sentence}" for sentence in summary.said)]
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
