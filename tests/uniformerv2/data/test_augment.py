"""Crops, resizes and normalisation."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from uniformerv2.data import augment as module
from uniformerv2.data.augment import AugmentConfig, augment, normalise

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), dtype=np.uint8)
PLAIN = AugmentConfig(area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), flip=0.0)


@pytest.mark.parametrize("name", ["landscape", "portrait", "square", "same", "up"])
def test_spatial_test_views_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = load_file(shared / "golden/uniformerv2/spatial_test.safetensors")
    views = module.test_views(golden[f"{name}.input_thwc_uint8"].numpy(), 32, 3)
    for crop, view in enumerate(views):
        torch.testing.assert_close(view, golden[f"{name}.crop{crop}_cthw"], atol=1e-5, rtol=0)


def test_one_test_view_is_the_centre() -> None:
    assert torch.equal(module.test_views(FRAMES, 24, 1)[0], module.test_views(FRAMES, 24, 3)[1])


def test_a_clip_is_a_function_of_its_generator() -> None:
    config = AugmentConfig(brightness=0.2, contrast=0.2)
    first, again, other = (augment(FRAMES, config, 16, random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == ((3, 3, 16, 16), torch.uint8)


def test_all_frames_of_a_clip_get_the_same() -> None:
    still = np.repeat(FRAMES[:1], 3, axis=0)
    clip_CTHW = augment(still, AugmentConfig(brightness=0.3, contrast=0.3), 16, random.Random(5))
    assert torch.equal(clip_CTHW[:, 0], clip_CTHW[:, 1])
    assert torch.equal(clip_CTHW[:, 0], clip_CTHW[:, 2])


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
