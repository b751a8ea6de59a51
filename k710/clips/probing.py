"""What a video file holds, or why it is unusable: its packets are read, and a first frame is decoded."""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.logging
import numpy as np

from k710.clips.containers import CONTAINERS, declared_bytes, is_page, looks_like_media
from k710.clips.cuts import Times, rate_of
from k710.clips.outcomes import CORRUPT, NO_VIDEO_STREAM, NOT_A_VIDEO, TOO_LARGE, TRUNCATED, Unusable
from k710.clips.verify import MAX_BYTES, MAX_PIXELS

MAX_FRAMES = 5_000_000
"""A day at 60 frames a second."""
MAX_BARREN_BYTES = 64 << 20
"""Bytes that are read without finding a packet before a file is given up as broken."""
_DECLARES_LENGTH = frozenset({"avi", "matroska,webm", "flv"})
# ffmpeg's AV_FIELD_PROGRESSIVE; the larger values are the orders of fields.
_PROGRESSIVE = 1
_READ_BYTES = 1 << 17
_MOST_STRETCHED = 8
_NEARLY_SQUARE = 0.01
_TRIED_PACKETS = 100
_PICTURE_SIZE = re.compile(r"Picture size (\d+x\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """What a usable video file holds."""

    duration_s: float
    """From the first frame's start to the last one's end."""
    fps: float
    """Average frame rate."""
    frames: int
    """Frames that are shown, by the packets that can be read."""
    width_px: int
    """Displayed width, after rotation and with square pixels."""
    height_px: int
    """Displayed height, after rotation and with square pixels."""
    codec: str
    """Name as ffmpeg has it, such as ``h264``."""
    container: str
    """Name of its format as ffmpeg has it, such as ``mov,mp4,m4a,3gp,3g2,mj2``."""
    rotation: int
    """Degrees by which a player turns the picture: 0, 90, 180 or 270."""
    pixel_aspect: Fraction
    """Width of a pixel to its height."""
    variable_rate: bool
    """Whether the distance between frames varies."""
    interlaced: bool
    """Whether the stream is marked as made of fields."""
    pixel_format: str
    """Such as ``yuv420p``."""
    size_bytes: int
    """Size of the file."""
    stream: int
    """Number of the video stream."""
    sound: int | None
    """Number of the first sound stream that can be decoded."""
    declared_rate: Fraction | None
    """Frame rate that the file names."""
    tick_s: float
    """Unit in which the file counts the time of its frames."""
    guessed_times: bool
    """Whether the file does not say when its frames are shown, as an AVI with B-frames; only their order is known."""
    times_s: Times = field(repr=False, compare=False)
    """When each frame is shown, counted from the file's start, ascending."""
    keys_s: Times = field(repr=False, compare=False)
    """Those of them that can be decoded without others, ascending."""

    @property
    def end_s(self) -> float:
        """When the last frame ends, counted from the file's start."""
        return float(self.times_s[0]) + self.duration_s


def probe(path: Path, *, max_bytes: int = MAX_BYTES) -> VideoFacts | Unusable:
    """What the video at ``path`` holds, or why it is unusable.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    # A pipe would be waited for, a device never ends.
    if not stat.S_ISREG(status.st_mode):
        return Unusable(status=NOT_A_VIDEO, detail="not a regular file")
    if status.st_size == 0:
        return Unusable(status=NOT_A_VIDEO, detail="empty file")
    if status.st_size > max_bytes:
        return Unusable(status=TOO_LARGE, detail=f"{status.st_size:,} bytes")
    with path.open("rb", buffering=0) as handle:
        head = handle.read(512)
        if is_page(head):
            return Unusable(status=NOT_A_VIDEO, detail="a web page")
        declared = declared_bytes(handle, status.st_size)
        if declared > status.st_size:
            return Unusable(status=TRUNCATED, detail=f"{status.st_size:,} of {declared:,} bytes")
        handle.seek(0)
        return _probe_opened(_Watched(handle), head, status.st_size)


def one_line(text: str) -> str:
    """The beginning of a message, in one line."""
    return " ".join(text.split())[:300]


class _Barren(Exception):  # noqa: N818 - an answer, on its way up
    """Much was read and no packet found."""


class _Found(Exception):  # noqa: N818 - an answer, on its way up
    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status)
        self.unusable = Unusable(status=status, detail=detail)


class _NoSize(Exception):  # noqa: N818 - a question, on its way up
    """The video stream has no picture size."""


class _Watched:
    """A file that counts what is read of it: demuxers search broken files for a next packet to their very end."""

    def __init__(self, handle: io.FileIO | BinaryIO) -> None:
        self._handle = handle
        self.barren_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size) or b""
        self.barren_bytes += len(data)
        if self.barren_bytes > MAX_BARREN_BYTES:
            raise _Barren
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def restart(self) -> None:
        """Go back to the start of the file."""
        self.barren_bytes = 0
        self._handle.seek(0)


def _probe_opened(source: _Watched, head: bytes, size_bytes: int) -> VideoFacts | Unusable:
    try:
        with _open(source) as container:
            return _video_facts(container, source, size_bytes)
    except _NoSize:
        refused = _refused_size(source)
        return Unusable(status=TOO_LARGE, detail=refused) if refused else Unusable(status=CORRUPT, detail="no size")
    except _Found as found:
        return found.unusable
    except _Barren:
        return Unusable(status=CORRUPT, detail=f"no packet in {MAX_BARREN_BYTES:,} bytes")
    except av.error.FFmpegError as error:
        if not looks_like_media(head):
            return Unusable(status=NOT_A_VIDEO, detail="no container of a video")
        return Unusable(status=CORRUPT, detail=one_line(error.strerror or str(error)))


def _open(source: _Watched) -> av.container.InputContainer:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    return av.open(source, mode="r", metadata_errors="ignore", options=options, buffer_size=_READ_BYTES)


def _refused_size(source: _Watched) -> str:
    """The size of a picture that the library refuses, and then tells in its log only; empty for another reason."""
    source.restart()
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            _open(source).close()
    finally:
        av.logging.set_level(level)
    sizes = (_PICTURE_SIZE.search(text) for _, _, text in said)
    return next((f"{size.group(1)} pixels" for size in sizes if size), "")


@dataclass(kw_only=True, slots=True)
class _Packets:
    """What the packets of the video say."""

    shown: list[int] = field(default_factory=list)
    """When each frame is shown, in ticks."""
    keys: list[int] = field(default_factory=list)
    num: int = 0
    has_no_times: bool = False
    last_duration: int = 0
    end_s: float = 0.0
    """When the last stream ends, sound included."""

    def add(self, packet: av.Packet[Any], codec: str) -> None:
        """Count a packet of the video stream."""
        self.num += 1
        # VP8 has pictures that only others refer to; a packet that says so is never shown.
        if codec == "vp8" and not memoryview(packet)[0] >> 4 & 1:
            return
        time = packet.pts if packet.pts is not None else packet.dts
        self.has_no_times = self.has_no_times or packet.pts is None
        if time is None:
            time = self.shown[-1] + (self.last_duration or 1) if self.shown else 0
        if packet.is_keyframe:
            self.keys.append(time)
        self.last_duration = packet.duration or self.last_duration
        # What stands before the cut in a file that was cut without encoding is decoded, but never shown.
        if not packet.is_discard:
            self.shown.append(time)


def _video_facts(container: av.container.InputContainer, source: _Watched, size_bytes: int) -> VideoFacts:
    stream = _video_stream(container)
    packets = _Packets()
    for packet in _read(container, stream, packets, source):
        packets.add(packet, stream.codec_context.name)
    if not packets.shown or not stream.time_base:
        raise _Found(CORRUPT, "no readable video packets")
    _refuse_lost_tail(container, stream, packets)
    rotation = _rotation(container, stream, source)
    aspect = _pixel_aspect(stream)
    width, height = _displayed(stream, aspect, rotation)
    tick_s = float(stream.time_base)
    # In AVI, times are those of decoding; what is guessed from them is late by as many frames as are reordered.
    guessed = packets.has_no_times or (container.format.name == "avi" and stream.codec_context.has_b_frames)
    start_s = min(packets.shown) * tick_s if guessed else (container.start_time or 0) / av.time_base
    times_s: Times = np.sort(np.array(packets.shown, dtype=np.float64)) * tick_s - start_s
    keys_s: Times = np.sort(np.array(packets.keys, dtype=np.float64)) * tick_s - start_s
    # Without the keyframe before them they cannot be decoded: a cut without encoding leaves such at the start.
    if len(keys_s) and keys_s[0] > times_s[0]:
        times_s = times_s[np.searchsorted(times_s, keys_s[0]) :]
    declared = stream.average_rate or None
    rate, varies = rate_of(times_s, tick_s, declared)
    typical_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else packets.last_duration * tick_s
    duration_s = float(times_s[-1] - times_s[0]) + (typical_s or float(1 / rate))
    return VideoFacts(
        duration_s=duration_s,
        fps=len(times_s) / duration_s if varies or len(times_s) == 1 else float(rate),
        frames=len(times_s),
        width_px=width,
        height_px=height,
        codec=stream.codec_context.name,
        container=container.format.name,
        rotation=rotation,
        pixel_aspect=aspect,
        variable_rate=varies,
        interlaced=int(getattr(stream.codec_context, "field_order", 0)) > _PROGRESSIVE,
        pixel_format=stream.codec_context.pix_fmt or "",
        size_bytes=size_bytes,
        stream=stream.index,
        sound=_sound(container),
        declared_rate=declared,
        tick_s=tick_s,
        guessed_times=bool(guessed),
        times_s=times_s,
        keys_s=keys_s,
    )


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = [s.type for s in container.streams]
        raise _Found(NO_VIDEO_STREAM, f"it holds {', '.join(others)} only" if others else "it holds no streams")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise _Found(CORRUPT, "the codec of the video stream is unknown")
    if context.width * context.height > MAX_PIXELS:
        raise _Found(TOO_LARGE, f"{context.width}x{context.height} pixels")
    if not context.width or not context.height:
        raise _NoSize
    context.thread_type = "NONE"
    context.thread_count = 1
    # A first frame at once is all that is wanted, and only for what stands beside the picture.
    context.options = {"max_pixels": str(MAX_PIXELS), "flags": "low_delay", "skip_loop_filter": "all"}
    return stream


def _read(
    container: av.container.InputContainer, stream: av.VideoStream, packets: _Packets, source: _Watched
) -> Iterator[av.Packet[Any]]:
    """The packets of the video; the end of the others is noted."""
    # Where a header tells the length, it is that of the longest stream.
    several = container.format.name in _DECLARES_LENGTH
    for packet in container.demux() if several else container.demux(stream):
        source.barren_bytes = 0
        if not packet.size:
            continue
        if several and packet.pts is not None and packet.time_base:
            packets.end_s = max(packets.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream is not stream:
            continue
        if packet.is_corrupt and "mp4" in container.format.name:
            raise _Found(TRUNCATED, f"packet {packets.num} lies behind the end of the file")
        if packets.num > MAX_FRAMES:
            raise _Found(TOO_LARGE, f"more than {MAX_FRAMES:,} frames")
        yield packet


def _refuse_lost_tail(container: av.container.InputContainer, stream: av.VideoStream, packets: _Packets) -> None:
    """Refuse a file that was cut off in the middle, by what its header declares."""
    # An mp4 whose index stands in front opens well after its tail was lost; the packets are then fewer than declared.
    if "mp4" in container.format.name and packets.num < stream.frames:
        raise _Found(TRUNCATED, f"{packets.num} of {stream.frames} frames")
    # In these the header has the length: of the longest stream, or (avi, empty frames included) in frames.
    if container.format.name not in _DECLARES_LENGTH:
        return
    declared_s = max((container.duration or 0) / av.time_base, float(stream.frames / (stream.average_rate or 1)))
    if packets.end_s < declared_s - 1:
        raise _Found(TRUNCATED, f"{packets.end_s:.1f} of {declared_s:.1f} s")


def _rotation(container: av.container.InputContainer, stream: av.VideoStream, source: _Watched) -> int:
    # PyAV tells rotation only on decoded frames.
    source.barren_bytes = 0
    container.seek(0)
    for number, packet in enumerate(container.demux(stream)):
        source.barren_bytes = 0
        try:
            for frame in packet.decode():
                return int(frame.rotation) % 360
        except av.error.FFmpegError as error:
            # The first packets may need what a cut left behind; whoever decodes the rest will see.
            if number >= _TRIED_PACKETS:
                raise _Found(CORRUPT, one_line(error.strerror or str(error))) from error
    raise _Found(CORRUPT, "no frame can be decoded")


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    # A header that says more is damaged; less is left over from scaling to whole pixels, as in 426x320 for 4:3.
    stretched = Fraction(1, _MOST_STRETCHED) <= aspect <= _MOST_STRETCHED and abs(aspect - 1) > _NEARLY_SQUARE
    return aspect if stretched else Fraction(1)


def _displayed(stream: av.VideoStream, aspect: Fraction, rotation: int) -> tuple[int, int]:
    context = stream.codec_context
    width, height = max(1, round(context.width * aspect)), context.height
    return (height, width) if rotation in (90, 270) else (width, height)


def _sound(container: av.container.InputContainer) -> int | None:
    # One whose codec is unknown has no context.
    return next((s.index for s in container.streams.audio if s.codec_context is not None), None)
