"""The training loop: read top to bottom. Axes: N samples, C channel, T frame, H height, W width, K classes.

Everything random is a function of (seed, epoch, position, repeat) or (seed, step, site, position, repeat), and all that
is carried from step to step is in the model, the optimiser, the guard, the running average and ``RunState``. So a run
that was interrupted equals a whole one bit for bit, and ranks take the place of accumulation without a change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from k710.errors import FeedError
from uniformerv2.data.augment import normalise
from uniformerv2.data.feed import Batch, Hole
from uniformerv2.models.stochastic import defer_batch_norm, recompute_contexts
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.job import Job, Tally
from uniformerv2.training.loss import loss_sum, mixed, num_correct
from uniformerv2.training.memory import enough_memory, peak_memory_bytes
from uniformerv2.training.metrics import OnProgress, Progress
from uniformerv2.training.optim import set_learning_rate
from uniformerv2.training.scaling import dtype_of
from uniformerv2.training.schedule import learning_rate
from uniformerv2.training.sharded import sum_gradients_now
from uniformerv2.training.stopping import StopFlag
from uniformerv2.training.update import sum_over_ranks, update


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step did, the same on every rank but for times and memory, which are this rank's."""

    state: RunState
    """After the step."""
    loss: float | None
    """Mean cross entropy of the live samples; None: there was none, or it was not finite."""
    lr: float
    """Learning rate used."""
    grad_norm: float | None
    """Before clipping; None: there was no gradient, or it was not finite."""
    clips_per_s: float
    """Clips of the global batch over the time of the step."""
    holes: tuple[Hole, ...]
    """Clips that failed at read time, over all ranks."""
    epoch_holes: int
    """Clips of the epoch that failed so far, these included."""
    stop: bool
    """Some rank was asked to stop."""
    accuracy: float | None = None
    """Share of the live samples whose class has the highest logit; None: there was none, or samples are mixed."""
    data_wait_s: float = 0.0
    """Time spent waiting for micro-batches."""
    compute_s: float = 0.0
    """Time in forward, backward, sums over ranks and optimiser."""
    step_s: float = 0.0
    """Time of the step, without what is written after it."""
    memory_bytes: int = 0
    """The most memory that was taken so far: allocated on an accelerator, resident on a CPU."""
    bad_steps: int = 0
    """Steps of the run that were skipped because loss or gradient was not finite."""
    scale: float | None = None
    """What the loss was multiplied by in the backward pass; None: fp16 is not used."""


def train(
    job: Job, state: RunState, stop: StopFlag, after_step: Callable[[StepReport], None], on_progress: OnProgress
) -> RunState:
    """Train from ``state`` to the end of the run; ``after_step`` may save, and end the run by raising.

    Raises:
        UsageError: too many steps in a row are not finite; the weights are then as they were before them. Or memory
            is too small for the micro-batch.
        FeedError: more clips of an epoch failed at read time than the recipe allows.
    """
    recipe = job.recipe
    total_steps = state.step + (recipe.optim.epochs - state.epoch) * job.steps_per_epoch - state.step_in_epoch
    defer_batch_norm(job.model)
    job.model.train()
    batches = iter(job.batches)
    with cpu_threads(recipe.runtime.threads):
        while state.epoch < recipe.optim.epochs:
            report = _step(job, batches, state, stop)
            _require_few_holes(job, report)
            state = report.state
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


def _step(job: Job, batches: Iterator[Batch], state: RunState, stop: StopFlag) -> StepReport:
    recipe, began = job.recipe, time.perf_counter()
    lr = learning_rate(recipe.optim, state.epoch + state.step_in_epoch / job.steps_per_epoch)
    set_learning_rate(job.optimizer, lr)
    job.optimizer.zero_grad(set_to_none=True)
    scale = job.guard.scale
    with enough_memory(recipe, accumulation=job.accumulation, world=job.ranks.world):
        tally = _accumulate(job, batches, state.step)
        facts, statistics = sum_over_ranks(job, tally, stop.asked)
        grad_norm = update(job, facts, statistics, state.step)
    compute_s = time.perf_counter() - began - tally.data_wait_s
    holes = _all_holes(job.ranks, tally) if facts.holes else ()
    step_s = time.perf_counter() - began
    return StepReport(
        state=state.after_step(job.steps_per_epoch, facts.holes),
        loss=_finite(facts.loss),
        lr=lr,
        grad_norm=_finite(grad_norm),
        clips_per_s=state.global_batch / step_s,
        holes=holes,
        epoch_holes=state.holes + facts.holes,
        stop=facts.stop,
        accuracy=facts.correct / facts.live if facts.live and math.isfinite(facts.correct) else None,
        data_wait_s=tally.data_wait_s,
        compute_s=compute_s,
        step_s=step_s,
        memory_bytes=peak_memory_bytes(job.ranks.device),
        bad_steps=job.guard.bad_steps,
        scale=scale,
    )


def _accumulate(job: Job, batches: Iterator[Batch], step: int) -> Tally:
    """Gradients of the summed loss over this rank's micro-batches of a step; one without live samples is skipped."""
    device = job.ranks.device
    tally = Tally(
        loss_sum=torch.zeros((), dtype=torch.float64, device=device),
        correct=torch.zeros((), dtype=torch.float64, device=device),
    )
    for number in range(job.accumulation):
        waiting = time.perf_counter()
        batch = next(batches)
        tally.data_wait_s += time.perf_counter() - waiting
        tally.holes += batch.holes
        if job.sharded:
            sum_gradients_now(job.model, number + 1 == job.accumulation)
        if len(batch):
            loss, correct = _forward(job, batch, step)
            (loss if job.guard.scale is None else loss * job.guard.scale).backward()  # type: ignore[no-untyped-call]
            tally.loss_sum += loss.detach()
            tally.correct += correct
            tally.live += len(batch)
        elif job.sharded:
            _take_part(job, step)
    return tally


def _forward(job: Job, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Loss summed over the samples, and how many of them are right."""
    device = job.ranks.device
    positions_N, repeats_N = batch.positions.to(device), batch.repeats.to(device)
    job.model.randomness.begin(job.recipe.seed, step, positions_N, repeats_N)
    labels_N = batch.labels.to(device, non_blocking=True)
    if job.features is not None:
        # Nothing is mixed then.
        with _autocast(job):
            logits_NK = job.model.classify(job.features.of(batch)).float()
        return loss_sum(logits_NK, labels_N, job.recipe), num_correct(logits_NK, labels_N)
    clip_NCTHW = normalise(batch.clips.to(device, non_blocking=True))
    clip_NCTHW, targets = mixed(clip_NCTHW, labels_N, batch, job.recipe, step)
    logits_NK = _logits(job, clip_NCTHW)
    return loss_sum(logits_NK, targets, job.recipe), num_correct(logits_NK, targets)


def _logits(job: Job, clip_NCTHW: Tensor) -> Tensor:
    with _autocast(job):
        logits_NK: Tensor = job.model(clip_NCTHW)
    return logits_NK.float()


def _autocast(job: Job) -> torch.autocast:
    dtype = dtype_of(job.recipe.runtime.precision, job.ranks.device)
    return torch.autocast(job.ranks.device.type, dtype, enabled=dtype != torch.float32)


def _take_part(job: Job, step: int) -> None:
    """The passes of a micro-batch that has no samples: other ranks gather this one's weights, and send theirs."""
    nothing_N = torch.zeros(1, dtype=torch.int64, device=job.ranks.device)
    job.model.randomness.begin(job.recipe.seed, step, nothing_N, nothing_N)
    config = job.recipe.model
    clip_NCTHW = torch.zeros(1, 3, config.num_frames, *config.frame_size, device=job.ranks.device)
    with recompute_contexts(job.model)[1]:  # its batch statistics are none
        (_logits(job, clip_NCTHW).sum() * 0).backward()  # type: ignore[no-untyped-call]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _all_holes(ranks: Ranks, tally: Tally) -> tuple[Hole, ...]:
    return tuple(hole for holes in ranks.gather(tally.holes) for hole in holes)


def _require_few_holes(job: Job, report: StepReport) -> None:
    allowed = job.recipe.data.max_hole_fraction
    if report.holes and report.epoch_holes > allowed * job.num_clips:
        last = report.holes[-1]
        raise FeedError(
            f"{report.epoch_holes} of {job.num_clips} clips of an epoch could not be read, more than {allowed:.0%}; "
            f"the last, {last.place}: {last.reason}",
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
