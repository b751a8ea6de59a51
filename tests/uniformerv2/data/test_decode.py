"""Frames out of encoded bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from k710.errors import FeedError
from uniformerv2.data.decode import count_frames, decode_chosen, decode_frames


@pytest.fixture(scope="module")
def clip(shared: Path) -> bytes:
    return (shared / "videos/kinetics_340x256_28fps.mp4").read_bytes()


def test_wanted_frames_equal_those_of_a_whole_decode(clip: bytes, shared: Path) -> None:
    with av.open(str(shared / "videos/kinetics_340x256_28fps.mp4")) as container:
        whole = [f.to_ndarray(format="rgb24") for _, f in zip(range(41), container.decode(video=0), strict=False)]
    frames = decode_frames(clip, [40, 0, 17, 17])
    assert frames.shape == (4, *whole[0].shape)
    for got, index in zip(frames, [40, 0, 17, 17], strict=True):
        assert np.array_equal(got, whole[index])


def test_packets_count_the_frames(clip: bytes) -> None:
    with av.open(__import__("io").BytesIO(clip)) as container:
        assert count_frames(clip) == sum(1 for _ in container.decode(video=0))


def test_an_unknown_number_of_frames_is_counted(clip: bytes) -> None:
    seen: list[int] = []
    decode_chosen(clip, -1, lambda n: seen.append(n) or [0])  # type: ignore[func-returns-value]
    assert seen == [count_frames(clip)]


@pytest.mark.parametrize("data", [b"", b"<html>not a video</html>", bytes(2000)])
def test_what_is_no_video_is_a_feed_error(data: bytes) -> None:
    with pytest.raises(FeedError):
        decode_frames(data, [0])


def test_a_video_that_ends_early_is_a_feed_error(clip: bytes) -> None:
    with pytest.raises(FeedError, match="ends before frame"):
        decode_frames(clip, [10**6])


def test_a_truncated_video_is_a_feed_error(clip: bytes) -> None:
    with pytest.raises(FeedError):
        decode_frames(clip[: len(clip) // 2], [count_frames(clip) - 1])


def test_frames_that_the_decoder_had_to_guess_are_a_feed_error(clip: bytes) -> None:
    place = len(clip) * 7 // 40
    damaged = clip[:place] + b"\xff" * 40 + clip[place + 40 :]
    with av.open(__import__("io").BytesIO(damaged)) as container:
        first = next(n for n, frame in enumerate(container.decode(video=0)) if frame.is_corrupt)
    with pytest.raises(FeedError, match=r"frame \d+ is damaged"):
        decode_frames(damaged, [first])


@pytest.mark.parametrize("read", [count_frames, lambda data: decode_frames(data, [0])])
def test_a_codec_that_is_unknown_is_a_feed_error(clip: bytes, read: Callable[[bytes], object]) -> None:
    with pytest.raises(FeedError, match="codec of the video stream is unknown"):
        read(clip.replace(b"avc1", b"zzzz"))
