"""The fast RandAugment: one look-up for all that moves pixels, tables for colours, against the published one."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import look_up, noise, waves

from uniformerv2.data.randaugment.colour import ADAPTIVE, STATIC, recolour
from uniformerv2.data.randaugment.geometry import GEOMETRIC, moves, planes, warp
from uniformerv2.data.randaugment.policy import OPERATIONS, Operation
from uniformerv2.data.randaugment.published import apply_published
from uniformerv2.data.sampling import Box

COLOURS = sorted(set(OPERATIONS) - GEOMETRIC)
HEIGHT, WIDTH, SIZE = 60, 80, 48
WHOLE = Box(top=0, left=0, height=HEIGHT, width=WIDTH)
PART = Box(top=9, left=17, height=40, width=50)

operations_st = st.lists(
    st.builds(
        lambda name, magnitude, sign: Operation(name=name, amount=float(OPERATIONS[name](magnitude, sign))),
        st.sampled_from(COLOURS),
        st.floats(0, 10),
        st.sampled_from([1, -1]),
    ),
    max_size=5,
)


def operation(name: str, magnitude: float = 7.3, sign: int = 1) -> Operation:
    return Operation(name=name, amount=float(OPERATIONS[name](magnitude, sign)))


def recoloured(frames_THWC: npt.NDArray[np.uint8], operations: Sequence[Operation]) -> npt.NDArray[np.uint8]:
    return recolour(planes(frames_THWC), operations).transpose(1, 2, 3, 0)


def two_frames() -> npt.NDArray[np.uint8]:
    return np.stack([noise(40, 50, 1), waves(40, 50)])


def test_every_operation_moves_pixels_or_changes_colours() -> None:
    assert GEOMETRIC | STATIC | ADAPTIVE | {"color", "sharpness"} == set(OPERATIONS)
    assert moves([operation("invert"), operation("rotate")])
    assert not moves([operation(name) for name in COLOURS])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_operation_equals_the_published_one_up_to_rounding(name: str, sign: int) -> None:
    frames = two_frames()
    found, expected = (f(frames, [operation(name, sign=sign)]) for f in (recoloured, apply_published))
    assert np.abs(found.astype(int) - expected).max() <= (1 if name in ("color", "contrast", "sharpness") else 0)


@given(operations=operations_st)
@settings(max_examples=30, deadline=None)
def test_merged_tables_equal_one_table_after_the_other(operations: list[Operation]) -> None:
    frames = two_frames()
    one_by_one = frames
    for each in operations:
        one_by_one = recoloured(one_by_one, [each])
    assert np.array_equal(recoloured(frames, operations), one_by_one)


@given(operations=operations_st)
@settings(max_examples=15, deadline=None)
def test_a_frame_comes_out_the_same_whatever_frames_stand_beside_it(operations: list[Operation]) -> None:
    frames = two_frames()
    both = recoloured(frames, operations)
    assert np.array_equal(both[:1], recoloured(frames[:1], operations))
    assert np.array_equal(both[1:], recoloured(frames[1:], operations))


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "contrast", "sharpness"])
def test_a_picture_of_one_colour_stays(name: str) -> None:
    frames = np.full((1, 12, 10, 3), 90, np.uint8)
    assert np.array_equal(recoloured(frames, [operation(name)]), frames)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("box", [WHOLE, PART])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_a_move_equals_the_published_one_before_the_crop(name: str, sign: int, box: Box, mirrored: bool) -> None:
    frames = waves(HEIGHT, WIDTH)[None]
    found = warp(frames, [operation(name, sign=sign)], box, SIZE, mirrored=mirrored)
    expected = cropped(apply_published(frames, [operation(name, sign=sign)])[0], box)
    expected = expected[:, ::-1] if mirrored else expected
    difference = np.abs(found[:, 0].transpose(1, 2, 0) - expected)
    assert difference.mean() < 1.2  # PIL cuts off where the definition rounds
    # The fill begins half a pixel earlier or later: nothing but that line may differ.
    assert (difference > 4).mean() < 0.05


def cropped(picture: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.float64]:
    """Crop and bilinear resize by definition."""
    part = picture[box.top : box.top + box.height, box.left : box.left + box.width].astype(np.float64)
    rows, columns = box.height / SIZE, box.width / SIZE
    return look_up(part, lambda x, y: (x * columns, y * rows), False, (SIZE, SIZE))


@pytest.mark.parametrize("order", [("rotate", "translate_y"), ("translate_y", "rotate")])
def test_moves_are_merged_in_their_order(order: Sequence[str]) -> None:
    frames, operations = waves(HEIGHT, WIDTH)[None], [operation(name, 5) for name in order]
    found = warp(frames, operations, PART, SIZE, mirrored=False)[:, 0].transpose(1, 2, 0)
    expected = cropped(apply_published(frames, operations)[0], PART)
    middle = np.s_[12:36, 12:36]
    assert np.abs(found[middle] - expected[middle]).max() <= 4
    backwards = warp(frames, operations[::-1], PART, SIZE, mirrored=False)[:, 0].transpose(1, 2, 0)
    assert np.abs(found[middle].astype(int) - backwards[middle]).max() > 12


@given(seed=st.integers(0, 2**32), sign=st.sampled_from([1, -1]), name=st.sampled_from(sorted(GEOMETRIC)))
@settings(max_examples=30, deadline=None)
def test_a_warp_is_one_bilinear_look_up_in_the_whole_frame(seed: int, sign: int, name: str) -> None:
    rng = random.Random(seed)
    picture = waves(HEIGHT, WIDTH)
    height, width = rng.randint(1, HEIGHT), rng.randint(1, WIDTH)
    box = Box(top=rng.randint(0, HEIGHT - height), left=rng.randint(0, WIDTH - width), height=height, width=width)
    # There and back again: whatever part of the frame was looked at, the place is the one without any move.
    there = operation(name, rng.uniform(0, 10), sign)
    back = Operation(name=there.name, amount=-there.amount)
    found = warp(picture[None], [there, back], box, SIZE, mirrored=False)[:, 0].transpose(1, 2, 0)
    framed = np.pad(picture.astype(np.float64), ((2, 2), (2, 2), (0, 0)), constant_values=128)
    rows, columns = height / SIZE, width / SIZE
    expected = look_up(framed, lambda x, y: (x * columns + box.left + 2, y * rows + box.top + 2), False, (SIZE, SIZE))
    assert np.abs(found - expected).max() <= 1.5


def test_what_a_move_brings_in_from_outside_is_grey() -> None:
    frames = np.full((2, HEIGHT, WIDTH, 3), 250, np.uint8)
    clip_CTHW = warp(frames, [Operation(name="translate_x", amount=-0.5)], WHOLE, SIZE, mirrored=False)
    assert (clip_CTHW[..., : SIZE // 2 - 1] == 128).all()
    assert (clip_CTHW[..., SIZE // 2 + 1 :] == 250).all()


def test_a_move_out_of_the_frame_leaves_nothing_but_grey() -> None:
    away = [Operation(name="translate_y", amount=0.45)] * 3
    assert (warp(noise(HEIGHT, WIDTH)[None], away, WHOLE, SIZE, mirrored=False) == 128).all()


def test_planes_are_the_channels_of_the_frames() -> None:
    frames = np.stack([noise(6, 7, seed) for seed in range(3)])
    assert np.array_equal(planes(frames), frames.transpose(3, 0, 1, 2))
    assert np.array_equal(planes(frames, mirrored=True), frames.transpose(3, 0, 1, 2)[..., ::-1])
    assert np.array_equal(planes(frames[:, 1:5, 2:6]), frames[:, 1:5, 2:6].transpose(3, 0, 1, 2))
