"""Crops, resizes and normalisation."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pictures import waves
from safetensors.torch import load_file

from uniformerv2.data import augment as module
from uniformerv2.data.augment import AugmentConfig, all_test_views, augment, normalise
from uniformerv2.data.randaugment.policy import draw, parse_policy
from uniformerv2.data.randaugment.published import apply_published
from uniformerv2.data.sampling import random_resized_crop

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), dtype=np.uint8)
PLAIN = AugmentConfig(area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), flip=0.0)
POLICY = "rand-m7-n4-mstd0.5-inc1"


@pytest.mark.parametrize("name", ["landscape", "portrait", "square", "same", "up"])
def test_spatial_test_views_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = load_file(shared / "golden/uniformerv2/spatial_test.safetensors")
    views = module.test_views(golden[f"{name}.input_thwc_uint8"].numpy(), 32, 3)
    for crop, view in enumerate(views):
        torch.testing.assert_close(view, golden[f"{name}.crop{crop}_cthw"], atol=1e-5, rtol=0)


def test_one_test_view_is_the_centre() -> None:
    assert torch.equal(module.test_views(FRAMES, 24, 1)[0], module.test_views(FRAMES, 24, 3)[1])


def test_the_views_of_several_test_clips_are_those_of_each() -> None:
    frames = np.concatenate([FRAMES, 255 - FRAMES])
    expected = torch.cat([module.test_views(FRAMES, 24, 3), module.test_views(255 - FRAMES, 24, 3)])
    assert torch.equal(all_test_views(frames, 24, num_clips=2, num_crops=3), expected)


EVERYTHING = AugmentConfig(brightness=0.2, contrast=0.2, randaugment=POLICY, erase=1.0)


@pytest.mark.parametrize(
    "config",
    [AugmentConfig(brightness=0.2, contrast=0.2), EVERYTHING, replace(EVERYTHING, randaugment_mode="published")],
    ids=["plain", "fast", "published"],
)
def test_a_clip_is_a_function_of_its_generator(config: AugmentConfig) -> None:
    first, again, other = (augment(FRAMES, config, 16, random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == ((3, 3, 16, 16), torch.uint8)


@pytest.mark.parametrize("mode", ["fast", "published"])
def test_all_frames_of_a_clip_get_the_same(mode: str) -> None:
    still = np.repeat(FRAMES[:1], 3, axis=0)
    config = replace(EVERYTHING, randaugment_mode=mode, erase_mode="mean")
    for seed in range(30):
        clip_CTHW = augment(still, config, 16, random.Random(seed))
        assert torch.equal(clip_CTHW[:, 0], clip_CTHW[:, 1])
        assert torch.equal(clip_CTHW[:, 0], clip_CTHW[:, 2])


def test_options_that_are_off_draw_nothing() -> None:
    config, rng, by_hand = AugmentConfig(brightness=0.2), random.Random(7), random.Random(7)
    augment(FRAMES, config, 16, rng)
    random_resized_crop(30, 40, area=config.area, aspect=config.aspect, rng=by_hand)
    assert [by_hand.random() for _ in range(3)]  # flip, brightness, contrast
    assert rng.random() == by_hand.random()


def test_published_randaugment_comes_before_all_else() -> None:
    for seed in range(10):
        rng = random.Random(seed)
        frames = apply_published(FRAMES, draw(parse_policy(POLICY), rng))
        expected = augment(frames, AugmentConfig(), 16, rng)
        config = AugmentConfig(randaugment=POLICY, randaugment_mode="published")
        assert torch.equal(augment(FRAMES, config, 16, random.Random(seed)), expected)


def test_both_modes_draw_the_same() -> None:
    frames, close, moved = waves(60, 80)[None], 0, 0
    for seed in range(60):
        fast_rng, published_rng = random.Random(seed), random.Random(seed)
        fast = augment(frames, AugmentConfig(randaugment=POLICY), 48, fast_rng)
        slow = AugmentConfig(randaugment=POLICY, randaugment_mode="published")
        published = augment(frames, slow, 48, published_rng)
        assert fast_rng.random() == published_rng.random()
        close += int((fast.int() - published.int()).abs().float().mean() < 3)
        moved += int((fast.int() - augment(frames, AugmentConfig(), 48, random.Random(seed)).int()).abs().max() > 3)
    # Apart where a table depends on the picture's statistics, or where colours changed before the fill came in.
    assert close > 30
    assert moved > 50


def test_a_randaugment_that_draws_nothing_leaves_the_clip_bit_for_bit() -> None:
    policy = parse_policy(POLICY)
    seed = next(seed for seed in range(100) if not draw(policy, random.Random(seed)))
    rng = random.Random(seed)
    draw(policy, rng)
    expected = augment(FRAMES, AugmentConfig(), 16, rng)
    assert torch.equal(augment(FRAMES, AugmentConfig(randaugment=POLICY), 16, random.Random(seed)), expected)


def test_colour_operations_alone_keep_the_exact_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    inverted = [module.Operation(name="invert")]
    monkeypatch.setattr(module, "draw", lambda policy, rng: inverted)
    for flip in (0.0, 1.0):
        plain = augment(FRAMES, AugmentConfig(flip=flip), 16, random.Random(2))
        config = AugmentConfig(flip=flip, randaugment=POLICY)
        assert torch.equal(augment(FRAMES, config, 16, random.Random(2)), 255 - plain)


def test_a_box_is_erased_as_often_as_asked_for() -> None:
    white = np.full((2, 30, 40, 3), 255, np.uint8)

    def erased(seed: int, probability: float) -> bool:
        config = AugmentConfig(erase=probability, erase_mode="mean", erase_area=(0.2, 0.3))
        return bool((augment(white, config, 16, random.Random(seed)) == 115).any())

    assert not any(erased(seed, 0.0) for seed in range(20))
    assert all(erased(seed, 1.0) for seed in range(20))
    assert 30 < sum(erased(seed, 0.25) for seed in range(200)) < 75


def test_opencv_works_on_the_thread_that_asks() -> None:
    cv2.setNumThreads(4)
    augment(FRAMES, EVERYTHING, 16, random.Random(0))
    assert cv2.getNumThreads() == 1


def test_the_frames_that_are_given_do_not_change() -> None:
    before = FRAMES.copy()
    for seed in range(20):
        augment(FRAMES, EVERYTHING, 16, random.Random(seed))
    assert np.array_equal(FRAMES, before)


def test_the_resize_is_bilinear_without_antialias() -> None:
    clip_CTHW = augment(FRAMES, PLAIN, 20, random.Random(0))
    pixels = torch.from_numpy(FRAMES).permute(0, 3, 1, 2).float()
    exact = torch.nn.functional.interpolate(pixels, (20, 20), mode="bilinear", align_corners=False)
    assert (clip_CTHW.permute(1, 0, 2, 3).float() - exact).abs().max() <= 1.0


def test_a_flip_mirrors_left_and_right() -> None:
    plain = augment(FRAMES, PLAIN, 20, random.Random(0))
    flipped = augment(FRAMES, replace(PLAIN, flip=1.0), 20, random.Random(0))
    assert torch.equal(flipped, plain.flip(3))


def test_normalised_pixels_have_the_published_mean_and_deviation() -> None:
    pixels = torch.tensor([114.75, 114.75 + 57.375])
    torch.testing.assert_close(normalise(pixels), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


def test_impossible_ranges_are_refused_with_their_value() -> None:
    with pytest.raises(ValueError, match=r"area .* got \(0\.5, 0\.2\)"):
        AugmentConfig(area=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"flip .* got 2"):
        AugmentConfig(flip=2.0)
    with pytest.raises(ValueError, match=r"randaugment must look like rand-m7-n4-mstd0\.5-inc1, got 'rand'"):
        AugmentConfig(randaugment="rand")
    with pytest.raises(ValueError, match=r"erase_area must be two ascending shares .* got \(0, 1\)"):
        AugmentConfig(erase_area=(0, 1))
    with pytest.raises(ValueError, match=r"erase_aspect .* got \(3, 1\)"):
        AugmentConfig(erase_aspect=(3, 1))
    for name in ("erase", "mix_probability", "mix_switch"):
        with pytest.raises(ValueError, match=rf"{name} must be between 0 and 1, got 1\.5"):
            AugmentConfig(**{name: 1.5})
    for name in ("mixup", "cutmix"):
        with pytest.raises(ValueError, match=rf"{name} must be at least 0, got -1"):
            AugmentConfig(**{name: -1.0})
