"""Frames of an H.264 mp4 by decoding only the packets that they need: what a reader of the clips can do.

The method: list the packets, skip groups of pictures without a wanted frame, and in the others drop every packet that
is not wanted and to which nothing refers. Right only for closed groups, which x264 makes by default.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"

_SLICES = (1, 5)


def select_frames(data: bytes, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
    """RGB frames [T, H, W, 3] of the H.264 mp4 in ``data`` at ``indices``, counted in presentation order."""
    with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = sorted(int(packet.pts or 0) for packet in packets)
        wanted = {times[index] for index in indices}
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata = stream.codec_context.extradata
        decoder.thread_type, decoder.thread_count = "NONE", 1
        # Our own, on one thread, as in uniformerv2.data.decode.
        reformatter = VideoReformatter()
        rgb: dict[int, npt.NDArray[np.uint8]] = {}
        for packet in [*needed_packets(packets, wanted), None]:
            for frame in decoder.decode(packet):
                if frame.pts in wanted:
                    pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    rgb[int(frame.pts)] = pixels.astype(np.uint8, copy=False)
    return np.stack([rgb[times[index]] for index in indices])


def needed_packets(packets: Sequence[VideoPacket], wanted: set[int]) -> Iterator[VideoPacket]:
    """Of packets in decode order those without which the frames at the times ``wanted`` cannot be decoded."""
    starts = [n for n, packet in enumerate(packets) if packet.is_keyframe]
    for start, end in zip(starts, [*starts[1:], len(packets)], strict=True):
        inside = [n for n in range(start, end) if packets[n].pts in wanted]
        if inside:
            for packet in packets[start : inside[-1] + 1]:
                if packet.pts in wanted or is_referred_to(packet):
                    yield packet


def is_referred_to(packet: VideoPacket) -> bool:
    """Whether other pictures may need this one: ``nal_ref_idc`` of its first slice."""
    data = memoryview(packet)
    position = 0
    while position + 4 < len(data):
        # NAL units stand behind their lengths in an mp4, four bytes as every muxer of today writes them.
        size = int.from_bytes(data[position : position + 4], "big")
        header = data[position + 4]
        if header & 31 in _SLICES:
            return bool(header >> 5 & 3)
        position += 4 + size
    return True
