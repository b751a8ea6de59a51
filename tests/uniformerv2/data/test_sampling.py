"""Frame indices and crop boxes."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.errors import FeedError
from uniformerv2.data import sampling
from uniformerv2.data.sampling import (
    dense_eval_indices,
    dense_train_indices,
    eval_indices,
    random_box,
    random_resized_crop,
    reorder,
    short_side_size,
    stream,
    train_indices,
)


def test_eval_indices_equal_the_published_ones(shared: Path) -> None:
    golden = json.loads((shared / "golden/uniformerv2/sampling.json").read_text())["kinetics_like_test"]
    for case in golden:
        for clip, expected in enumerate(case["indices_per_clip"]):
            assert eval_indices(case["video_len"], case["num_frames"], clip, case["num_clips"]) == expected


def test_train_indices_equal_the_published_ones_for_the_same_generator(shared: Path) -> None:
    golden = json.loads((shared / "golden/uniformerv2/sampling.json").read_text())["train_bounds"]
    for case in golden:
        picked = train_indices(case["video_len"], case["num_frames"], random.Random(0))
        assert picked == case["python_random_seed0_example"]


@given(num_source=st.integers(1, 3000), num_frames=st.integers(1, 128), num_clips=st.integers(1, 10))
def test_eval_indices_stay_inside_the_video_in_order(num_source: int, num_frames: int, num_clips: int) -> None:
    for clip in range(num_clips):
        picked = eval_indices(num_source, num_frames, clip, num_clips)
        assert len(picked) == num_frames
        assert picked == sorted(picked)
        assert picked[0] >= 0
        assert picked[-1] < num_source


@given(num_source=st.integers(1, 3000), num_frames=st.integers(1, 128), seed=st.integers(0, 2**32))
def test_train_indices_stay_inside_the_video_in_order(num_source: int, num_frames: int, seed: int) -> None:
    picked = train_indices(num_source, num_frames, random.Random(seed))
    assert picked == sorted(picked)
    assert len(picked) == num_frames
    assert picked[-1] < num_source


def is_window(picked: list[int], num_source: int, stride: int) -> bool:
    """Whether frames lie ``stride`` apart, and the last one of the video fills up what it lacks."""
    return picked == [min(picked[0] + stride * i, num_source - 1) for i in range(len(picked))]


@given(
    num_source=st.integers(1, 1000),
    num_frames=st.integers(1, 64),
    stride=st.integers(1, 16),
    num_clips=st.integers(1, 10),
    seed=st.integers(0, 2**32),
)
def test_dense_windows_stay_inside_the_video(
    num_source: int, num_frames: int, stride: int, num_clips: int, seed: int
) -> None:
    last = num_source - 1 - (num_frames - 1) * stride
    starts = []
    for clip in range(num_clips):
        picked = dense_eval_indices(num_source, num_frames, stride, clip, num_clips)
        assert is_window(picked, num_source, stride)
        starts.append(picked[0])
    picked = dense_train_indices(num_source, num_frames, stride, random.Random(seed))
    assert is_window(picked, num_source, stride)
    assert all(0 <= start <= max(0, last) for start in (*starts, picked[0]))
    assert len(picked) == num_frames
    assert starts == sorted(starts)
    if num_clips > 1:
        assert (starts[0], starts[-1]) == (0, max(0, last))
        gaps = [after - before for before, after in itertools.pairwise(starts)]
        assert max(gaps) - min(gaps) <= 2


def test_dense_test_clips_lie_from_the_start_to_the_end() -> None:
    windows = [dense_eval_indices(100, 4, 8, clip, 3) for clip in range(3)]
    assert windows == [[0, 8, 16, 24], [38, 46, 54, 62], [75, 83, 91, 99]]
    assert dense_eval_indices(100, 4, 8, 0, 1) == [37, 45, 53, 61]


def test_a_video_shorter_than_a_window_repeats_its_last_frame() -> None:
    assert dense_eval_indices(10, 5, 4, 1, 3) == [0, 4, 8, 9, 9]
    assert dense_train_indices(10, 5, 4, random.Random(0)) == [0, 4, 8, 9, 9]


def test_a_dense_training_window_can_begin_everywhere() -> None:
    rng = random.Random(0)
    assert {dense_train_indices(20, 4, 5, rng)[0] for _ in range(200)} == {0, 1, 2, 3, 4}


def test_an_empty_video_is_a_feed_error() -> None:
    for empty in (
        lambda: eval_indices(0, 8, 0, 1),
        lambda: dense_eval_indices(0, 8, 4, 0, 1),
        lambda: dense_train_indices(0, 8, 4, random.Random(0)),
    ):
        with pytest.raises(FeedError, match="no frames"):
            empty()


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    seed=st.integers(0, 2**32),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda a: (min(a), max(a))),
)
def test_a_random_crop_is_inside_the_picture(height: int, width: int, seed: int, area: tuple[float, float]) -> None:
    box = random_resized_crop(height, width, area=area, aspect=(3 / 4, 4 / 3), rng=random.Random(seed))
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def test_a_picture_too_thin_for_the_aspect_gets_a_centred_crop() -> None:
    box = random_resized_crop(10, 100, area=(0.9, 1.0), aspect=(3 / 4, 4 / 3), rng=random.Random(0))
    assert (box.top, box.left, box.height, box.width) == (0, 43, 10, 13)


def test_a_box_that_never_fits_is_none() -> None:
    assert random_box(10, 100, area=(0.9, 1.0), aspect=(3 / 4, 4 / 3), rng=random.Random(0)) is None
    assert random_box(10, 10, area=(1.0, 1.0), aspect=(1.0, 1.0), rng=random.Random(0)) is not None


def test_random_crops_have_the_published_areas_and_aspects() -> None:
    rng = random.Random(0)
    boxes = [random_resized_crop(1000, 1000, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), rng=rng) for _ in range(2000)]
    areas = [b.height * b.width / 1e6 for b in boxes]
    assert min(areas) > 0.079
    assert 0.45 < sum(areas) / len(areas) < 0.56
    assert all(0.74 < b.width / b.height < 1.34 for b in boxes)


def test_three_boxes_lie_along_the_long_side_with_the_centre_rounded_up() -> None:
    assert [(b.top, b.left) for b in sampling.test_boxes(32, 57, 32, 3)] == [(0, 0), (0, 13), (0, 25)]
    assert [(b.top, b.left) for b in sampling.test_boxes(57, 32, 32, 3)] == [(0, 0), (13, 0), (25, 0)]
    assert [(b.top, b.left) for b in sampling.test_boxes(32, 57, 32, 1)] == [(0, 13)]


def test_the_long_side_is_rounded_down() -> None:
    assert short_side_size(45, 80, 32) == (32, 56)
    assert short_side_size(70, 50, 32) == (44, 32)


def test_a_shuffle_is_a_function_of_the_key() -> None:
    indices = list(range(0, 80, 10))
    first = reorder(indices, "shuffled", "a_000000_000010")
    assert first == reorder(indices, "shuffled", "a_000000_000010")
    assert first != indices
    assert sorted(first) == indices
    assert reorder(indices, "reversed", "a") == indices[::-1]
    assert reorder(indices, "source", "a") == indices


def test_streams_of_different_names_differ_and_are_the_same_everywhere() -> None:
    assert stream("augment", 1, 23).random() != stream("augment", 12, 3).random()
    assert stream("augment", 0, 0, 0, 0).randrange(1 << 32) == 2470371554
