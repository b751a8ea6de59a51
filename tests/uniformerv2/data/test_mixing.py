"""Mixup, cutmix and the targets that belong to them."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from uniformerv2.data import mixing
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.mixing import cut_in, cutmix_box, mix, mixes, smoothed
from uniformerv2.data.sampling import Box

CLIPS = torch.arange(4 * 3 * 2 * 6 * 8, dtype=torch.float32).reshape(4, 3, 2, 6, 8)
LABELS = torch.tensor([2, 0, 4, 4])
MIXUP, CUTMIX = AugmentConfig(mixup=0.8), AugmentConfig(cutmix=1.0)
BOTH = AugmentConfig(mixup=0.8, cutmix=1.0)


def mixed(config: AugmentConfig, seed: int, clips: Tensor = CLIPS, smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    labels = LABELS[: len(clips)]
    return mix(clips, labels, config=config, num_classes=5, smoothing=smoothing, rng=random.Random(seed))


def kept_of(targets_NK: Tensor) -> float:
    """The share of itself that clip 0 has: its class is 2, and that of its partner 4."""
    return float(targets_NK[0, 2] / (targets_NK[0, 2] + targets_NK[0, 4]))


@given(
    seed=st.integers(0, 2**32),
    num=st.integers(1, 4),
    smoothing=st.floats(0, 0.9),
    alphas=st.tuples(st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 0.2, 1.0])),
    probability=st.floats(0, 1),
)
@settings(deadline=None)
def test_targets_are_shares_that_sum_to_one(
    seed: int, num: int, smoothing: float, alphas: tuple[float, float], probability: float
) -> None:
    config = AugmentConfig(mixup=alphas[0], cutmix=alphas[1], mix_probability=probability)
    clips, targets = mixed(config, seed, CLIPS[:num], smoothing)
    assert clips.shape == CLIPS[:num].shape
    assert (targets.shape, targets.dtype) == ((num, 5), torch.float32)
    assert bool((targets >= 0).all())
    torch.testing.assert_close(targets.sum(1), torch.ones(num))


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_a_batch_is_a_function_of_its_generator_and_is_left_alone(config: AugmentConfig) -> None:
    before = CLIPS.clone()
    first, again = mixed(config, 3), mixed(config, 3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert len({kept_of(mixed(config, seed)[1]) for seed in range(20)}) > 5
    assert torch.equal(CLIPS, before)


@given(seed=st.integers(0, 2**32))
def test_mixup_is_the_weighted_sum_with_the_batch_in_reverse(seed: int) -> None:
    clips, targets = mixed(MIXUP, seed, smoothing=0.0)
    kept = kept_of(targets)
    torch.testing.assert_close(clips, kept * CLIPS + (1 - kept) * CLIPS.flip(0), atol=1e-3, rtol=1e-5)
    one_hot = F.one_hot(LABELS, 5).float()
    torch.testing.assert_close(targets, kept * one_hot + (1 - kept) * one_hot.flip(0))


@given(seed=st.integers(0, 2**32))
def test_cutmix_keeps_the_share_of_pixels_that_the_targets_say(seed: int) -> None:
    clips, targets = mixed(CUTMIX, seed, smoothing=0.0)
    own, other = clips == CLIPS, clips == CLIPS.flip(0)
    assert bool((own ^ other).all())
    assert bool((own == own[:1, :1, :1]).all())  # the same box in all clips, channels and frames
    assert own[0].float().mean().item() == pytest.approx(kept_of(targets))


def test_a_clip_that_keeps_all_of_itself_stays_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.Random, "betavariate", lambda *_: 1.0)
    for config in (MIXUP, CUTMIX):
        clips, targets = mixed(config, 0)
        assert torch.equal(clips, CLIPS)
        assert torch.equal(targets, smoothed(LABELS, 5, 0.1))


def test_a_clip_that_keeps_nothing_becomes_its_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.Random, "betavariate", lambda *_: 0.0)
    clips, targets = mixed(MIXUP, 0)
    assert torch.equal(clips, CLIPS.flip(0))
    assert torch.equal(targets, smoothed(LABELS.flip(0), 5, 0.1))


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_a_single_clip_stays(config: AugmentConfig) -> None:
    clips, targets = mixed(config, 0, CLIPS[:1])
    assert torch.equal(clips, CLIPS[:1])
    assert torch.equal(targets, smoothed(LABELS[:1], 5, 0.1))


def test_the_middle_clip_of_an_odd_batch_stays() -> None:
    clips, targets = mixed(MIXUP, 0, CLIPS[:3])
    assert torch.equal(clips[1], CLIPS[1])
    assert torch.equal(targets[1], smoothed(LABELS[1:2], 5, 0.1)[0])
    assert not torch.equal(clips[0], CLIPS[0])


def test_batches_are_mixed_with_the_probability_asked_for() -> None:
    config = AugmentConfig(mixup=1.0, mix_probability=0.25)
    changed = sum(not torch.equal(mixed(config, seed)[0], CLIPS) for seed in range(400))
    assert 70 < changed < 130


def test_the_switch_is_the_probability_of_cutmix() -> None:
    def cut(seed: int, switch: float) -> bool:
        clips = mixed(AugmentConfig(mixup=1.0, cutmix=1.0, mix_switch=switch), seed)[0]
        return bool(((clips == CLIPS) | (clips == CLIPS.flip(0))).all())

    assert not any(cut(seed, 0.0) for seed in range(50))
    assert all(cut(seed, 1.0) for seed in range(50))
    assert 15 < sum(cut(seed, 0.3) for seed in range(100)) < 45


def test_smoothed_labels_give_the_loss_of_label_smoothing() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    ours = F.cross_entropy(logits, smoothed(LABELS, 5, 0.2))
    torch.testing.assert_close(ours, F.cross_entropy(logits, LABELS, label_smoothing=0.2))


@given(height=st.integers(1, 300), width=st.integers(1, 300), kept=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_a_cutmix_box_is_inside_the_picture_and_not_larger_than_asked_for(
    height: int, width: int, kept: float, seed: int
) -> None:
    box = cutmix_box(height, width, kept, random.Random(seed))
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height * box.width <= (1 - kept) * height * width + 1e-6


def test_a_cut_takes_the_box_and_counts_it() -> None:
    clips, kept = cut_in(CLIPS, Box(top=1, left=2, height=3, width=4))
    assert kept == 1 - 12 / 48
    assert torch.equal(clips[..., 1:4, 2:6], CLIPS.flip(0)[..., 1:4, 2:6])
    assert torch.equal(clips[..., 0, :], CLIPS[..., 0, :])


def test_half_precision_stays_half_precision() -> None:
    for config in (MIXUP, CUTMIX):
        assert mixed(config, 1, CLIPS.to(torch.bfloat16))[0].dtype == torch.bfloat16


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert not mixes(AugmentConfig())
    assert not mixes(AugmentConfig(mixup=1.0, mix_probability=0.0))
    assert mixes(MIXUP)
    assert mixes(CUTMIX)
    clips, targets = mixing.mix(
        CLIPS, LABELS, config=AugmentConfig(), num_classes=5, smoothing=0.0, rng=random.Random(0)
    )
    assert torch.equal(clips, CLIPS)
    assert torch.equal(targets, F.one_hot(LABELS, 5).float())
