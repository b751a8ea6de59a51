"""Weights, gradients and optimiser split over the ranks (FSDP2), with the results of ranks that keep all of them.

Every layer and global block is a unit: its weights are gathered when it runs and let go again. Gradients are summed,
never averaged: the mean is over live samples, which the loop divides by. On disk nothing is split: a checkpoint is the
same with and without, and is read at any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from uniformerv2 import UniFormerV2
from uniformerv2.training.distributed import Ranks


def shard(model: UniFormerV2, ranks: Ranks) -> None:
    """Leave this rank its part of each parameter of ``model``, which has the same weights on every rank."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    parts = model.transformer
    for block in (*parts.resblocks, *parts.dec):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def sum_gradients_now(model: UniFormerV2, now: bool) -> None:
    """Whether the next backward pass sums gradients over the ranks, or adds to what waits on each."""
    model.set_requires_gradient_sync(now)  # type: ignore[operator]


def local(value: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, as a view; any other tensor as it is."""
    to_local = getattr(value, "to_local", None)
    return value if to_local is None else to_local()


def whole(value: Tensor) -> Tensor:
    """All of a sharded tensor, gathered from all ranks, which must all ask; any other tensor as it is."""
    full_tensor = getattr(value, "full_tensor", None)
    return value if full_tensor is None else full_tensor()


def placed_like(full: Tensor, other: Tensor) -> Tensor:
    """``full``, which every rank has, where ``other`` is, and split as it is."""
    placed = full.to(other.device)
    if not hasattr(other, "to_local"):
        return placed
    from torch.distributed.tensor import distribute_tensor

    # Cut out of what this rank has itself: nothing is sent.
    return distribute_tensor(placed, other.device_mesh, other.placements, src_data_rank=None)  # type: ignore[attr-defined]


def whole_state(state: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """A state dict with all of every tensor, in host memory, where it is to ``keep``; every rank must ask."""
    kept = {}
    for name, value in state.items():
        gathered = whole(value)
        if keep:
            kept[name] = gathered.cpu()
    return kept


def whole_optimizer(saved: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """An optimiser's state dict with all of every tensor, where it is to ``keep``; every rank must ask."""
    state = {index: whole_state(values, keep=keep) for index, values in saved["state"].items()}
    return {"state": state, "param_groups": saved["param_groups"]}


def split_optimizer(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What ``whole_optimizer`` gave, split as the optimiser's parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            name: placed_like(v, parameters[index]) if isinstance(v, Tensor) and v.ndim else v
            for name, v in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {"state": state, "param_groups": saved["param_groups"]}
