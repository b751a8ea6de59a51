"""The log of a run: ``log.jsonl`` and ``log.csv``, the same lines in the same order, and what its figures are.

A line stands for the steps since the line before. After a kill both files are cut back to the step that the run goes on
from, so that they tell of every step once.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from k710 import atomic
from k710.config import to_mapping
from uniformerv2.data.feed import Hole
from uniformerv2.training.checkpoint import RunState, writing
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import StepReport
from uniformerv2.training.flops import count_macs, peak_flops
from uniformerv2.training.folder import LOG_FILE, LOG_TABLE
from uniformerv2.training.metrics import Progress, TrainLine, Validation
from uniformerv2.training.scaling import dtype_of
from uniformerv2.training.task import Task

DATA_LIMITED_FROM = 0.05
"""Share of a step's time from which waiting for data is what limits it; below, a feed keeps up."""
_RECENT_STEPS = 20
"""Steps over which a screen shows means."""
COLUMNS = (
    "kind",
    *(field.name for field in dataclasses.fields(TrainLine)),
    *(field.name for field in dataclasses.fields(Validation)),
)
"""Of ``log.csv``; what a line does not have is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """What the figures of a line are measured by."""

    flops_per_clip: int
    """Floating-point operations of the model for a training step on one clip, all its repeats."""
    peak_flops: float | None
    """Of all devices together; None: unknown."""

    @classmethod
    def of(cls, task: Task, ranks: Ranks) -> Yardstick:
        """For the model of ``task`` on the devices of ``ranks``, which are taken to be alike."""
        recipe = task.recipe
        peak = _peak(ranks.device, recipe.runtime.precision)
        macs = count_macs(recipe.model)
        kept = recipe.data.feature_views > 0 and recipe.runtime.keep_features
        return cls(
            flops_per_clip=(macs.flops_behind_features if kept else macs.training_flops) * recipe.data.repeats,
            peak_flops=peak * ranks.world if peak is not None else None,
        )


def line_of(reports: Sequence[StepReport], by: Yardstick) -> TrainLine:
    """What the steps of ``reports``, at least one, did together."""
    last = reports[-1]
    seconds = sum(_seconds(report) for report in reports)
    clips = sum(report.state.global_batch for report in reports)
    read = clips - sum(len(report.holes) for report in reports)
    data_wait = sum(report.data_wait_s for report in reports) / seconds
    flops_per_s = read * by.flops_per_clip / seconds
    return TrainLine(
        step=last.state.step,
        epoch=last.state.epoch,
        steps=len(reports),
        loss=_mean(report.loss for report in reports),
        accuracy=_mean(report.accuracy for report in reports),
        lr=last.lr,
        grad_norm=_mean(report.grad_norm for report in reports),
        clips_per_s=round(clips / seconds, 2),
        data_wait=round(data_wait, 4),
        limit="data" if data_wait > DATA_LIMITED_FROM else "compute",
        step_s=round(seconds / len(reports), 6),
        flops_per_s=round(flops_per_s),
        mfu=round(flops_per_s / by.peak_flops, 4) if by.peak_flops is not None else None,
        memory_bytes=last.memory_bytes,
        bad_steps=last.bad_steps,
        scale=last.scale,
        epoch_holes=last.epoch_holes,
    )


class TrainLog:
    """The steps of a run as lines: since the last one, and of late."""

    def __init__(self, task: Task, ranks: Ranks) -> None:
        self.logged: TrainLine | None = None
        """The line that ended with the last step; None: it ended none."""
        self.logged_holes: tuple[Hole, ...] = ()
        """Clips of its steps that failed at read time."""
        self.scored: Validation | None = None
        """The last scores."""
        self.scored_step = 0
        """The step after which they were found."""
        self.scored_is_best = False
        """Whether none before were as good."""
        self.said: tuple[str, ...] = ()
        """Sentences to be shown with the step."""
        self._epochs = task.recipe.optim.epochs
        self._by = Yardstick.of(task, ranks)
        self._since: list[StepReport] = []
        self._recent: deque[StepReport] = deque(maxlen=_RECENT_STEPS)

    def add(self, report: StepReport, *, is_due: bool) -> None:
        """Take in a step; a line ends with it when one is due, and always where a clip failed or the run stops."""
        self._since.append(report)
        self._recent.append(report)
        self.logged, self.logged_holes, self.said = None, (), ()
        if is_due or report.holes or report.stop:
            self.logged = line_of(self._since, self._by)
            self.logged_holes = tuple(hole for one in self._since for hole in one.holes)
            self._since.clear()

    def shown(self, progress: Progress, best: Validation | None) -> Progress:
        """``progress`` of the last step with what is known beside it."""
        return dataclasses.replace(
            progress,
            epochs=self._epochs,
            recent=line_of(self._recent, self._by) if self._recent else None,
            logged=self.logged,
            scored=self.scored,
            scored_step=self.scored_step,
            scored_is_best=self.scored_is_best,
            best=best,
            said=self.said,
        )


class RunLog:
    """``log.jsonl``, one JSON object a line, and ``log.csv``, in order of ``step``."""

    def __init__(self, out: Path) -> None:
        self._lines, self._table = out / LOG_FILE, out / LOG_TABLE

    def keep_until(self, step: int, *, scored: bool = True) -> None:
        """Drop what came after ``step``, or what scored it too, which is about to be done again."""
        text = self._lines.read_text(encoding="utf-8", errors="replace") if self._lines.is_file() else ""
        kept = [line for line in map(_parsed, text.splitlines()) if _stays(line, step, scored=scored)]
        with writing(self._lines):
            atomic.write_text(self._lines, "".join(json.dumps(line) + "\n" for line in kept))
            # From the one that is read, so that the two agree whatever was cut off in either.
            atomic.write_text(self._table, _as_table(kept, header=True))

    def totals(self) -> tuple[int, float | None]:
        """Clips of the run that failed at read time, and the loss of its last line; None: there is none."""
        text = self._lines.read_text(encoding="utf-8", errors="replace") if self._lines.is_file() else ""
        lines = [line for line in map(_parsed, text.splitlines()) if line.get("kind") == "train"]
        return sum(len(line.get("holes", ())) for line in lines), lines[-1].get("loss") if lines else None

    def write(self, line: TrainLine, holes: Sequence[Mapping[str, str]] = ()) -> None:
        """Add a line of training."""
        self._add({"kind": "train", **to_mapping(line), "holes": list(holes)})

    def write_validation(self, state: RunState, validation: Validation) -> None:
        """Add a line of scores."""
        self._add({"kind": "validation", "step": state.step, "epoch": state.epoch, **to_mapping(validation)})

    def _add(self, line: Mapping[str, Any]) -> None:
        for path, text in ((self._lines, json.dumps(line) + "\n"), (self._table, _as_table([line], header=False))):
            with writing(path), path.open("a", encoding="utf-8", newline="") as handle:
                handle.write(text)


def _seconds(report: StepReport) -> float:
    return report.step_s or report.state.global_batch / report.clips_per_s


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _peak(device: torch.device, precision: str) -> float | None:
    if device.type != "cuda":
        return None
    dtype = dtype_of(precision, device)
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return None  # TF32, of another peak
    return peak_flops(torch.cuda.get_device_name(device), dtype)


def _parsed(line: str) -> dict[str, Any]:
    """The line; empty: it is none, as the last one of a killed run that was cut off."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    # Runs from before there were others wrote lines of training only, and did not say so.
    return {"kind": "train", **parsed} if isinstance(parsed, dict) else {}


def _stays(line: Mapping[str, Any], step: int, *, scored: bool) -> bool:
    at = line.get("step")
    if not isinstance(at, int):
        return False
    return at < step or (at == step and (scored or line.get("kind") != "validation"))


def _as_table(lines: Sequence[Mapping[str, Any]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
