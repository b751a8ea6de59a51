"""Whether a video file can be decoded: all of it, its two ends, or its ends and some of what lies between.

ffmpeg conceals errors: a frame with flipped bytes comes out, painted over. So a frame that the decoder marks as
damaged counts as one, and so does a packet that gives no frame. What decodes to another picture without any mark is
found only by a checksum.
"""

from __future__ import annotations

import stat
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import av
import numpy as np
from av.container import InputContainer

from k710.clips.containers import CONTAINERS, declared_bytes, is_page, looks_like_media, mp4_boxes
from k710.clips.outcomes import CORRUPT, NO_VIDEO_STREAM, NOT_A_VIDEO, TIMEOUT, TOO_LARGE, TRUNCATED, Unusable
from k710.clips.pictures import Pictures

Mode = Literal["ends", "sample", "full"]
"""How much of a clip is decoded."""
MODES: tuple[Mode, ...] = ("ends", "sample", "full")
"""From the fastest to the most thorough."""

MAX_BYTES = 20 << 30
"""No video of the data sets has a tenth of it."""
MAX_PIXELS = 8192 * 4608
"""A little over 8K; a header that says more costs gigabytes to believe."""
MAX_BARREN_BYTES = 64 << 20
"""Read without finding a packet of any stream."""
TIMEOUT_S = 300.0
"""For one file; a 10 s clip takes a fraction of a second, an hour of video some minutes in ``full``."""

_BETWEEN = 8
"""Keyframes that ``sample`` decodes between the ends."""
_LAST_WHOLE = 16
"""Packets at the very end of which ``ends`` decodes each one; before, only those that others refer to."""
_LONGEST_HELD = 600
"""Packets of a group of pictures that are held back; a longer one is decoded on the way, so that memory is bounded."""
_READ_BYTES = 1 << 17
_DECLARES_LENGTH = frozenset({"avi", "matroska,webm", "flv"})
_PACKET_IS_FRAME = frozenset({"h264"})
"""Codecs of which each packet gives a frame; VP8 and others have packets that are never shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A video that can be decoded, as far as it was looked at."""

    frames: int
    """Frames it shows: counted in ``full``, packets otherwise."""
    duration_s: float
    """From the first frame's start to the last one's end."""
    fps: float
    """Average frame rate."""
    width_px: int
    """Displayed width, after rotation; pixels as they are stored."""
    height_px: int
    """Displayed height, likewise."""
    codec: str
    """Name as ffmpeg has it, such as ``h264``."""
    black: bool
    """Whether nearly all of nearly all pictures is black; never in ``ends``, which sees too few."""
    frozen: bool
    """Whether nearly all pictures are the same; never in ``ends``, and of less than a second."""
    complete: bool
    """Whether every frame was decoded, as in ``full``."""


def decode(source: Path | BinaryIO, mode: Mode, *, timeout_s: float = TIMEOUT_S) -> Decoded | Unusable:
    """What the video in ``source`` is, or what is wrong with it. One thread; nothing is written.

    Every packet is read in each mode, so that one which lies behind the end of the file is found. Decoded are, in
    ``ends``, the first frame and the last group of pictures; in ``sample``, some keyframes between them too; in
    ``full``, every frame.

    Args:
        source: a file, or an open one that can be sought, of which everything is the video.
        mode: how much is decoded.
        timeout_s: when to give up.
    """
    if isinstance(source, Path):
        return _decode_path(source, mode, timeout_s)
    size_bytes = source.seek(0, 2)
    if size_bytes == 0:
        return Unusable(status=NOT_A_VIDEO, detail="empty file")
    if size_bytes > MAX_BYTES:
        return Unusable(status=TOO_LARGE, detail=f"{size_bytes:,} bytes")
    source.seek(0)
    head = source.read(512)
    if is_page(head):
        return Unusable(status=NOT_A_VIDEO, detail="a web page")
    declared = declared_bytes(source, size_bytes)
    if declared > size_bytes:
        return Unusable(status=TRUNCATED, detail=f"{size_bytes:,} of {declared:,} bytes")
    source.seek(0)
    watched = _Watched(source, time.monotonic() + timeout_s)
    found = _decode_watched(watched, mode)
    if watched.given_up is not None:
        return watched.given_up
    if found is not None:
        return found
    if not looks_like_media(head):
        return Unusable(status=NOT_A_VIDEO, detail="no container of a video")
    boxes = {name for name, _ in mp4_boxes(source, size_bytes)}
    lost = boxes and "moov" not in boxes
    detail = "its index (moov) is missing: it was never written to the end" if lost else "its container is damaged"
    return Unusable(status=CORRUPT, detail=detail)


class _Found(Exception):  # noqa: N818 - an answer, on its way up
    """Ends the look at a video: it is unusable."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status)
        self.unusable = Unusable(status=status, detail=_one_line(detail))


@dataclass(kw_only=True, slots=True)
class _Look:
    """What is seen of a video while its packets go by."""

    stream: av.VideoStream
    context: Any
    deadline: float
    pictures: Pictures | None
    """Where those go that tell black and frozen videos; None: nobody asks."""
    frames: int = 0
    rotation: int = 0
    size: tuple[int, int] = (0, 0)

    def feed(self, packet: av.Packet[av.VideoStream] | None) -> int:
        """Decode a packet, or (None) what the decoder still holds; the number of frames that came out."""
        if time.monotonic() > self.deadline:
            raise _Found(TIMEOUT, "decoding takes too long")
        try:
            frames = self.context.decode(packet)
        except av.error.FFmpegError as error:
            raise _Found(CORRUPT, f"frame {_where(packet)}: {error.strerror or error}") from error
        for frame in frames:
            if frame.is_corrupt:
                raise _Found(CORRUPT, f"the frame {_where(packet)} is damaged")
            self._see(frame)
        return len(frames)

    def _see(self, frame: av.VideoFrame) -> None:
        if not self.frames:
            self.rotation = int(frame.rotation) % 360
            self.size = (frame.width, frame.height)
        self.frames += 1
        if self.pictures is not None:
            self.pictures.see(frame)


@dataclass(kw_only=True, slots=True)
class _Packets:
    """What the packets of a video say, decoded or not."""

    shown: list[int] = field(default_factory=list)
    """Times of those that are shown, in ticks."""
    num: int = 0
    last_duration: int = 0
    end_s: float = 0.0
    """When the last stream ends, sound included."""


def _decode_path(path: Path, mode: Mode, timeout_s: float) -> Decoded | Unusable:
    try:
        # A pipe would be waited for, a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            return Unusable(status=NOT_A_VIDEO, detail="not a regular file")
        # Opened here and not by ffmpeg, which takes some names for protocols and knows none that are not text.
        with path.open("rb", buffering=0) as handle:
            return decode(cast(BinaryIO, handle), mode, timeout_s=timeout_s)
    except OSError as error:
        return Unusable(status=CORRUPT, detail=f"cannot be read ({error.strerror or error})")


class _Watched:
    """A file that is not read for ever: demuxers search a broken one for its next packet to its very end."""

    def __init__(self, source: BinaryIO, deadline: float) -> None:
        self._source = source
        self.deadline = deadline
        self.barren_bytes = 0
        self.given_up: Unusable | None = None
        self.seek, self.tell = source.seek, source.tell

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self.deadline:
            self.given_up = Unusable(status=TIMEOUT, detail="reading takes too long")
        elif self.barren_bytes > MAX_BARREN_BYTES:
            self.given_up = Unusable(status=CORRUPT, detail=f"no packet in {MAX_BARREN_BYTES:,} bytes")
        if self.given_up is not None:
            # As if the file ended here: the library asks on and on after an exception.
            return b""
        data = self._source.read(size)
        self.barren_bytes += len(data)
        return data


def _decode_watched(source: _Watched, mode: Mode) -> Decoded | Unusable | None:
    """What the video is, or what is wrong with it; None where its container cannot be read."""
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(source, mode="r", metadata_errors="ignore", options=options, buffer_size=_READ_BYTES) as container:
            return _decoded(container, source, mode)
    except _Found as found:
        return found.unusable
    except av.error.FFmpegError:
        return None


def _decoded(container: InputContainer, source: _Watched, mode: Mode) -> Decoded:
    stream = _video_stream(container, mode)
    look = _Look(
        stream=stream,
        context=stream.codec_context,
        deadline=source.deadline,
        pictures=None if mode == "ends" else Pictures(),
    )
    packets = _Packets()
    passing = _read(container, stream, packets, source)
    if mode == "full":
        for packet in passing:
            look.feed(packet)
        look.feed(None)
    else:
        length_s = (container.duration or 0) / av.time_base
        _decode_ends(look, passing, length_s / (_BETWEEN + 1) if mode == "sample" else float("inf"))
    _refuse_lost_tail(container, stream, packets)
    if not packets.shown or not look.frames:
        raise _Found(CORRUPT, "no frame can be decoded")
    if mode == "full":
        _refuse_lost_frames(container, look.frames, packets)
    return _summed_up(look, packets, mode)


def _video_stream(container: InputContainer, mode: Mode) -> av.VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise _Found(NO_VIDEO_STREAM, f"{len(container.streams)} other streams" if container.streams else "no streams")
    stream = streams[0]
    context = stream.codec_context
    if context is None:  # damage can hit the codec's name
        raise _Found(CORRUPT, "the codec of the video stream is unknown")
    if context.width * context.height > MAX_PIXELS:
        raise _Found(TOO_LARGE, f"{context.width}x{context.height} pixels")
    if not context.width or not context.height:
        raise _Found(CORRUPT, "no picture size, or one of more than ffmpeg can hold")
    context.thread_type = "NONE"
    context.thread_count = 1
    if mode == "ends":
        # Smoothing block edges is a sixth of the work, and nothing can go wrong in it; but pictures drift without it.
        context.options = {"skip_loop_filter": "all"}
    return stream


def _read(
    container: InputContainer, stream: av.VideoStream, packets: _Packets, source: _Watched
) -> Iterator[av.Packet[av.VideoStream]]:
    """The packets of the video, counted as they pass."""
    # Where a header tells the length, it is that of the longest stream.
    several, is_mp4 = container.format.name in _DECLARES_LENGTH, "mp4" in container.format.name
    passing: Iterator[Any] = container.demux() if several else container.demux(stream)
    for packet in passing:
        source.barren_bytes = 0
        if not packet.size:
            continue
        if several and packet.pts is not None and packet.time_base:
            ends = packet.pts + (packet.duration or 0)
            packets.end_s = max(packets.end_s, float(ends * packet.time_base))
        if packet.stream is not stream:
            continue
        packets.num += 1
        if packet.is_corrupt and is_mp4:
            raise _Found(TRUNCATED, f"packet {packets.num - 1} lies behind the end of the file")
        # What stands before the cut in a file that was cut without encoding is decoded, but never shown.
        if not packet.is_discard:
            time_of = packet.pts if packet.pts is not None else packet.dts
            packets.shown.append(len(packets.shown) if time_of is None else time_of)
            packets.last_duration = packet.duration or packets.last_duration
        yield packet


def _decode_ends(look: _Look, packets: Iterator[av.Packet[av.VideoStream]], every_s: float) -> None:
    """Decode the first frame, a keyframe every ``every_s``, and the last group of pictures, in one pass."""
    tail = _Tail(look=look)
    next_s: float | None = None
    for packet in packets:
        if next_s is None:
            # A decoder wants some packets before it gives out a frame.
            next_s = _seconds(packet) + every_s if look.feed(packet) else None
        elif packet.is_keyframe and _seconds(packet) >= next_s:
            next_s = _seconds(packet) + every_s
            look.context.flush_buffers()
            look.feed(packet)
            look.feed(None)
        tail.add(packet)
    tail.decode()


@dataclass(kw_only=True, slots=True)
class _Tail:
    """The group of pictures that may be the last one, held back until that is known."""

    look: _Look
    held: deque[av.Packet[av.VideoStream]] = field(default_factory=deque)
    is_live: bool = False
    """Whether the group is longer than what is held, so that it is decoded as it comes."""

    def add(self, packet: av.Packet[av.VideoStream]) -> None:
        """Take the next packet of the video."""
        if packet.is_keyframe:
            self.held.clear()
            self.is_live = False
        if self.is_live:
            self.look.feed(packet)
            return
        self.held.append(packet)
        if len(self.held) > _LONGEST_HELD:
            self.look.context.flush_buffers()
            self._feed_held()
            self.is_live = True

    def decode(self) -> None:
        """Decode what is held, which is the end of the video."""
        if not self.is_live:
            self.look.context.flush_buffers()
            self.look.context.skip_frame = "NONREF"
            while len(self.held) > _LAST_WHOLE:
                self.look.feed(self.held.popleft())
            self.look.context.skip_frame = "DEFAULT"
        self._feed_held()
        self.look.feed(None)

    def _feed_held(self) -> None:
        while self.held:
            self.look.feed(self.held.popleft())


def _refuse_lost_tail(container: InputContainer, stream: av.VideoStream, packets: _Packets) -> None:
    """Refuse a file that was cut off: fewer packets, or seconds, than its header declares."""
    if "mp4" in container.format.name and packets.num < stream.frames:
        raise _Found(TRUNCATED, f"{packets.num} of {stream.frames} frames")
    if container.format.name in _DECLARES_LENGTH:
        declared_s = (container.duration or 0) / av.time_base
        if packets.end_s < declared_s - 1:
            raise _Found(TRUNCATED, f"{packets.end_s:.1f} of {declared_s:.1f} s")


def _refuse_lost_frames(container: InputContainer, frames: int, packets: _Packets) -> None:
    """Refuse a video that gave fewer frames than it has packets, where each must give one."""
    codec = container.streams.video[0].codec_context.name
    # In transport streams a packet may be one field of a frame.
    strict = codec in _PACKET_IS_FRAME and not container.format.name.startswith("mpeg")
    shown = len(packets.shown)
    if frames < (shown if strict else shown / 2):
        raise _Found(CORRUPT, f"{frames} of {shown} frames can be decoded")


def _summed_up(look: _Look, packets: _Packets, mode: Mode) -> Decoded:
    times = np.sort(np.array(packets.shown, dtype=np.int64))
    step = int(np.median(np.diff(times))) if len(times) > 1 else packets.last_duration
    duration_s = float((int(times[-1] - times[0]) + step) * (look.stream.time_base or 0))
    frames = look.frames if mode == "full" else len(times)
    width, height = look.size[::-1] if look.rotation in (90, 270) else look.size
    return Decoded(
        frames=frames,
        duration_s=duration_s,
        fps=frames / duration_s if duration_s > 0 else 0.0,
        width_px=width,
        height_px=height,
        codec=str(look.context.name),
        black=look.pictures is not None and look.pictures.are_black,
        frozen=look.pictures is not None and look.pictures.are_frozen,
        complete=mode == "full",
    )


def _where(packet: av.Packet[av.VideoStream] | None) -> str:
    return "at the end" if packet is None else f"at {_seconds(packet):.2f} s"


def _seconds(packet: av.Packet[av.VideoStream]) -> float:
    time_of = packet.pts if packet.pts is not None else packet.dts
    return float(time_of * packet.time_base) if time_of is not None and packet.time_base else 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
