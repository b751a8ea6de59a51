"""torchcodec gives the frames of a whole decode by PyAV, or leaves the video to PyAV."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from decode_streams import KINDS, NUM_FRAMES, Kind, VideoPacket, make, remux, run_ffmpeg, whole
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k710.config import from_mapping
from k710.errors import FeedError, UsageError
from uniformerv2.config import DataConfig
from uniformerv2.data import torchcodec_check, torchcodec_frames
from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.decode import decode_by_torchcodec, decode_frames
from uniformerv2.data.torchcodec_check import require_decoder
from uniformerv2.data.torchcodec_library import load
from uniformerv2.training.folder import open_run

ROOT = Path(__file__).parents[3]
Frames = list[npt.NDArray[np.uint8]]
Stream = tuple[bytes, Frames]

needs_torchcodec = pytest.mark.usefixtures("torchcodec")

USUAL = ["h264 sparse8", "h264 pyramid", "h264 one group", "h264 colours", "h264 uneven times", "h264 fragmented"]
LEFT_TO_PYAV = {
    "h264 open groups": "a seek could end where decoding cannot begin",
    "h264 intra refresh": "a seek could end where decoding cannot begin",
    "h264 interlaced": "fields of a picture",
    "h264 interlaced without B": "fields of a picture",
    "h264 that could be interlaced": "may be interlaced",
    "h264 pulldown": "may stand for fields",
    "h264 ten bits": "colours of yuv420p10le",
    "h264 4:2:2": "colours of yuv422p",
    "h264 4:4:4": "colour in full resolution",
    "h264 in mkv as it comes": "The maximum pts value in seconds is unknown",
    "h264 in ts": "seeks in mpegts",
    "h264 in avi": "times of the container",
    "h264 in flv": "seeks in flv",
    "hevc": "hevc is not known to be decoded alike",
    "hevc slices": "hevc is not known to be decoded alike",
    "hevc buffer model": "a message of type",
    "vp9": "vp9 is not known to be decoded alike",
    "av1": "av1 is not known to be decoded alike",
    "mpeg4": "nothing is known about packets of mpeg4",
}
"""Why, by kind; the other kinds of H.264 are torchcodec's, and what begins like one of the rest is like it."""


@pytest.fixture(scope="module")
def torchcodec() -> None:
    """Skips where it cannot be loaded; not at collection, because to load it takes seconds."""
    try:
        load()
    except UsageError as error:
        pytest.skip(f"{error.message} ({error.hint})")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def usual(folder: Path) -> Mapping[str, Stream]:
    made = {name: make(KINDS[name], folder) for name in USUAL}
    return {name: (data, whole(data)) for name, data in made.items()}


def assert_same(data: bytes, frames: Frames, indices: list[int]) -> None:
    """torchcodec itself gives the frames."""
    given_back = decode_by_torchcodec(data, indices)
    assert sorted(given_back) == sorted(set(indices))
    for number, pixels in given_back.items():
        np.testing.assert_array_equal(pixels, frames[number])
    assert_right(data, frames, indices)


def assert_right(data: bytes, frames: Frames, indices: list[int]) -> None:
    """Whichever library gives the frames, they are right."""
    expected = np.stack([frames[i] for i in indices])
    np.testing.assert_array_equal(decode_frames(data, indices, "torchcodec"), expected)


@needs_torchcodec
@pytest.mark.parametrize("name", USUAL)
def test_frames_are_those_of_a_whole_decode(usual: Mapping[str, Stream], name: str) -> None:
    data, frames = usual[name]
    last = len(frames) - 1
    for indices in ([*range(last + 1)], [last, 0, last, 7], [11, 12, 13], [last - 1, last], [5]):
        assert_same(data, frames, indices)


# Decoding takes as long as the machine is busy.
@needs_torchcodec
@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(USUAL[:4]), indices=st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=9))
def test_any_frames_are_those_of_a_whole_decode(usual: Mapping[str, Stream], name: str, indices: list[int]) -> None:
    assert_same(*usual[name], indices)


@needs_torchcodec
@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_video_is_decoded_right_and_by_the_library_that_is_sure(folder: Path, name: str) -> None:
    data = make(KINDS[name], folder)
    frames, reason = whole(data), LEFT_TO_PYAV.get(name) or LEFT_TO_PYAV.get(name.split()[0])
    if name.startswith(("mpeg2", "mjpeg")):
        reason = "nothing is known about packets"
    for indices in ([*range(len(frames))], [len(frames) - 1, 0, 7], *([i] for i in range(len(frames)))):
        if reason:
            with pytest.raises(UnsafeError, match=reason):
                decode_by_torchcodec(data, indices)
            assert_right(data, frames, indices)
        else:
            assert_same(data, frames, indices)


@needs_torchcodec
@pytest.mark.parametrize("name", ["h264 open groups", "h264 interlaced", "h264 ten bits", "h264 in ts", "hevc slices"])
def test_a_video_that_torchcodec_decodes_otherwise_or_not_at_all_is_left_to_pyav(folder: Path, name: str) -> None:
    data = make(KINDS[name], folder)
    frames = whole(data)
    with pytest.raises(UnsafeError, match=LEFT_TO_PYAV.get(name, LEFT_TO_PYAV["hevc"])):
        decode_by_torchcodec(data, [40, 3])
    assert_right(data, frames, [40, 3])


@needs_torchcodec
def test_a_video_that_is_to_be_shown_turned_keeps_the_frames_that_it_has(
    usual: Mapping[str, Stream], tmp_path: Path
) -> None:
    data, frames = usual["h264 sparse8"]
    (tmp_path / "straight.mp4").write_bytes(data)
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation:v:0", "90", "-i", str(tmp_path / "straight.mp4"), "-c", "copy", str(turned))
    with pytest.raises(UnsafeError, match="turns the frames upright"):
        decode_by_torchcodec(turned.read_bytes(), [3])
    assert_right(turned.read_bytes(), frames, [3, 17])


@needs_torchcodec
@pytest.mark.parametrize("start_s", [0.2, 0.9, 1.0])
def test_a_copied_part_begins_where_its_edit_list_says(
    usual: Mapping[str, Stream], start_s: float, tmp_path: Path
) -> None:
    (tmp_path / "all.mp4").write_bytes(usual["h264 pyramid"][0])
    run_ffmpeg("-ss", str(start_s), "-i", str(tmp_path / "all.mp4"), "-c", "copy", str(tmp_path / "part.mp4"))
    part = (tmp_path / "part.mp4").read_bytes()
    frames = whole(part)
    assert 0 < len(frames) < NUM_FRAMES
    for indices in ([0], [4], [len(frames) - 1], [*range(0, len(frames), 4)]):
        with pytest.raises(UnsafeError, match="that an edit list leaves out"):
            decode_by_torchcodec(part, indices)
        assert_right(part, frames, indices)


@needs_torchcodec
def test_times_of_the_container_that_lie_are_not_believed(usual: Mapping[str, Stream], tmp_path: Path) -> None:
    def flatten(position: int, packet: VideoPacket) -> VideoPacket:
        packet.pts = packet.dts = 512 * position
        return packet

    data, frames = usual["h264 sparse8"]
    lying = remux(data, tmp_path / "lying.mp4", flatten)
    with pytest.raises(UnsafeError):
        decode_by_torchcodec(lying, [9])
    assert_right(lying, frames, [9, 30])


@needs_torchcodec
@pytest.mark.parametrize(("later_s", "height", "reason"), [(0.04, 48, "another time"), (0, 46, "another size")])
def test_frames_of_other_times_or_sizes_are_not_taken(
    usual: Mapping[str, Stream], monkeypatch: pytest.MonkeyPatch, later_s: float, height: int, reason: str
) -> None:
    right = torchcodec_frames._decoded

    def wrong(*arguments: Any) -> Any:
        batch = right(*arguments)
        return SimpleNamespace(data=batch.data[:, :height], pts_seconds=batch.pts_seconds + later_s)

    monkeypatch.setattr(torchcodec_frames, "_decoded", wrong)
    data, frames = usual["h264 sparse8"]
    with pytest.raises(UnsafeError, match=reason):
        decode_by_torchcodec(data, [3, 9])
    assert_right(data, frames, [3, 9])


@needs_torchcodec
def test_colours_that_pyav_refuses_are_refused(folder: Path) -> None:
    colours = ("-x264-params", "b-adapt=0:colormatrix=YCgCo")
    data = make(Kind(options=(*KINDS["h264 sparse8"].options[:-2], *colours)), folder)
    with pytest.raises(FeedError, match="cannot be decoded"):
        decode_frames(data, [3], "torchcodec")


@needs_torchcodec
@pytest.mark.parametrize("name", ["kinetics_340x256_28fps.mp4", "kinetics_426x320_30fps.mp4", "h264_340x256_6fps.mp4"])
def test_frames_of_real_videos_are_those_of_pyav(shared: Path, name: str) -> None:
    data, indices = (shared / "videos" / name).read_bytes(), [3, 9, 10, 40, 55]
    np.testing.assert_array_equal(
        decode_frames(data, indices), np.stack([decode_by_torchcodec(data, indices)[i] for i in indices])
    )


def outcome(data: bytes, indices: list[int], decoder: Any) -> bytes | str:
    """The frames, or what is wrong with the video."""
    try:
        return decode_frames(data, indices, decoder).tobytes()
    except FeedError as error:
        return error.message


# torchcodec fills damaged places and does not say so. PyAV may find damage in frames that are not wanted.
@needs_torchcodec
@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), size=st.integers(1, 40), filling=st.integers(0, 255))
@example(place=0.55, size=40, filling=0xFF)
def test_a_damaged_video_has_the_end_that_it_has_with_pyav_or_no_damage_to_be_seen(
    usual: Mapping[str, Stream], place: float, size: int, filling: int
) -> None:
    data, frames = usual["h264 sparse8"]
    start = int(place * len(data))
    damaged = data[:start] + bytes([filling] * size) + data[start + size :]
    chosen = [3, 11, 16, 30]
    sound = np.stack([frames[i] for i in chosen]).tobytes()
    assert outcome(damaged, chosen, "torchcodec") in (outcome(damaged, chosen, "pyav"), sound)


# A message to a function that is gone would end the process.
def test_messages_are_heard_only_while_a_video_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    receivers: list[Any] = []
    monkeypatch.setattr(torchcodec_frames, "_logging", lambda _: (receivers.append, "its own"))
    with pytest.raises(KeyError), torchcodec_frames._heard("library"):
        raise KeyError(len(receivers))
    assert len(receivers) == 2
    assert receivers[-1] == "its own"


# The run


def test_a_decoder_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"decoder: expected one of 'pyav', 'torchcodec', got 'decord'"):
        from_mapping(DataConfig, {"decoder": "decord"})


def test_a_run_does_not_go_on_with_another_decoder(tmp_path: Path) -> None:
    with ExitStack() as guard:
        open_run(tmp_path, {"recipe": {"seed": 1}}, resume=False, fresh=False, guard=guard)
    changed = {"recipe": {"seed": 1, "data": {"decoder": "torchcodec"}}}
    with ExitStack() as guard, pytest.raises(UsageError, match=r"recipe\.data\.decoder: 'pyav' -> 'torchcodec'"):
        open_run(tmp_path, changed, resume=True, fresh=False, guard=guard)


@needs_torchcodec
def test_a_decoder_that_gives_the_same_frames_may_be_used() -> None:
    require_decoder("torchcodec")


@needs_torchcodec
def test_a_decoder_that_gives_other_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torchcodec_frames.frames_of

    def wrong(*arguments: Any) -> dict[int, Any]:
        frames = right(*arguments)
        frames[11] = frames[11].copy()
        frames[11][5, 6, 1] ^= 2
        return frames

    monkeypatch.setattr(torchcodec_frames, "frames_of", wrong)
    with pytest.raises(
        UsageError, match=r"other pixels than PyAV .*: frame 11 of a clip .*, by up to 2 of 255"
    ) as info:
        require_decoder("torchcodec")
    assert info.value.message.startswith("data.decoder=torchcodec: torchcodec 0.")
    assert "--set data.decoder=pyav" in info.value.hint


@needs_torchcodec
def test_a_decoder_that_leaves_the_usual_to_pyav_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchcodec_frames, "_CODECS", ())
    with pytest.raises(UsageError, match="cannot decode a clip of limited range: h264 is not known"):
        require_decoder("torchcodec")


def test_clips_are_compared_that_differ_in_colours_and_size() -> None:
    from_probe = [whole(torchcodec_check.clip_of(probe)) for probe in torchcodec_check.PROBES.values()]
    assert len({frames[0].shape for frames in from_probe}) == len(torchcodec_check.PROBES) == 3
    assert all(np.ptp(frames[0]) > 200 for frames in from_probe)


# What is missing

NO_FFMPEG = """Could not load libtorchcodec. Likely causes: FFmpeg is not properly installed in your environment.
FFmpeg version 8:
OSError: libavutil.so.60: cannot open shared object file: No such file or directory
FFmpeg version 5:
OSError: libavutil.so.57: cannot open shared object file: No such file or directory
"""
NO_CUDA = """Could not load libtorchcodec. Likely causes: FFmpeg is not properly installed in your environment.
FFmpeg version 8:
OSError: libavutil.so.60: cannot open shared object file: No such file or directory
FFmpeg version 5:
OSError: libnvrtc.so.13: cannot open shared object file: No such file or directory
"""
OTHER_TORCH = """Could not load libtorchcodec. Likely causes: FFmpeg is not properly installed in your environment.
FFmpeg version 8:
OSError: libavutil.so.60: cannot open shared object file: No such file or directory
FFmpeg version 5:
OSError: libtorchcodec_core5.so: undefined symbol: _ZN3c106detail14torchCheckFailE
"""


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (NO_FFMPEG, "no whole FFmpeg 4 to 8 on this system: libavutil.so.57, libavutil.so.60", "apt install ffmpeg"),
        (NO_CUDA, r"needs libnvrtc.so.13, which this machine does not have", "made for torch 2"),
        (OTHER_TORCH, r"does not fit torch 2.*undefined symbol: _ZN3c10", "minor version of torchcodec"),
    ],
)
def test_the_part_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, message: str, hint: str
) -> None:
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text(f"raise RuntimeError({said!r})")
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=f"data.decoder=torchcodec: torchcodec .*{message}") as info:
        require_decoder("torchcodec")
    assert hint in info.value.hint
    assert "--set data.decoder=pyav" in info.value.hint


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UsageError, match="decoder=torchcodec: the package torchcodec is not installed") as info:
        require_decoder("torchcodec", "decoder")
    assert info.value.hint.startswith("pip install 'k710[torchcodec]'")


def test_pyav_needs_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    require_decoder("pyav")


# Processes


PROGRAM = """
import hashlib, multiprocessing, sys
from pathlib import Path
from uniformerv2.data.decode import decode_by_torchcodec, decode_frames

def decode(path, answers):
    data = Path(path).read_bytes()
    frames = [decode_by_torchcodec(data, [1, 40])[40], decode_frames(data, [1, 40], "pyav")[1]]
    answers.put([hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames])

if __name__ == "__main__":
    # A fork first: the others begin with a process that has not decoded.
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        decode(sys.argv[1], answers)
        child = context.Process(target=decode, args=(sys.argv[1], answers))
        child.start()
        child.join()
        print(method, len({*answers.get(), *answers.get()}))
"""


@needs_torchcodec
def test_children_of_every_kind_decode_what_their_parent_decoded(tmp_path: Path) -> None:
    make(KINDS["h264 sparse8"], tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "video.mp4")]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("fork 1\nforkserver 1\nspawn 1\n", "")
