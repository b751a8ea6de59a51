"""Checkpoints of a run that was never made, a few numbers each."""

from __future__ import annotations

import torch

from uniformerv2.training.checkpoint import Checkpoint, Provenance, RunState
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.metrics import Validation

PROVENANCE = Provenance(
    config={"recipe": {"seed": 1, "betas": (0.9, 0.999)}},
    classes=ClassTable(taxonomy="k400", names=("abseiling", "air drumming")),
    data_digest="d",
    lineage=Lineage(),
)


def checkpoint_of(
    step: int, *, numbers: int = 64, scores: Validation | None = None, best: Validation | None = None
) -> Checkpoint:
    """What a run would save after ``step`` steps: every number in it is ``step``."""
    return Checkpoint(
        model={"weight": torch.full((numbers,), float(step)), "counter": torch.tensor(step)},
        optimizer={
            "state": {0: {"step": torch.tensor(float(step)), "exp_avg": torch.full((numbers,), float(step))}},
            "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999), "params": [0]}],
        },
        ema={"weight": torch.full((numbers,), float(step))},
        scaler={"scale": 65536.0, "bad_steps": 0},
        state=RunState(
            view_digest="v", data_digest="d", window=0, taken_out_digest="t", global_batch=4, epoch=step, step=step
        ),
        provenance=PROVENANCE,
        validation=scores,
        best=best,
    )


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether every number in it is its step."""
    step = checkpoint.state.step
    tensors = [*checkpoint.model.values(), *checkpoint.optimizer["state"][0].values(), *checkpoint.ema.values()]
    return all(bool((tensor == step).all()) for tensor in tensors)


def scores_of(top1: float, ema_top1: float | None = None) -> Validation:
    """Scores on a view."""
    return Validation(view="k400-val", clips=6, top1=top1, top5=1.0, ema_top1=ema_top1, ema_top5=ema_top1)
