"""H.264 (ITU-T H.264): pictures without interlacing whose order the stream itself states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from uniformerv2.data.codecs.bits import (
    ANNEX_B,
    Bits,
    nearest_order,
    read_messages,
    split_units,
    take_sets,
    without_emulation,
)
from uniformerv2.data.codecs.picture import Picture, UnsafeError

_SLICE, _IDR, _SEI, _SPS, _PPS, _DELIMITER, _FILLER = 1, 5, 6, 7, 8, 9, 12

# Messages without effect on later pixels: buffering, timing, captions, user data, recovery. Film grain is not one.
_HARMLESS_MESSAGES = frozenset({0, 1, 4, 5, 6})

_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_SLICE_HEADER_BYTES = 24
_LENGTH_BYTES = 4
_MAX_REORDER = 16
_RECORD_BYTES = 6

# Decoders read this once and imitate what the first builds did wrong.
_X264_BUILD = re.compile(rb"x264 - core (\d+)")
_FIRST_RIGHT_X264_BUILD = 34


@dataclass(frozen=True, kw_only=True, slots=True)
class H264:
    """Reads the packets of one H.264 stream."""

    length_size: int
    """Bytes of the length before each unit; ``ANNEX_B`` for start codes."""

    parameter_sets: frozenset[bytes]
    """The sets that the decoder starts with: no packet may bring another."""

    frame_num_bits: int
    """Size of the counter of reference pictures in a slice header."""

    order_bits: int
    """Size of the low bits of the order of presentation in a slice header; 0: it is that of decoding."""

    reorder: int
    """How many pictures the decoder holds back to put them in order of presentation."""

    def picture(self, data: bytes) -> Picture:
        """The picture in a packet; raises UnsafeError for anything else."""
        # Nearly all packets are a single slice.
        if self.length_size == _LENGTH_BYTES and len(data) > _LENGTH_BYTES + 1:
            kind = data[_LENGTH_BYTES] & 31
            whole = int.from_bytes(data[:_LENGTH_BYTES], "big") == len(data) - _LENGTH_BYTES
            if whole and kind in (_SLICE, _IDR) and data[_LENGTH_BYTES + 1] & 128:
                return _picture(data[_LENGTH_BYTES : _LENGTH_BYTES + _SLICE_HEADER_BYTES])
        return self._picture_of_units(data)

    def _picture_of_units(self, data: bytes) -> Picture:
        first: bytes | None = None
        for unit in split_units(data, self.length_size):
            kind = unit[0] & 31
            if kind in (_SLICE, _IDR):
                # Each picture begins with macroblock 0, coded as a single 1.
                if len(unit) < 2 or (first is None) != bool(unit[1] & 128):
                    raise UnsafeError("not one picture to a packet")
                first = first or unit
                # The whole first byte: every slice agrees on the kind of the picture, and on what refers to it.
                if unit[0] != first[0]:
                    raise UnsafeError("the slices of a picture differ in kind")
            elif kind == _SEI:
                _check_messages(unit)
            elif kind in (_SPS, _PPS):
                if unit not in self.parameter_sets:
                    raise UnsafeError("the parameters change")
            elif kind not in (_DELIMITER, _FILLER):
                raise UnsafeError(f"a unit of type {kind}")
        if first is None:
            raise UnsafeError("a packet without a picture")
        return _picture(first[:_SLICE_HEADER_BYTES])

    def order(self, group: Sequence[Picture]) -> list[int]:
        """Picture order counts (8.2.1); raises UnsafeError where the counter of references skips (7.4.3)."""
        orders: list[int] = []
        frame_nums = 1 << self.frame_num_bits
        last_frame_num = last_order = 0
        for picture in group:
            frame_num, low = self._read_slice(picture)
            if frame_num != (0 if picture.restarts else (last_frame_num + 1) % frame_nums):
                raise UnsafeError("a reference is missing")
            if not self.order_bits:
                order = len(orders)
            elif picture.restarts:
                order = low
            else:
                order = nearest_order(low, self.order_bits, last_order)
            orders.append(order)
            if picture.referred:
                last_frame_num, last_order = frame_num, order
        return orders

    def _read_slice(self, picture: Picture) -> tuple[int, int]:
        """Counter of references and low bits of the order, from a slice header (7.3.3)."""
        bits = Bits(without_emulation(picture.header)[1:])
        for _ in range(3):  # first macroblock, slice type, parameter set
            bits.read_golomb()
        frame_num = bits.read(self.frame_num_bits)
        if picture.restarts:
            bits.read_golomb()
        return frame_num, bits.read(self.order_bits)


def read_h264(extradata: bytes) -> H264:
    """Reader of a stream whose decoder starts with ``extradata``.

    Raises:
        UnsafeError: it may be interlaced, or its order of presentation is not stated in full.
    """
    if extradata[:1] == b"\1":
        length_size, sets = _read_record(extradata)
    else:
        length_size, sets = ANNEX_B, list(split_units(extradata, ANNEX_B))
    sps, pps = ([unit for unit in sets if unit[:1] and unit[0] & 31 == kind] for kind in (_SPS, _PPS))
    if (len(sps), len(pps)) != (1, 1):
        raise UnsafeError("more or less than one set of parameters")
    _check_pps(Bits(without_emulation(pps[0])[1:]))
    frame_num_bits, order_bits, reorder = _read_sps(Bits(without_emulation(sps[0])[1:]))
    return H264(
        length_size=length_size,
        parameter_sets=frozenset([*sps, *pps]),
        frame_num_bits=frame_num_bits,
        order_bits=order_bits,
        reorder=reorder,
    )


def _picture(header: bytes) -> Picture:
    return Picture(restarts=header[0] & 31 == _IDR, referred=bool(header[0] & 96), header=header)


def _read_record(record: bytes) -> tuple[int, list[bytes]]:
    """Size of the lengths and parameter sets of an AVC decoder configuration record (ISO/IEC 14496-15, 5.3.3)."""
    if len(record) < _RECORD_BYTES:
        raise UnsafeError("a header ends early")
    sps, position = take_sets(record, _RECORD_BYTES, record[5] & 31)
    pps, _ = take_sets(record, position + 1, record[position] if position < len(record) else 0)
    return 1 + (record[4] & 3), sps + pps


def _read_sps(bits: Bits) -> tuple[int, int, int]:
    """Bits of the counter of references, low bits of the order, pictures held back (7.3.2.1.1)."""
    profile = bits.read(8)
    bits.skip(16)
    bits.read_golomb()
    if profile in _HIGH_PROFILES:
        _read_high_profile(bits)
    frame_num_bits = 4 + bits.read_golomb()
    order_type = bits.read_golomb()
    if order_type not in (0, 2):
        raise UnsafeError("an order of presentation by cycles")
    order_bits = 4 + bits.read_golomb() if order_type == 0 else 0
    bits.read_golomb()
    if bits.read(1):
        raise UnsafeError("references may be missing on purpose")
    bits.read_golomb()
    bits.read_golomb()
    # Two packets may make one picture, or one packet two.
    if not bits.read(1):
        raise UnsafeError("pictures may be interlaced")
    bits.skip(1)
    if bits.read(1):
        for _ in range(4):
            bits.read_golomb()
    reorder = _read_usability(bits) if bits.read(1) else None
    if reorder is None and order_bits:
        raise UnsafeError("the decoder has to guess how many pictures to hold back")
    return frame_num_bits, order_bits, reorder or 0


def _read_high_profile(bits: Bits) -> None:
    # Decoders treat 4:4:4 of some builds of x264 in a way of its own, by what the first packet alone says.
    if bits.read_golomb() == 3:
        raise UnsafeError("colour in full resolution")
    bits.read_golomb()
    bits.read_golomb()
    bits.skip(1)
    if bits.read(1):
        for number in range(8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = 8
    for _ in range(size):
        last = (last + bits.read_signed_golomb()) % 256
        if last == 0:
            return


def _read_usability(bits: Bits) -> int | None:
    """Pictures held back as the usability information states (annex E.1.1); None: it does not."""
    if bits.read(1) and bits.read(8) == 255:
        bits.skip(32)
    if bits.read(1):
        bits.skip(1)
    if bits.read(1):
        bits.skip(4)
        if bits.read(1):
            bits.skip(24)
    if bits.read(1):
        bits.read_golomb()
        bits.read_golomb()
    if bits.read(1):
        bits.skip(65)
    has_buffers = [_skip_buffers(bits) if bits.read(1) else False for _ in range(2)]
    if any(has_buffers):
        bits.skip(1)
    # Pulldown: whether a picture counts as interlaced then depends on the one before.
    if bits.read(1):
        raise UnsafeError("pictures may stand for fields")
    if not bits.read(1):
        return None
    bits.skip(1)
    for _ in range(4):
        bits.read_golomb()
    reorder = bits.read_golomb()
    if reorder > _MAX_REORDER:
        raise UnsafeError("more pictures held back than there can be")
    return reorder


def _skip_buffers(bits: Bits) -> bool:
    """Goes past the parameters of the reference decoder (annex E.1.2), which it says there were."""
    count = bits.read_golomb() + 1
    bits.skip(8)
    for _ in range(count):
        bits.read_golomb()
        bits.read_golomb()
        bits.skip(1)
    bits.skip(20)
    return True


def _check_pps(bits: Bits) -> None:
    bits.read_golomb()
    bits.read_golomb()
    bits.skip(1)
    if bits.read(1):
        raise UnsafeError("the fields of a picture have an order of their own")


def _check_messages(unit: bytes) -> None:
    for kind, payload in read_messages(without_emulation(unit)[1:]):
        if kind not in _HARMLESS_MESSAGES:
            raise UnsafeError(f"a message of type {kind}")
        build = _X264_BUILD.search(payload)
        if build and int(build[1]) < _FIRST_RIGHT_X264_BUILD:
            raise UnsafeError("made by a build of x264 that decoders imitate")
