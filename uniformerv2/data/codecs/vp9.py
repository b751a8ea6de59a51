"""VP9: groups between key frames, of which everything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uniformerv2.data.codecs.bits import Bits
from uniformerv2.data.codecs.picture import Picture, UnsafeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Vp9:
    """Reads the packets of one VP9 stream."""

    reorder: int = 0
    """Frames are stored as they are shown, with hidden ones in the packet of the next."""

    def picture(self, data: bytes) -> Picture:
        """The shown frame of a packet, with the hidden ones that it holds; raises UnsafeError for anything else."""
        frames = [_read_frame(frame) for frame in _split_frames(data)]
        if sum(shown for _, shown in frames) != 1:
            raise UnsafeError("not one picture to a packet")
        # Hidden frames and what was learnt from any frame serve later ones: nothing inside a group is left out.
        return Picture(restarts=frames[0][0], referred=True)

    def order(self, group: Sequence[Picture]) -> list[int]:
        """That of the packets."""
        return list(range(len(group)))


def _split_frames(data: bytes) -> Iterator[bytes]:
    """Frames of a packet, which has an index of them at its end when there are several (annex B)."""
    marker = data[-1]
    count, width = 1 + (marker & 7), 1 + (marker >> 3 & 3)
    index = data[-2 - count * width :]
    if marker & 0xE0 != 0xC0 or index[0] != marker or len(index) != 2 + count * width:
        yield data
        return
    position = 0
    for place in range(1, 1 + count * width, width):
        size = int.from_bytes(index[place : place + width], "little")
        position += size
        if not size or position > len(data) - len(index):
            raise UnsafeError("the frames do not fill the packet")
        yield data[position - size : position]


def _read_frame(frame: bytes) -> tuple[bool, bool]:
    """Whether a frame is a key frame, and whether it is shown (6.2)."""
    bits = Bits(frame[:2])
    if bits.read(2) != 2:
        raise UnsafeError("no frame header")
    if bits.read(2) == 3:
        bits.skip(1)
    if bits.read(1):
        return False, True
    return not bits.read(1), bool(bits.read(1))
