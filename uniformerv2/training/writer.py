"""What a training run leaves behind: log lines, checkpoints, final weights. Rank 0 alone writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2.data.feed import Hole
from uniformerv2.data.streaming import RESUME_NOTE
from uniformerv2.scores import ScoringStoppedError
from uniformerv2.training.checkpoint import (
    MODEL_FILE,
    Checkpoint,
    Provenance,
    RunState,
    load_checkpoint,
    save_model,
)
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import StepReport
from uniformerv2.training.feeds import Feed
from uniformerv2.training.folder import BEST_MODEL_FILE, EMA_MODEL_FILE
from uniformerv2.training.log import RunLog, TrainLog
from uniformerv2.training.metrics import Progress, Validation
from uniformerv2.training.saves import Saves
from uniformerv2.training.stopping import StopFlag
from uniformerv2.training.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """All tensors that a checkpoint holds, whole: not split over ranks."""

    model: dict[str, Tensor]
    """State dict."""
    optimizer: dict[str, Any]
    """State dict."""
    ema: dict[str, Tensor] = field(default_factory=dict)
    """Running average of the weights by name; empty: none is kept."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the loss scale; empty: none is used."""


class Writer:
    """What the loop leaves behind after a step; every rank calls it, rank 0 alone writes."""

    def __init__(
        self, task: Task, provenance: Provenance, ranks: Ranks, saves: Saves, saved: Checkpoint | None
    ) -> None:
        """For the run of ``task``, which saves through ``saves`` and goes on from ``saved`` if there is one."""
        self.said: tuple[str, ...] = ()
        """What was wrong with scores, a sentence each."""
        self.model_path = task.out / MODEL_FILE
        self.provenance = provenance
        self.saves = saves
        self.best = saved.best if saved is not None else None
        self._task, self._ranks, self._log = task, ranks, RunLog(task.out)
        self._lines = TrainLog(task, ranks)
        self._saved = saved
        self._stop: StopFlag | None = None
        self._feed: Feed | None = None
        ema = saved.ema if saved is not None else {}
        self._held: Callable[[], Held] = lambda: Held(model=task.model.state_dict(), optimizer={}, ema=ema)
        self._validate: Callable[[], Validation] | None = None

    def begin(
        self,
        state: RunState,
        stop: StopFlag,
        feed: Feed,
        *,
        held: Callable[[], Held],
        validate: Callable[[], Validation] | None = None,
    ) -> None:
        """Go on from ``state``: drop log lines of steps that are about to be done again, make up for a lost scoring.

        Args:
            state: where the run is.
            stop: whether it was asked to stop.
            feed: what is trained on.
            held: what is saved; called on every rank at the same steps.
            validate: scores of the weights as they are, on every rank; None: nothing is scored.
        """
        self._stop, self._feed, self._held, self._validate = stop, feed, held, validate
        saved = self._saved
        scored = saved is not None and saved.validation is not None
        if self._ranks.rank == 0:
            self._log.keep_until(state.step, scored=scored)
        if saved is not None and saved.state.samples_done == 0 and not scored and self._is_scored_at(state):
            # The run was stopped at the end of this epoch, before it could be scored.
            self._save(state, self._score(state))

    def after_step(self, report: StepReport) -> None:
        """Log, score and save when it is time, save when a stop was asked for, and leave if so."""
        runtime, state = self._task.recipe.runtime, report.state
        epoch_ended = state.samples_done == 0
        stopping = report.stop and state.epoch < self._task.recipe.optim.epochs
        self._lines.add(report, is_due=state.step % runtime.log_every == 0 or epoch_ended)
        if self._lines.logged is not None and self._ranks.rank == 0:
            self._log.write(self._lines.logged, [self._named(hole) for hole in self._lines.logged_holes])
        is_due = state.step % runtime.checkpoint_every == 0 or report.stop
        if epoch_ended or (is_due and self._begun.stops_inside):
            self._save(state, None)
        if stopping:
            self._leave(state)
        if self._is_scored_at(state):
            # What ends the run meanwhile ends the scoring alone, which is done again when it goes on.
            self._save(state, self._score(state))

    def shown(self, progress: Progress) -> Progress:
        """``progress`` of the step just done, with all that is shown of it."""
        return self._lines.shown(progress, best=self.best)

    def totals(self) -> tuple[int, float | None]:
        """Clips of the whole run that failed at read time, and the loss of its last log line; on every rank."""
        return self._ranks.from_first(self._log.totals)

    def close(self) -> None:
        """Wait until what was saved is on the disk."""
        self.saves.wait()

    def finish(self) -> None:
        """Write the final weights; every rank calls it."""
        held = self._held()
        self._ranks.from_first(lambda: self._write_models(held))

    def _leave(self, state: RunState, scoring: str = "") -> NoReturn:
        self.close()
        assert self._stop is not None, "steps are only done after begin"
        saved = state.samples_done == 0 or self._begun.stops_inside
        self._stop.leave(f"at step {state.step}, {f'saved{scoring}' if saved else f'not saved: {RESUME_NOTE}'}")

    def _is_scored_at(self, state: RunState) -> bool:
        every, epochs = self._task.recipe.validation.every_epochs, self._task.recipe.optim.epochs
        is_due = state.samples_done == 0 and (state.epoch % every == 0 or state.epoch == epochs)
        return self._validate is not None and is_due

    def _score(self, state: RunState) -> Validation:
        # First: where it starts processes, they should not be copies of one with a thread that writes.
        self.close()
        assert self._validate is not None, "asked for by _is_scored_at"
        try:
            validation = self._validate()
        except ScoringStoppedError:
            self._leave(state, "; its scores will be found when the run goes on")
        if self._ranks.rank == 0:
            self._log.write_validation(state, validation)
        if validation.fault:
            self._lines.said = (f"scores after step {state.step:,}: {validation.fault}",)
            self.said += self._lines.said
        self._lines.scored, self._lines.scored_step = validation, state.step
        return validation

    def _save(self, state: RunState, validation: Validation | None) -> None:
        is_best = validation is not None and validation.beats(self.best)
        self.best = validation if is_best else self.best
        if validation is not None:
            self._lines.scored_is_best = is_best
        held = self._held()
        if self._ranks.rank == 0:
            checkpoint = Checkpoint(
                model=held.model,
                optimizer=held.optimizer,
                ema=held.ema,
                scaler=held.scaler,
                state=state,
                provenance=self.provenance,
                validation=validation,
                best=self.best,
            )
            self.saves.save(checkpoint, best=is_best)

    def _named(self, hole: Hole) -> dict[str, str]:
        return {"clip": self._begun.clip_of(hole), "reason": hole.reason}

    @property
    def _begun(self) -> Feed:
        assert self._feed is not None, "steps are only done after begin"
        return self._feed

    def _write_models(self, held: Held) -> None:
        """Last comes the file that tells that the run has finished."""
        self.close()
        if held.ema:
            save_model(self._task.out / EMA_MODEL_FILE, {**held.model, **held.ema}, self.provenance)
        if (best := self._best_weights()) is not None:
            save_model(self._task.out / BEST_MODEL_FILE, best, self.provenance)
        save_model(self.model_path, held.model, self.provenance)

    def _best_weights(self) -> Mapping[str, Tensor] | None:
        """The weights with the best scores; None: nothing was scored, or their file is damaged."""
        path = self.saves.best()
        if path is None:
            return None
        try:
            saved = load_checkpoint(path)
        except CheckpointError as error:
            # The run itself is whole: its last weights should not wait for a file that nothing can mend.
            self.saves.said += (f"{error}; {BEST_MODEL_FILE} was not written",)
            return None
        is_average = saved.validation is not None and saved.validation.ema_is_better
        return {**saved.model, **saved.ema} if is_average else saved.model
