"""Which files can be decoded, how closely each mode looks, and what black and frozen mean."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import fault_corpus as corpus
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.clips.containers import declared_bytes
from k710.clips.media import EncodeConfig, encode_frames
from k710.clips.outcomes import CORRUPT, STATUSES, TIMEOUT, TRUNCATED, Unusable
from k710.clips.pictures import FROZEN_LUMA, is_black, is_frozen
from k710.clips.pieces import ByteRange
from k710.clips.verify import MODES, Decoded, Mode, decode

DECODABLE = {"two million seconds", "a last frame a day later", "a link to the canary"}
"""Of the corpus, what no build takes, though every frame of it can be decoded."""
FPS = 10
SECONDS = 6


@pytest.fixture(scope="module")
def unusable(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[corpus.Unusable, Path]]:
    """Broken files of every kind."""
    root = tmp_path_factory.mktemp("unusable")
    (root / "canary.mp4").write_bytes(corpus.base())
    found = []
    for number, item in enumerate(corpus.unusable(root / "canary.mp4", 1, 1)):
        assert isinstance(item, corpus.Unusable)
        if item.name not in DECODABLE:
            item.make(root / f"{number}.mp4")
            found.append((item, root / f"{number}.mp4"))
    return found


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[corpus.Unusual, Path]]:
    """Strange files of every kind."""
    root = tmp_path_factory.mktemp("unusual")
    found = []
    for number, item in enumerate(corpus.unusual()):
        assert isinstance(item, corpus.Unusual)
        item.make(root / f"{number}.mp4")
        found.append((item, root / f"{number}.mp4"))
    return found


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """64 noisy frames in four groups of pictures of 16."""
    path = tmp_path_factory.mktemp("groups") / "groups.mp4"
    frames_THWC = np.random.default_rng(0).integers(0, 255, (64, 64, 96, 3), dtype=np.uint8)
    encode_frames(frames_THWC, path, fps=FPS, config=EncodeConfig())
    return path.read_bytes()


def damaged(data: bytes, part: float, num: int) -> bytes:
    """``data`` with some bytes overwritten at a part of its pictures; near 0 is in the first, near 1 in the last."""
    first = data.index(b"mdat") + 4
    place = first + round((len(data) - num - first) * part)
    return data[:place] + b"\x5a" * num + data[place + num :]


def status(data: bytes, mode: Mode) -> str:
    found = decode(io.BytesIO(data), mode)
    return found.status if isinstance(found, Unusable) else "ok"


def test_every_broken_file_gets_the_status_of_its_kind(unusable: list[tuple[corpus.Unusable, Path]]) -> None:
    for item, path in unusable:
        found = decode(path, "full")
        # A link that leads nowhere is no clip either.
        assert isinstance(found, Unusable), item.name
        assert found.status in item.statuses, (item.name, found)
        assert found.status in STATUSES
        assert found.detail
        assert "\n" not in found.detail


@pytest.mark.parametrize("mode", ["ends", "sample"])
def test_only_damage_in_the_middle_needs_a_full_decode(
    unusable: list[tuple[corpus.Unusable, Path]], mode: Mode
) -> None:
    for item, path in unusable:
        found = decode(path, mode)
        assert isinstance(found, Unusable) or item.name.startswith("flipped"), item.name


@pytest.mark.parametrize("mode", MODES)
def test_strange_files_are_videos_with_all_their_frames(unusual: list[tuple[corpus.Unusual, Path]], mode: Mode) -> None:
    for item, path in unusual:
        found = decode(path, mode)
        assert isinstance(found, Decoded), (item.name, found)
        assert found.frames == item.frames, item.name
        assert found.complete == (mode == "full")


def test_a_turned_video_is_as_wide_as_it_is_shown(unusual: list[tuple[corpus.Unusual, Path]]) -> None:
    for item, path in unusual:
        if item.name.startswith("turned"):
            found = decode(path, "ends")
            assert isinstance(found, Decoded)
            assert (found.width_px, found.height_px) == item.size_px


@pytest.mark.parametrize("mode", MODES)
def test_real_clips_are_good(shared: Path, mode: Mode) -> None:
    for path in sorted((shared / "videos").iterdir()):
        found = decode(path, mode)
        assert isinstance(found, Decoded), (path.name, found)
        assert found.frames > 50
        assert (found.black, found.frozen) == (False, False), path.name


def test_damage_in_a_real_clip_is_found_unless_it_decodes_without_a_mark(shared: Path) -> None:
    # At one of the 20 places no mode of ffmpeg's decoder sees anything: such damage only a checksum finds.
    data = (shared / "videos" / "h264_340x256_6fps.mp4").read_bytes()
    found = [status(damaged(data, part, 64), "full") for part in np.linspace(0.01, 0.99, 20)]
    assert found.count(CORRUPT) >= 19
    assert set(found) <= {CORRUPT, "ok"}


def test_a_real_clip_cut_off_anywhere_is_truncated(shared: Path) -> None:
    for name in ("kinetics_340x256_28fps.mp4", "mpeg4_320x240_audio.avi"):
        data = (shared / "videos" / name).read_bytes()
        assert [status(data[: len(data) * n // 21], "ends") for n in range(1, 21)] == [TRUNCATED] * 20


def test_ends_sees_the_first_and_the_last_group_of_pictures_and_full_sees_all(groups: bytes) -> None:
    # More than a picture has: noise hides small damage well, for nearly any bits are some noise.
    places = {"first": 0.01, "middle": 0.4, "last": 0.98}
    assert {n: status(damaged(groups, p, 4000), "ends") for n, p in places.items()} == {
        "first": CORRUPT,
        "middle": "ok",
        "last": CORRUPT,
    }
    assert {status(damaged(groups, part, 4000), "full") for part in places.values()} == {CORRUPT}


def test_a_matroska_that_was_cut_off_is_truncated(tmp_path: Path, groups: bytes) -> None:
    (tmp_path / "whole.mp4").write_bytes(groups)
    corpus.ffmpeg("-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "clip.mkv")
    data = (tmp_path / "clip.mkv").read_bytes()
    assert declared_bytes(io.BytesIO(data), len(data)) == len(data)
    assert status(data, "ends") == "ok"
    assert {status(data[: len(data) * n // 10], "ends") for n in range(2, 10)} == {TRUNCATED}


@settings(deadline=None)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_no_beginning_of_a_video_is_a_video(kept: float) -> None:
    data = corpus.base()
    assert status(data[: int(len(data) * kept)], "ends") != "ok"


@pytest.mark.parametrize("mode", MODES)
def test_a_range_of_a_file_is_decoded_like_a_file(tmp_path: Path, groups: bytes, mode: Mode) -> None:
    (tmp_path / "shard").write_bytes(b"\0" * 512 + groups + b"\xff" * 700)
    with (tmp_path / "shard").open("rb") as handle:
        part = ByteRange(handle, 512, len(groups))
        assert decode(part, mode) == decode(io.BytesIO(groups), mode)  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    offset=st.integers(0, 90), size=st.integers(0, 90), at=st.integers(-5, 120), whence=st.sampled_from([0, 1, 2]),
    wanted=st.integers(-1, 100),
)  # fmt: skip
def test_a_range_reads_as_the_bytes_themselves_would(
    tmp_path_factory: pytest.TempPathFactory, offset: int, size: int, at: int, whence: int, wanted: int
) -> None:
    data = bytes(range(180))
    path = tmp_path_factory.getbasetemp() / "range.bin"
    path.write_bytes(data)
    plain = io.BytesIO(data[offset : offset + size])
    with path.open("rb") as handle:
        part = ByteRange(handle, offset, size)
        if at >= 0 or whence:
            start = (0, 0, size)[whence]
            assert part.seek(at, whence) == plain.seek(max(0, start + at))
        assert part.read(wanted) == plain.read(wanted)
        assert part.tell() == plain.tell()


def test_a_video_that_takes_too_long_is_given_up(groups: bytes) -> None:
    found = decode(io.BytesIO(groups), "full", timeout_s=0)
    assert isinstance(found, Unusable)
    assert found.status == TIMEOUT


def test_a_process_may_be_forked_after_it_has_decoded(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(corpus.base())
    program = (
        "import os, sys, signal; from pathlib import Path; from k710.clips.verify import decode\n"
        "path = Path(sys.argv[1]); first = decode(path, 'full'); child = os.fork()\n"
        "if not child:\n    signal.alarm(20); os._exit(decode(path, 'full') != first)\n"
        "sys.exit(os.waitpid(child, 0)[1])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "clip.mp4")]
    assert subprocess.run(command, cwd=Path(__file__).resolve().parents[3], timeout=60).returncode == 0


def encoded(path: Path, frames_THWC: npt.NDArray[np.uint8]) -> Path:
    encode_frames(frames_THWC, path, fps=FPS, config=EncodeConfig(preset="ultrafast"))
    return path


def noise(low: int, high: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(low, high, (FPS * SECONDS, 128, 160, 3), dtype=np.uint8)


def still() -> npt.NDArray[np.uint8]:
    blocks_HWC = np.random.default_rng(0).integers(40, 200, (16, 20, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return np.broadcast_to(blocks_HWC, (FPS * SECONDS, 128, 160, 3)).copy()


def judged(path: Path, mode: Mode) -> tuple[bool, bool]:
    found = decode(path, mode)
    assert isinstance(found, Decoded)
    return found.black, found.frozen


@pytest.mark.parametrize("mode", ["sample", "full"])
def test_a_dark_noise_is_black_and_a_lamp_in_it_is_not(tmp_path: Path, mode: Mode) -> None:
    dark_THWC = noise(0, 12)
    assert judged(encoded(tmp_path / "dark.mp4", dark_THWC), mode)[0]
    dark_THWC[:, 40:70, 50:90] = 180
    assert not judged(encoded(tmp_path / "lamp.mp4", dark_THWC), mode)[0]


@pytest.mark.parametrize("mode", ["sample", "full"])
def test_a_still_is_frozen_and_one_in_which_a_hand_moves_is_not(tmp_path: Path, mode: Mode) -> None:
    still_THWC = still()
    assert judged(encoded(tmp_path / "still.mp4", still_THWC), mode) == (False, True)
    for number, frame_HWC in enumerate(still_THWC):
        left = 40 + number * 2 % 40
        frame_HWC[50:62, left : left + 12] = 255
    assert judged(encoded(tmp_path / "moving.mp4", still_THWC), mode) == (False, False)


def test_ends_says_nothing_about_black_and_frozen(tmp_path: Path) -> None:
    assert judged(encoded(tmp_path / "black.mp4", noise(0, 2)), "ends") == (False, False)


def test_one_frame_is_not_frozen(unusual: list[tuple[corpus.Unusual, Path]]) -> None:
    path = next(p for item, p in unusual if item.name == "one frame")
    assert judged(path, "full") == (False, False)


@given(num=st.integers(4, 40), level=st.integers(0, 255), seed=st.integers(0, 99))
def test_equal_pictures_are_frozen_up_to_coding_noise(num: int, level: int, seed: int) -> None:
    wobble = np.random.default_rng(seed).integers(-1, 2, (num, 24, 32))
    luma_THW = np.clip(level + wobble, 0, 255).astype(np.uint8)
    assert FROZEN_LUMA >= 2
    assert is_frozen(luma_THW)
    assert is_black(luma_THW) == (luma_THW < 20).all() or 18 < level < 22


def test_a_flash_does_not_make_a_standstill_move_but_a_second_one_in_twenty_does() -> None:
    luma_THW = np.full((20, 24, 32), 90, np.uint8)
    luma_THW[3] = 255
    assert is_frozen(luma_THW)
    luma_THW[9] = 255
    assert not is_frozen(luma_THW)
