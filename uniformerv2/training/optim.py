"""AdamW with the parameter groups of the published training, or one rate for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from uniformerv2.config import OptimConfig

_EMBEDDINGS = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
_LAYERS = "transformer.resblocks."
_OF_THE_MACHINE = ("fused", "foreach", "capturable", "differentiable")
"""Entries of a parameter group that say how a step is computed, not what."""


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what trains: weight decay on tensors with two or more dimensions, none on vectors.

    Position embedding and temporal class token do decay; the class embedding, a vector, does not.
    """
    groups = _published_groups(model, config) if config.layer_decay == 1 else _groups_by_layer(model, config)
    # One kernel for all parameters. On a CPU the other implementation stays: its results are what they always were.
    fused = True if any(p.is_cuda for p in model.parameters()) else None
    return torch.optim.AdamW(groups, lr=config.base_lr, betas=config.betas, eps=config.eps, fused=fused)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Go on from ``saved``, whatever device it was saved on."""
    own = optimizer.state_dict()["param_groups"]
    groups = [
        {**theirs, **{name: ours[name] for name in _OF_THE_MACHINE if name in ours}}
        for theirs, ours in zip(saved["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` from the next step on, in each group times its own share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_share", 1.0)


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that the optimiser moves, group by group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def layer_of(name: str, num_layers: int) -> int:
    """Depth of a parameter: 0 for the embeddings, 1 and up for the layers, ``num_layers`` + 1 for all behind them."""
    if name.startswith(_EMBEDDINGS):
        return 0
    if name.startswith(_LAYERS):
        return int(name.removeprefix(_LAYERS).partition(".")[0]) + 1
    return num_layers + 1


def _published_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _groups_by_layer(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Two groups a layer, first layer first; global blocks and head have the whole rate."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    num_layers = 1 + max((layer_of(name, 0) - 1 for name, _ in named if name.startswith(_LAYERS)), default=-1)
    by_depth: list[list[nn.Parameter]] = [[] for _ in range(num_layers + 2)]
    for name, parameter in named:
        by_depth[layer_of(name, num_layers)].append(parameter)
    groups = []
    for depth, parameters in enumerate(by_depth):
        share = config.layer_decay ** (num_layers + 1 - depth)
        groups += _decayed_and_plain(parameters, share, config.weight_decay)
    return groups


def _decayed_and_plain(parameters: Sequence[nn.Parameter], share: float, decay: float) -> list[dict[str, Any]]:
    halves = ([p for p in parameters if p.ndim >= 2], decay), ([p for p in parameters if p.ndim < 2], 0.0)
    return [{"params": half, "weight_decay": rate, "lr_share": share} for half, rate in halves if half]
