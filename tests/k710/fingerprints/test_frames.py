"""Hashes of the frames of a clip."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from content_cases import DANCERS, SKATERS, SLOW

from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames
from k710.errors import UsageError
from k710.fingerprints.bands import MIRROR, distances
from k710.fingerprints.frames import LIGHT_STEPS, FrameHashes, Unreadable, hash_frames, require_pdq

Hashed = Callable[..., FrameHashes]


def typical(a: np.ndarray, b: np.ndarray) -> float:
    """The median of the distances of hashes of the same moments."""
    return float(np.median(distances(a, b).diagonal()))


def test_ten_moments_of_each_second_are_hashed_whatever_the_frame_rate(hashed: Hashed) -> None:
    assert [len(hashed(DANCERS)), len(hashed(SKATERS)), len(hashed(DANCERS, 0, 2))] == [30, 31, 20] or [
        len(hashed(name)) for name in (DANCERS, SKATERS)
    ] == [31, 31]


def test_equal_bytes_give_equal_hashes(cut: Callable[..., Path]) -> None:
    first, second = (hash_frames(cut(SLOW).read_bytes()) for _ in range(2))
    assert np.array_equal(first.whole, second.whole)
    assert np.array_equal(first.middle, second.middle)
    assert np.array_equal(first.light, second.light)
    assert np.array_equal(first.middle_light, second.middle_light)


@pytest.mark.parametrize("edit", ["scale=160:-2", "scale=680:256", "lutyuv=y=val*1.2", "fps=15"])
def test_size_shape_brightness_and_rate_change_few_bits(hashed: Hashed, edit: str) -> None:
    assert typical(hashed(DANCERS).whole, hashed(DANCERS, 0, 3, edit).whole) <= 16


def test_a_cropped_copy_looks_like_the_middle_of_the_original(hashed: Hashed) -> None:
    original, cropped = hashed(DANCERS), hashed(DANCERS, 0, 3, "crop=iw*0.95:ih*0.95")
    assert typical(original.middle, cropped.whole) <= 20 < 30 <= typical(original.whole, cropped.whole)


def test_a_mirrored_copy_changes_the_bits_of_the_odd_columns(hashed: Hashed) -> None:
    original, mirrored = hashed(DANCERS), hashed(DANCERS, 0, 3, "hflip")
    assert typical(original.whole, mirrored.whole ^ MIRROR) <= 32 < 100 <= typical(original.whole, mirrored.whole)


def test_the_light_of_a_copy_is_that_of_the_original(hashed: Hashed) -> None:
    original = hashed(DANCERS)
    for edit, light in (("scale=160:-2", original.light), ("crop=iw*0.95:ih*0.95", original.middle_light)):
        of_copy = hashed(DANCERS, 0, 3, edit).light
        assert np.abs(of_copy.astype(float) - light).mean() / LIGHT_STEPS < 3


def test_frames_of_different_scenes_are_far_apart(hashed: Hashed) -> None:
    assert distances(hashed(DANCERS).whole, hashed(SLOW).whole).min() >= 90


def test_a_black_clip_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "black.mp4"
    encode_frames(np.zeros((12, 64, 96, 3), dtype=np.uint8), path, fps=6, config=EncodeConfig(preset="ultrafast"))
    black = hash_frames(path.read_bytes())
    assert len(black) >= 18
    assert not black.is_shown.any()


def test_a_moving_clip_tells_something_at_every_moment(hashed: Hashed) -> None:
    assert hashed(DANCERS).is_telling.all()


@pytest.mark.parametrize("video", [b"", b"no video at all" * 100])
def test_what_is_no_video_has_a_reason_instead_of_hashes(video: bytes) -> None:
    with pytest.raises(Unreadable, match=r"\w"):
        hash_frames(video)


def test_a_cut_off_clip_has_a_reason_or_the_hashes_of_its_start(cut: Callable[..., Path]) -> None:
    video = cut(SLOW).read_bytes()
    with pytest.raises(Unreadable):
        hash_frames(video[: len(video) // 2])


def test_a_clip_that_takes_too_long_may_be_tried_again(cut: Callable[..., Path]) -> None:
    with pytest.raises(Unreadable, match="too long") as caught:
        hash_frames(cut(SLOW).read_bytes(), timeout_s=0.0)
    assert caught.value.is_passing


def test_without_the_hash_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    with pytest.raises(UsageError) as caught:
        require_pdq()
    assert "k710[content]" in caught.value.hint
