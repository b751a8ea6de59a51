"""AV1: groups between shown key frames, of which everything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uniformerv2.data.codecs.bits import Bits
from uniformerv2.data.codecs.picture import Picture, UnsafeError

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _TILES, _METADATA, _FRAME, _PADDING = 1, 2, 3, 4, 5, 6, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Av1:
    """Reads the packets of one AV1 stream."""

    reorder: int = 0
    """Frames are stored as they are shown, with hidden ones in the packet of the next."""

    def picture(self, data: bytes) -> Picture:
        """The shown frame of a packet, with the hidden ones that it holds; raises UnsafeError for anything else."""
        frames: list[tuple[bool, bool]] = []
        sequence: bytes | None = None
        for kind, unit in _split_units(data):
            if kind == _SEQUENCE and not frames:
                sequence = unit
            elif kind in (_FRAME, _FRAME_HEADER):
                frames.append(_read_frame(unit))
            elif kind not in (_DELIMITER, _TILES, _METADATA, _PADDING):
                raise UnsafeError(f"a unit of type {kind}")
        if sum(shown for _, shown in frames) != 1:
            raise UnsafeError("not one picture to a packet")
        restarts = frames[0] == (True, True)
        # Without the parameters beside it, a decoder that comes from elsewhere may have others.
        if restarts != (sequence is not None) or (sequence and _is_still(sequence)):
            raise UnsafeError("parameters apart from a shown key frame")
        # Hidden frames and what was learnt from any frame serve later ones: nothing inside a group is left out.
        return Picture(restarts=restarts, referred=True)

    def order(self, group: Sequence[Picture]) -> list[int]:
        """That of the packets."""
        return list(range(len(group)))


def _is_still(sequence: bytes) -> bool:
    bits = Bits(sequence)
    bits.skip(3)
    return bits.read(2) != 0


def _split_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of the units of a packet (5.3)."""
    position = 0
    while position < len(data):
        header = data[position]
        # Layers: which of them are shown depends on the decoder.
        if header & 4:
            raise UnsafeError("a unit of another layer")
        if not header & 2:
            yield header >> 3 & 15, data[position + 1 :]
            return
        size, start = _read_leb128(data, position + 1)
        position = start + size
        if position > len(data):
            raise UnsafeError("the units do not fill the packet")
        yield header >> 3 & 15, data[start:position]


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits to a byte (4.10.5), and the position behind it."""
    number = 0
    for shift, byte in enumerate(data[position : position + 8]):
        number |= (byte & 127) << 7 * shift
        if not byte & 128:
            return number, position + shift + 1
    raise UnsafeError("a number does not end")


def _read_frame(unit: bytes) -> tuple[bool, bool]:
    """Whether a frame is a key frame, and whether it is shown (5.9.2)."""
    bits = Bits(unit[:1])
    if bits.read(1):
        return False, True
    return bits.read(2) == 0, bool(bits.read(1))
