"""The learning rate at a point of the run, as in the published training."""

from __future__ import annotations

import math

from uniformerv2.config import OptimConfig


def learning_rate(config: OptimConfig, epoch: float) -> float:
    """Linear warm-up, then a half cosine down to ``end_lr``, at the fractional ``epoch``."""
    if epoch < config.warmup_epochs:
        share = epoch / config.warmup_epochs
        return config.warmup_start_lr + (config.base_lr - config.warmup_start_lr) * share
    share = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    return config.end_lr + (config.base_lr - config.end_lr) / 2 * (1 + math.cos(math.pi * share))
