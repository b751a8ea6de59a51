"""Wanted frames by torchcodec, from videos of which it is sure to give the very frames of a whole decode by PyAV.

It has an FFmpeg of the system's, of another version than PyAV's, so this module names what the two are known to do
alike. It also fills damaged places by guessing and does not say so, but its FFmpeg does, and is listened to. Whatever
leaves a doubt raises UnsafeError, and PyAV decodes the video.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from k710.errors import UsageError
from uniformerv2.data.codecs.picture import UnsafeError
from uniformerv2.data.packets import Selection
from uniformerv2.data.torchcodec_library import load

if TYPE_CHECKING:
    import av

# Of damage in VP9 and AV1 the decoders say nothing, and guess in different ways. HEVC slices whose header cannot be
# read are left out by newer versions and decoded as noise by older ones. The others have no reader in ``codecs``.
_CODECS = ("h264",)
# A seek by time ends at the right packet where the container has a table of them; in a transport stream it need not.
_CONTAINERS = ("mp4", "matroska")
# Those of ten bits are rounded to RGB in different ways; others were not compared in every size.
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
# Unknown, BT.709, and both of BT.601: PyAV refuses some of the others, which torchcodec converts.
_COLOUR_SPACES = (2, 1, 5, 6)
_LOG_ERROR, _LOG_VERBOSE = 16, 40
# What the decoder says of a damaged place that it fills by guessing; it is no error to it.
_GUESSED = b"concealing"


def frames_of(
    data: bytes, stream: av.VideoStream, packets: Sequence[av.Packet[av.VideoStream]], selection: Selection
) -> dict[int, npt.NDArray[np.uint8]]:
    """RGB frames by number: those that ``selection``, made from all ``packets`` of ``stream`` in ``data``, wants.

    Raises:
        UnsafeError: it is not sure that they are the frames of a whole decode by PyAV.
        UsageError: torchcodec cannot be loaded.
    """
    _require_alike(stream)
    if any(packet.is_discard for packet in packets):
        raise UnsafeError("after a seek torchcodec loses frames near those that an edit list leaves out")
    if {position for position, packet in enumerate(packets) if packet.is_keyframe} != set(selection.restarts):
        raise UnsafeError("a seek could end where decoding cannot begin")
    numbers = sorted({number for number in selection.frames if number is not None})
    batch = _decoded(data, stream, _table(packets, selection), numbers)
    size = (stream.codec_context.height, stream.codec_context.width, 3)
    pixels = batch.data.numpy()
    if pixels.shape != (len(numbers), *size):
        raise UnsafeError("the frames have another size")
    assert stream.time_base is not None
    expected_s = [float(selection.all_times[number] * stream.time_base) for number in numbers]
    # The times of frames are of whole ticks.
    if not np.allclose(batch.pts_seconds.numpy(), expected_s, rtol=0, atol=float(stream.time_base) / 4):
        raise UnsafeError("a frame came out with another time than the one expected")
    return dict(zip(numbers, pixels, strict=True))


def _require_alike(stream: av.VideoStream) -> None:
    """Raise UnsafeError for what the two libraries are not known to decode and convert alike."""
    context, names = stream.codec_context, stream.container.format.name.split(",")
    if context.codec.canonical_name not in _CODECS:
        raise UnsafeError(f"{context.codec.canonical_name} is not known to be decoded alike")
    if not set(names) & set(_CONTAINERS):
        raise UnsafeError(f"seeks in {names[0]} are not known to end at the right packet")
    if context.pix_fmt not in _PIXEL_FORMATS or context.colorspace not in _COLOUR_SPACES:
        raise UnsafeError(f"colours of {context.pix_fmt} {context.colorspace} are not known to be converted alike")
    # Converted alike at some odd sizes and not at others.
    if context.width % 2 or context.height % 2:
        raise UnsafeError("an odd size")


def _table(packets: Sequence[av.Packet[av.VideoStream]], selection: Selection) -> bytes:
    """The frames as torchcodec is told them, so that it numbers them as we do and reads the packets only once."""
    restarts = {packets[position].pts for position in selection.restarts}
    durations = {packet.pts: packet.duration or 0 for packet in packets}
    frames = [{"pts": t, "duration": durations[t], "key_frame": int(t in restarts)} for t in selection.all_times]
    return json.dumps({"frames": frames}).encode()


def _decoded(data: bytes, stream: av.VideoStream, table: bytes, numbers: list[int]) -> Any:
    torchcodec = load()
    with _heard(torchcodec.core_library_path) as said:
        try:
            decoder = torchcodec.decoders.VideoDecoder(
                data,
                stream_index=stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                custom_frame_mappings=table,
            )
            if decoder.metadata.rotation:
                raise UnsafeError("torchcodec turns the frames upright, and PyAV leaves them as they are")
            batch = decoder.get_frames_at(numbers)
        # Its own errors have no class of their own.
        except (RuntimeError, ValueError, IndexError) as error:
            raise UnsafeError(f"torchcodec: {error}") from error
    if said:
        raise UnsafeError("the decoder says that the video is damaged")
    return batch


@contextmanager
def _heard(core_library: str) -> Iterator[list[int]]:
    """The levels of what torchcodec's FFmpeg says of damage inside the block."""
    set_callback, default = _logging(core_library)
    said: list[int] = []

    def listen(_source: int, level: int, text: int, _values: int) -> None:
        if level <= _LOG_ERROR or (level <= _LOG_VERBOSE and ctypes.string_at(text).startswith(_GUESSED)):
            said.append(level)

    listener = _LISTENER(listen)
    set_callback(listener)
    try:
        yield said
    finally:
        set_callback(default)


_LISTENER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@functools.cache
def _logging(core_library: str) -> tuple[Callable[[Any], None], Any]:
    """Of the FFmpeg to which torchcodec is linked: what sets the receiver of its messages, and the one it has."""
    try:
        library = ctypes.CDLL(core_library)
        set_callback, default = library.av_log_set_callback, library.av_log_default_callback
    except (OSError, AttributeError) as error:
        raise UsageError(f"what FFmpeg says to torchcodec cannot be heard on this system: {error}") from error
    set_callback.argtypes, set_callback.restype = [ctypes.c_void_p], None
    return set_callback, ctypes.cast(default, ctypes.c_void_p)
