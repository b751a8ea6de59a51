"""What the training loop works on, and what it counts in a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uniformerv2 import UniFormerV2
from uniformerv2.config import Recipe
from uniformerv2.data.feed import Batch, Hole
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.ema import Ema
from uniformerv2.training.frozen_features import FrozenFeatures
from uniformerv2.training.scaling import Guard


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What the loop works on."""

    model: UniFormerV2
    """On the device of this rank."""
    optimizer: torch.optim.Optimizer
    """Over the parameters that train."""
    recipe: Recipe
    """All settings."""
    batches: Iterable[Batch]
    """This rank's micro-batches from ``state`` to the end of the run."""
    accumulation: int
    """Micro-batches of a step on each rank."""
    steps_per_epoch: int
    """Optimiser steps of an epoch."""
    num_clips: int
    """Clips of an epoch, for the share of holes."""
    ranks: Ranks
    """This process among those of the run."""
    guard: Guard = field(default_factory=Guard)
    """Judges every step."""
    ema: Ema | None = None
    """Running average of the weights; None: none is kept."""
    features: FrozenFeatures | None = None
    """What computes and keeps the features of the frozen backbone; None: it runs in every step."""
    sharded: bool = False
    """Parameters are split over the ranks."""


@dataclass(slots=True)
class Tally:
    """What a rank counts in a step; summed on the device, because asking for a number would make the host wait."""

    loss_sum: Tensor
    """Over the live samples, fp64."""
    correct: Tensor
    """Samples whose class has the highest logit, fp64; NaN where samples are mixed."""
    live: int = 0
    """Samples that could be read."""
    holes: tuple[Hole, ...] = ()
    """Clips that could not."""
    data_wait_s: float = 0.0
    """Time spent waiting for micro-batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What all ranks know after a step's backward passes, summed over them."""

    loss: float | None
    """Mean over the live samples; None: there was none."""
    live: float
    """Samples that could be read."""
    holes: int
    """Clips that could not."""
    stop: bool
    """Some rank was asked to stop."""
    correct: float
    """Samples whose class has the highest logit; NaN where samples are mixed."""
