"""Encoded bytes of a clip to the frames that are wanted. One thread everywhere: workers are the parallelism."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from k710.errors import FeedError
from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.packets import Selection, codec_of, select

Pixels: TypeAlias = npt.NDArray[np.uint8]

# The second is what the library makes of damage by which a packet belongs to a stream that the header did not name.
_UNREADABLE = (av.error.FFmpegError, IndexError)


def decode_frames(data: bytes, indices: Sequence[int]) -> Pixels:
    """RGB frames [T, H, W, 3] of the video in ``data`` at ``indices``, which may repeat and come in any order.

    Frames are counted in presentation order. Only the packets that they need are decoded, where that is sure to give
    the same pixels, and all packets up to the last wanted frame elsewhere. Only wanted frames become RGB.

    Raises:
        FeedError: the bytes cannot be decoded, a frame is damaged, or the video ends before the last wanted frame.
            Damage to frames that are not needed may go unseen.
    """
    rgb = decode_selected(data, indices) or decode_in_sequence(data, indices)
    if len({pixels.shape for pixels in rgb.values()}) > 1:
        raise FeedError("the size of the frames changes within the video")
    return np.stack([rgb[i] for i in indices])


def decode_selected(data: bytes, indices: Sequence[int]) -> dict[int, Pixels] | None:
    """RGB frames by number, decoded from no more packets than they need; None where nothing but a whole decode is sure.

    Raises:
        FeedError: ``data`` is no video at all.
    """
    with _opened(data) as container:
        stream = container.streams.video[0]
        try:
            codec = codec_of(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
            # The last packet is empty, and tells the decoder that no more will come.
            *packets, end = container.demux(stream)
            selection = select(codec, packets, indices)
            return _decode_packets([*(packets[position] for position in selection.packets), end], selection)
        except (UnsafeError, *_UNREADABLE):
            return None


def decode_in_sequence(data: bytes, indices: Sequence[int]) -> dict[int, Pixels]:
    """RGB frames by number, decoded from all packets up to the last frame that is wanted.

    Raises:
        FeedError: as for ``decode_frames``, and for damage to any frame up to the last wanted one.
    """
    wanted, last = set(indices), max(indices)
    rgb: dict[int, Pixels] = {}
    convert = _converter()
    with _opened(data) as container:
        for number, frame in enumerate(container.decode(video=0)):
            # Guessed from its neighbours, and what refers to it is wrong too: better no clip than another one.
            if frame.is_corrupt:
                raise FeedError(f"frame {number} is damaged")
            if number in wanted:
                rgb[number] = convert(frame)
            if number == last:
                break
    if len(rgb) < len(wanted):
        raise FeedError(f"video ends before frame {last}")
    return rgb


def count_frames(data: bytes) -> int:
    """Video packets in ``data`` that are shown: the number of frames of a sound file, found without decoding.

    Raises:
        FeedError: the bytes cannot be read as a video.
    """
    with _opened(data) as container:
        # An edit list can begin between two keyframes: what comes before it is decoded, and not shown.
        return sum(1 for packet in container.demux(video=0) if packet.size and not packet.is_discard)


def decode_chosen(data: bytes, num_source: int, choose: Callable[[int], list[int]]) -> Pixels:
    """Frames at ``choose(number of frames)``; ``num_source`` is what the index says, -1 when it does not know."""
    return decode_frames(data, choose(num_source if num_source >= 0 else count_frames(data)))


def _decode_packets(packets: Iterable[av.Packet[av.VideoStream]], selection: Selection) -> dict[int, Pixels]:
    rgb: dict[int, Pixels] = {}
    expected = zip(selection.times, selection.frames, strict=True)
    convert = _converter()
    for packet in packets:
        for frame in packet.decode():
            time, number = next(expected, (None, None))
            if frame.pts != time or frame.is_corrupt:
                raise UnsafeError("another frame came out than the one expected")
            if number is not None:
                rgb[number] = convert(frame)
    if next(expected, None):
        raise UnsafeError("a frame did not come out")
    return rgb


def _converter() -> Callable[[av.VideoFrame], Pixels]:
    # Our own, on one thread: the shared default starts a pool, and a forked child waits for it forever.
    reformatter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> Pixels:
        return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray().astype(np.uint8, copy=False)

    return convert


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
    except _UNREADABLE as error:
        raise FeedError(f"cannot be decoded: {error}") from error
