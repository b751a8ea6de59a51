"""The named encodings: how frames are ordered, what is copied or left where it is, sound, and the shape of pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered import read_numbers, write_numbered

from k710.clips import media
from k710.clips.encodings import EncodeConfig, x264_options
from k710.clips.outcomes import OK
from k710.clips.probing import VideoFacts, probe

COPY, NONE = EncodeConfig(encode="copy"), EncodeConfig(encode="none")
LOUD = EncodeConfig(keep_audio=True)


def reference_marks(path: Path) -> list[tuple[bool, bool]]:
    """Of each packet of an H.264 mp4: whether it is a keyframe, and whether others refer to it."""
    marks = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data, at = bytes(packet), 0
            while at < len(data):
                if data[at + 4] & 31 in (1, 5):
                    marks.append((packet.is_keyframe, bool(data[at + 4] >> 5 & 3)))
                    break
                at += 4 + int.from_bytes(data[at : at + 4], "big")
    return marks


def sound_of(path: Path) -> np.ndarray[Any, Any]:
    """Samples of the first channel."""
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s at 25 fps."""
    return write_numbered(tmp_path_factory.mktemp("numbered") / "in.mp4", 250, "25")


@pytest.mark.parametrize(("encode", "gop", "bframes"), [("sparse8", 16, 3), ("sparse32", 64, 7)])
def test_sparse_clips_have_close_keyframes_and_frames_that_can_be_dropped(
    make: Any, numbered: Path, tmp_path: Path, encode: Any, gop: int, bframes: int
) -> None:
    make(numbered, end_s=10, encode=EncodeConfig(encode=encode))
    marks = reference_marks(tmp_path / "made.mp4")
    keys = [n for n, (key, _) in enumerate(marks) if key]
    assert len(marks) == 250
    assert np.diff(keys).tolist() == [gop] * (len(keys) - 1)
    assert sum(needed for _, needed in marks) <= 250 / (bframes + 1) + 2 * len(keys)
    assert read_numbers(tmp_path / "made.mp4") == list(range(250))


def test_every_frame_of_an_intra_clip_is_a_keyframe(make: Any, numbered: Path, tmp_path: Path) -> None:
    make(numbered, end_s=10, encode=EncodeConfig(encode="intra"))
    assert reference_marks(tmp_path / "made.mp4") == [(True, True)] * 250


def test_preset_and_quality_reach_the_encoder() -> None:
    options = x264_options(EncodeConfig(preset="slow", crf=30))
    assert (options["preset"], options["crf"], options["threads"]) == ("slow", 30, 1)


@pytest.mark.parametrize("config", [COPY, NONE])
def test_a_whole_video_is_not_copied(make: Any, numbered: Path, tmp_path: Path, config: EncodeConfig) -> None:
    outcome = make(numbered, timed=False, start_s=2, end_s=4, encode=config)
    assert outcome.status == "needs_cut"
    assert config.encode in outcome.detail
    assert not (tmp_path / "made.mp4").exists()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts", "mov"])
def test_a_copy_has_the_very_frames_of_its_source(make: Any, tmp_path: Path, suffix: str) -> None:
    source = write_numbered(tmp_path / f"in.{suffix}", 250, "25", "-crf", "30")
    outcome = make(source, end_s=10, encode=COPY)
    made = tmp_path / "made.mp4"
    assert (outcome.status, outcome.frames, outcome.codec, outcome.notes) == (OK, 250, "h264", ())
    assert outcome.sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert read_numbers(made) == list(range(250))
    with av.open(str(source)) as before, av.open(str(made)) as after:
        pictures = [[f.to_ndarray(format="gray") for f in c.decode(video=0)] for c in (before, after)]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "flv"])
def test_a_plain_copy_runs_no_other_program(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = write_numbered(tmp_path / f"in.{suffix}", 50, "25", "-crf", "30")
    monkeypatch.setattr(media, "run_ffmpeg", lambda *_: pytest.fail("ffmpeg was run"))
    assert make(source, end_s=2, encode=COPY).status == OK
    assert read_numbers(tmp_path / "made.mp4") == list(range(50))


def test_a_copy_by_ffmpeg_has_the_frames_of_one_without(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_numbered(tmp_path / "in.mkv", 50, "25", "-crf", "30")
    quick = make(source, end_s=2, encode=COPY)
    monkeypatch.setattr(media, "remuxed", lambda *_, **__: False)
    slow = make(source, end_s=2, encode=COPY)
    assert (slow.frames, slow.fps, slow.notes) == (quick.frames, quick.fps, quick.notes)
    assert read_numbers(tmp_path / "made.mp4") == list(range(50))


def test_a_copy_is_the_same_bytes_twice(make: Any, counting: Path) -> None:
    assert make(counting, encode=COPY).sha256 == make(counting, encode=COPY).sha256


def test_a_copy_hides_what_its_source_hides(make: Any, ffmpeg: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "source.mp4", 500, "25", "-bf", "0")
    edited = ffmpeg("-ss", "12", "-t", "4", "-i", source, "-c", "copy", "edited.mp4")
    facts = probe(edited)
    assert isinstance(facts, VideoFacts)
    outcome = make(edited, end_s=4, encode=COPY)
    assert (outcome.status, outcome.frames) == (OK, facts.frames)
    assert read_numbers(tmp_path / "made.mp4")[:100] == list(range(300, 400))


def test_a_copy_stays_turned_and_says_so(make: Any, ffmpeg: Any, numbered: Path, tmp_path: Path) -> None:
    turned = ffmpeg("-display_rotation", "90", "-i", numbered, "-c", "copy", "turned.mp4")
    outcome = make(turned, end_s=10, encode=COPY)
    assert (outcome.status, outcome.notes) == (OK, ("to be turned by 90 degrees",))
    assert (outcome.width_px, outcome.height_px) == (32, 192)


def test_a_codec_that_mp4_cannot_hold_has_a_reason(make: Any, tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "in.webm", 50, "25", "-c:v", "libvpx", "-b:v", "1M")
    outcome = make(source, end_s=2, encode=COPY)
    assert outcome.status == "corrupt"
    assert outcome.detail.startswith("Could not find tag for codec vp8 in stream #0, codec not currently supported")
    assert "0x" not in outcome.detail


def test_an_mpeg4_avi_is_copied(make: Any, shared: Path) -> None:
    outcome = make(shared / "videos" / "mpeg4_320x240_audio.avi", end_s=10, encode=COPY)
    assert (outcome.status, outcome.codec, outcome.frames) == (OK, "mpeg4", 164)


def test_none_describes_the_file_where_it_is(make: Any, counting: Path, tmp_path: Path) -> None:
    outcome = make(counting, encode=NONE)
    assert (outcome.status, outcome.path, outcome.source) == (OK, str(counting), "counting.mp4")
    assert (outcome.size_bytes, outcome.sha256) == (counting.stat().st_size, "")
    assert (outcome.frames, outcome.fps, outcome.width_px, outcome.codec) == (200, 10, 64, "h264")
    assert not (tmp_path / "made.mp4").exists()


@pytest.mark.parametrize("config", [COPY, NONE])
def test_a_truncated_file_is_neither_copied_nor_indexed(
    make: Any, counting: Path, tmp_path: Path, config: EncodeConfig
) -> None:
    cut_off = tmp_path / "in.mp4"
    cut_off.write_bytes(counting.read_bytes()[:-100])
    assert make(cut_off, encode=config).status == "truncated"


def test_sound_is_kept_when_asked_for(make: Any, counting: Path, tmp_path: Path) -> None:
    outcome = make(counting, encode=LOUD)
    assert (outcome.status, outcome.notes, outcome.frames) == (OK, (), 200)
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
    assert make(counting, encode=LOUD).sha256 == outcome.sha256


def test_a_copy_keeps_sound_when_asked_for(make: Any, counting: Path, tmp_path: Path) -> None:
    make(counting, encode=COPY)
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert [s.type for s in container.streams] == ["video"]
    make(counting, encode=EncodeConfig(encode="copy", keep_audio=True))
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]


def test_a_silent_source_is_kept_with_a_note(make: Any, numbered: Path) -> None:
    outcome = make(numbered, end_s=10, encode=LOUD)
    assert (outcome.status, outcome.notes) == (OK, ("no sound in the source",))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_sound_is_cut_with_the_picture(make: Any, ffmpeg: Any, numbered: Path, tmp_path: Path, suffix: str) -> None:
    # Silence up to 4.0 s, then a tone.
    tone = ("-f", "lavfi", "-i", "sine=440:d=10:r=48000,volume=volume='gte(t,4)':eval=frame")
    source = ffmpeg("-i", numbered, *tone, "-c:v", "copy", "-c:a", "aac", "-b:a", "128k", f"in.{suffix}")
    outcome = make(source, timed=False, start_s=3.3, end_s=6.3, encode=LOUD)
    assert (outcome.status, outcome.frames) == (OK, 75)
    facts = probe(source)
    assert isinstance(facts, VideoFacts)
    # A transport stream begins with the sound's run-in, so the picture comes 21 ms later.
    first = int(np.searchsorted(facts.times_s, 3.3)) - 1
    assert read_numbers(tmp_path / "made.mp4")[0] == first
    samples = sound_of(tmp_path / "made.mp4")
    begins_s = int(np.argmax(np.abs(samples) > 0.03)) / 48000
    assert begins_s == pytest.approx(4 - facts.times_s[first], abs=0.04)
    assert len(samples) / 48000 == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize(
    ("stored", "aspect", "size"),
    [("720:576", "16/15", (320, 240)), ("720:480", "32/27", (426, 240)), ("640:480", "1/2", (240, 360))],
)
def test_pixels_become_square(
    make: Any, ffmpeg: Any, tmp_path: Path, stored: str, aspect: str, size: tuple[int, int]
) -> None:
    drawn = f"color=black:s={stored.replace(':', 'x')}:d=1,setsar={aspect}"
    outcome = make(ffmpeg("-f", "lavfi", "-i", drawn, "in.mp4"), end_s=1, encode=EncodeConfig(short_side_px=240))
    assert f"pixels were {aspect.replace('/', ':')}, now square" in outcome.notes
    assert (outcome.width_px, outcome.height_px) == size
    with av.open(str(tmp_path / "made.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)


def test_a_circle_of_an_anamorphic_video_is_round(make: Any, ffmpeg: Any, tmp_path: Path) -> None:
    # An ellipse in pixels that are twice as wide as high.
    ellipse = "geq=lum='255*lt(hypot((X-80)*2,Y-120),100)':cb=128:cr=128"
    source = ffmpeg("-f", "lavfi", "-i", f"color=s=160x240:d=0.5,{ellipse},setsar=2", "in.mkv")
    outcome = make(source, end_s=1)
    assert (outcome.width_px, outcome.height_px) == (320, 240)
    with av.open(str(tmp_path / "made.mp4")) as container:
        picture_HW = next(container.decode(video=0)).to_ndarray(format="gray") > 128
    assert picture_HW.any(axis=0).sum() == pytest.approx(200, abs=3)
    assert picture_HW.any(axis=1).sum() == pytest.approx(200, abs=3)


def test_a_turned_anamorphic_video_is_upright_and_square(make: Any, ffmpeg: Any) -> None:
    flat = ffmpeg("-f", "lavfi", "-i", "color=black:s=96x96:d=1,setsar=2", "flat.mp4")
    turned = ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", "turned.mp4")
    outcome = make(turned, end_s=1)
    assert (outcome.width_px, outcome.height_px) == (96, 192)


def test_an_aspect_that_is_left_over_from_scaling_is_none(make: Any, shared: Path) -> None:
    outcome = make(shared / "videos" / "kinetics_426x320_30fps.mp4", end_s=10)
    assert (outcome.width_px, outcome.height_px, outcome.notes) == (340, 256, ())


def test_black_and_frozen_pictures_are_noted(make: Any, ffmpeg: Any, shared: Path) -> None:
    black = ffmpeg("-f", "lavfi", "-i", "color=black:s=64x48:d=4", "black.mp4")
    source = shared / "videos" / "kinetics_340x256_28fps.mp4"
    still = ffmpeg("-i", source, "-an", "-vf", "trim=end_frame=1,loop=99:1,setpts=N/25/TB,fps=25", "still.mp4")
    assert make(black, end_s=4).notes == ("black picture",)
    assert "frozen picture" in make(still, end_s=4).notes
    assert not {"black picture", "frozen picture"} & set(make(source, end_s=10).notes)


@pytest.mark.parametrize("setting", [{"encode": "sparse"}, {"preset": "quick"}])
def test_an_unknown_name_is_refused(setting: Any) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*, got (sparse|quick)"):
        EncodeConfig(**setting)
