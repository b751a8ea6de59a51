"""The tables of plain MP4 files say what the library says, and files that are not plain are left to it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from decode_streams import KINDS, make, run_ffmpeg, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.decode import decode_frames
from uniformerv2.data.mp4 import Track, read_track

PLAIN = [name for name, kind in KINDS.items() if name.startswith("h264") and kind.container == "mp4"]
PLAIN.remove("h264 fragmented")
OTHERS = [name for name in KINDS if name not in PLAIN]
TO_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
HEADERS = {b"stsd": 8, b"avc1": 78, b"dref": 8}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    return {name: make(kind, folder) for name, kind in KINDS.items()}


def assert_as_the_library(track: Track, data: bytes) -> None:
    samples = track.samples(data)
    with av.open(io.BytesIO(data), "r", metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.codec_context.extradata == track.record
    assert [sample.data for sample in samples] == [bytes(packet) for packet in packets]
    assert in_order(samples) == in_order(packets)
    assert not any(packet.is_discard for packet in packets)


def in_order(packets: Sequence[object]) -> list[int]:
    return sorted(range(len(packets)), key=lambda position: packets[position].pts)  # type: ignore[attr-defined]


def changed(data: bytes, path: Sequence[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """The file with the content of the box at ``path`` as ``change`` makes it; the tables stand behind the samples."""
    position = 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == path[0]:
            content = data[position + 8 : position + size]
            if len(path) > 1:
                header = HEADERS.get(kind, 0)
                content = content[:header] + changed(content[header:], path[1:], change)
            else:
                content = change(content)
            return data[:position] + struct.pack(">I4s", 8 + len(content), kind) + content + data[position + size :]
        position += size
    raise AssertionError(f"no {path[0]!r}")


@pytest.mark.parametrize("name", PLAIN)
def test_tables_of_plain_files_say_what_the_library_says(videos: Mapping[str, bytes], name: str) -> None:
    assert_as_the_library(read_track(videos[name]), videos[name])


@pytest.mark.parametrize(
    "name", ["kinetics_340x256_28fps", "kinetics_340x256_30fps", "kinetics_426x320_30fps", "h264_1080p_2s"]
)
def test_tables_of_real_videos_say_what_the_library_says(shared: Path, name: str) -> None:
    data = (shared / "videos" / f"{name}.mp4").read_bytes()
    assert_as_the_library(read_track(data), data)


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_are_not_plain_are_left_to_the_library(videos: Mapping[str, bytes], name: str) -> None:
    with pytest.raises(UnsafeError):
        read_track(videos[name])


def test_sound_beside_the_pictures_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    sources = ("-f", "lavfi", "-i", "testsrc2=size=64x48:d=2", "-f", "lavfi", "-i", "sine=d=2")
    run_ffmpeg(*sources, "-c:v", "libx264", "-c:a", "aac", str(path))
    assert_as_the_library(read_track(path.read_bytes()), path.read_bytes())


def test_two_tracks_of_pictures_are_left_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x48:d=1")
    run_ffmpeg(*source, *source, "-map", "0", "-map", "1", "-c:v", "libx264", str(path))
    with pytest.raises(UnsafeError, match="not one video track"):
        read_track(path.read_bytes())


def test_an_edit_that_leaves_out_frames_is_left_to_the_library(videos: Mapping[str, bytes]) -> None:
    def shorten(content: bytes) -> bytes:
        return content[:8] + struct.pack(">I", 400) + content[12:]

    data = changed(videos["h264 sparse8"], (b"moov", b"trak", b"edts", b"elst"), shorten)
    with pytest.raises(UnsafeError, match="an edit that leaves out samples"):
        read_track(data)
    assert len(whole(data)) < len(whole(videos["h264 sparse8"]))


def test_places_of_eight_bytes_are_read(videos: Mapping[str, bytes]) -> None:
    def widen(content: bytes) -> bytes:
        places = struct.unpack(f">{len(content) // 4 - 2}I", content[8:])
        return content[:8] + struct.pack(f">{len(places)}Q", *places)

    data = videos["h264 sparse8"]
    wide = changed(data, (*TO_ENTRY[:5], b"stco"), widen).replace(b"stco", b"co64")
    assert [s.data for s in read_track(wide).samples(wide)] == [s.data for s in read_track(data).samples(data)]
    assert_as_the_library(read_track(wide), wide)


@pytest.mark.parametrize(
    ("colours", "same"),
    [
        (b"nclx" + struct.pack(">HHHB", 1, 1, 1, 0), False),
        (b"nclx" + struct.pack(">HHHB", 6, 6, 6, 128), False),
        (b"nclc" + struct.pack(">HHH", 1, 1, 1), False),
        (b"nclx" + struct.pack(">HHHB", 2, 2, 2, 0), True),
    ],
)
def test_colours_that_the_container_alone_states_give_the_pixels_of_the_library(
    videos: Mapping[str, bytes], colours: bytes, same: bool
) -> None:
    def add(content: bytes) -> bytes:
        return content + struct.pack(">I4s", 8 + len(colours), b"colr") + colours

    plain = videos["h264 sparse8"]
    data = changed(plain, TO_ENTRY, add)
    assert read_track(data).colours
    np.testing.assert_array_equal(decode_frames(data, [0, 9, 20]), np.stack([whole(data)[i] for i in (0, 9, 20)]))
    assert np.array_equal(decode_frames(data, [9]), decode_frames(plain, [9])) == same


@pytest.mark.parametrize("size", [(64, 48), (60, 48), (62, 47), (32, 48), (80, 64), (0, 0)])
def test_a_container_that_states_another_size_gives_the_pixels_of_the_library(
    videos: Mapping[str, bytes], size: tuple[int, int]
) -> None:
    def resize(content: bytes) -> bytes:
        return content[:24] + struct.pack(">HH", *size) + content[28:]

    data = changed(videos["h264 sparse8"], TO_ENTRY, resize)
    assert (read_track(data).width_px, read_track(data).height_px) == size
    np.testing.assert_array_equal(decode_frames(data, [0, 9, 20]), np.stack([whole(data)[i] for i in (0, 9, 20)]))


def test_colours_by_a_profile_are_left_to_the_library(videos: Mapping[str, bytes]) -> None:
    data = changed(videos["h264 sparse8"], TO_ENTRY, lambda content: content + struct.pack(">I8s", 12, b"colrprof"))
    with pytest.raises(UnsafeError, match="profile"):
        read_track(data)


# Decoding takes as long as the machine is busy.
@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_tables_are_refused_or_still_say_what_the_library_says(
    videos: Mapping[str, bytes], place: int, value: int
) -> None:
    data = bytearray(videos["h264 uneven times"])
    first = data.index(b"moov") - 4
    data[first + place % (len(data) - first)] = value
    try:
        track = read_track(bytes(data))
    except UnsafeError:
        return
    if len(set(track.times.tolist())) < len(track.times):
        return  # selection refuses it
    try:
        assert_as_the_library(track, bytes(data))
    except UnicodeDecodeError:  # the name of the writer, on which nothing depends
        assert track.samples(bytes(data)) == read_track(videos["h264 uneven times"]).samples(bytes(data))
