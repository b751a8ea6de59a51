"""The training loop: read top to bottom. Axes: N samples, C channel, T frame, H height, W width, K classes.

Everything random is a function of (seed, epoch, position, repeat) or (seed, step, site, position, repeat), and all that
is carried from step to step is in the model, the optimiser and ``RunState``. So a run that was interrupted equals a
whole one bit for bit, and ranks take the place of accumulation without a change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from k710.errors import FeedError, UsageError
from uniformerv2 import UniFormerV2
from uniformerv2.config import Recipe
from uniformerv2.data.augment import normalise
from uniformerv2.data.feed import Batch, Hole
from uniformerv2.models.stochastic import (
    commit_batch_norm,
    defer_batch_norm,
    num_pending_batches,
    pending_batch_norm,
)
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.metrics import OnProgress, Progress
from uniformerv2.training.optim import set_learning_rate
from uniformerv2.training.schedule import learning_rate
from uniformerv2.training.stopping import StopFlag


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


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step did, the same on every rank."""

    state: RunState
    """After the step."""
    loss: float | None
    """Mean cross entropy of the live samples; None: there was none."""
    lr: float
    """Learning rate used."""
    grad_norm: float | None
    """Before clipping."""
    clips_per_s: float
    """Clips of the global batch over the time of the step."""
    holes: tuple[Hole, ...]
    """Clips that failed at read time, over all ranks."""
    epoch_holes: int
    """Clips of the epoch that failed so far, these included."""
    stop: bool
    """Some rank was asked to stop."""


@dataclass(slots=True)
class _Tally:
    loss_sum: Tensor
    live: int = 0
    holes: tuple[Hole, ...] = ()


def train(
    job: Job, state: RunState, stop: StopFlag, after_step: Callable[[StepReport], None], on_progress: OnProgress
) -> RunState:
    """Train from ``state`` to the end of the run; ``after_step`` may save, and end the run by raising.

    Raises:
        UsageError: the loss or its gradient is not finite; the weights are then as they were before the step.
        FeedError: more clips of an epoch failed at read time than the recipe allows.
    """
    recipe = job.recipe
    total_steps = state.step + (recipe.optim.epochs - state.epoch) * job.steps_per_epoch - state.step_in_epoch
    defer_batch_norm(job.model)
    job.model.train()
    batches = iter(job.batches)
    with cpu_threads(recipe.runtime.threads):
        while state.epoch < recipe.optim.epochs:
            began = time.perf_counter()
            lr = learning_rate(recipe.optim, state.epoch + state.step_in_epoch / job.steps_per_epoch)
            set_learning_rate(job.optimizer, lr)
            job.optimizer.zero_grad(set_to_none=True)
            tally = _accumulate(job, batches, state.step)
            loss_sum, live, num_holes, stopping = _sum_over_ranks(job, tally, stop.asked)
            loss = loss_sum / live if live else None
            _require_finite("loss", loss, state.step)
            grad_norm = _update(job, live, state.step) if live else None
            epoch_holes = state.holes + int(num_holes)
            state = state.after_step(job.steps_per_epoch, int(num_holes))
            report = StepReport(
                state=state,
                loss=loss,
                lr=lr,
                grad_norm=grad_norm,
                clips_per_s=state.global_batch / (time.perf_counter() - began),
                holes=_all_holes(job.ranks, tally) if num_holes else (),
                epoch_holes=epoch_holes,
                stop=bool(stopping),
            )
            _require_few_holes(job, report)
            after_step(report)
            on_progress(_progress(report, total_steps))
    return state


@contextmanager
def cpu_threads(num: int) -> Iterator[None]:
    """Torch's threads inside the block; 0 leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(num or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accumulate(job: Job, batches: Iterator[Batch], step: int) -> _Tally:
    """Gradients of the summed loss over this rank's micro-batches of a step; one without live samples is skipped."""
    # Summed on the device: asking for each loss would make it wait for every micro-batch.
    tally = _Tally(loss_sum=torch.zeros((), dtype=torch.float64, device=job.ranks.device))
    for _ in range(job.accumulation):
        batch = next(batches)
        tally.holes += batch.holes
        if len(batch):
            loss = _forward(job, batch, step)
            loss.backward()  # type: ignore[no-untyped-call]
            tally.loss_sum += loss.detach()
            tally.live += len(batch)
    return tally


def _forward(job: Job, batch: Batch, step: int) -> Tensor:
    device = job.ranks.device
    positions_N, repeats_N = batch.positions.to(device), batch.repeats.to(device)
    job.model.randomness.begin(job.recipe.seed, step, positions_N, repeats_N)
    clip_NCTHW = normalise(batch.clips.to(device, non_blocking=True))
    with torch.autocast(device.type, torch.bfloat16, enabled=job.recipe.runtime.precision == "bf16"):
        logits_NK = job.model(clip_NCTHW)
    return F.cross_entropy(logits_NK.float(), batch.labels.to(device, non_blocking=True), reduction="sum")


def _sum_over_ranks(job: Job, tally: _Tally, stop: bool) -> list[float]:
    """Loss sum, live samples, holes and stop requests over all ranks; gradients and batch statistics are summed too.

    One flat sum per step, in which every rank takes part whatever it could read: a hole cannot make the others wait.
    """
    device = job.ranks.device
    counts = torch.tensor([tally.live, len(tally.holes), stop], dtype=torch.float64, device=device)
    facts = torch.cat([tally.loss_sum.reshape(1), counts])
    statistics = pending_batch_norm(job.model)
    num_batches = torch.tensor([float(num_pending_batches(job.model))], device=device)
    if job.ranks.world > 1:
        _sum_gradients(job)
        job.ranks.sum_(facts)
        if statistics is not None:
            job.ranks.sum_(statistics)
            job.ranks.sum_(num_batches)
    if statistics is not None and num_batches.item():
        commit_batch_norm(job.model, statistics / num_batches)
    return [float(value) for value in facts.tolist()]


def _sum_gradients(job: Job) -> None:
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    job.ranks.sum_(flat)
    for parameter, summed in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
        parameter.grad = summed.view_as(parameter)


def _update(job: Job, live: float, step: int) -> float:
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    for parameter in trained:
        # What the loss does not depend on still decays, whether or not gradients were summed over ranks.
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.div_(live)
    norm = float(torch.nn.utils.clip_grad_norm_(trained, job.recipe.optim.clip_norm))
    # Applied, it would end every weight, and the next checkpoint with them.
    _require_finite("norm of the gradient", norm, step)
    job.optimizer.step()
    return norm


def _all_holes(ranks: Ranks, tally: _Tally) -> tuple[Hole, ...]:
    return tuple(hole for holes in ranks.gather(tally.holes) for hole in holes)


def _require_finite(what: str, value: float | None, step: int) -> None:
    if value is not None and not math.isfinite(value):
        raise UsageError(
            f"the {what} is {value} at step {step}",
            hint="lower optim.base_lr or lengthen optim.warmup_epochs, with another --out; the last checkpoint is from "
            "before",
        )


def _require_few_holes(job: Job, report: StepReport) -> None:
    allowed = job.recipe.data.max_hole_fraction
    if report.holes and report.epoch_holes > allowed * job.num_clips:
        last = report.holes[-1]
        raise FeedError(
            f"{report.epoch_holes} of {job.num_clips} clips of an epoch could not be read, more than {allowed:.0%}; "
            f"the last, at position {last.position}: {last.reason}",
            hint=f"{last.repair}; data.max_hole_fraction sets the limit",
        )


def _progress(report: StepReport, total_steps: int) -> Progress:
    return Progress(
        stage="train",
        step=report.state.step,
        total_steps=total_steps,
        epoch=report.state.epoch,
        loss=report.loss,
        lr=report.lr,
        grad_norm=report.grad_norm,
        clips_per_s=report.clips_per_s,
        holes=report.epoch_holes,
    )
