"""Where the coded pictures of an MP4 file lie, from its sample tables alone (ISO/IEC 14496-12, section 8).

The library takes a tenth of what a clip of eight frames costs to open its container and list its packets. Clips of our
own shards are as plain as MP4 can be: one H.264 track, one description, one edit at most. They are read here, in a
twentieth of that time; whatever is not as plain raises UnsafeError, and is left to the library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uniformerv2.data.codecs.picture import UnsafeError

Numbers = npt.NDArray[np.int64]

_HEADER_BYTES, _LONG_HEADER_BYTES = 8, 16
_TO_END, _LONG = 0, 1
_SAMPLE_ENTRY_BYTES = 78
_NO_EDIT = -1
_NORMAL_RATE = 1 << 16
_IN_THIS_FILE = 1
_COLOURS_BYTES = 11
_MAX_SAMPLES = 1 << 20
_SIGN = 1 << 31

# Parts of a file, and of a description, that do not change a pixel. Others may: a fragment, a key, a mask.
_PLAIN_PARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"udta"})
_PLAIN_DETAILS = frozenset({b"avcC", b"colr", b"pasp", b"btrt"})
_PLAIN_TABLES = frozenset(
    {b"stsd", b"stts", b"ctts", b"stss", b"stsz", b"stsc", b"stco", b"co64", b"sdtp", b"cslg", b"sgpd", b"sbgp"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Colours:
    """What numbers of colour mean, by the code points of ISO/IEC 23091-2."""

    primaries: int
    """Chromaticity of the primary colours."""

    transfer: int
    """Transfer characteristic."""

    matrix: int
    """Coefficients between RGB and the coded planes."""

    full_range: bool | None
    """Whether the planes use all values; None: not said."""


class Sample(NamedTuple):
    """A coded picture, with what selection asks of a packet: nothing is wrong with it."""

    data: bytes
    """Its bytes in the file."""

    pts: int
    """Time of presentation, in units of the track."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    @property
    def is_discard(self) -> bool:
        """Whether an edit leaves it out."""
        return False

    @property
    def is_corrupt(self) -> bool:
        """Whether it is known to be damaged."""
        return False

    def __bytes__(self) -> bytes:
        return self.data

    def has_sidedata(self, kind: str) -> bool:  # noqa: ARG002 - the tables have no place for any
        """Whether something stands beside the picture."""
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """The H.264 track of a file: one sample is one coded picture, in decode order."""

    record: bytes
    """The AVC decoder configuration record (ISO/IEC 14496-15, 5.3.3)."""

    width_px: int
    """As the container says."""

    height_px: int
    """As the container says."""

    colours: Colours | None
    """As the container says; what the stream itself says goes before it."""

    offsets: Numbers
    """First byte of each sample in the file."""

    sizes_bytes: Numbers
    """Of each sample."""

    times: Numbers
    """Time of presentation of each sample, in units of the track."""

    def samples(self, data: bytes) -> list[Sample]:
        """The samples of the track in decode order, cut from the file that ``data`` is."""
        spans = zip(self.offsets.tolist(), self.sizes_bytes.tolist(), self.times.tolist(), strict=True)
        return [Sample(data[offset : offset + size], time) for offset, size, time in spans]


def read_track(data: bytes) -> Track:
    """The one video track of the MP4 file in ``data``.

    Raises:
        UnsafeError: it is no MP4 file, is damaged, or has anything on which readers need a rule of their own.
    """
    try:
        parts = list(_boxes(data, 0, len(data)))
        if not {kind for kind, _, _ in parts} <= _PLAIN_PARTS:
            raise UnsafeError("a part of the file that is not plain")
        moov = _children(data, _only(parts, b"moov"))
        if b"mvex" in {kind for kind, _, _ in moov}:
            raise UnsafeError("a file in fragments")
        movie_scale = _clock(data, _only(moov, b"mvhd"))
        videos = [track for kind, *track in moov if kind == b"trak" and _handler(data, *track) == b"vide"]
        if len(videos) != 1:
            raise UnsafeError("not one video track")
        return _read_video(data, _children(data, (videos[0][0], videos[0][1])), movie_scale)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise UnsafeError("the tables of the file are damaged") from error


Box = tuple[bytes, int, int]
"""Kind, first byte of the content, byte behind it."""


def _boxes(data: bytes, start: int, stop: int) -> Iterator[Box]:
    while start < stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = _HEADER_BYTES
        if size == _LONG:
            (size,) = struct.unpack_from(">Q", data, start + header)
            header = _LONG_HEADER_BYTES
        if size == _TO_END or size < header or start + size > stop:
            raise UnsafeError("the parts of the file do not fill it")
        yield kind, start + header, start + size
        start += size


def _children(data: bytes, span: tuple[int, int]) -> list[Box]:
    return list(_boxes(data, *span))


def _only(boxes: list[Box], kind: bytes) -> tuple[int, int]:
    found = [(start, stop) for name, start, stop in boxes if name == kind]
    if len(found) != 1:
        raise UnsafeError(f"not one {kind.decode('latin-1')}")
    return found[0]


def _handler(data: bytes, start: int, stop: int) -> bytes:
    place, _ = _only(_children(data, _only(_children(data, (start, stop)), b"mdia")), b"hdlr")
    return data[place + 8 : place + 12]


def _clock(data: bytes, span: tuple[int, int]) -> int:
    """Units a second, of a movie or media header."""
    start, _ = span
    (scale,) = struct.unpack_from(">I", data, start + (20 if data[start] else 12))
    if data[start] > 1 or not 0 < scale < _SIGN:
        raise UnsafeError("a clock that is not plain")
    return int(scale)


def _read_video(data: bytes, trak: list[Box], movie_scale: int) -> Track:
    media = _children(data, _only(trak, b"mdia"))
    scale = _clock(data, _only(media, b"mdhd"))
    information = _children(data, _only(media, b"minf"))
    _check_place(data, _children(data, _only(information, b"dinf")))
    tables = _children(data, _only(information, b"stbl"))
    spans = {kind: (start, stop) for kind, start, stop in tables}
    if len(spans) < len(tables) or not spans.keys() <= _PLAIN_TABLES:
        raise UnsafeError("tables that are not plain")
    sizes = _sizes(data, _span(spans, b"stsz"))
    if not len(sizes):
        raise UnsafeError("no sample")
    offsets = _offsets(data, spans, sizes)
    if int(sizes.min()) <= 0 or int((offsets + sizes).max()) > len(data) or int(offsets.min()) < 0:
        raise UnsafeError("a sample outside the file")
    if b"stss" in spans:  # what it says is not believed, but it has to be there in full
        _numbers(data, spans[b"stss"], 1)
    times = _times(data, spans, len(sizes))
    _check_edit(data, trak, times, movie_scale, scale)
    record, width, height, colours = _description(data, _span(spans, b"stsd"))
    return Track(
        record=record,
        width_px=width,
        height_px=height,
        colours=colours,
        offsets=offsets,
        sizes_bytes=sizes,
        times=times,
    )


def _span(spans: Mapping[bytes, tuple[int, int]], kind: bytes) -> tuple[int, int]:
    if kind not in spans:
        raise UnsafeError(f"no {kind.decode('latin-1')}")
    return spans[kind]


def _check_place(data: bytes, dinf: list[Box]) -> None:
    start, stop = _only(dinf, b"dref")
    entries = _entries(data, (start, stop))
    if len(entries) != 1 or data[entries[0][1] : entries[0][1] + 4] != _IN_THIS_FILE.to_bytes(4, "big"):
        raise UnsafeError("samples in another file")


def _entries(data: bytes, span: tuple[int, int]) -> list[Box]:
    """Boxes behind their number."""
    entries = list(_boxes(data, span[0] + 8, span[1]))
    if struct.unpack_from(">I", data, span[0] + 4) != (len(entries),):
        raise UnsafeError("another number of entries than said")
    return entries


def _numbers(data: bytes, span: tuple[int, int], columns: int, kind: str = ">u4", header: int = 4) -> Numbers:
    """The rows of a table [row, column], whose number stands behind ``header`` bytes."""
    start, stop = span
    (rows,) = struct.unpack_from(">I", data, start + header)
    first = start + header + 4
    if rows > _MAX_SAMPLES or first + rows * columns * np.dtype(kind).itemsize > stop:
        raise UnsafeError("a table that is longer than its part of the file")
    return np.frombuffer(data, kind, rows * columns, first).astype(np.int64).reshape(rows, columns)


def _sizes(data: bytes, span: tuple[int, int]) -> Numbers:
    (common,) = struct.unpack_from(">I", data, span[0] + 4)
    if common:
        raise UnsafeError("samples of one size")
    return _numbers(data, span, 1, header=8)[:, 0]


def _offsets(data: bytes, spans: Mapping[bytes, tuple[int, int]], sizes: Numbers) -> Numbers:
    """First byte of each sample: they follow each other within a chunk."""
    if (b"stco" in spans) == (b"co64" in spans):
        raise UnsafeError("not one table of chunks")
    chunks = _numbers(data, spans[b"stco"], 1) if b"stco" in spans else _numbers(data, spans[b"co64"], 1, ">u8")
    runs = _numbers(data, _span(spans, b"stsc"), 3)
    first, per_chunk, description = runs.T
    if not len(runs) or first[0] != 1 or (np.diff(first) <= 0).any() or (description != 1).any():
        raise UnsafeError("a table of chunks that is not plain")
    samples = np.repeat(per_chunk, np.diff([*first, len(chunks) + 1]))
    if len(samples) != len(chunks) or int(samples.sum()) != len(sizes) or (samples <= 0).any():
        raise UnsafeError("chunks and samples disagree")
    behind = np.cumsum(sizes) - sizes
    starts = np.cumsum(samples) - samples
    offsets: Numbers = np.repeat(chunks[:, 0] - behind[starts], samples) + behind
    return offsets


def _times(data: bytes, spans: Mapping[bytes, tuple[int, int]], num_samples: int) -> Numbers:
    """Time of presentation: that of decoding and, where there is one, the offset to it."""
    counts, steps = _numbers(data, _span(spans, b"stts"), 2).T
    # Readers take steps of nothing, and huge ones, for marks of damage, each in its way.
    if int(counts.sum()) != num_samples or (steps <= 0).any() or (steps >= _SIGN).any():
        raise UnsafeError("times of decoding that are not plain")
    each = np.repeat(steps, counts)
    times: Numbers = np.cumsum(each) - each
    if b"ctts" in spans:
        counts, later = _numbers(data, spans[b"ctts"], 2, ">i4").T
        if int(counts.sum()) != num_samples or (counts < 0).any() or (later < 0).any():
            raise UnsafeError("times of presentation that are not plain")
        times = times + np.repeat(later, counts)
    return times


def _check_edit(data: bytes, trak: list[Box], times: Numbers, movie_scale: int, scale: int) -> None:
    """One edit that shows all samples at their speed changes nothing; any other does."""
    edits = [span for kind, *span in trak if kind == b"edts"]
    if not edits:
        return
    start, stop = _only(_children(data, (edits[0][0], edits[0][1])), b"elst")
    layout = ">Qqi" if data[start] == 1 else ">Iii"
    (rows,) = struct.unpack_from(">I", data, start + 4)
    if len(edits) != 1 or rows != 1 or start + 8 + struct.calcsize(layout) > stop:
        raise UnsafeError("more than one edit")
    length, begin, rate = struct.unpack_from(layout, data, start + 8)
    shown_until = begin + length * scale // movie_scale
    if rate != _NORMAL_RATE or begin == _NO_EDIT or begin > int(times.min()) or int(times.max()) >= shown_until:
        raise UnsafeError("an edit that leaves out samples")


def _description(data: bytes, span: tuple[int, int]) -> tuple[bytes, int, int, Colours | None]:
    entries = _entries(data, span)
    if len(entries) != 1 or entries[0][0] != b"avc1":
        raise UnsafeError("not one description of H.264")
    _, start, stop = entries[0]
    width, height = struct.unpack_from(">HH", data, start + 24)
    details = list(_boxes(data, start + _SAMPLE_ENTRY_BYTES, stop))
    if not {kind for kind, _, _ in details} <= _PLAIN_DETAILS:
        raise UnsafeError("a description that is not plain")
    first, last = _only(details, b"avcC")
    colours = [_colours(data[begin:end]) for kind, begin, end in details if kind == b"colr"]
    if len(colours) > 1:
        raise UnsafeError("more than one meaning of colours")
    return data[first:last], width, height, colours[0] if colours else None


def _colours(content: bytes) -> Colours:
    if content[:4] not in (b"nclx", b"nclc") or len(content) < _COLOURS_BYTES - (content[:4] == b"nclc"):
        raise UnsafeError("colours by a profile")
    primaries, transfer, matrix = struct.unpack_from(">HHH", content, 4)
    full_range = bool(content[10] & 128) if content[:4] == b"nclx" else None
    return Colours(primaries=primaries, transfer=transfer, matrix=matrix, full_range=full_range)
