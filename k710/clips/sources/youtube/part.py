"""A part of a video in a file of its own, with the packets as they are, and where exactly in the video it begins.

It begins with a keyframe, and ends behind the last packet that is decoded in time, so that each frame in between is
decoded to the same picture as in the whole video. Its times are those of the video, moved by one number.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer

from k710.clips.sources.candidates import Brought
from k710.clips.sources.youtube.remote_file import RemoteFile

_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}
"""Those that can be sought in, and in which container a part of them keeps its times."""
_SUFFIXES = {"mp4": ".mp4", "matroska": ".mkv"}
# Without it the delay of the sound behind the picture is rounded to milliseconds.
_OPTIONS = {"mp4": {"movie_timescale": "90000"}, "matroska": {}}
_IN_ORDER = ("vp8", "vp9", "av1")
"""Codecs whose frames are decoded in the order in which they are shown."""
_READ_BYTES = 1 << 16
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


class NoPartError(Exception):
    """A part of this file cannot be taken; the whole may do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A range of time in a video, seconds from its start."""

    need_s: float
    """Time of which the frame must be in the part."""
    from_s: float
    """Where the part should begin."""
    until_s: float
    """Where it should end."""


class _Source:
    """An open file, and the stream that is taken of it."""

    def __init__(self, file: RemoteFile, container: InputContainer, stream: Any) -> None:
        self.file, self.container, self.stream = file, container, stream

    def time_s(self, ticks: int) -> float:
        return float(ticks * self.stream.time_base)

    def seek(self, to_s: float) -> None:
        """Go to the last keyframe before a time, as the container counts it."""
        self.container.seek(round(to_s / self.stream.time_base), stream=self.stream, backward=True)

    def packets(self) -> Iterator[Any]:
        """Packets with data from here on, each with times."""
        for packet in self.container.demux(self.stream):
            self.file.raise_failure()
            if not packet.size:
                continue
            if packet.dts is None and self.stream.codec_context.name in _IN_ORDER:
                packet.dts = packet.pts
            if packet.pts is None or packet.dts is None or packet.is_corrupt:
                raise NoPartError("a packet without times")
            yield packet
        self.file.raise_failure()


def save_part(picture: RemoteFile, sound: RemoteFile | None, span: Span, stem: Path) -> Brought:
    """Write a part of a video to a file called ``stem`` and a suffix.

    Args:
        picture: file with the picture.
        sound: file with the sound, if that is taken; another reader of the same one, if it holds both.
        span: what is wanted.
        stem: path without suffix.

    Raises:
        NoPartError: this kind of file knows no parts, or it is damaged.
        OSError: there is no room.
        Exception: what reading the files raised.
    """
    try:
        with ExitStack() as stack:
            pictures = _opened(picture, "video", stack)
            sounds = None if sound is None else _opened(sound, "audio", stack)
            if pictures is None:
                raise NoPartError("no picture")
            return _saved(pictures, sounds, span, stem)
    except (av.error.FFmpegError, ValueError) as error:  # ValueError: a codec that the container cannot hold
        for file in (picture, sound):
            if file is not None:
                file.raise_failure()
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(error.errno, error.strerror, str(stem)) from error
        raise NoPartError(str(error)) from error


def _opened(file: RemoteFile, kind: str, stack: ExitStack) -> _Source | None:
    """The first stream of a kind, in its file; None when there is none."""
    options = {"format_whitelist": ",".join(_CONTAINERS), "protocol_whitelist": "file"}
    opened = av.open(file, mode="r", metadata_errors="ignore", options=options, buffer_size=_READ_BYTES)
    container = stack.enter_context(opened)
    file.raise_failure()
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams if s.type == kind and s.time_base and not s.disposition & cover]
    return _Source(file, container, streams[0]) if streams else None


def _saved(pictures: _Source, sounds: _Source | None, span: Span, stem: Path) -> Brought:
    form = _CONTAINERS[pictures.container.format.name]
    zero_s = float(pictures.container.start_time or 0) / av.time_base
    until_s = zero_s + span.until_s
    packets = _from_keyframe(pictures, span, zero_s)
    begins_s = pictures.time_s(packets[0].pts)
    path = stem.with_name(stem.name + _SUFFIXES[form])
    with av.open(f"file:{path}", mode="w", format=form, options=_OPTIONS[form]) as written:
        taken = [_timed(pictures, _frames(pictures, packets[0], packets[1], until_s), _output(pictures, written))]
        if sounds is not None:
            taken.append(_timed(sounds, _sound(sounds, begins_s, until_s), _output(sounds, written)))
        for _, packet in heapq.merge(*taken, key=lambda item: item[0]):
            late = round(begins_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - late, packet.dts - late
            written.mux_one(packet)
    return Brought(path=path, begins_s=begins_s - zero_s - _first_s(path))


def _from_keyframe(source: _Source, span: Span, zero_s: float) -> tuple[Any, Iterator[Any]]:
    """The last keyframe that is shown before the part should begin, and what comes after it."""
    if span.from_s > 0:
        source.seek(zero_s + span.from_s)
        packets = source.packets()
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is not None and source.time_s(first.pts) - zero_s <= span.need_s:
            return first, packets
    # Also where an index is wrong, and leads behind what is wanted.
    source.container.seek(0)
    packets = source.packets()
    first = next((packet for packet in packets if packet.is_keyframe), None)
    if first is None:
        raise NoPartError("no keyframe")
    return first, packets


def _frames(source: _Source, first: Any, packets: Iterator[Any], until_s: float) -> Iterator[Any]:
    begin = latest = first.pts
    yield first
    for packet in packets:
        # At a frame that is shown after all others, none of those that are shown between them is still to come.
        if source.time_s(packet.dts) > until_s and packet.pts > latest:
            return
        latest = max(latest, packet.pts)
        # What is shown before the keyframe needs frames that are not here.
        if packet.pts >= begin:
            yield packet


def _sound(source: _Source, from_s: float, until_s: float) -> Iterator[Any]:
    source.seek(max(0.0, from_s))
    for packet in source.packets():
        if source.time_s(packet.pts) > until_s:
            return
        if source.time_s(packet.pts) >= from_s:
            yield packet


def _output(source: _Source, written: OutputContainer) -> Any:
    """A stream like the source's, that counts time as it does."""
    output: Any = written.add_stream_from_template(source.stream)
    output.time_base = source.stream.time_base
    return output


def _timed(source: _Source, packets: Iterator[Any], output: Any) -> Iterator[tuple[float, Any]]:
    """Packets with the time at which they are decoded, addressed to ``output``."""
    for packet in packets:
        time_s = source.time_s(packet.dts)
        packet.stream = output
        yield time_s, packet


def _first_s(path: Path) -> float:
    """When the first keyframe of the part is shown, from the part's own start: what the container made of its times."""
    with av.open(f"file:{path}", mode="r") as container:
        stream: Any = container.streams.video[0]
        keys: Iterator[Any] = (p for p in container.demux(stream) if p.is_keyframe and p.pts is not None)
        return float(next(keys).pts * stream.time_base) - float(container.start_time or 0) / av.time_base
