"""What a training run leaves behind: log lines, checkpoints, final weights. Rank 0 alone writes."""

from __future__ import annotations

from typing import Any

import torch

from uniformerv2.training.checkpoint import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    Checkpoint,
    Provenance,
    RunState,
    save_checkpoint,
    save_model,
)
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import StepReport
from uniformerv2.training.folder import RunLog
from uniformerv2.training.stopping import StopFlag
from uniformerv2.training.task import Task


class Writer:
    """What the loop leaves behind after a step; rank 0 alone writes."""

    def __init__(self, task: Task, provenance: Provenance, ranks: Ranks) -> None:
        self.holes = 0
        self.loss: float | None = None
        self.model_path = task.out / MODEL_FILE
        self.provenance = provenance
        self._task, self._ranks, self._log = task, ranks, RunLog(task.out)

    def begin(self, state: RunState, optimizer: torch.optim.Optimizer, stop: StopFlag) -> None:
        """Remember what is saved, and drop log lines of steps that are about to be done again."""
        self._optimizer, self._stop = optimizer, stop
        if self._ranks.rank == 0:
            self._log.keep_until(state.step)

    def after_step(self, report: StepReport) -> None:
        """Log, save when it is time or a stop was asked for, and leave if so."""
        runtime, state = self._task.recipe.runtime, report.state
        self.loss = report.loss
        self.holes += len(report.holes)
        epoch_ended = state.samples_done == 0
        if self._ranks.rank == 0:
            if state.step % runtime.log_every == 0 or epoch_ended or report.holes or report.stop:
                self._log.write(self._line(report))
            if state.step % runtime.checkpoint_every == 0 or epoch_ended or report.stop:
                self._save(state)
        if report.stop and state.epoch < self._task.recipe.optim.epochs:
            self._stop.leave(state.step)

    def finish(self) -> None:
        """Write the final weights."""
        save_model(self.model_path, self._task.model.state_dict(), self.provenance)

    def _save(self, state: RunState) -> None:
        checkpoint = Checkpoint(
            model=self._task.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            state=state,
            provenance=self.provenance,
        )
        save_checkpoint(self._task.out / CHECKPOINT_FILE, checkpoint)

    def _line(self, report: StepReport) -> dict[str, Any]:
        view = self._task.view
        assert view is not None, "steps are only done with a view"
        return {
            "step": report.state.step,
            "epoch": report.state.epoch,
            "loss": report.loss,
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "clips_per_s": round(report.clips_per_s, 2),
            "epoch_holes": report.epoch_holes,
            "holes": [{"clip": view.keys[hole.position], "reason": hole.reason} for hole in report.holes],
        }
