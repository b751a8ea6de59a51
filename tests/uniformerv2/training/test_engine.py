"""The loop on hand-made batches: the mean over live samples, steps without any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import DataConfig, OptimConfig, Recipe, RuntimeConfig
from uniformerv2.data.augment import normalise
from uniformerv2.data.feed import Batch, Hole, collate_train
from uniformerv2.models.stochastic import BatchNorm
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import Job, StepReport, train
from uniformerv2.training.metrics import silent
from uniformerv2.training.optim import make_optimizer
from uniformerv2.training.stopping import StopFlag

MODEL = UniFormerV2Config(
    image_size=16,
    width=8,
    layers=1,
    heads=1,
    num_frames=2,
    num_classes=5,
    global_layers=(0,),
    local_blocks=1,
    dropout=0,
)
START = RunState(view_digest="", data_digest="", window=0, taken_out_digest="", global_batch=4)


def model_of(seed: int = 0) -> UniFormerV2:
    torch.manual_seed(seed)
    return UniFormerV2(MODEL)


def batch_norm_of(model: UniFormerV2) -> BatchNorm:
    norm = model.transformer.resblocks[0].lmhra1.pos_embed[0]  # type: ignore[union-attr]
    assert isinstance(norm, BatchNorm)
    return norm


def batch_of(*labels: int, holes: int = 0) -> Batch:
    torch.manual_seed(sum(labels))
    places = torch.arange(len(labels))
    return Batch(
        clips=torch.randint(0, 256, (len(labels), 3, 2, 16, 16), dtype=torch.uint8),
        labels=torch.tensor(labels),
        positions=places,
        repeats=torch.zeros_like(places),
        holes=tuple(Hole(position=90 + i, reason="broken") for i in range(holes)),
    )


def run(model: UniFormerV2, batches: list[Batch], accumulation: int, precision: str = "fp32") -> list[StepReport]:
    steps = len(batches) // accumulation
    optim = OptimConfig(epochs=1, warmup_epochs=0, base_lr=1e-2)
    job = Job(
        model=model,
        optimizer=make_optimizer(model, optim),
        recipe=Recipe(
            about="",
            model=MODEL,
            optim=optim,
            data=DataConfig(max_hole_fraction=1.0),
            runtime=RuntimeConfig(threads=1, precision=precision),  # type: ignore[arg-type]
        ),
        batches=batches,
        accumulation=accumulation,
        steps_per_epoch=steps,
        num_clips=4 * steps,
        ranks=Ranks(device=torch.device("cpu")),
    )
    reports: list[StepReport] = []
    train(job, START, StopFlag(), reports.append, silent)
    return reports


def test_the_loss_is_the_mean_over_the_live_samples_of_all_micro_batches() -> None:
    batches = [batch_of(0, 1, 2), batch_of(3, holes=2)]
    model = model_of().train()
    sums = [F.cross_entropy(model(normalise(b.clips)), b.labels, reduction="sum").item() for b in batches]
    (report,) = run(model_of(), batches, accumulation=2)
    assert report.loss == pytest.approx(sum(sums) / 4, abs=1e-6)
    assert [h.position for h in report.holes] == [90, 91]


def test_a_micro_batch_without_live_samples_is_skipped() -> None:
    empty = collate_train([Hole(position=1, reason="x")])
    with_empty, without = model_of(), model_of()
    run(with_empty, [batch_of(0, 1), empty], accumulation=2)
    run(without, [batch_of(0, 1)], accumulation=1)
    assert all(
        torch.equal(a, b) for a, b in zip(with_empty.state_dict().values(), without.state_dict().values(), strict=True)
    )


def test_a_step_without_live_samples_changes_nothing() -> None:
    model, before = model_of(), model_of().state_dict()
    empty = collate_train([Hole(position=1, reason="x")])
    (report,) = run(model, [empty], accumulation=1)
    assert (report.loss, report.grad_norm, report.epoch_holes) == (None, None, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_norm_moves_once_a_step_by_the_mean_of_its_micro_batches() -> None:
    model = model_of()
    run(model, [batch_of(0, 1), batch_of(2, 3)], accumulation=2)
    norm = batch_norm_of(model)
    assert int(norm.num_batches_tracked) == 1
    alone = [model_of(), model_of()]
    for twin, batch in zip(alone, (batch_of(0, 1), batch_of(2, 3)), strict=True):
        twin.train()(normalise(batch.clips))
    for name in ("running_mean", "running_var"):
        mean = sum(getattr(batch_norm_of(twin), name) for twin in alone) / 2
        torch.testing.assert_close(getattr(norm, name), mean, atol=1e-6, rtol=0)


def test_the_gradient_is_that_of_the_mean_over_live_samples() -> None:
    (report,) = run(model_of(), [batch_of(0, 1, 2, holes=1)], accumulation=1)
    model, batch = model_of().train(), batch_of(0, 1, 2)
    F.cross_entropy(model(normalise(batch.clips)), batch.labels).backward()  # type: ignore[no-untyped-call]
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert report.grad_norm == pytest.approx(norm.item(), rel=1e-5)


def test_bf16_stays_close_to_fp32() -> None:
    (exact,) = run(model_of(), [batch_of(0, 1, 2, 3)], accumulation=1)
    (rough,) = run(model_of(), [batch_of(0, 1, 2, 3)], accumulation=1, precision="bf16")
    assert rough.loss == pytest.approx(exact.loss, abs=0.05)


def test_an_epoch_ends_with_its_last_whole_batch() -> None:
    middle = START.after_step(steps_per_epoch=2, holes=1)
    assert (middle.epoch, middle.samples_done, middle.step, middle.holes) == (0, 4, 1, 1)
    end = middle.after_step(steps_per_epoch=2, holes=0)
    assert end == replace(START, epoch=1, step=2)
