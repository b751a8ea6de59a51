"""What is counted in a step and shown of a run. Axes: B samples, K classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """Scores of a run's weights on its validation view."""

    view: str
    """Name of the view."""
    clips: int
    """Clips scored, each once."""
    top1: float
    """Share of clips whose class has the highest score."""
    top5: float
    """Share of clips whose class is among the five highest."""
    ema_top1: float | None = None
    """``top1`` of the running average of the weights; None: none is kept."""
    ema_top5: float | None = None
    """``top5`` of the running average."""
    not_finite: int = 0
    """Clips whose scores are not finite: they count as wrong, and such weights are never the best."""
    ema_not_finite: int = 0
    """The same of the running average."""

    @property
    def best_top1(self) -> float:
        """``top1`` of the weights or of their average, whichever is higher, of what gives finite scores."""
        return max(self._finite_top1, default=0.0)

    @property
    def ema_is_better(self) -> bool:
        """Whether the average scores higher than the weights."""
        if self.ema_top1 is None or self.ema_not_finite:
            return False
        return bool(self.not_finite) or self.ema_top1 > self.top1

    @property
    def fault(self) -> str:
        """What is wrong with the weights behind these scores; empty: nothing."""
        counts = {"weights": self.not_finite, "average of the weights": self.ema_not_finite}
        found = [
            f"the {what} give scores that are not finite for {n} of {self.clips} clips"
            for what, n in counts.items()
            if n
        ]
        return f"{' and '.join(found)} of {self.view}: never taken as the best" if found else ""

    def beats(self, best: Validation | None) -> bool:
        """Whether these are the best scores so far; those on another view say nothing of these."""
        if not self._finite_top1:
            return False
        return best is None or best.view != self.view or self.best_top1 > best.best_top1

    @property
    def _finite_top1(self) -> list[float]:
        own = [] if self.not_finite else [self.top1]
        return own if self.ema_top1 is None or self.ema_not_finite else [*own, self.ema_top1]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainLine:
    """What some steps in a row did: one line of the log. Means are over these steps, each counting the same."""

    step: int
    """Steps since the run began, after the last of these."""
    epoch: int
    """Epochs finished then."""
    steps: int
    """How many steps these are."""
    loss: float | None
    """Mean of the losses of the steps that had a live sample; None: none had."""
    accuracy: float | None
    """Mean share of samples whose class had the highest score; None: not known, as under mixing."""
    lr: float
    """Learning rate of the last of these."""
    grad_norm: float | None
    """Mean norm of the gradient before clipping, over the steps whose gradient was applied."""
    clips_per_s: float
    """Clips of the steps over their time, over all ranks."""
    data_wait: float
    """Share of that time in which the loop waited for data."""
    limit: Literal["data", "compute"]
    """What there is too little of: data when the loop waits for it more than a twentieth of its time."""
    step_s: float
    """Mean time of a step; between steps, scoring and saves do not count."""
    flops_per_s: float
    """Floating-point operations of the model per second over all ranks; what is computed again does not count."""
    mfu: float | None
    """``flops_per_s`` over the dense peak of the devices at this precision; None: their peak is not known."""
    memory_bytes: int
    """Most memory of the device that was taken so far; on a CPU, of the process."""
    bad_steps: int
    """Steps so far that were skipped because a loss or gradient was not finite."""
    scale: float | None
    """Scale of the loss; None: it is not scaled."""
    epoch_holes: int
    """Clips of the epoch that failed at read time so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run is, for a screen or a log."""

    stage: str
    """``train`` or ``evaluate``."""
    step: int
    """Steps (or clips, when evaluating) done."""
    total_steps: int
    """Of so many."""
    epoch: int = 0
    """Epochs finished."""
    loss: float | None = None
    """Mean cross entropy of the last step; None: no live sample."""
    lr: float | None = None
    """Learning rate of the last step."""
    grad_norm: float | None = None
    """Norm of the gradient of the last step before clipping."""
    clips_per_s: float | None = None
    """Over all ranks since the last report."""
    holes: int = 0
    """Clips of this epoch that failed at read time."""
    epochs: int = 0
    """Epochs of the run; 0: it has none."""
    recent: TrainLine | None = None
    """What the last few steps did, for a screen."""
    logged: TrainLine | None = None
    """The log line that was written with this step; None: none was."""
    scored: Validation | None = None
    """The last scores; None: nothing was scored."""
    scored_step: int = 0
    """The step after which they were found."""
    scored_is_best: bool = False
    """Whether none before were as good."""
    best: Validation | None = None
    """The best scores so far."""
    said: tuple[str, ...] = ()
    """Sentences for the user, to be shown once."""


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Show nothing."""


def top_k_correct(scores_BK: Tensor, labels_B: Tensor, k: int) -> Tensor:
    """Whether each sample's class is among its ``k`` highest scores, bool [B]; equal scores rank by class index."""
    order_BK = scores_BK.argsort(dim=1, descending=True, stable=True)
    return (order_BK[:, :k] == labels_B[:, None]).any(dim=1)
