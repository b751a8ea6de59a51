"""Two clips laid over each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from content_cases import DANCERS, SKATERS, SLOW, TWIN
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.fingerprints.bands import MIRROR
from k710.fingerprints.frames import FrameHashes, Hashes
from k710.fingerprints.matching import compare
from k710.fingerprints.moments import MOST_MOMENTS, calm_moments
from k710.fingerprints.motion import mirrored
from k710.fingerprints.search import find_near_duplicates

Hashed = Callable[..., FrameHashes]


def walk(seed: int, num: int, step: float = 40) -> FrameHashes:
    """A clip that does not exist: the light of each field and 12 bits of its hash go on from the sample before."""
    rng = np.random.default_rng(seed)
    shown = [rng.integers(0, 2, 256).astype(bool)]
    for _ in range(num - 1):
        following = shown[-1].copy()
        following[rng.choice(256, 12, replace=False)] ^= True
        shown.append(following)
    light = rng.uniform(800, 3200, 64) + np.cumsum(rng.normal(0, step, (num, 64)), axis=0)
    return clip(np.packbits(np.stack(shown), axis=1), light)


def clip(whole: Hashes, light: npt.NDArray[np.floating], quality: int = 100) -> FrameHashes:
    rng = np.random.default_rng(0)
    return FrameHashes(
        whole=whole,
        middle=rng.integers(0, 256, whole.shape, dtype=np.uint8),
        quality=np.full(len(whole), quality, dtype=np.uint8),
        light=np.clip(light, 0, 4080).astype(np.uint16),
        middle_light=rng.integers(0, 4080, (len(whole), 64)).astype(np.uint16),
    )


def part_of(whole: FrameHashes, first: int, last: int) -> FrameHashes:
    return clip(whole.whole[first:last], whole.light[first:last])


def copied(original: FrameHashes, seed: int, *, gain: float = 1.0, is_mirrored: bool = False) -> FrameHashes:
    """A copy: ten bits of each hash and a little of the light are others."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((len(original), 256), dtype=bool)
    for row in mask:
        row[rng.choice(256, 10, replace=False)] = True
    light = gain * original.light + rng.normal(0, 4, original.light.shape)
    whole = original.whole ^ np.packbits(mask, axis=1)
    return clip(whole ^ MIRROR, mirrored(light)) if is_mirrored else clip(whole, light)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), start=st.integers(0, 40), gain=st.floats(0.8, 1.2), is_mirrored=st.booleans())
def test_a_copy_that_begins_later_is_found_at_its_offset(seed: int, start: int, gain: float, is_mirrored: bool) -> None:
    original = walk(seed, 100)
    found = compare(original, copied(part_of(original, start, 100), seed, gain=gain, is_mirrored=is_mirrored))
    assert found is not None
    assert (found.offset_s, found.frames, found.is_mirrored) == (start / 10, 100 - start, is_mirrored)
    assert (found.part, found.found_by) == (1.0, "rest")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), start=st.integers(-40, 40))
def test_which_clip_comes_first_plays_no_part(seed: int, start: int) -> None:
    long = walk(seed, 140)
    a, b = part_of(long, 40, 140), copied(part_of(long, max(0, 40 + start), min(140, 140 + start)), seed)
    there, back = compare(a, b), compare(b, a)
    assert there is not None
    assert back is not None
    assert (there.offset_s, there.frames, there.distance) == (-back.offset_s, back.frames, back.distance)
    assert there.rest == pytest.approx(back.rest)


@settings(max_examples=25, deadline=None)
@given(a=st.integers(0, 2**31), b=st.integers(2**31 + 1, 2**32))
def test_clips_of_nothing_in_common_are_no_pair(a: int, b: int) -> None:
    assert compare(walk(a, 60), walk(b, 60)) is None


def test_clips_that_share_a_third_of_their_frames_are_no_pair() -> None:
    long = walk(1, 167)
    assert compare(part_of(long, 0, 100), part_of(long, 67, 167)) is None
    assert compare(part_of(long, 0, 100), part_of(long, 0, 33)) is not None


def test_a_slow_shot_cut_in_two_is_no_pair() -> None:
    still = walk(2, 1)
    slow = clip(np.repeat(still.whole, 110, axis=0), still.light + np.arange(110)[:, None] * np.linspace(-6, 6, 64))
    assert compare(part_of(slow, 0, 50), part_of(slow, 60, 110)) is None
    assert compare(part_of(slow, 0, 50), part_of(slow, 10, 60)) is not None


def test_what_moves_the_same_way_all_the_time_says_nothing_of_when() -> None:
    still, rng = walk(2, 1), np.random.default_rng(0)
    pan = still.light + np.arange(160)[:, None] * np.linspace(-6, 6, 64) + rng.normal(0, 12, (160, 64))
    slow = clip(np.repeat(still.whole, 160, axis=0), pan)
    assert compare(part_of(slow, 0, 90), part_of(slow, 110, 160)) is None
    assert compare(part_of(slow, 0, 90), part_of(slow, 30, 80)) is not None
    # Hashes that agree do not make up for it: what is shown has moved on.
    shown = walk(3, 160).whole
    assert compare(clip(shown[:90], pan[:90]), clip(shown[30:80], pan[110:])) is None


def test_a_copy_is_told_by_what_moves_under_a_logo() -> None:
    original = walk(3, 60)
    light = original.light.astype(float)
    light[:, :12] = 3700
    found = compare(original, clip(original.whole, light))
    assert found is not None
    assert found.found_by == "motion"
    assert found.offset_s == 0


def test_clips_in_which_all_changes_alike_and_nothing_else_agrees_are_no_pair() -> None:
    fade = np.linspace(0.1, 1, 60)[:, None]
    one, other = (clip(walk(seed, 60).whole, fade * walk(seed, 1).light) for seed in (4, 5))
    assert compare(one, other) is None


def test_a_clip_that_stands_still_is_found_by_its_picture() -> None:
    whole, light = walk(6, 1).whole.repeat(50, axis=0), walk(6, 1).light.repeat(50, axis=0)
    found = compare(clip(whole, light), clip(whole, light + 3))
    assert found is not None
    assert found.found_by == "still"
    darker = light.astype(float) * np.linspace(0.8, 1.2, 64)
    assert compare(clip(whole, light), clip(whole, darker)) is None


def test_under_a_second_of_what_shows_something_nothing_is_said() -> None:
    short = walk(3, 9)
    assert compare(short, short) is None
    dark = clip(walk(4, 50).whole, np.full((50, 64), 260.0), quality=0)
    assert compare(dark, dark) is None


def test_a_black_part_shared_with_a_copy_of_nothing_is_no_overlap() -> None:
    black = np.full((60, 64), 256.0)
    ends = [np.concatenate([black, walk(seed, 40).light]) for seed in (7, 8)]
    one, other = (clip(walk(seed, 100).whole, light) for seed, light in zip((7, 8), ends, strict=True))
    one.quality[:60] = other.quality[:60] = 0
    assert compare(one, other) is None


@pytest.mark.parametrize(
    ("start_s", "edit", "crf"),
    [
        (0, "scale=160:-2", 23),
        (0, "crop=iw*0.95:ih*0.95", 23),
        (0, "null", 35),
        (1, "null", 23),
        (0, "hflip", 23),
        (0, "lutyuv=y=val*1.2", 23),
        (1, "crop=iw*0.95:ih*0.95,scale=160:-2", 30),
    ],
)
@pytest.mark.parametrize("name", [SKATERS, DANCERS, SLOW])
def test_an_edited_copy_of_a_real_clip_is_found(hashed: Hashed, name: str, start_s: int, edit: str, crf: int) -> None:
    (found,) = find_near_duplicates([hashed(name), hashed(name, start_s, 3, edit, crf)])
    assert (found.a, found.b) == (0, 1)
    assert found.match.offset_s == pytest.approx(start_s, abs=0.11)
    assert found.match.is_mirrored == (edit == "hflip")


def test_the_same_scene_at_another_rate_with_boxes_drawn_in_is_found(hashed: Hashed) -> None:
    (found,) = find_near_duplicates([hashed(SKATERS, 0, 9), hashed(TWIN, 0, 9)])
    assert found.match.frames >= 40


@pytest.mark.parametrize(("name", "later_s"), [(SKATERS, 5), (DANCERS, 5), (SLOW, 3.4)])
def test_the_same_scene_seconds_later_is_no_copy(hashed: Hashed, name: str, later_s: float) -> None:
    assert find_near_duplicates([hashed(name), hashed(name, later_s)]) == []


def test_real_clips_of_different_scenes_are_no_pairs(hashed: Hashed) -> None:
    assert find_near_duplicates([hashed(SKATERS), hashed(DANCERS), hashed(SLOW)]) == []


def test_the_moments_of_a_clip_lie_apart_and_its_copy_has_nearly_the_same(hashed: Hashed) -> None:
    moments = calm_moments(hashed(DANCERS))
    assert 3 <= len(moments) <= MOST_MOMENTS
    assert (np.diff(moments) >= 4).all()
    later = calm_moments(hashed(DANCERS, 1)) + 10
    assert sum(np.abs(moments - moment).min() <= 1 for moment in later if moment < 31) >= 2


def test_a_clip_that_stands_still_has_one_moment_and_a_black_one_none() -> None:
    still = clip(walk(6, 1).whole.repeat(50, axis=0), walk(6, 1).light.repeat(50, axis=0))
    assert len(calm_moments(still)) == 1
    black = clip(still.whole, np.full((50, 64), 256.0), quality=0)
    assert len(calm_moments(black)) == len(calm_moments(black, dull=True)) == 0


PLAIN = "crop=iw/3:ih/3:0:0,scale=340:256"
"""A ninth of a picture that shows a plain wall."""


def test_a_copy_of_a_plain_wall_is_found_and_the_wall_seconds_later_is_no_copy(hashed: Hashed) -> None:
    wall = hashed(DANCERS, 0, 4, PLAIN)
    assert not wall.is_telling.any()
    assert wall.is_shown.all()
    (found,) = find_near_duplicates([wall, hashed(DANCERS, 0, 4, PLAIN, 32)])
    assert found.match.offset_s == 0
    assert find_near_duplicates([wall, hashed(DANCERS, 5, 4, PLAIN)]) == []
