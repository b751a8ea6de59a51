"""The end of a step: sums over the ranks, the judgement whether it is finite, and the update of all that is carried."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformerv2 import UniFormerV2
from uniformerv2.models.stochastic import BatchNorm, commit_batch_norm, num_pending_batches, pending_batch_norm
from uniformerv2.training.job import Facts, Job, Tally
from uniformerv2.training.optim import trained_parameters
from uniformerv2.training.sharded import local, whole


def sum_over_ranks(job: Job, tally: Tally, stop: bool) -> tuple[Facts, Tensor | None]:
    """What was counted, over all ranks, and the mean batch statistics; gradients are summed too.

    Every rank takes part whatever it could read: a hole cannot make the others wait.
    """
    device = job.ranks.device
    counts = torch.tensor([tally.live, len(tally.holes), stop], dtype=torch.float64, device=device)
    sums = torch.cat([tally.loss_sum.reshape(1), counts, tally.correct.reshape(1)])
    statistics = pending_batch_norm(job.model)
    num_batches = torch.tensor([float(num_pending_batches(job.model))], device=device)
    if job.ranks.world > 1:
        if not job.sharded:
            job.ranks.sum_all_(_gradients(job))
        job.ranks.sum_(sums)
        if statistics is not None:
            job.ranks.sum_(statistics)
            job.ranks.sum_(num_batches)
    loss_sum, live, holes, stopping, correct = sums.tolist()
    facts = Facts(
        loss=loss_sum / live if live else None, live=live, holes=int(holes), stop=bool(stopping), correct=correct
    )
    return facts, statistics / num_batches if statistics is not None and num_batches.item() else None


def _gradients(job: Job) -> list[Tensor]:
    """Of every parameter that trains; what the loss does not depend on has zeros, and still decays."""
    trained = trained_parameters(job.optimizer)
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def update(job: Job, facts: Facts, statistics: Tensor | None, step: int) -> float | None:
    """Make the step if it is finite, and leave everything as it was if not; the norm of the gradient."""
    if facts.loss is None:
        return None
    gradients = _gradients(job)
    torch._foreach_div_([local(gradient) for gradient in gradients], facts.live * job.guard.factor)
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    norm_value = float(norm)
    if not job.guard.judge(facts.loss, norm_value, step=step, allowed=job.recipe.optim.max_bad_steps):
        _forget_statistics(job.model)
        return norm_value
    torch.nn.utils.clip_grads_with_norm_(trained_parameters(job.optimizer), job.recipe.optim.clip_norm, norm)
    job.optimizer.step()
    if statistics is not None:
        commit_batch_norm(job.model, statistics)
    if job.ema is not None:
        job.ema.update(job.model)
    return norm_value


def _forget_statistics(model: UniFormerV2) -> None:
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.pending.zero_()
            module.num_pending.zero_()
