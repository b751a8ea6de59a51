"""A trimmed video's packets in an mp4, put there by this process: an ffmpeg process takes five times as long to start.

Only what is plain is done here. Whoever calls turns to ffmpeg for the rest, whose answer counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from k710.clips.containers import CONTAINERS
from k710.clips.probing import VideoFacts

_READ_BYTES = 1 << 17
_MOST_HELD = 16
"""Frames that any codec reorders."""
# Without these the muxer writes its version into the file, and its index behind the pictures.
_OPTIONS = {"fflags": "+bitexact", "movflags": "+faststart"}


def remuxed(source: Path, target: Path, facts: VideoFacts, streams: list[int], *, length_s: float, most: int) -> bool:
    """Put the packets of ``streams`` into the mp4 ``target``; False, with a target that is no clip, where that fails.

    Times count from the start of the file, and what stands before the first keyframe is left out.

    Args:
        source: a video.
        target: where to.
        facts: of the video.
        streams: numbers of the streams that are taken.
        length_s: packets from there on are left out.
        most: bytes of packets with which this gives up.
    """
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with (
            source.open("rb", buffering=0) as handle,
            av.open(handle, mode="r", metadata_errors="ignore", options=options, buffer_size=_READ_BYTES) as read,
            av.open(f"file:{target}", mode="w", format="mp4", options=_OPTIONS) as written,
        ):
            return _copied(read, written, facts.stream, streams, length_s, most)
    except (av.error.FFmpegError, OSError, ValueError):  # ValueError: a codec that mp4 cannot hold
        return False


def _copied(
    read: InputContainer, written: OutputContainer, pictures: int, streams: list[int], length_s: float, most: int
) -> bool:
    """Copy packet by packet; False where the times of one are not known, or they are too many."""
    outputs: dict[int, Stream] = {n: written.add_stream_from_template(read.streams[n]) for n in streams}
    started, size_bytes = False, 0
    for packet in _with_dts(read.demux(*(read.streams[n] for n in streams))):
        if packet.pts is None or packet.dts is None or packet.time_base is None or packet.is_corrupt:
            return False
        is_picture = packet.stream.index == pictures
        started = started or (is_picture and packet.is_keyframe)
        late = round((read.start_time or 0) / av.time_base / packet.time_base)
        packet.pts, packet.dts = packet.pts - late, packet.dts - late
        if (is_picture and not started) or packet.pts * packet.time_base >= length_s:
            continue
        size_bytes += packet.size
        if size_bytes > most:
            return False
        packet.stream = outputs[packet.stream.index]
        written.mux_one(packet)
    return started


def _with_dts(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets with data; those at the beginning that do not say when they are decoded get it from the next that does.

    Matroska stores only when frames are shown, so that the first of a stream with B-frames are without.
    """
    held: dict[int, list[Any]] = {}
    begun: set[int] = set()
    for packet in packets:
        if not packet.size:
            continue
        waiting = held.setdefault(packet.stream.index, [])
        if packet.stream.index not in begun and packet.dts is None and len(waiting) < _MOST_HELD:
            waiting.append(packet)
            continue
        begun.add(packet.stream.index)
        for distance, early in zip(range(len(waiting), 0, -1), waiting, strict=True):
            if packet.dts is not None and early.duration:
                early.dts = packet.dts - distance * early.duration
        yield from waiting
        waiting.clear()
        yield packet
    yield from (packet for waiting in held.values() for packet in waiting)
