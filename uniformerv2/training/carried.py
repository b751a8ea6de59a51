"""All that a run carries from step to step: built, put back from a checkpoint, and held out to be saved."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uniformerv2 import UniFormerV2
from uniformerv2.training.checkpoint import Checkpoint
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.ema import Ema
from uniformerv2.training.optim import load_optimizer, make_optimizer
from uniformerv2.training.scaling import Guard, dtype_of
from uniformerv2.training.sharded import shard, split_optimizer, whole_optimizer, whole_state
from uniformerv2.training.task import Task
from uniformerv2.training.writer import Held


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """What changes in a step, beside the place in the data."""

    model: UniFormerV2
    """On the device of this rank."""
    optimizer: torch.optim.Optimizer
    """Over the parameters that train."""
    guard: Guard
    """Scale of the loss, and the steps that were skipped."""
    ema: Ema | None
    """Running average of the weights; None: none is kept."""
    sharded: bool
    """Parameters are split over the ranks."""

    def held(self, ranks: Ranks) -> Held:
        """What a checkpoint holds, whole; every rank must ask, and rank 0 gets it."""
        model, ema = self.model.state_dict(), self.ema.state if self.ema is not None else {}
        optimizer = self.optimizer.state_dict()
        if self.sharded:
            mine = ranks.rank == 0
            model, ema = whole_state(model, keep=mine), whole_state(ema, keep=mine)
            optimizer = whole_optimizer(optimizer, keep=mine)
        return Held(model=model, optimizer=optimizer, ema=ema, scaler=self.guard.state_dict())


def carry(task: Task, ranks: Ranks, saved: Checkpoint | None) -> Carried:
    """What the run of ``task`` carries, at its beginning or as it was ``saved``, on the device of this rank."""
    recipe, model = task.recipe, task.model
    if saved is not None:
        model.load_state_dict(saved.model)
    model.to(ranks.device)
    model.recompute_layers(recipe.runtime.recompute_layers, every=recipe.runtime.recompute_every)
    # Alone there is nobody to share with: the same command runs on one device.
    sharded = recipe.runtime.sharding == "fsdp" and ranks.world > 1
    if sharded:
        shard(model, ranks)
    optimizer = make_optimizer(model, recipe.optim)
    guard = Guard(scaled=dtype_of(recipe.runtime.precision, ranks.device) == torch.float16)
    if saved is not None:
        load_optimizer(optimizer, split_optimizer(saved.optimizer, optimizer) if sharded else saved.optimizer)
        guard.load_state_dict(saved.scaler)
    decay = recipe.optim.ema_decay
    ema = Ema(model, decay, saved.ema if saved is not None else None) if decay else None
    return Carried(model=model, optimizer=optimizer, guard=guard, ema=ema, sharded=sharded)
