"""The loop on hand-made batches: the mean over live samples, steps without any."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from k710.errors import UsageError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import DataConfig, OptimConfig, Recipe, RuntimeConfig
from uniformerv2.data.augment import AugmentConfig, normalise
from uniformerv2.data.feed import Batch, Hole, collate_train
from uniformerv2.models.stochastic import BatchNorm
from uniformerv2.training import engine
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.ema import Ema
from uniformerv2.training.engine import StepReport, train
from uniformerv2.training.job import Job
from uniformerv2.training.loss import loss_sum
from uniformerv2.training.metrics import silent
from uniformerv2.training.optim import make_optimizer
from uniformerv2.training.scaling import Guard
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


def run(
    model: UniFormerV2,
    batches: list[Batch],
    accumulation: int,
    precision: str = "fp32",
    *,
    carried: tuple[Guard, Ema] | None = None,
    augment: AugmentConfig | None = None,
    feed: Iterator[Batch] | None = None,
    **settings: float,
) -> list[StepReport]:
    steps = len(batches) // accumulation
    optim = OptimConfig(epochs=1, warmup_epochs=0, base_lr=1e-2, **settings)  # type: ignore[arg-type]
    guard, ema = carried if carried is not None else (Guard(scaled=precision == "fp16"), None)
    job = Job(
        model=model,
        guard=guard,
        ema=ema,
        optimizer=make_optimizer(model, optim),
        recipe=Recipe(
            about="",
            model=MODEL,
            optim=optim,
            augment=augment or AugmentConfig(),
            data=DataConfig(max_hole_fraction=1.0),
            runtime=RuntimeConfig(threads=1, precision=precision),  # type: ignore[arg-type]
        ),
        batches=batches if feed is None else feed,
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


def test_fp16_scales_the_loss_and_comes_close_to_fp32() -> None:
    batches = [batch_of(0, 1, 2, 3)] * 12
    exact = run(model_of(), batches, accumulation=1)
    rough = run(model_of(), batches, accumulation=1, precision="fp16", max_bad_steps=0)
    made = [report for report in rough if report.grad_norm is not None]
    assert rough[0].scale == 65536
    assert 0 < rough[-1].bad_steps == len(rough) - len(made)
    assert rough[-1].scale == 65536 * 0.5 ** rough[-1].bad_steps
    assert made[0].loss == pytest.approx(exact[0].loss, abs=0.02)
    assert made[0].grad_norm == pytest.approx(exact[0].grad_norm, rel=0.02)


def spoil(monkeypatch: pytest.MonkeyPatch, *calls: int, by: float) -> None:
    """Multiply the loss of the micro-batches with these numbers."""
    number = iter(range(100))

    def spoiled(logits_NK: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
        loss = loss_sum(logits_NK, targets, recipe)
        return loss * by if next(number) in calls else loss

    monkeypatch.setattr(engine, "loss_sum", spoiled)


@pytest.mark.parametrize("by", [math.nan, math.inf, 1e38])
def test_one_bad_micro_batch_takes_its_step_out_and_no_other(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    batches = [batch_of(0, 1), batch_of(2, 3), batch_of(1, 4), batch_of(0, 3)]
    model, twin = model_of(), model_of()
    run(twin, batches[2:], accumulation=2)
    spoil(monkeypatch, 1, by=by)
    reports = run(model, batches, accumulation=2)
    assert [(report.bad_steps, report.grad_norm is None) for report in reports] == [(1, True), (1, False)]
    assert int(batch_norm_of(model).num_batches_tracked) == 1
    assert torch.equal(batch_norm_of(model).running_mean, batch_norm_of(twin).running_mean)


def test_a_skipped_step_moves_neither_weights_nor_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = model_of(), model_of().state_dict()
    ema = Ema(model, 0.5)
    spoil(monkeypatch, 0, by=math.nan)
    (report,) = run(model, [batch_of(0, 1)], accumulation=1, carried=(Guard(), ema))
    assert (report.loss, report.grad_norm, report.bad_steps, report.state.step) == (None, None, 1, 1)
    for state in (model.state_dict(), ema.state):
        assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert float(batch_norm_of(model).pending.abs().sum()) == 0


def test_too_many_bad_steps_in_a_row_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 0, 2, 3, 4, by=math.nan)
    with pytest.raises(UsageError, match="the loss is nan at step 4, the last of 3 such steps in a row"):
        run(model_of(), [batch_of(0, 1)] * 6, accumulation=1, max_bad_steps=2)


def test_too_little_memory_in_a_step_names_a_smaller_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(UniFormerV2, "forward", too_large)
    with pytest.raises(UsageError, match="32 clips of 2 frames in one pass") as caught:
        run(model_of(), [batch_of(0, 1)], accumulation=1)
    assert "data.micro_batch=16" in caught.value.hint


def test_labels_are_smoothed() -> None:
    batch = batch_of(0, 1, 2)
    (report,) = run(model_of(), [batch], accumulation=1, label_smoothing=0.1)
    logits = model_of().train()(normalise(batch.clips))
    expected = F.cross_entropy(logits, batch.labels, label_smoothing=0.1).item()
    assert report.loss == pytest.approx(expected, abs=1e-6)
    assert report.accuracy == (logits.argmax(dim=1) == batch.labels).float().mean().item()


def test_mixed_samples_have_a_loss_and_no_accuracy_and_are_the_same_again() -> None:
    mixing, batches = AugmentConfig(mixup=0.8), [batch_of(0, 1, 2, 3)]
    losses = [run(model_of(), batches, accumulation=1, augment=mixing)[0] for _ in range(2)]
    (plain,) = run(model_of(), batches, accumulation=1)
    assert losses[0].loss == losses[1].loss != plain.loss
    assert (losses[0].accuracy, plain.accuracy is None) == (None, False)


def test_a_report_tells_where_the_time_went() -> None:
    def slowly() -> Iterator[Batch]:
        for _ in range(2):
            time.sleep(0.05)
            yield batch_of(0, 1)

    (report,) = run(model_of(), list(range(2)), accumulation=2, feed=slowly())  # type: ignore[arg-type]
    assert 0.1 <= report.data_wait_s < report.step_s
    assert 0 < report.compute_s <= report.step_s - report.data_wait_s
    assert report.memory_bytes > 0


def test_an_epoch_ends_with_its_last_whole_batch() -> None:
    middle = START.after_step(steps_per_epoch=2, holes=1)
    assert (middle.epoch, middle.samples_done, middle.step, middle.holes) == (0, 4, 1, 1)
    end = middle.after_step(steps_per_epoch=2, holes=0)
    assert end == replace(START, epoch=1, step=2)
