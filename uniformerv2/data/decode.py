"""Encoded bytes of a clip to the frames that are wanted. One thread everywhere: workers are the parallelism."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from k710.errors import FeedError


def decode_frames(data: bytes, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
    """RGB frames [T, H, W, 3] of the video in ``data`` at ``indices``, which may repeat and come in any order.

    Frames are counted in presentation order. Decoding stops at the last wanted frame; only wanted ones become RGB.

    Raises:
        FeedError: the bytes cannot be decoded, a frame is damaged, or the video ends before the last wanted frame.
    """
    wanted, last = set(indices), max(indices)
    rgb: dict[int, npt.NDArray[np.uint8]] = {}
    # Our own, on one thread: the shared default starts a pool, and a forked child waits for it forever.
    reformatter = VideoReformatter()
    with _opened(data) as container:
        for number, frame in enumerate(container.decode(video=0)):
            # Guessed from its neighbours, and what refers to it is wrong too: better no clip than another one.
            if frame.is_corrupt:
                raise FeedError(f"frame {number} is damaged")
            if number in wanted:
                rgb[number] = _pixels(reformatter.reformat(frame, format="rgb24", threads=1))
            if number == last:
                break
    if len(rgb) < len(wanted):
        raise FeedError(f"video ends before frame {last}")
    if len({pixels.shape for pixels in rgb.values()}) > 1:
        raise FeedError("the size of the frames changes within the video")
    return np.stack([rgb[i] for i in indices])


def count_frames(data: bytes) -> int:
    """Video packets in ``data``: the number of frames of a sound file, found without decoding.

    Raises:
        FeedError: the bytes cannot be read as a video.
    """
    with _opened(data) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def decode_chosen(data: bytes, num_source: int, choose: Callable[[int], list[int]]) -> npt.NDArray[np.uint8]:
    """Frames at ``choose(number of frames)``; ``num_source`` is what the index says, -1 when it does not know."""
    return decode_frames(data, choose(num_source if num_source >= 0 else count_frames(data)))


def _pixels(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    return frame.to_ndarray().astype(np.uint8, copy=False)


@contextmanager
def _opened(data: bytes) -> Iterator[InputContainer]:
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise FeedError("no video stream")
            context = container.streams.video[0].codec_context
            if context is None:  # damage can hit the codec's name
                raise FeedError("the codec of the video stream is unknown")
            context.thread_type = "NONE"
            context.thread_count = 1
            yield container
    except av.error.FFmpegError as error:
        raise FeedError(f"cannot be decoded: {error}") from error
