"""Decoding no more than the wanted frames need gives the frames of decoding everything, on real streams."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from decode_streams import KINDS, NUM_FRAMES, VideoPacket, make, remux, run_ffmpeg, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.errors import FeedError
from uniformerv2.data.decode import count_frames, decode_frames, decode_in_sequence, decode_selected

Frames = list[npt.NDArray[np.uint8]]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[bytes, Frames]]:
    """A video of each kind, and all of its frames."""
    folder = tmp_path_factory.mktemp("streams")
    made = {name: make(kind, folder) for name, kind in KINDS.items()}
    return {name: (data, whole(data)) for name, data in made.items()}


def assert_same(data: bytes, frames: Frames, indices: list[int], *, selects: bool) -> None:
    selected = decode_selected(data, indices)
    assert (selected is not None) == selects
    for number, pixels in (selected or {}).items():
        np.testing.assert_array_equal(pixels, frames[number])
    np.testing.assert_array_equal(decode_frames(data, indices), np.stack([frames[i] for i in indices]))


@pytest.mark.parametrize("name", KINDS)
def test_each_frame_by_itself_is_that_of_a_whole_decode(streams: Mapping[str, tuple[bytes, Frames]], name: str) -> None:
    data, frames = streams[name]
    for index in range(len(frames)):
        selected = decode_selected(data, [index])
        assert (selected is not None) == KINDS[name].selects
        if selected:
            np.testing.assert_array_equal(selected[index], frames[index])


@pytest.mark.parametrize("name", KINDS)
def test_frames_together_are_those_of_a_whole_decode(streams: Mapping[str, tuple[bytes, Frames]], name: str) -> None:
    data, frames = streams[name]
    last = len(frames) - 1
    assert count_frames(data) == len(frames)
    for indices in ([*range(3, last, 5)], [*range(last + 1)], [last, 0, last, 7], [11, 12, 13], [last - 1, last]):
        assert_same(data, frames, indices, selects=KINDS[name].selects)


# Decoding takes as long as the machine is busy.
@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["h264 sparse8", "h264 seven B", "h264 open groups", "hevc layers", "vp9 hidden frames"]),
    indices=st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=9),
)
def test_any_frames_are_those_of_a_whole_decode(
    streams: Mapping[str, tuple[bytes, Frames]], name: str, indices: list[int]
) -> None:
    data, frames = streams[name]
    assert_same(data, frames, indices, selects=True)


@pytest.mark.parametrize(
    ("name", "selects"),
    [
        ("kinetics_340x256_28fps.mp4", True),
        ("kinetics_340x256_30fps.mp4", True),
        ("kinetics_426x320_30fps.mp4", True),
        ("h264_340x256_6fps.mp4", True),
        ("h264_1080p_2s.mp4", False),  # says of each picture whether it stands for fields
        ("mpeg4_320x240_audio.avi", False),
    ],
)
def test_frames_of_real_videos_are_those_of_a_whole_decode(shared: Path, name: str, selects: bool) -> None:
    data, indices = (shared / "videos" / name).read_bytes(), [3, 9, 10, 40, 55]
    expected = decode_in_sequence(data, indices)
    assert (decode_selected(data, indices) is not None) == selects
    np.testing.assert_array_equal(decode_frames(data, indices), np.stack([expected[i] for i in indices]))


@pytest.mark.parametrize("start_s", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("name", ["h264 sparse8", "h264 pyramid", "hevc", "vp9 in mp4"])
def test_a_copied_part_begins_where_its_edit_list_says(
    streams: Mapping[str, tuple[bytes, Frames]], name: str, start_s: float, tmp_path: Path
) -> None:
    (tmp_path / "all.mp4").write_bytes(streams[name][0])
    run_ffmpeg("-ss", str(start_s), "-i", str(tmp_path / "all.mp4"), "-c", "copy", str(tmp_path / "part.mp4"))
    part = (tmp_path / "part.mp4").read_bytes()
    frames = whole(part)
    assert 0 < count_frames(part) == len(frames) < NUM_FRAMES
    for indices in ([0], [4], [len(frames) - 1], [*range(0, len(frames), 4)]):
        assert_same(part, frames, indices, selects=True)


def test_a_copied_part_that_begins_with_frames_that_need_what_is_gone_is_decoded_whole(
    streams: Mapping[str, tuple[bytes, Frames]], tmp_path: Path
) -> None:
    (tmp_path / "all.mp4").write_bytes(streams["h264 open groups"][0])
    run_ffmpeg("-ss", "0.9", "-i", str(tmp_path / "all.mp4"), "-c", "copy", str(tmp_path / "part.mp4"))
    part = (tmp_path / "part.mp4").read_bytes()
    frames = whole(part)
    assert len(frames) < count_frames(part)
    for index in range(0, len(frames), 3):
        assert_same(part, frames, [index], selects=False)


def test_times_of_the_container_that_lie_are_not_believed(
    streams: Mapping[str, tuple[bytes, Frames]], tmp_path: Path
) -> None:
    def flatten(position: int, packet: VideoPacket) -> VideoPacket:
        packet.pts = packet.dts = 512 * position
        return packet

    data, frames = streams["h264 sparse8"]
    lying = remux(data, tmp_path / "lying.mp4", flatten)
    for index in range(0, NUM_FRAMES, 3):
        assert_same(lying, frames, [index], selects=False)


def test_keyframes_of_the_container_are_not_believed(
    streams: Mapping[str, tuple[bytes, Frames]], tmp_path: Path
) -> None:
    def mark(position: int, packet: VideoPacket) -> VideoPacket:
        packet.is_keyframe = True
        return packet

    data, frames = streams["hevc open groups"]
    lying = remux(data, tmp_path / "lying.mp4", mark)
    with av.open(io.BytesIO(lying), "r") as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    for index in range(0, NUM_FRAMES, 3):
        assert_same(lying, frames, [index], selects=True)


@pytest.mark.parametrize("left_out", [0, 4, 13])
def test_a_missing_packet_leaves_the_verdict_to_a_whole_decode(
    streams: Mapping[str, tuple[bytes, Frames]], left_out: int, tmp_path: Path
) -> None:
    def leave_out(position: int, packet: VideoPacket) -> VideoPacket | None:
        return None if position == left_out else packet

    data = remux(streams["h264 without B"][0], tmp_path / "torn.mp4", leave_out)
    assert decode_selected(data, [left_out + 5]) is None


def test_lengths_of_two_bytes_are_read(streams: Mapping[str, tuple[bytes, Frames]], tmp_path: Path) -> None:
    def shorten(position: int, packet: VideoPacket) -> VideoPacket:
        old, new = bytes(packet), b""
        while old:
            end = 4 + int.from_bytes(old[:4], "big")
            new, old = new + old[2:end], old[end:]
        shorter: VideoPacket = av.Packet(new)  # type: ignore[assignment]
        shorter.pts, shorter.dts, shorter.time_base = packet.pts, packet.dts, packet.time_base
        shorter.is_keyframe = packet.is_keyframe
        return shorter

    data, frames = streams["h264 sparse8"]
    short = remux(data, tmp_path / "short.mkv", shorten, lambda avcc: avcc[:4] + bytes([avcc[4] & 0xFC | 1]) + avcc[5:])
    assert len(short) < len(data)
    for index in range(0, NUM_FRAMES, 5):
        assert_same(short, frames, [index], selects=True)


def test_a_change_of_size_is_an_error(tmp_path: Path) -> None:
    parts = b""
    for size in ("64x48", "48x64"):
        source = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25,trim=end_frame=20")
        run_ffmpeg(*source, "-c:v", "libx264", "-preset", "ultrafast", str(tmp_path / f"{size}.ts"))
        parts += (tmp_path / f"{size}.ts").read_bytes()
    assert decode_selected(parts, [3, 30]) is None
    with pytest.raises(FeedError, match="size of the frames changes"):
        decode_frames(parts, [3, 30])


def test_damage_counts_where_a_wanted_frame_needs_it(streams: Mapping[str, tuple[bytes, Frames]]) -> None:
    data, frames = streams["h264 without B"]
    with av.open(io.BytesIO(data), "r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place = (packets[12].pos or 0) + packets[12].size // 2
    damaged = data[:place] + b"\xff" * 20 + data[place + 20 :]
    with pytest.raises(FeedError):
        decode_frames(damaged, [16])
    # Groups are of 12 frames.
    assert_same(damaged, frames, [3, 11, 30], selects=True)


def test_a_truncated_stream_has_the_frames_that_are_left(streams: Mapping[str, tuple[bytes, Frames]]) -> None:
    data, frames = streams["h264 in mkv as it comes"]
    torn = data[: len(data) * 2 // 3]
    np.testing.assert_array_equal(decode_frames(torn, [0, 13]), np.stack([frames[0], frames[13]]))
    with pytest.raises(FeedError):
        decode_frames(torn, [NUM_FRAMES - 1])


def test_without_an_index_the_frames_are_still_there(streams: Mapping[str, tuple[bytes, Frames]]) -> None:
    data, frames = streams["mpeg4 in avi"]
    assert_same(data[: data.rindex(b"idx1")], frames, [0, 13, 40], selects=False)


def test_a_packet_of_a_stream_that_was_not_announced_is_damage(streams: Mapping[str, tuple[bytes, Frames]]) -> None:
    data, frames = streams["h264 in ts"]
    size, place = 188, 65 * 188 + 2
    assert data[place - 2 :: size].count(0x47) == len(data) // size - 65
    damaged = data[:place] + b"\4" + data[place + 1 :]
    assert decode_selected(damaged, [2]) is None
    np.testing.assert_array_equal(decode_frames(damaged, [2])[0], frames[2])
    with pytest.raises(FeedError):
        decode_frames(damaged, [NUM_FRAMES - 1])
