"""One clip from its candidate files: what is kept, what is refused, and that the right frames come out."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from k710.clips.media import ffmpeg_build, ffmpeg_path
from k710.clips.outcomes import MISSING, OK, Unusable
from k710.clips.probing import VideoFacts, probe
from k710.errors import SourceError


def levels(path: Path) -> np.ndarray[Any, Any]:
    """Mean grey level of each frame."""
    with av.open(str(path)) as container:
        return np.array([f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)])


def facts_of(path: Path) -> VideoFacts:
    facts = probe(path)
    assert isinstance(facts, VideoFacts)
    return facts


def half(path: Path, name: str = "half") -> Path:
    target = path.parent / f"{name}{path.suffix}"
    target.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return target


def test_a_clip_without_files_is_missing(make: Any) -> None:
    outcome = make()
    assert (outcome.status, outcome.tried, outcome.source) == (MISSING, "", "")


def test_a_trimmed_clip_keeps_every_frame_in_order(make: Any, counting: Path, tmp_path: Path) -> None:
    outcome = make(counting)
    assert (outcome.status, outcome.frames, outcome.fps, outcome.notes) == (OK, 200, 10, ())
    np.testing.assert_allclose(levels(tmp_path / "made.mp4"), np.arange(200), atol=4)


def test_the_outcome_describes_the_bytes_that_were_made(make: Any, counting: Path, tmp_path: Path) -> None:
    outcome = make(counting)
    data = (tmp_path / "made.mp4").read_bytes()
    assert (outcome.sha256, outcome.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (outcome.width_px, outcome.height_px, outcome.codec) == (64, 48, "h264")
    assert outcome.source == "counting.mp4"


def test_a_clip_has_no_sound(make: Any, counting: Path, tmp_path: Path) -> None:
    make(counting)
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert [s.type for s in container.streams] == ["video"]


def test_the_same_source_gives_the_same_bytes(make: Any, counting: Path) -> None:
    assert make(counting).sha256 == make(counting).sha256


def test_a_source_file_is_never_changed(make: Any, counting: Path) -> None:
    before = (counting.read_bytes(), counting.stat().st_mtime_ns)
    make(counting, timed=False, start_s=5, end_s=8)
    assert (counting.read_bytes(), counting.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("start_s", "end_s", "first", "count"), [(5, 8, 50, 30), (0, 3, 0, 30), (12.5, 14.2, 125, 17)])
def test_a_cut_from_a_whole_video_has_the_frames_of_its_segment(
    make: Any, counting: Path, tmp_path: Path, start_s: float, end_s: float, first: int, count: int
) -> None:
    outcome = make(counting, timed=False, start_s=start_s, end_s=end_s)
    assert (outcome.status, outcome.notes) == (OK, ("cut from the whole video",))
    np.testing.assert_allclose(levels(tmp_path / "made.mp4"), np.arange(first, first + count), atol=4)


def test_a_whole_video_may_end_half_a_second_early(make: Any, counting: Path) -> None:
    assert make(counting, timed=False, start_s=10.5, end_s=20.5).frames == 95


def test_an_untimed_file_as_long_as_its_segment_is_trimmed(make: Any, counting: Path) -> None:
    outcome = make(counting, timed=False, start_s=100, end_s=119)
    assert (outcome.status, outcome.frames) == (OK, 200)


def test_an_untimed_file_between_clip_and_whole_video_is_ambiguous(make: Any, counting: Path) -> None:
    assert make(counting, timed=False, start_s=15, end_s=25).status == "ambiguous"


def test_a_whole_video_that_ends_before_the_segment_is_too_short(make: Any, counting: Path) -> None:
    assert make(counting, timed=False, start_s=30, end_s=40).status == "too_short"


@pytest.mark.parametrize("start_s", [0, 50])
def test_a_trimmed_file_that_two_segments_claim_is_ambiguous(make: Any, counting: Path, start_s: float) -> None:
    # Also for the segment that starts at 0: the file may as well be the other's.
    outcome = make(counting, timed=False, may_be_trimmed=False, start_s=start_s, end_s=start_s + 20)
    assert outcome.status == "ambiguous"


def test_a_clip_that_is_merely_short_is_kept_with_a_note(make: Any, counting: Path) -> None:
    outcome = make(counting, end_s=25)
    assert (outcome.status, outcome.notes) == (OK, ("shorter than its segment: 20.00 s",))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", "not_a_video"),
        (b"<!DOCTYPE html>\n<html>429 Too Many Requests</html>", "not_a_video"),
        (b"\n  <HTML><body>Sign in</body>", "not_a_video"),
        (b"this is not a video" * 100, "not_a_video"),
    ],
)
def test_a_file_that_is_no_video_has_a_typed_status(make: Any, tmp_path: Path, content: bytes, status: str) -> None:
    path = tmp_path / "in.mp4"
    path.write_bytes(content)
    assert make(path).status == status


def test_a_file_that_is_gone_is_corrupt(make: Any, tmp_path: Path) -> None:
    assert make(tmp_path / "gone.mp4").status == "corrupt"


def test_a_sound_file_has_no_video(make: Any, ffmpeg: Any, counting: Path) -> None:
    assert make(ffmpeg("-i", counting, "-vn", "-c:a", "copy", "sound.mp4")).status == "no_video_stream"


def test_a_truncated_file_with_its_index_in_front_is_truncated(make: Any, ffmpeg: Any, counting: Path) -> None:
    assert make(half(ffmpeg("-i", counting, "-c", "copy", "-movflags", "+faststart", "in.mp4"))).status == "truncated"


def test_a_truncated_file_with_its_index_at_the_end_is_truncated(make: Any, ffmpeg: Any, counting: Path) -> None:
    assert make(half(ffmpeg("-i", counting, "-c", "copy", "in.mp4"))).status == "truncated"


@pytest.mark.parametrize("name", ["in.mkv", "in.avi", "in.flv"])
def test_truncated_files_of_other_containers_are_truncated(make: Any, ffmpeg: Any, counting: Path, name: str) -> None:
    whole = ffmpeg("-i", counting, "-c:v", "mpeg4" if name == "in.avi" else "copy", "-c:a", "copy", name)
    assert make(whole).status == OK
    assert make(half(whole)).status == "truncated"


def test_a_damaged_middle_is_not_passed_off_as_a_whole_clip(make: Any, ffmpeg: Any, shared: Path) -> None:
    source = shared / "videos" / "kinetics_340x256_28fps.mp4"
    whole = ffmpeg("-i", source, "-c", "copy", "-an", "-movflags", "+faststart", "in.mp4")
    data = bytearray(whole.read_bytes())
    data[len(data) // 3 : len(data) // 3 * 2] = bytes(len(data) // 3)
    whole.write_bytes(data)
    outcome = make(whole, end_s=10)
    assert outcome.status in ("truncated", "corrupt") or outcome.frames == 280


def test_the_next_candidate_is_tried_when_the_first_is_broken(make: Any, tmp_path: Path, counting: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    outcome = make(tmp_path / "empty.mp4", counting)
    assert (outcome.status, outcome.source) == (OK, "counting.mp4")


def test_the_first_failure_is_the_outcome_when_all_candidates_are_broken(make: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.mp4").write_text("<html>")
    outcome = make(tmp_path / "empty.mp4", tmp_path / "page.mp4")
    assert (outcome.status, outcome.source) == ("not_a_video", "empty.mp4")


def test_a_turned_video_comes_out_upright(make: Any, ffmpeg: Any, counting: Path, tmp_path: Path) -> None:
    # The left half is white before turning; a quarter turn puts it at the top or the bottom.
    flat = ffmpeg("-f", "lavfi", "-i", "color=black:s=64x48:d=1,drawbox=w=32:h=48:c=white:t=fill", "flat.mp4")
    turned = ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", "turned.mp4")
    outcome = make(turned, end_s=1)
    assert (outcome.width_px, outcome.height_px, outcome.notes) == (48, 64, ("turned by 90 degrees",))
    with av.open(str(tmp_path / "made.mp4")) as container:
        frame = next(container.decode(video=0))
        picture_HW = frame.to_ndarray(format="gray")
    assert frame.rotation == 0
    # 90 degrees counter-clockwise: what was left is now at the bottom.
    assert picture_HW[40:].mean() > 200
    assert picture_HW[:24].mean() < 50


@pytest.mark.parametrize("slow_from", [12, 40, 160])
def test_a_variable_rate_becomes_the_average_rate(
    make: Any, ffmpeg: Any, counting: Path, tmp_path: Path, slow_from: int
) -> None:
    # Every frame up to `slow_from`, then one in four: frames must then stand where their time says.
    pick = f"select=lt(n\\,{slow_from})+not(mod(n\\,4))"
    varying = ffmpeg("-i", counting, "-an", "-vf", pick, "-fps_mode", "vfr", "-crf", "1", "vfr.mp4")
    outcome = make(varying)
    assert "variable frame rate, now constant" in outcome.notes
    made = facts_of(tmp_path / "made.mp4")
    assert not made.variable_rate
    assert made.duration_s == pytest.approx(20, abs=0.4)
    times = np.arange(made.frames) / made.fps
    np.testing.assert_allclose(levels(tmp_path / "made.mp4"), times * 10, atol=8)


def test_a_constant_rate_in_a_coarse_time_base_is_constant(ffmpeg: Any, counting: Path) -> None:
    # Matroska counts milliseconds: 30 fps are steps of 33 and 34.
    assert not facts_of(ffmpeg("-i", counting, "-an", "-r", "30", "in.mkv")).variable_rate


def test_frames_that_an_edit_list_hides_are_not_in_the_clip(
    make: Any, ffmpeg: Any, counting: Path, tmp_path: Path
) -> None:
    # Cutting without encoding starts at a keyframe and hides what stands before the cut.
    rare = ("-g", "60", "-bf", "0", "-x264-params", "scenecut=0", "-crf", "1")
    source = ffmpeg("-i", counting, "-an", *rare, "source.mp4")
    cut = ffmpeg("-ss", "5.5", "-t", "4", "-i", source, "-c", "copy", "cut.mp4")
    outcome = make(cut, end_s=4)
    assert outcome.status == OK
    assert facts_of(cut).duration_s == pytest.approx(4, abs=0.31)
    assert levels(tmp_path / "made.mp4")[0] == pytest.approx(55, abs=4)


def test_an_interlaced_video_is_deinterlaced(make: Any, ffmpeg: Any, counting: Path) -> None:
    fields = ("-vf", "interlace", "-flags", "+ilme+ildct", "-x264-params", "tff=1")
    outcome = make(ffmpeg("-i", counting, "-an", *fields, "in.mp4"))
    assert (outcome.status, outcome.notes) == (OK, ("deinterlaced",))


def test_ten_bit_sources_become_eight_bit(make: Any, ffmpeg: Any, counting: Path, tmp_path: Path) -> None:
    outcome = make(ffmpeg("-i", counting, "-an", "-pix_fmt", "yuv420p10le", "-c:v", "libx264", "in.mp4"))
    assert outcome.notes == ("was yuv420p10le",)
    assert facts_of(tmp_path / "made.mp4").pixel_format == "yuv420p"


def test_odd_sizes_become_even_and_no_larger(make: Any, ffmpeg: Any, counting: Path) -> None:
    odd = ffmpeg("-i", counting, "-an", "-vf", "scale=255:131", "-pix_fmt", "yuv444p", "-c:v", "libx264", "in.mp4")
    outcome = make(odd)
    assert (outcome.status, outcome.width_px, outcome.height_px) == (OK, 254, 130)


@pytest.mark.parametrize("folder", ["café ☕", "a:b", "100%03d", "-dash", "with space'quote"])
def test_strange_folder_names_are_no_obstacle(
    make: Any, counting: Path, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(folder, "-bcdefghijk.mp4")
    path.parent.mkdir()
    path.write_bytes(counting.read_bytes())
    assert make(path, timed=False, start_s=3, end_s=4).status == OK


def test_a_path_that_is_not_utf8_has_a_status(make: Any, counting: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    path = Path(os.fsdecode(folder + b"/abcdefghijk.mp4"))
    path.write_bytes(counting.read_bytes())
    outcome = make(path)
    assert (outcome.status, outcome.detail) == ("corrupt", "its path is not UTF-8")


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        ("kinetics_426x320_30fps.mp4", (340, 256), 300),
        ("h264_340x256_6fps.mp4", (340, 256), 57),
        ("mpeg4_320x240_audio.avi", (320, 240), 164),
        ("h264_1080p_2s.mp4", (456, 256), 72),
    ],
)
def test_real_clips_are_scaled_down_and_never_up(
    make: Any, shared: Path, name: str, size: tuple[int, int], frames: int
) -> None:
    outcome = make(shared / "videos" / name, end_s=10)
    assert (outcome.status, outcome.width_px, outcome.height_px, outcome.frames) == (OK, *size, frames)


def test_an_absurd_file_size_is_refused(counting: Path) -> None:
    assert probe(counting, max_bytes=100) == Unusable(status="too_large", detail=f"{counting.stat().st_size:,} bytes")


@pytest.fixture
def other_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes the given program the ffmpeg of the test."""

    def use(path: str) -> None:
        monkeypatch.setenv("K710_FFMPEG", path)
        ffmpeg_path.cache_clear()
        ffmpeg_build.cache_clear()

    yield use
    ffmpeg_path.cache_clear()
    ffmpeg_build.cache_clear()


def test_a_missing_ffmpeg_is_a_source_error(make: Any, counting: Path, other_ffmpeg: Any) -> None:
    other_ffmpeg("/nowhere/ffmpeg")
    with pytest.raises(SourceError, match="/nowhere/ffmpeg cannot be run") as caught:
        ffmpeg_build()
    assert "K710_FFMPEG" in caught.value.hint
    with pytest.raises(SourceError, match="/nowhere/ffmpeg cannot be run"):
        make(counting)


def test_a_program_that_tells_no_version_is_no_ffmpeg(other_ffmpeg: Any) -> None:
    other_ffmpeg("/bin/true")
    with pytest.raises(SourceError, match="/bin/true is no ffmpeg") as caught:
        ffmpeg_build()
    assert "K710_FFMPEG" in caught.value.hint


def test_a_full_disk_is_not_recorded_as_the_clips_failure(
    make: Any, counting: Path, other_ffmpeg: Any, tmp_path: Path
) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho 'Error writing trailer: No space left on device' >&2\nexit 228\n")
    script.chmod(0o755)
    other_ffmpeg(str(script))
    with pytest.raises(OSError, match="No space left on device") as caught:
        make(counting)
    assert caught.value.errno == errno.ENOSPC
