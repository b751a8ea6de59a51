"""Two clips laid over each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from content_cases import DANCERS, SKATERS, SLOW, TWIN
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.fingerprints.bands import MIRROR
from k710.fingerprints.frames import FrameHashes
from k710.fingerprints.matching import MatchSettings, best_match, compare
from k710.fingerprints.moments import MOST_MOMENTS, calm_moments
from k710.fingerprints.search import find_near_duplicates

Hashed = Callable[..., FrameHashes]


def walk(seed: int, num: int, bits: int = 12) -> FrameHashes:
    """A clip that does not exist: each sample differs from the one before in ``bits`` bits."""
    rng = np.random.default_rng(seed)
    shown = [rng.integers(0, 2, 256).astype(bool)]
    for _ in range(num - 1):
        following = shown[-1].copy()
        following[rng.choice(256, bits, replace=False)] ^= True
        shown.append(following)
    return clip(np.packbits(np.stack(shown), axis=1), rng)


def clip(whole: np.ndarray, rng: np.random.Generator | None = None) -> FrameHashes:
    rng = rng or np.random.default_rng(0)
    middle = rng.integers(0, 256, whole.shape, dtype=np.uint8)
    return FrameHashes(whole=whole, middle=middle, quality=np.full(len(whole), 100, dtype=np.uint8))


def noisy(whole: np.ndarray, seed: int, bits: int = 10) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((len(whole), 256), dtype=bool)
    for row in mask:
        row[rng.choice(256, bits, replace=False)] = True
    return whole ^ np.packbits(mask, axis=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), start=st.integers(0, 40), is_mirrored=st.booleans())
def test_a_copy_that_begins_later_is_found_at_its_offset(seed: int, start: int, is_mirrored: bool) -> None:
    original = walk(seed, 100)
    copy = clip(noisy(original.whole[start:], seed) ^ (MIRROR if is_mirrored else np.uint8(0)))
    found = compare(original, copy)
    assert found is not None
    assert (found.offset_s, found.frames, found.is_mirrored) == (start / 10, 100 - start, is_mirrored)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), start=st.integers(-40, 40), bits=st.integers(0, 30))
def test_which_clip_comes_first_plays_no_part(seed: int, start: int, bits: int) -> None:
    long = walk(seed, 140)
    a, b = clip(long.whole[40:]), clip(noisy(long.whole[40 + start : 140 + start], seed, bits))
    there, back = best_match(a, b, MatchSettings()), best_match(b, a, MatchSettings())
    assert there is not None
    assert back is not None
    assert (there.offset_s, there.frames, there.distance, there.elsewhere) == (
        -back.offset_s, back.frames, back.distance, back.elsewhere,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(a=st.integers(0, 2**31), b=st.integers(2**31 + 1, 2**32))
def test_clips_of_nothing_in_common_are_no_pair(a: int, b: int) -> None:
    assert compare(walk(a, 60), walk(b, 60)) is None


def test_clips_that_share_a_third_of_their_frames_are_no_pair() -> None:
    long = walk(1, 167)
    assert compare(clip(long.whole[:100]), clip(long.whole[67:])) is None
    assert compare(clip(long.whole[:100]), clip(long.whole[:33])) is not None


def test_a_slow_shot_cut_in_two_is_no_pair() -> None:
    slow = walk(2, 110, bits=1)
    assert compare(clip(slow.whole[:50]), clip(slow.whole[60:])) is None
    assert compare(clip(slow.whole[:50]), clip(noisy(slow.whole[10:60], 3, 6))) is not None


def test_under_a_second_of_telling_frames_nothing_is_said() -> None:
    short = walk(3, 9)
    assert compare(short, short) is None
    dark = FrameHashes(whole=walk(4, 50).whole, middle=walk(5, 50).middle, quality=np.zeros(50, dtype=np.uint8))
    assert compare(dark, dark) is None


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
    still = clip(np.repeat(walk(6, 1).whole, 50, axis=0))
    assert len(calm_moments(still)) == 1
    dark = FrameHashes(whole=still.whole, middle=still.middle, quality=np.zeros(50, dtype=np.uint8))
    assert len(calm_moments(dark)) == 0
