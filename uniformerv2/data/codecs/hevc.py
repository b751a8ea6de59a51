"""HEVC (ITU-T H.265): one layer, groups between pictures that refresh the decoder at once."""

from __future__ import annotations

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

_IDR = (19, 20)
_CLEAN_RANDOM_ACCESS = 21
_VPS, _SPS, _PPS, _DELIMITER, _FILLER, _SEI, _SEI_BEHIND = 32, 33, 34, 35, 38, 39, 40
_LAST_UNREFERRED, _LAST_LEADING = 14, 9
_FIRST_LEADING = 6

# Messages without effect on later pixels. Timing is not one: it can say that a picture is a field.
_HARMLESS_MESSAGES = frozenset({0, 4, 5, 6, 129, 132})

_SLICE_HEADER_BYTES = 24
_HEADER_BYTES = 2
_RECORD_BYTES = 23


@dataclass(frozen=True, kw_only=True, slots=True)
class Hevc:
    """Reads the packets of one HEVC stream."""

    length_size: int
    """Bytes of the length before each unit; ``ANNEX_B`` for start codes."""

    parameter_sets: frozenset[bytes]
    """The sets that the decoder starts with: no packet may bring another."""

    extra_bits: int
    """Bits without meaning in a slice header."""

    order_bits: int
    """Size of the low bits of the order of presentation in a slice header."""

    reorder: int
    """How many pictures the decoder holds back to put them in order of presentation."""

    def picture(self, data: bytes) -> Picture:
        """The picture in a packet; raises UnsafeError for anything else."""
        first: bytes | None = None
        for unit in split_units(data, self.length_size):
            kind = _kind(unit)
            if kind <= _CLEAN_RANDOM_ACCESS:
                _check_slice(unit, first)
                first = first or unit
            elif kind in (_SEI, _SEI_BEHIND):
                for message, _ in read_messages(without_emulation(unit)[_HEADER_BYTES:]):
                    if message not in _HARMLESS_MESSAGES:
                        raise UnsafeError(f"a message of type {message}")
            elif kind in (_VPS, _SPS, _PPS):
                if unit not in self.parameter_sets:
                    raise UnsafeError("the parameters change")
            elif kind not in (_DELIMITER, _FILLER):
                raise UnsafeError(f"a unit of type {kind}")
        if first is None:
            raise UnsafeError("a packet without a picture")
        return Picture(
            restarts=_kind(first) in _IDR,
            referred=_is_referred(_kind(first)),
            layer=(first[1] & 7) - 1,
            header=first[:_SLICE_HEADER_BYTES],
        )

    def order(self, group: Sequence[Picture]) -> list[int]:
        """Picture order counts (8.3.1)."""
        orders: list[int] = []
        last = 0
        for picture in group:
            low = self._read_slice(picture)
            orders.append(nearest_order(low, self.order_bits, last) if not picture.restarts else 0)
            leading = _FIRST_LEADING <= _kind(picture.header) <= _LAST_LEADING
            if picture.layer == 0 and picture.referred and not leading:
                last = orders[-1]
        return orders

    def _read_slice(self, picture: Picture) -> int:
        """Low bits of the order, from a slice header (7.3.6.1)."""
        bits = Bits(without_emulation(picture.header)[_HEADER_BYTES:])
        bits.skip(2 if _kind(picture.header) > _LAST_UNREFERRED + 1 else 1)
        bits.read_golomb()
        bits.skip(self.extra_bits)
        bits.read_golomb()
        return 0 if picture.restarts else bits.read(self.order_bits)


def read_hevc(extradata: bytes) -> Hevc:
    """Reader of a stream whose decoder starts with ``extradata``.

    Raises:
        UnsafeError: pictures may be decoded that are not shown, or there are several sets of parameters.
    """
    if extradata[:1] == b"\1":
        length_size, sets = _read_record(extradata)
    else:
        length_size, sets = ANNEX_B, list(split_units(extradata, ANNEX_B))
    sets = [unit for unit in sets if _kind(unit) in (_VPS, _SPS, _PPS)]
    if sorted(_kind(unit) for unit in sets) != [_VPS, _SPS, _PPS]:
        raise UnsafeError("more or less than one set of parameters")
    by_kind = {_kind(unit): Bits(without_emulation(unit)[_HEADER_BYTES:]) for unit in sets}
    order_bits, reorder = _read_sps(by_kind[_SPS])
    return Hevc(
        length_size=length_size,
        parameter_sets=frozenset(sets),
        extra_bits=_read_pps(by_kind[_PPS]),
        order_bits=order_bits,
        reorder=reorder,
    )


def _kind(unit: bytes) -> int:
    """Type of a unit (7.4.2.2), in the only layer that there may be."""
    if len(unit) <= _HEADER_BYTES or unit[0] & 1 or unit[1] >> 3:
        raise UnsafeError("a unit of another layer, or an empty one")
    return unit[0] >> 1


def _is_referred(kind: int) -> bool:
    return kind > _LAST_UNREFERRED or bool(kind % 2)


def _check_slice(unit: bytes, first: bytes | None) -> None:
    kind = _kind(unit)
    # Reserved, or pictures after which others are decoded and not shown.
    if _LAST_LEADING < kind < _IDR[0]:
        raise UnsafeError(f"a picture of type {kind}")
    if (first is None) != bool(unit[2] & 128):
        raise UnsafeError("not one picture to a packet")
    if unit[:_HEADER_BYTES] != (first or unit)[:_HEADER_BYTES]:
        raise UnsafeError("the slices of a picture differ in kind")
    if kind >= _IDR[0] and unit[2] & 64:
        raise UnsafeError("pictures are dropped that were not shown yet")


def _read_record(record: bytes) -> tuple[int, list[bytes]]:
    """Size of the lengths and parameter sets of an HEVC decoder configuration record (ISO/IEC 14496-15, 8.3.3)."""
    if len(record) < _RECORD_BYTES:
        raise UnsafeError("a header ends early")
    sets: list[bytes] = []
    position = _RECORD_BYTES
    for _ in range(record[_RECORD_BYTES - 1]):
        count = int.from_bytes(record[position + 1 : position + 3], "big")
        more, position = take_sets(record, position + 3, count)
        sets += more
    return 1 + (record[21] & 3), sets


def _read_sps(bits: Bits) -> tuple[int, int]:
    """Low bits of the order, pictures held back (7.3.2.2.1)."""
    bits.skip(4)
    sub_layers = bits.read(3)
    bits.skip(1)
    _skip_levels(bits, sub_layers)
    bits.read_golomb()
    if bits.read_golomb() == 3 and bits.read(1):
        raise UnsafeError("colour in planes of their own")
    bits.read_golomb()
    bits.read_golomb()
    if bits.read(1):
        for _ in range(4):
            bits.read_golomb()
    bits.read_golomb()
    bits.read_golomb()
    order_bits = 4 + bits.read_golomb()
    reorder = 0
    for _ in range(1 + sub_layers if bits.read(1) else 1):
        bits.read_golomb()
        reorder = bits.read_golomb()
        bits.read_golomb()
    return order_bits, reorder


def _skip_levels(bits: Bits, sub_layers: int) -> None:
    """Goes past profile, tier and level (7.3.3)."""
    bits.skip(88 + 8)
    present = [(bits.read(1), bits.read(1)) for _ in range(sub_layers)]
    if sub_layers:
        bits.skip(2 * (8 - sub_layers))
    for has_profile, has_level in present:
        bits.skip(88 * has_profile + 8 * has_level)


def _read_pps(bits: Bits) -> int:
    """Bits without meaning in a slice header (7.3.2.3.1)."""
    bits.read_golomb()
    bits.read_golomb()
    bits.skip(1)
    if bits.read(1):
        raise UnsafeError("pictures may be decoded and not shown")
    return bits.read(3)
