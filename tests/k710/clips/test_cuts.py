"""Which frames a clip is made of: those of its segment, whatever the rate, the container and the place of keyframes."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numbered import read_numbers, write_numbered

from k710.clips.cuts import cut_out, keep_all
from k710.clips.probing import VideoFacts, probe

RATES = ("24", "25", "30000/1001", "30", "60")
STARTS = (0.0, 4.21, 7.0)
LENGTH_S = 3


def wanted(start_s: float, rate: str) -> list[int]:
    """Numbers of the frames from the one that is shown at ``start_s``."""
    # A thousandth of a frame: containers round times.
    first = math.floor(Fraction(str(start_s)) * Fraction(rate) + Fraction(1, 1000))
    return list(range(first, first + round(LENGTH_S * Fraction(rate))))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_clip_begins_with_the_frame_that_is_shown_at_its_start(
    make: Any, tmp_path: Path, rate: str, suffix: str
) -> None:
    source = write_numbered(tmp_path / f"in.{suffix}", int(12 * Fraction(rate)), rate)
    for start_s in STARTS:
        outcome = make(source, timed=False, start_s=start_s, end_s=start_s + LENGTH_S)
        assert (outcome.status, outcome.notes) == ("ok", ("cut from the whole video",))
        assert outcome.fps == pytest.approx(float(Fraction(rate)))
        assert read_numbers(tmp_path / "made.mp4") == wanted(start_s, rate)


@pytest.mark.parametrize("options", [("in.flv", "-bf", "2"), ("in.avi",), ("in.webm", "-c:v", "libvpx", "-b:v", "1M")])
def test_other_containers_are_cut_as_well(make: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    # AVI does not say when frames are shown; VP8 has packets that are never shown.
    source = write_numbered(tmp_path / options[0], 250, "25", *options[1:])
    for start_s in STARTS[1:]:
        assert make(source, timed=False, start_s=start_s, end_s=start_s + 2).status == "ok"
        assert read_numbers(tmp_path / "made.mp4") == wanted(start_s, "25")[:50]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_are_counted_from_the_start_of_the_file(make: Any, tmp_path: Path, suffix: str) -> None:
    source = write_numbered(tmp_path / f"in.{suffix}", 250, "25", "-output_ts_offset", "7.4")
    make(source, timed=False, start_s=3, end_s=6)
    assert read_numbers(tmp_path / "made.mp4") == wanted(3, "25")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_picture_that_comes_later_than_the_sound_is_cut_by_the_sounds_clock(
    make: Any, ffmpeg: Any, tmp_path: Path, suffix: str
) -> None:
    picture = write_numbered(tmp_path / "picture.mp4", 250, "25")
    late = ("-itsoffset", "0.6", "-i", picture, "-f", "lavfi", "-i", "sine=d=11", "-map", "0", "-map", "1")
    source = ffmpeg(*late, "-c:v", "copy", "-c:a", "aac", f"in.{suffix}")
    make(source, timed=False, start_s=3, end_s=6)
    first = read_numbers(tmp_path / "made.mp4")[0]
    assert first == 60


def test_frames_that_an_edit_list_hides_do_not_count(make: Any, ffmpeg: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "source.mp4", 500, "25", "-bf", "0")
    # Begins at the keyframe of 10 s, and hides what stands before 12 s.
    edited = ffmpeg("-ss", "12", "-i", source, "-c", "copy", "edited.mp4")
    make(edited, timed=False, start_s=2, end_s=5)
    assert read_numbers(tmp_path / "made.mp4") == [n + 300 for n in wanted(2, "25")]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_variable_rate_is_cut_to_what_is_shown_at_each_time(
    make: Any, ffmpeg: Any, tmp_path: Path, suffix: str
) -> None:

    def shown(at_s: float) -> int:
        """In each second there are ten frames, the last of which is held."""
        return max(n for n in range(250) if n % 25 < 10 and n <= at_s * 25 + 1e-6)

    source = write_numbered(tmp_path / "source.mp4", 500, "25")
    held = ("-vf", "select=lt(mod(n\\,25)\\,10)", "-fps_mode", "vfr", "-crf", "12", "-g", "250", "-bf", "2")
    varying = ffmpeg("-i", source, *held, f"in.{suffix}")
    outcome = make(varying, timed=False, start_s=5.7, end_s=9.7)
    assert "variable frame rate, now constant" in outcome.notes
    numbers = read_numbers(tmp_path / "made.mp4")
    assert len(numbers) == pytest.approx(4 * outcome.fps, abs=1)
    assert numbers[0] == shown(5.7)
    for place, number in enumerate(numbers):
        half = 0.5 / outcome.fps + 1e-3
        at_s = 5.7 + place / outcome.fps
        assert shown(at_s - half) <= number <= shown(at_s + half)


def test_a_clip_lasts_as_long_as_its_segment_at_a_variable_rate(make: Any, ffmpeg: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "source.mp4", 300, "25")
    varying = ffmpeg("-i", source, "-vf", "select=gt(mod(n\\,7)\\,2)", "-fps_mode", "vfr", "in.mp4")
    outcome = make(varying, timed=False, start_s=2, end_s=8)
    assert outcome.frames / outcome.fps == pytest.approx(6, abs=1 / outcome.fps)


def test_a_trimmed_clip_of_a_rounding_container_keeps_every_frame_once(make: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "in.mkv", 300, "30000/1001")
    assert make(source, end_s=10).fps == pytest.approx(30000 / 1001)
    assert read_numbers(tmp_path / "made.mp4") == list(range(300))


def test_a_rate_that_drifts_is_variable(tmp_path: Path, ffmpeg: Any) -> None:
    source = write_numbered(tmp_path / "in.mp4", 250, "25")
    slower = ffmpeg("-i", source, "-vf", "setpts=if(lt(N\\,125)\\,N/25\\,5+(N-125)/20)/TB", "-fps_mode", "vfr", "o.mp4")
    facts = probe(slower)
    assert isinstance(facts, VideoFacts)
    assert facts.variable_rate


@given(
    rate=st.sampled_from([Fraction(r) for r in ("6", "12", "15", *RATES, "50", "60000/1001", "120")]),
    tick=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 15360)]),
    num=st.integers(240, 900),
    start=st.fractions(0, 1, max_denominator=1000),
)
def test_every_rounded_constant_rate_is_found_and_cut_by_its_frames(
    rate: Fraction, tick: Fraction, num: int, start: Fraction
) -> None:
    times_s = np.array([float(round(n / rate / tick) * tick) for n in range(num)])
    cut = cut_out(times_s, float(tick), rate, start_s=float(start), end_s=float(start) + 1)
    assert (cut.rate, cut.variable) == (rate, False)
    assert cut.num_frames == round(rate)
    # The next frame is not shown yet, but for what the container rounds.
    assert cut.first_s <= start + tick
    assert cut.first_s + 1 / rate > start - tick


@given(steps=st.lists(st.integers(1, 200), min_size=1, max_size=80))
# A frame that is shown half a tick after the clip's start is taken for one that is shown at it.
@example(steps=[1] * 7 + [194, 200, 200, 200, 200])
def test_any_times_give_a_clip(steps: list[int]) -> None:
    times_s = np.cumsum(np.array(steps, dtype=np.float64)) / 1000
    end_s = float(times_s[-1]) + 1
    for cut in (keep_all(times_s, 1e-3, None), cut_out(times_s, 1e-3, None, start_s=end_s / 2, end_s=end_s)):
        assert cut.num_frames >= 1
        assert cut.rate > 0
        assert times_s[0] <= cut.first_s <= cut.start_s <= end_s


def test_a_variable_rate_that_ends_early_is_no_truncated_file(make: Any, ffmpeg: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "source.mp4", 250, "25")
    varying = ffmpeg("-i", source, "-vf", "select=gt(mod(n\\,7)\\,2)", "-fps_mode", "vfr", "in.mp4")
    outcome = make(varying, timed=False, start_s=7.3, end_s=10.3)
    assert (outcome.status, outcome.notes[0]) == ("ok", "cut from the whole video")
