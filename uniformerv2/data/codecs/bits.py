"""Bits and units of the bitstreams of H.264, HEVC and AV1."""

from __future__ import annotations

from collections.abc import Iterator

from uniformerv2.data.codecs.picture import UnsafeError

ANNEX_B = 0
"""In place of the size of a length: units follow start codes."""


class Bits:
    """Reads big-endian bits from the front."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next ``count`` bits as an unsigned number.

        Raises:
            UnsafeError: there are fewer.
        """
        self._left -= count
        if self._left < 0:
            raise UnsafeError("a header ends early")
        return self._value >> self._left & (1 << count) - 1

    def skip(self, count: int) -> None:
        """Go past ``count`` bits."""
        self.read(count)

    def read_golomb(self) -> int:
        """The next unsigned Exp-Golomb code (H.264, 9.1)."""
        rest = self._value & (1 << self._left) - 1
        zeros = self._left - rest.bit_length()
        self.skip(zeros)
        return self.read(zeros + 1) - 1

    def read_signed_golomb(self) -> int:
        """The next signed Exp-Golomb code (H.264, 9.1.1)."""
        code = self.read_golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def without_emulation(data: bytes) -> bytes:
    """The payload of a unit, without the bytes that keep start codes from appearing in it (H.264, 7.4.1)."""
    return data.replace(b"\0\0\3", b"\0\0")


def split_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units of a packet, each behind its length of ``length_size`` bytes, or behind start codes.

    Raises:
        UnsafeError: they do not fill the packet.
    """
    if length_size == ANNEX_B:
        # Zeros may stand before a start code, and a unit never ends in one.
        before, *units = (unit.rstrip(b"\0") for unit in data.split(b"\0\0\1"))
        if before or not all(units):
            raise UnsafeError("the start codes do not fill the packet")
        yield from units
        return
    position, end = 0, len(data)
    while position < end:
        start = position + length_size
        position = start + int.from_bytes(data[position:start], "big")
        if not start < position <= end:
            raise UnsafeError("the lengths of the units do not fill the packet")
        yield data[start:position]


def take_sets(record: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    """``count`` units, each behind a length of two bytes, from ``position`` on, and the position behind them.

    Raises:
        UnsafeError: the record ends before they do.
    """
    sets: list[bytes] = []
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(record[position:start], "big")
        if position > len(record):
            raise UnsafeError("a header ends early")
        sets.append(record[start:position])
    return sets, position


def nearest_order(low: int, num_bits: int, last: int) -> int:
    """The order with the low bits ``low`` that is nearest to ``last``, the larger of two (H.264, 8.2.1.1)."""
    half = 1 << num_bits >> 1
    return last + (low - last + half - 1) % (2 * half) - half + 1


def read_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of the messages of a unit behind its header (H.264, 7.3.2.3.1)."""
    position = 0
    # The last byte closes the unit.
    while position < len(data) - 1:
        numbers = []
        for _ in range(2):
            number = 0
            while True:
                byte = data[position] if position < len(data) else 0
                position += 1
                number += byte
                if byte != 255:
                    break
            numbers.append(number)
        kind, size = numbers
        yield kind, data[position : position + size]
        position += size
