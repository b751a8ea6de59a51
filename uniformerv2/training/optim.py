"""AdamW with the parameter groups of the published training."""

from __future__ import annotations

import torch
from torch import nn

from uniformerv2.config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over what trains: weight decay on tensors with two or more dimensions, none on vectors.

    Position embedding and temporal class token do decay; the class embedding, a vector, does not.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.base_lr, betas=config.betas, eps=config.eps)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use ``lr`` in every group from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
