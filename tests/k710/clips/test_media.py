"""Encode settings and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.clips.media import EncodeConfig, scaled_size


@given(width_px=st.integers(2, 8000), height_px=st.integers(2, 8000), short_side_px=st.sampled_from([16, 128, 256]))
def test_sizes_are_even_and_never_enlarged(width_px: int, height_px: int, short_side_px: int) -> None:
    size = scaled_size(width_px, height_px, short_side_px)
    assert all(side % 2 == 0 and side > 0 for side in size)
    assert size[0] <= width_px
    assert size[1] <= height_px
    assert min(size) in (short_side_px, min(width_px, height_px) // 2 * 2)


@given(width_px=st.integers(300, 4000), height_px=st.integers(300, 4000))
def test_scaling_keeps_the_shape(width_px: int, height_px: int) -> None:
    width, height = scaled_size(width_px, height_px, 256)
    assert width / height == pytest.approx(width_px / height_px, rel=0.01)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1920, 1080), (456, 256)), ((1080, 1920), (256, 456)), ((320, 240), (320, 240)), ((1, 1), (2, 2))],
)
def test_sizes_of_common_videos(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_size(*size, 256) == expected


def test_a_quality_that_x264_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="crf must be between 0 and 51, got 52"):
        EncodeConfig(crf=52)


def test_a_tiny_short_side_is_refused() -> None:
    with pytest.raises(ValueError, match="short_side_px must be at least 16, got 8"):
        EncodeConfig(short_side_px=8)
