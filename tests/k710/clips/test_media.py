"""Encode settings, sizes, and that neither ffmpeg nor a look at a file goes on for ever."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered import write_numbered

from k710.clips import media, probing
from k710.clips.cuts import keep_all
from k710.clips.encodings import EncodeConfig, scaled_size
from k710.clips.media import run_ffmpeg, time_limit_s, transcode, transcode_command
from k710.clips.outcomes import Unusable
from k710.clips.probing import VideoFacts, probe


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


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends_soon(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def pid_in(path: Path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """A command that starts another endless process, whose number it writes to ``pid``, and waits for it."""
    return ["/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"]


def test_a_run_that_takes_too_long_ends_with_all_it_started(endless: list[str], tmp_path: Path) -> None:
    failure = run_ffmpeg(endless, 0.5, tmp_path / "out.mp4")
    assert failure == Unusable(status="timeout", detail="ffmpeg took more than 0 s")
    assert ends_soon(pid_in(tmp_path / "pid"))


def _run_until_told(command: list[str], target: Path) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    run_ffmpeg(command, 100, target)


def test_a_worker_that_is_told_to_stop_ends_what_it_runs(endless: list[str], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_run_until_told, args=(endless, tmp_path / "out.mp4"))
    worker.start()
    pid = pid_in(tmp_path / "pid")
    assert is_alive(pid)
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 143
    assert ends_soon(pid)


def test_the_time_limit_grows_with_the_clip() -> None:
    assert time_limit_s(20) - time_limit_s(10) == 10 * media.TIMEOUT_PER_SECOND


def test_what_is_killed_is_not_recorded_as_the_clips_failure(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        run_ffmpeg(["/bin/sh", "-c", "kill -9 $$"], 10, tmp_path / "out.mp4")
    with pytest.raises(MemoryError):
        run_ffmpeg(["/bin/sh", "-c", "echo Cannot allocate memory >&2; exit 1"], 10, tmp_path / "out.mp4")
    with pytest.raises(OSError, match="Disk quota exceeded") as caught:
        run_ffmpeg(["/bin/sh", "-c", "echo Disk quota exceeded >&2; exit 1"], 10, tmp_path / "out.mp4")
    assert caught.value.errno == errno.EDQUOT


@pytest.fixture
def noisy(ffmpeg: Any) -> Path:
    """4 s that do not get small."""
    return ffmpeg("-f", "lavfi", "-i", "color=gray:s=320x240:d=4,noise=alls=90:allf=t", "-crf", "30", "noisy.mp4")  # type: ignore[no-any-return]


def test_a_clip_that_grows_without_end_is_too_large(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_CLIP_BYTES", 200_000)
    facts = probe(noisy)
    assert isinstance(facts, VideoFacts)
    cut = keep_all(facts.times_s, facts.tick_s, facts.declared_rate)
    failure = transcode(noisy, tmp_path / "made.mp4", facts, cut, EncodeConfig(crf=1))
    assert failure == Unusable(status="too_large", detail="the clip has more than 200,000 bytes")
    assert (tmp_path / "made.mp4").stat().st_size < 1_000_000


def test_every_run_is_bounded_and_opens_only_what_it_was_given(counting: Path, tmp_path: Path) -> None:
    facts = probe(counting)
    assert isinstance(facts, VideoFacts)
    cut = keep_all(facts.times_s, facts.tick_s, facts.declared_rate)
    command = transcode_command(counting, tmp_path / "out.mp4", facts, cut, EncodeConfig())
    given = dict(itertools.pairwise(command))
    assert (given["-frames:v"], given["-fs"], given["-t"]) == ("200", str(media.MAX_CLIP_BYTES), "21.000000")
    assert (given["-protocol_whitelist"], given["-i"]) == ("file,pipe,lavfi", f"file:{counting}")
    # The demuxer that read it, not the one that ffmpeg would guess.
    assert command[command.index("-f") + 1] == "mov"


def test_a_file_named_as_trimmed_that_goes_on_and_on_is_too_large(make: Any, ffmpeg: Any) -> None:
    long = ffmpeg("-f", "lavfi", "-i", "color=black:s=32x32:r=1:d=90", "in.mp4")
    outcome = make(long, end_s=10)
    assert (outcome.status, outcome.detail) == ("too_large", "it lasts 90 s, its segment 10 s")


def test_a_gigantic_picture_is_refused_before_it_is_decoded(
    make: Any, ffmpeg: Any, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = ffmpeg("-f", "lavfi", "-i", "color=black:s=12288x12288:d=1:r=1,format=monow", "-c:v", "png", "big.mkv")
    started = time.monotonic()
    outcome = make(picture, end_s=1)
    assert (outcome.status, outcome.detail) == ("too_large", "12288x12288 pixels")
    assert time.monotonic() - started < 2
    monkeypatch.setattr(probing, "MAX_PIXELS", 1000)
    assert make(counting).detail == "64x48 pixels"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of all that a probe reads."""
    sizes: list[int] = []
    read = probing._Watched.read

    def counted(self: Any, size: int = -1) -> bytes:
        data = read(self, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(probing._Watched, "read", counted)
    return sizes


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi", "flv", "mpg"])
def test_a_broken_file_is_not_searched_to_its_end(tmp_path: Path, reads: list[int], suffix: str) -> None:
    codec = {"mpg": "mpeg2video", "avi": "mpeg4"}.get(suffix, "libx264")
    source = write_numbered(tmp_path / f"in.{suffix}", 100, "25", "-c:v", codec)
    os.truncate(source, source.stat().st_size // 2)
    with source.open("r+b") as handle:
        handle.truncate(4 << 30)
    found = probe(source)
    assert isinstance(found, (Unusable, VideoFacts))
    assert sum(reads) < 3 * probing.MAX_BARREN_BYTES


def test_a_pipe_is_not_waited_for(make: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.mp4")
    assert stat.S_ISFIFO((tmp_path / "in.mp4").stat().st_mode)
    assert make(tmp_path / "in.mp4").detail == "not a regular file"


def test_sound_with_a_cover_has_no_video(ffmpeg: Any, counting: Path) -> None:
    cover = ffmpeg("-i", counting, "-frames:v", "1", "cover.png")
    pinned = ("-c:v", "mjpeg", "-disposition:v", "attached_pic")
    tagged = ffmpeg("-i", counting, "-i", cover, "-map", "0:a", "-map", "1", *pinned, "in.m4a")
    found = probe(tagged)
    assert isinstance(found, Unusable)
    assert (found.status, found.detail) == ("no_video_stream", "it holds audio, video only")
