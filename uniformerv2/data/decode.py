"""Encoded bytes of a clip to the frames that are wanted. One thread everywhere: workers are the parallelism."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import ColorRange, VideoReformatter

from k710.errors import FeedError
from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.mp4 import Sample, Track, read_track
from uniformerv2.data.packets import Selection, codec_of, select

Pixels: TypeAlias = npt.NDArray[np.uint8]
Decoder = Literal["pyav", "torchcodec"]
"""The library that decodes; the frames are the same."""

# The second is what the library makes of damage by which a packet belongs to a stream that the header did not name.
_UNREADABLE = (av.error.FFmpegError, IndexError)


def decode_frames(data: bytes, indices: Sequence[int], decoder: Decoder = "pyav") -> Pixels:
    """RGB frames [T, H, W, 3] of the video in ``data`` at ``indices``, which may repeat and come in any order.

    Frames are counted in presentation order. Only the packets that they need are decoded, where that is sure to give
    the same pixels, and all packets up to the last wanted frame elsewhere. Only wanted frames become RGB.
    ``torchcodec`` decodes the videos of which it is sure to give the same frames, and PyAV the others.

    Raises:
        FeedError: the bytes cannot be decoded, a frame is damaged, or the video ends before the last wanted frame.
            Damage to frames that are not needed may go unseen.
    """
    rgb = None
    if decoder == "torchcodec":
        with suppress(UnsafeError, FeedError):  # what is wrong with a video is PyAV's to say
            rgb = decode_by_torchcodec(data, indices)
    rgb = rgb or decode_selected(data, indices) or decode_in_sequence(data, indices)
    if len({pixels.shape for pixels in rgb.values()}) > 1:
        raise FeedError("the size of the frames changes within the video")
    return np.stack([rgb[i] for i in indices])


def decode_by_torchcodec(data: bytes, indices: Sequence[int]) -> dict[int, Pixels]:
    """RGB frames by number, decoded by torchcodec.

    Raises:
        UnsafeError: it is not sure that they are those of a whole decode by PyAV.
        FeedError: ``data`` is no video at all.
        UsageError: torchcodec cannot be loaded.
    """
    # Not at the top: it loads an FFmpeg of its own, for which most runs have no use.
    from uniformerv2.data.torchcodec_frames import frames_of

    with _opened(data) as container:
        stream = container.streams.video[0]
        try:
            codec = codec_of(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
            *packets, _ = container.demux(stream)
            return frames_of(data, stream, packets, select(codec, packets, indices))
        except _UNREADABLE as error:
            raise UnsafeError(f"cannot be read: {error}") from error


def decode_selected(data: bytes, indices: Sequence[int]) -> dict[int, Pixels] | None:
    """RGB frames by number, decoded from no more packets than they need; None where nothing but a whole decode is sure.

    Raises:
        FeedError: ``data`` is no video at all.
    """
    with suppress(UnsafeError, *_UNREADABLE):
        return _decode_samples(data, indices)
    with _opened(data) as container:
        stream = container.streams.video[0]
        try:
            codec = codec_of(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
            # The last packet is empty, and tells the decoder that no more will come.
            *packets, end = container.demux(stream)
            selection = select(codec, packets, indices)
            needed = [*(packets[position] for position in selection.packets), end]
            return _wanted((frame for packet in needed for frame in packet.decode()), selection)
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


def decode_chosen(
    data: bytes, num_source: int, choose: Callable[[int], list[int]], decoder: Decoder = "pyav"
) -> Pixels:
    """Frames at ``choose(number of frames)``; ``num_source`` is what the index says, -1 when it does not know."""
    return decode_frames(data, choose(num_source if num_source >= 0 else count_frames(data)), decoder)


def _decode_samples(data: bytes, indices: Sequence[int]) -> dict[int, Pixels]:
    """RGB frames by number, without a container; raises UnsafeError for files that are not as plain as our own."""
    track = read_track(data)
    samples = track.samples(data)
    selection = select(codec_of("h264", track.record), samples, indices)
    return _wanted(_frames(track, [samples[position] for position in selection.packets]), selection)


def _frames(track: Track, samples: Iterable[Sample]) -> Iterator[av.VideoFrame]:
    """What a decoder gives that knows of the file what the library would have told it, and is fed ``samples``."""
    context = av.CodecContext.create("h264", "r")
    _on_one_thread(context)
    context.extradata = track.record
    context.width, context.height = track.width_px, track.height_px
    if colours := track.colours:
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        context.colorspace = colours.matrix
        if colours.full_range is not None:
            context.color_range = ColorRange.JPEG if colours.full_range else ColorRange.MPEG
    for sample in samples:
        packet = av.Packet(sample.data)
        packet.pts = sample.pts
        yield from context.decode(packet)
    yield from context.decode(None)


def _wanted(frames: Iterable[av.VideoFrame], selection: Selection) -> dict[int, Pixels]:
    rgb: dict[int, Pixels] = {}
    expected = zip(selection.times, selection.frames, strict=True)
    convert = _converter()
    for frame in frames:
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
            _on_one_thread(context)
            yield container
    except _UNREADABLE as error:
        raise FeedError(f"cannot be decoded: {error}") from error


def _on_one_thread(context: av.VideoCodecContext) -> None:
    context.thread_type = "NONE"
    context.thread_count = 1
