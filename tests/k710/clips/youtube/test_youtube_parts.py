"""Parts of videos: each frame is the one that the whole video shows at that time, in every kind of file."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import read_numbers, write_numbered

from k710.clips.media import ffmpeg_path
from k710.clips.probing import VideoFacts, probe
from k710.clips.sources.candidates import Brought
from k710.clips.sources.youtube.part import NoPartError, Span, save_part
from k710.clips.sources.youtube.remote_file import Blocks, Piece, RemoteFile, TooManyBytesError

SPANS_S = [(0.0, 1.5), (3.0, 5.0), (7.77, 9.99), (12.5, 19.0), (19.5, 40.0)]
# The frame before a keyframe: with B-frames that is decoded earlier than this one is shown.
BEFORE_KEYFRAMES_S = [(n * 50 * 1001 / 30000 - 0.03, n * 50 * 1001 / 30000 + 0.5) for n in (1, 3, 5)]


def blocks(path: Path, *, max_bytes: int = 1 << 30) -> Blocks:
    data = path.read_bytes()
    get = lambda first, last: Piece(data=data[first : last + 1], total_bytes=len(data))  # noqa: E731
    return Blocks(get, max_bytes=max_bytes, block_bytes=4096)


def part(path: Path, stem: Path, start_s: float, end_s: float, pad_s: float = 1.0) -> Brought:
    span = Span(need_s=start_s, from_s=max(0.0, start_s - pad_s), until_s=end_s + pad_s)
    return save_part(RemoteFile(blocks(path)), None, span, stem)


def facts_of(path: Path) -> VideoFacts:
    facts = probe(path)
    assert isinstance(facts, VideoFacts)
    return facts


FRAGMENTS = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof+global_sidx")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k")
KINDS = {
    "mp4": (".mp4", "30", ()),
    "ntsc_with_b_frames": (".mp4", "30000/1001", ("-bf", "3", "-movflags", "+faststart")),
    "fragments": (".mp4", "25", FRAGMENTS),
    "open_groups": (".mp4", "30", ("-x264-params", "open-gop=1:bframes=3:scenecut=0")),
    "begins_late": (".mp4", "30", ("-vf", "setpts=PTS+0.37/TB", "-fps_mode", "vfr")),
    "rate_varies": (".mp4", "30", ("-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "vfr")),
    "vp9": (".webm", "30000/1001", VP9),
}


QUICK = ("ntsc_with_b_frames", "vp9")


@pytest.mark.parametrize(
    ("kind", "pad_s"),
    [
        pytest.param(kind, pad_s, marks=() if kind in QUICK and pad_s else pytest.mark.slow)
        for kind in KINDS
        for pad_s in (0.0, 1.0)
    ],
)
def test_every_frame_of_a_part_is_the_whole_videos_frame_of_that_time(tmp_path: Path, kind: str, pad_s: float) -> None:
    suffix, rate, options = KINDS[kind]
    whole = write_numbered(tmp_path / f"whole{suffix}", 600, rate, "-g", "50", *options)
    numbers, times_s = read_numbers(whole), facts_of(whole).times_s
    for start_s, end_s in SPANS_S + BEFORE_KEYFRAMES_S:
        brought = part(whole, tmp_path / f"part{start_s}", start_s, end_s, pad_s)
        there, there_s = read_numbers(brought.path), facts_of(brought.path).times_s + brought.begins_s
        first = int(np.searchsorted(times_s, there_s[0] - 1e-4))
        # One tick of the coarsest of these files, which count milliseconds, is far less than a frame.
        np.testing.assert_allclose(there_s, times_s[first : first + len(there_s)], atol=1e-6)
        assert there == numbers[first : first + len(there)]
        shown = np.searchsorted(times_s, [start_s + 1e-6, end_s])
        assert there_s[0] <= max(times_s[max(0, shown[0] - 1)], times_s[0]) + 1e-6
        assert there_s[-1] >= times_s[min(shown[1], len(times_s)) - 1] - 1e-6


def packets_of(path: Path) -> dict[bytes, Fraction]:
    """When each packet of sound is heard, by its bytes."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return {bytes(p): p.pts * p.time_base for p in container.demux(stream) if p.size and p.pts is not None}


@pytest.mark.parametrize("apart", [True, False])
def test_sound_keeps_its_time_to_the_picture(tmp_path: Path, apart: bool) -> None:
    noise = ["-f", "lavfi", "-i", "anoisesrc=duration=20:seed=1", "-c:a", "aac", "-b:a", "64k"]
    mute = write_numbered(tmp_path / "mute.mp4", 600, "30", "-g", "50")
    sound, both = tmp_path / "sound.m4a", tmp_path / "both.mp4"
    run = [ffmpeg_path(), "-v", "error"]
    subprocess.run([*run, *noise, str(sound)], check=True, stdin=subprocess.DEVNULL)
    mix = ["-i", str(mute), "-i", str(sound), "-c", "copy", str(both)]
    subprocess.run([*run, *mix], check=True, stdin=subprocess.DEVNULL)
    pictures = blocks(mute if apart else both)
    sounds = blocks(sound) if apart else pictures
    span = Span(need_s=8, from_s=7, until_s=12)
    brought = save_part(RemoteFile(pictures), RemoteFile(sounds), span, tmp_path / "part")
    before, after = packets_of(sound), packets_of(brought.path)
    assert len(after) > 100
    for data, time_s in after.items():
        assert abs(float(time_s) + brought.begins_s - float(before[data])) < 1 / 44100


@pytest.mark.parametrize("suffix", [".avi", ".ts", ".mkv", ".m4a"])
def test_other_files_give_no_part(tmp_path: Path, suffix: str) -> None:
    options = ["-f", "lavfi", "-i", "sine=duration=3"] if suffix == ".m4a" else []
    if options:
        path = tmp_path / f"whole{suffix}"
        subprocess.run([ffmpeg_path(), "-v", "error", *options, str(path)], check=True, stdin=subprocess.DEVNULL)
    else:
        path = write_numbered(tmp_path / f"whole{suffix}", 90, "30", "-bf", "3")
    with pytest.raises(NoPartError):
        part(path, tmp_path / "part", 1, 2)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 1000])
def test_a_file_that_is_no_video_gives_no_part(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "whole.mp4"
    path.write_bytes(content)
    with pytest.raises(NoPartError):
        part(path, tmp_path / "part", 1, 2)


def test_what_reading_raises_comes_through_the_demuxer(tmp_path: Path) -> None:
    class StopError(BaseException):
        pass

    data = write_numbered(tmp_path / "whole.mp4", 600, "30", "-g", "50").read_bytes()

    def get(first: int, last: int) -> Piece:
        if first > 3 * 4096:
            raise StopError
        return Piece(data=data[first : last + 1], total_bytes=len(data))

    file = RemoteFile(Blocks(get, max_bytes=1 << 30, block_bytes=4096))
    with pytest.raises(StopError):
        save_part(file, None, Span(need_s=10, from_s=9, until_s=15), tmp_path / "part")


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "whole.mp4", 600, "30", "-g", "50")
    file = RemoteFile(blocks(path, max_bytes=3 * 4096))
    with pytest.raises(TooManyBytesError):
        save_part(file, None, Span(need_s=0, from_s=0, until_s=20), tmp_path / "part")


def test_a_remote_file_reads_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(256)) * 80)
    with path.open("rb") as near:
        far = RemoteFile(blocks(path))
        for offset, whence, size in [(0, 0, 10), (4090, 0, 6), (-5, 2, 100), (-20, 1, 20), (30000, 0, 5), (4096, 0, 1)]:
            assert far.seek(offset, whence) == near.seek(offset, whence)
            assert far.read(size) == near.read(size)
            assert far.tell() == near.tell()
