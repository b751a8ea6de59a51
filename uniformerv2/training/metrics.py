"""What is counted in a step and shown of a run. Axes: B samples, K classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


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


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Show nothing."""


def top_k_correct(scores_BK: Tensor, labels_B: Tensor, k: int) -> Tensor:
    """Whether each sample's class is among its ``k`` highest scores, bool [B]; equal scores rank by class index."""
    order_BK = scores_BK.argsort(dim=1, descending=True, stable=True)
    return (order_BK[:, :k] == labels_B[:, None]).any(dim=1)
