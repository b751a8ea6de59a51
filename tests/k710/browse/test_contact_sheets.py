"""A clip as a strip of its frames."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from k710.browse.contact_sheets import SheetSettings, Undrawable, draw_sheet
from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames

FOUR = SheetSettings(frames=4, height_px=32)


def clip_of(path: Path, luma_T: list[int], *, size: tuple[int, int] = (64, 96)) -> bytes:
    """A clip of even pictures, one brightness each; the left quarter of each is black."""
    frames_THWC = np.zeros((len(luma_T), *size, 3), dtype=np.uint8)
    frames_THWC[:, :, size[1] // 4 :] = np.array(luma_T, dtype=np.uint8)[:, None, None, None]
    encode_frames(frames_THWC, path, fps=10, config=EncodeConfig(preset="ultrafast"))
    return path.read_bytes()


def picture(sheet: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))


def ffmpeg(*arguments: str) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *arguments], check=True)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Forty frames, ten each of four brightnesses."""
    return clip_of(tmp_path_factory.mktemp("steps") / "a.mp4", [60] * 10 + [110] * 10 + [160] * 10 + [210] * 10)


def test_a_sheet_shows_a_frame_of_each_equal_part_from_left_to_right(steps: bytes) -> None:
    shown = picture(draw_sheet(steps, FOUR))
    # 32 high, so 48 wide, with 2 between; 36 from the left of a frame is bright.
    assert shown.shape == (32, 4 * 48 + 3 * 2)
    assert [int(shown[16, i * 50 + 36]) for i in range(4)] == pytest.approx([60, 110, 160, 210], abs=6)


def test_a_long_clip_is_shown_the_same_way_though_not_every_frame_is_decoded(tmp_path: Path) -> None:
    long = clip_of(tmp_path / "a.mp4", [60] * 40 + [110] * 40 + [160] * 40 + [210] * 40)
    shown = picture(draw_sheet(long, FOUR))
    assert [int(shown[16, i * 50 + 36]) for i in range(4)] == pytest.approx([60, 110, 160, 210], abs=6)


def test_a_clip_of_fewer_frames_is_shown_with_all_of_them(tmp_path: Path) -> None:
    assert picture(draw_sheet(clip_of(tmp_path / "a.mp4", [60, 200]), FOUR)).shape == (32, 2 * 48 + 2)


def test_equal_clips_give_equal_bytes(steps: bytes) -> None:
    assert draw_sheet(steps, FOUR) == draw_sheet(steps, FOUR)


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_a_turned_clip_is_shown_upright(tmp_path: Path, turn: int) -> None:
    clip_of(tmp_path / "a.mp4", [200] * 8)
    ffmpeg("-display_rotation", str(turn), "-i", str(tmp_path / "a.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    ffmpeg("-i", str(tmp_path / "turned.mp4"), "-crf", "1", str(tmp_path / "upright.mp4"))
    turned, upright = (
        picture(draw_sheet((tmp_path / f"{name}.mp4").read_bytes(), SheetSettings(frames=1, height_px=32)))
        for name in ("turned", "upright")
    )
    assert turned.shape == upright.shape
    assert np.abs(turned.astype(int) - upright).mean() < 4


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are(tmp_path: Path) -> None:
    clip_of(tmp_path / "a.mp4", [200] * 8)
    ffmpeg("-i", str(tmp_path / "a.mp4"), "-vf", "setsar=2", str(tmp_path / "wide.mp4"))
    sheet = draw_sheet((tmp_path / "wide.mp4").read_bytes(), SheetSettings(frames=1, height_px=32))
    assert picture(sheet).shape == (32, 96)


@pytest.mark.parametrize("data", [b"", b"no video at all", b"<html></html>" * 99, b"\x00\x00\x00\x18ftypmp42" * 9])
def test_what_is_no_video_has_a_reason_and_no_sheet(data: bytes) -> None:
    with pytest.raises(Undrawable, match=r".+"):
        draw_sheet(data, FOUR)


def test_what_takes_too_long_may_go_well_another_time(steps: bytes) -> None:
    with pytest.raises(Undrawable, match="too long") as caught:
        draw_sheet(steps, FOUR, timeout_s=-1)
    assert caught.value.is_passing


@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=20), cut=st.integers(1, 10**6))
def test_a_damaged_clip_gives_a_sheet_or_a_reason(steps: bytes, places: list[int], cut: int) -> None:
    damaged = bytearray(steps)
    for place in places:
        damaged[place % len(damaged)] ^= 0x5A
    try:
        sheet = draw_sheet(bytes(damaged[: len(steps) - cut % (len(steps) // 2)]), FOUR)
    except Undrawable:
        return
    assert picture(sheet).shape[0] == 32
