"""Batch norm is torch's, except that running statistics can wait for the end of a step."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uniformerv2.models.stochastic import (
    BatchNorm,
    commit_batch_norm,
    defer_batch_norm,
    num_pending_batches,
    pending_batch_norm,
    recompute_contexts,
)


def test_by_default_it_is_torch_batch_norm() -> None:
    ours, torchs = BatchNorm(6), nn.BatchNorm3d(6)
    torchs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = sample()
        torch.testing.assert_close(ours(x), channel_last(torchs(channel_first(x))))
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for key, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    x = sample()
    torch.testing.assert_close(ours.eval()(x), channel_last(torchs.eval()(channel_first(x))))


def test_two_deferred_micro_batches_move_the_statistics_by_their_average() -> None:
    model = nn.Sequential(BatchNorm(6), nn.Linear(6, 4), BatchNorm(4))
    defer_batch_norm(model)
    micro_batches = [sample(), sample()]
    for x in micro_batches:
        model(x)
    first: BatchNorm = model[0]  # type: ignore[assignment]
    assert first.running_mean.eq(0).all()
    assert first.num_batches_tracked == 0
    pending = pending_batch_norm(model)
    assert pending is not None
    assert pending.shape == (2 * (6 + 4),)
    assert num_pending_batches(model) == 2
    commit_batch_norm(model, pending / 2)
    means = torch.stack([x.flatten(0, -2).mean(0) for x in micro_batches])
    variances = torch.stack([x.flatten(0, -2).var(0) for x in micro_batches])
    torch.testing.assert_close(first.running_mean, 0.1 * means.mean(0))
    torch.testing.assert_close(first.running_var, 0.9 + 0.1 * variances.mean(0))
    assert [m.num_batches_tracked.item() for m in (model[0], model[2])] == [1, 1]  # type: ignore[operator]
    assert num_pending_batches(model) == 0


def test_a_deferred_step_of_one_micro_batch_is_a_plain_step() -> None:
    plain, deferred = BatchNorm(6), BatchNorm(6)
    defer_batch_norm(deferred)
    x = sample()
    assert torch.equal(plain(x), deferred(x))
    pending = pending_batch_norm(deferred)
    assert pending is not None
    commit_batch_norm(deferred, pending)
    for key, value in plain.state_dict().items():
        assert torch.equal(deferred.state_dict()[key], value), key


def test_nothing_pending_is_zeros_and_no_batch_norm_is_none() -> None:
    norm = BatchNorm(6)
    pending = pending_batch_norm(norm)
    assert pending is not None
    assert torch.equal(pending, torch.zeros(12))
    assert num_pending_batches(norm) == 0
    assert pending_batch_norm(nn.Linear(2, 2)) is None
    assert num_pending_batches(nn.Linear(2, 2)) == 0


def test_eval_mode_leaves_nothing_pending() -> None:
    norm = BatchNorm(6).eval()
    defer_batch_norm(norm)
    norm(sample())
    assert num_pending_batches(norm) == 0


@pytest.mark.parametrize("deferred", [False, True])
def test_recomputation_counts_once(deferred: bool) -> None:
    norm = BatchNorm(6)
    defer_batch_norm(norm, deferred)
    y = checkpoint(norm, sample().requires_grad_(), use_reentrant=False, context_fn=partial(recompute_contexts, norm))
    y.square().sum().backward()
    assert num_pending_batches(norm) + int(norm.num_batches_tracked) == 1


def test_statistics_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 12 batch statistics, got shape \(8,\)"):
        commit_batch_norm(BatchNorm(6), torch.zeros(8))


def sample() -> Tensor:
    return 3 * torch.randn(2, 3, 5, 6) + 1


def channel_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)[..., None]


def channel_last(x: Tensor) -> Tensor:
    return x[..., 0].permute(0, 2, 3, 1)
