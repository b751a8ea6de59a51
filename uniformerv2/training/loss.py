"""From labels to a loss: smoothed, or mixed with other samples. Axes: N samples, C, T, H, W of a clip, K classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uniformerv2.config import Recipe
from uniformerv2.data.feed import Batch
from uniformerv2.data.mixing import mix, mixes
from uniformerv2.data.sampling import stream


def mixed(clip_NCTHW: Tensor, labels_N: Tensor, batch: Batch, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The clips and their targets: labels [N], or shares of all classes [N, K] where samples are mixed.

    What is mixed is a function of (seed, step, first position, repeat), whichever rank has the micro-batch.
    """
    if not mixes(recipe.augment):
        return clip_NCTHW, labels_N
    rng = stream("mix", recipe.seed, step, int(batch.positions[0]), int(batch.repeats[0]))
    return mix(
        clip_NCTHW,
        labels_N,
        config=recipe.augment,
        num_classes=recipe.model.num_classes,
        smoothing=recipe.optim.label_smoothing,
        rng=rng,
    )


def loss_sum(logits_NK: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Cross entropy, summed over the samples; targets as ``mixed`` gives them, smoothed there when they are shares."""
    if targets.ndim == 2:
        return F.cross_entropy(logits_NK, targets, reduction="sum")
    return F.cross_entropy(logits_NK, targets, reduction="sum", label_smoothing=recipe.optim.label_smoothing)


def num_correct(logits_NK: Tensor, targets: Tensor) -> Tensor:
    """Samples whose class has the highest logit; NaN where targets are shares of several classes."""
    if targets.ndim == 2:
        return torch.full((), torch.nan, device=logits_NK.device)
    return (logits_NK.detach().argmax(dim=1) == targets).sum()
