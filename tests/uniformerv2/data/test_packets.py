"""Which packets the wanted frames need, and what makes leaving any out unsafe."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import pytest
from decode_streams import KINDS, NUM_FRAMES, make

from uniformerv2.data.codecs.av1 import Av1
from uniformerv2.data.codecs.picture import Codec, UnsafeError
from uniformerv2.data.codecs.vp9 import Vp9
from uniformerv2.data.packets import Selection, codec_of, select


@dataclass(frozen=True)
class FakePacket:
    """What selection looks at in a packet."""

    data: bytes
    pts: int | None
    is_discard: bool = False
    is_corrupt: bool = False
    news: str = ""

    @property
    def size(self) -> int:
        return len(self.data)

    def __bytes__(self) -> bytes:
        return self.data

    def has_sidedata(self, kind: str) -> bool:
        return kind == self.news


Stream = tuple[Codec, list[FakePacket]]


@pytest.fixture(scope="module")
def stream_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stream]:
    folder, made = tmp_path_factory.mktemp("streams"), dict[str, Stream]()

    def read(name: str) -> Stream:
        if name not in made:
            made[name] = _read(make(KINDS[name], folder))
        return made[name]

    return read


def _read(data: bytes) -> Stream:
    with av.open(io.BytesIO(data), "r") as container:
        context = container.streams.video[0].codec_context
        codec = codec_of(context.codec.canonical_name, context.extradata)
        return codec, [FakePacket(bytes(p), p.pts) for p in container.demux(video=0) if p.size]


def _select(codec: Codec, packets: Sequence[FakePacket], indices: Sequence[int]) -> Selection:
    return select(codec, packets, indices)  # type: ignore[arg-type]


def _numbers(stream: Stream, indices: Sequence[int]) -> list[int]:
    """The frames that selection feeds, by their place in order of presentation."""
    codec, packets = stream
    times = sorted(packet.pts or 0 for packet in packets)
    return sorted(times.index(packets[position].pts or 0) for position in _select(codec, packets, indices).packets)


def test_groups_and_droppable_frames_are_left_out(stream_of: Callable[[str], Stream]) -> None:
    sparse8 = stream_of("h264 sparse8")
    # Groups of 12 frames: I B B B P B B B P B B P.
    assert _numbers(sparse8, [12]) == [12]
    assert _numbers(sparse8, [15]) == [12, 15, 16]
    assert _numbers(sparse8, [23, 1]) == [0, 1, 4, 12, 16, 20, 23]


def test_a_frame_that_others_need_is_fed_with_them(stream_of: Callable[[str], Stream]) -> None:
    # I b B b P: the middle one is a reference.
    assert _numbers(stream_of("h264 pyramid"), [1]) == [0, 1, 2, 4]
    assert _numbers(stream_of("hevc pyramid"), [1])[:2] == [0, 1]


def test_pictures_before_a_keyframe_of_an_open_group_bring_the_group_before(
    stream_of: Callable[[str], Stream],
) -> None:
    for name in ("h264 open groups", "h264 intra refresh", "hevc open groups"):
        assert _numbers(stream_of(name), [NUM_FRAMES - 1])[0] == 0


def test_of_temporal_layers_only_the_highest_is_left_out(stream_of: Callable[[str], Stream]) -> None:
    codec, packets = stream_of("hevc layers")
    fed = _select(codec, packets, [11]).packets
    pictures = [codec.picture(packet.data) for packet in packets]
    left_out = [pictures[position] for position in range(fed[-1]) if position not in fed]
    assert left_out
    assert {picture.layer for picture in left_out} == {max(picture.layer for picture in pictures)} != {0}
    assert not any(picture.referred for picture in left_out)


def test_a_picture_below_the_highest_layer_is_fed(stream_of: Callable[[str], Stream]) -> None:
    codec, packets = stream_of("hevc without pyramid")
    assert len(_select(codec, packets, [11]).packets) < 10
    layered = [*packets[:-1], _patched(packets[-1], 5, packets[-1].data[5] + 1)]
    fed = _select(codec, layered, [11]).packets
    assert fed == tuple(range(fed[-1] + 1))


def test_groups_of_codecs_with_hidden_frames_are_fed_whole(stream_of: Callable[[str], Stream]) -> None:
    for name in ("vp9 hidden frames", "av1", "av1 of another encoder"):
        assert _numbers(stream_of(name), [15, 26]) == [*range(12, 16), *range(24, 27)]


def test_what_comes_out_is_told_in_order(stream_of: Callable[[str], Stream]) -> None:
    codec, packets = stream_of("h264 sparse8")
    selection = _select(codec, packets, [15, 1])
    assert selection.frames == (None, 1, None, None, 15, None)
    assert list(selection.times) == sorted(selection.times)
    assert len(selection.times) == len(selection.packets)


def test_frames_that_are_not_shown_do_not_count(stream_of: Callable[[str], Stream]) -> None:
    codec, packets = stream_of("h264 sparse8")
    hidden = [replace(packet, is_discard=True) if n in (0, 2) else packet for n, packet in enumerate(packets)]
    # Frames 0 and 1 are fed for others and do not come out.
    selection = _select(codec, hidden, [0, 14])
    assert selection.packets[0] == 0
    assert {packets[0].pts, packets[2].pts}.isdisjoint(selection.times)
    assert {0, 14} <= set(selection.frames)
    with pytest.raises(UnsafeError, match="fewer frames"):
        _select(codec, hidden, [NUM_FRAMES - 2])


@pytest.mark.parametrize("indices", [[NUM_FRAMES], [-1], [0, -3]])
def test_frames_that_are_not_there_are_not_selected(stream_of: Callable[[str], Stream], indices: list[int]) -> None:
    with pytest.raises(UnsafeError, match="fewer frames"):
        _select(*stream_of("h264 sparse8"), indices)


def _patched(packet: FakePacket, place: int, value: int) -> FakePacket:
    return replace(packet, data=packet.data[:place] + bytes([value]) + packet.data[place + 1 :])


UNSAFE: dict[str, tuple[str, Callable[[list[FakePacket]], list[FakePacket]], str]] = {
    "no packets": ("h264 sparse8", lambda p: [], "time"),
    "no time": ("h264 sparse8", lambda p: [replace(p[0], pts=None), *p[1:]], "time is missing"),
    "a time twice": ("h264 sparse8", lambda p: [*p[:-1], replace(p[-1], pts=p[-2].pts)], "twice"),
    "an empty packet": ("h264 sparse8", lambda p: [*p[:5], replace(p[5], data=b""), *p[6:]], "damaged"),
    "a torn packet": ("h264 sparse8", lambda p: [*p[:5], replace(p[5], is_corrupt=True), *p[6:]], "damaged"),
    "other parameters": ("h264 sparse8", lambda p: [*p[:5], replace(p[5], news="new_extradata"), *p[6:]], "change"),
    "another size": ("h264 sparse8", lambda p: [*p[:5], replace(p[5], news="param_change"), *p[6:]], "change"),
    "the first packet gone": ("h264 sparse8", lambda p: p[1:], "cannot begin"),
    "a reference gone": ("h264 without B", lambda p: [*p[:4], *p[5:]], "reference is missing"),
    "a reference marked as none": (
        "h264 without B",
        lambda p: [*p[:4], _patched(p[4], 4, p[4].data[4] & 0x9F), *p[5:]],
        "reference is missing",
    ),
    "half a packet": ("h264 sparse8", lambda p: [*p[:5], replace(p[5], data=p[5].data[:-2]), *p[6:]], "lengths"),
    "two pictures in a packet": (
        "h264 sparse8",
        lambda p: [*p[:5], replace(p[5], data=p[5].data + p[6].data), *p[7:]],
        "not one picture",
    ),
    "the second half of a picture": ("h264 slices", lambda p: [_second_half(p[0]), *p[1:]], "not one picture"),
    "slices of two kinds": ("h264 slices", lambda p: [p[0], _last_slice_unreferred(p[1]), *p[2:]], "differ in kind"),
    # Stored I P B B B: the decoder is told to wait for one picture.
    "a longer wait than stated": ("h264 sparse8", lambda p: _swap_times(p, 2, 3), "later than"),
    "a group within another": ("h264 sparse8", lambda p: _swap_times(p, 9, 12), "outside its group"),
    "two frames in each other's place": ("h264 sparse8", lambda p: _swap_times(p, 1, 4), "not those of the stream"),
    "film grain": ("h264 sparse8", lambda p: [*p[:5], _with_unit(p[5], b"\x06\x13\x01\x00\x80"), *p[6:]], "type 19"),
    "a unit of another view": ("h264 sparse8", lambda p: [*p[:5], _with_unit(p[5], b"\x74\x00\x80"), *p[6:]], "20"),
    "other parameters inside": ("h264 sparse8", lambda p: [*p[:5], _with_unit(p[5], b"\x68\x00"), *p[6:]], "change"),
    "nothing in a packet": (
        "h264 sparse8",
        lambda p: [*p[:5], replace(p[5], data=b"\0\0\0\2\x09\xf0"), *p[6:]],
        "out a",
    ),
    "hevc that drops frames": ("hevc", lambda p: [*p[:12], _keyframe_that_drops(p[12]), *p[13:]], "are dropped"),
    "hevc of another layer": ("hevc", lambda p: [*p[:4], _patched(p[4], 5, p[4].data[5] | 8), *p[5:]], "layer"),
    "hevc times": ("hevc", lambda p: _swap_times(p, 2, 3), "not those of the stream"),
    "hevc other parameters": ("hevc", lambda p: [*p[:4], _with_unit(p[4], b"\x44\x01\x00"), *p[5:]], "change"),
    "hevc timing": ("hevc", lambda p: [*p[:4], _with_unit(p[4], b"\x4e\x01\x01\x01\x00\x80"), *p[5:]], "type 1"),
    "hevc end": ("hevc", lambda p: [*p[:4], _with_unit(p[4], b"\x48\x01\x00"), *p[5:]], "type 36"),
    "hevc broken link": ("hevc", lambda p: [*p[:4], _with_kind(p[4], 16), *p[5:]], "picture of type 16"),
}


def _units(packet: FakePacket) -> list[bytes]:
    units, rest = [], packet.data
    while rest:
        end = 4 + int.from_bytes(rest[:4], "big")
        units.append(rest[4:end])
        rest = rest[end:]
    return units


def _with_units(packet: FakePacket, units: Sequence[bytes]) -> FakePacket:
    return replace(packet, data=b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))


def _with_unit(packet: FakePacket, unit: bytes) -> FakePacket:
    return _with_units(packet, [unit, *_units(packet)])


def _second_half(packet: FakePacket) -> FakePacket:
    return _with_units(packet, _units(packet)[-1:])


def _last_slice_unreferred(packet: FakePacket) -> FakePacket:
    *units, last = _units(packet)
    return _with_units(packet, [*units, bytes([last[0] & 0x9F]) + last[1:]])


def _keyframe_that_drops(packet: FakePacket) -> FakePacket:
    units = [u[:2] + bytes([u[2] | 64]) + u[3:] if u[0] >> 1 in (19, 20) else u for u in _units(packet)]
    return _with_units(packet, units)


def _with_kind(packet: FakePacket, kind: int) -> FakePacket:
    return _with_units(packet, [bytes([kind << 1]) + unit[1:] for unit in _units(packet)])


def _swap_times(packets: list[FakePacket], one: int, other: int) -> list[FakePacket]:
    swapped = list(packets)
    swapped[one] = replace(packets[one], pts=packets[other].pts)
    swapped[other] = replace(packets[other], pts=packets[one].pts)
    return swapped


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_not_sure_to_be_safe_is_refused(stream_of: Callable[[str], Stream], name: str) -> None:
    kind, change, reason = UNSAFE[name]
    codec, packets = stream_of(kind)
    assert _select(codec, packets, [1, 5, 11]).packets
    with pytest.raises(UnsafeError, match=reason):
        _select(codec, change(packets), [1, 5, 11])


def test_streams_that_decoders_imitate_are_refused(stream_of: Callable[[str], Stream]) -> None:
    codec, packets = stream_of("h264 sparse8")
    start = packets[0].data.index(b"x264 - core ") + len(b"x264 - core ")
    old = replace(packets[0], data=packets[0].data[:start] + b"033" + packets[0].data[start + 3 :])
    with pytest.raises(UnsafeError, match="decoders imitate"):
        _select(codec, [old, *packets[1:]], [0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264 interlaced", "fields"),
        ("h264 that could be interlaced", "interlaced"),
        ("h264 pulldown", "stand for fields"),
        ("h264 4:4:4", "full resolution"),
        ("hevc buffer model", "message of type 1"),
        ("mpeg4", "nothing is known"),
    ],
)
def test_streams_are_refused_for_what_they_are(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match=reason):
        _select(*_read(make(KINDS[name], tmp_path)), [0])


@pytest.mark.parametrize("name", ["h264", "hevc"])
@pytest.mark.parametrize("extradata", [None, b"", b"\x01", b"\x01" + bytes(40), bytes(range(256)), b"\0\0\1\x67\x64"])
def test_parameters_that_cannot_be_read_are_refused(name: str, extradata: bytes | None) -> None:
    with pytest.raises(UnsafeError):
        codec_of(name, extradata)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("h264 sparse8", "the decoder has to guess"),
        ("h264 sparse8", "by cycles"),
        ("h264 sparse8", "missing on purpose"),
        ("h264 sparse8", "may be interlaced"),
        ("h264 sparse8", "stand for fields"),
        ("h264 sparse8", "an order of their own"),
        ("h264 sparse8", "more or less than one set"),
        ("hevc", "decoded and not shown"),
        ("hevc", "more or less than one set"),
    ],
)
def test_one_bit_of_the_parameters_can_make_a_stream_unsafe(name: str, reason: str, tmp_path: Path) -> None:
    with av.open(io.BytesIO(make(KINDS[name], tmp_path)), "r") as container:
        context = container.streams.video[0].codec_context
        codec, extradata = context.name, context.extradata or b""
    reasons = ""
    # Behind the parameters stands what the encoder says of itself.
    for place, bit in itertools.product(range(min(len(extradata), 130)), range(8)):
        changed = bytearray(extradata)
        changed[place] ^= 1 << bit
        try:
            codec_of(codec, bytes(changed))
        except UnsafeError as error:
            reasons += f"{error}\n"
    assert reason in reasons


@pytest.mark.parametrize("name", ["h264 buffer model", "h264 in ts", "hevc"])
def test_parameters_that_end_early_are_refused(name: str, tmp_path: Path) -> None:
    with av.open(io.BytesIO(make(KINDS[name], tmp_path)), "r") as container:
        context = container.streams.video[0].codec_context
        extradata = context.extradata or b""
    assert codec_of(context.name, extradata).reorder > 0
    for end in range(20):
        with pytest.raises(UnsafeError):
            codec_of(context.name, extradata[:end])


@pytest.mark.parametrize(
    ("packet", "restarts"),
    [
        (b"\x82\0\0", True),  # a shown key frame
        (b"\x86\0\0", False),  # another frame
        (b"\x88", False),  # one decoded before
        (b"\x80\0\0\x86\0\xc1\x03\x02\xc1", True),  # a hidden key frame, and another frame
    ],
)
def test_vp9_frames_are_told_apart(packet: bytes, restarts: bool) -> None:
    assert Vp9().picture(packet).restarts == restarts


@pytest.mark.parametrize(
    "packet",
    [
        b"\x80\0\0",  # hidden
        b"\x82\0\0\x86\0\xc1\x03\x02\xc1",  # two shown
        b"\x80\0\0\x86\0\xc1\x00\x02\xc1",  # an empty one
        b"\x80\0\0\x86\0\xc1\x04\x02\xc1",  # more than there is
        b"\x00\0\0",  # no frame
    ],
)
def test_vp9_packets_that_do_not_show_one_frame_are_refused(packet: bytes) -> None:
    with pytest.raises(UnsafeError):
        Vp9().picture(packet)


_SEQUENCE = b"\x0a\x01\x00"


@pytest.mark.parametrize(
    ("packet", "restarts"),
    [
        (b"\x12\0" + _SEQUENCE + b"\x32\x01\x10", True),  # a shown key frame
        (b"\x12\0\x32\x01\x30", False),  # another frame
        (b"\x32\x01\x20\x32\x01\x30", False),  # a hidden one before it
        (b"\x1a\x01\x80", False),  # one decoded before
        (b"\x30\x30", False),  # without a size
    ],
)
def test_av1_frames_are_told_apart(packet: bytes, restarts: bool) -> None:
    assert Av1().picture(packet).restarts == restarts


@pytest.mark.parametrize(
    "packet",
    [
        b"\x12\0",  # nothing
        b"\x32\x01\x20",  # hidden
        b"\x32\x01\x30\x32\x01\x30",  # two shown
        b"\x32\x01\x10",  # a key frame without parameters
        _SEQUENCE + b"\x32\x01\x00\x1a\x01\x80",  # a key frame that is shown later
        _SEQUENCE + b"\x32\x01\x30",  # parameters at another frame
        b"\x0a\x01\x10\x32\x01\x10",  # a still picture
        b"\x36\x00\x01\x30",  # a layer
        b"\x32\x02\x30",  # cut off
        b"\x32\xff",  # a size that does not end
        b"\x42\x01\x00\x32\x01\x30",  # a list of tiles
    ],
)
def test_av1_packets_that_do_not_show_one_frame_are_refused(packet: bytes) -> None:
    with pytest.raises(UnsafeError):
        Av1().picture(packet)
