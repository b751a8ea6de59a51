"""Which packets of a video the wanted frames need: the others are never decoded.

A group of pictures from one restart to the next is needed only where a frame in it is wanted, and then up to the last
wanted one, without the pictures to which nothing refers. Frames are numbered without decoding them, so that has to be
the numbering of a decoder that is fed everything. Whatever leaves a doubt about either raises UnsafeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from uniformerv2.data.codecs.av1 import Av1
from uniformerv2.data.codecs.h264 import read_h264
from uniformerv2.data.codecs.hevc import read_hevc
from uniformerv2.data.codecs.picture import Codec, Picture, UnsafeError
from uniformerv2.data.codecs.vp9 import Vp9

_READERS: Mapping[str, Callable[[bytes], Codec]] = {
    "h264": read_h264,
    "hevc": read_hevc,
    "vp9": lambda _: Vp9(),
    "av1": lambda _: Av1(),
}


class Packet(Protocol):
    """What selection looks at in a packet, of the library or of our own tables."""

    @property
    def pts(self) -> int | None:
        """Time of presentation."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def is_discard(self) -> bool:
        """Whether an edit leaves it out."""

    @property
    def is_corrupt(self) -> bool:
        """Whether it is known to be damaged."""

    def has_sidedata(self, kind: Literal["new_extradata", "param_change"], /) -> bool:
        """Whether something of this kind stands beside the picture."""

    def __bytes__(self) -> bytes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What to feed a decoder, and what it then gives."""

    packets: tuple[int, ...]
    """Positions of the packets to feed, in decode order."""

    frames: tuple[int | None, ...]
    """For each frame that comes out, in order: its number in the whole video; None for one that is not wanted."""

    times: tuple[int, ...]
    """For each frame that comes out, in order: its presentation time."""

    all_times: tuple[int, ...]
    """Presentation times of all frames of the video, in order of their numbers."""

    restarts: tuple[int, ...]
    """Positions of the packets at which decoding can begin."""


def codec_of(name: str, extradata: bytes | None) -> Codec:
    """Reader of the packets of a stream, by the name of its codec and what its decoder starts with.

    Raises:
        UnsafeError: there is none for this stream.
    """
    if name not in _READERS:
        raise UnsafeError(f"nothing is known about packets of {name}")
    return _READERS[name](extradata or b"")


def select(codec: Codec, packets: Sequence[Packet], indices: Sequence[int]) -> Selection:
    """Of all packets of a stream in decode order, those that its frames at ``indices`` need.

    Raises:
        UnsafeError: it is not sure that these packets give the frames of a decoder that is fed all of them.
    """
    times = _times(packets)
    pictures = [_picture(codec, packet) for packet in packets]
    shown = sorted(range(len(packets)), key=times.__getitem__)
    if any(position - rank > codec.reorder for rank, position in enumerate(shown)):
        raise UnsafeError("a frame comes later than the decoder waits for it")
    frames = [position for position in shown if not packets[position].is_discard]
    if not 0 <= min(indices) <= max(indices) < len(frames):
        raise UnsafeError("there are fewer frames")
    numbers = {frames[index]: index for index in indices}
    top_layer = max(picture.layer for picture in pictures)
    fed: list[int] = []
    for group in _groups(pictures):
        if not all(position in group for position in shown[group.start : group.stop]):
            raise UnsafeError("a frame is shown outside its group")
        wanted = [position for position in group if position in numbers]
        if wanted:
            _check_order(codec, pictures, group, shown)
            fed += (
                position
                for position in range(group.start, wanted[-1] + 1)
                if position in numbers or pictures[position].referred or pictures[position].layer < top_layer
            )
    given = sorted((p for p in fed if not packets[p].is_discard), key=times.__getitem__)
    return Selection(
        packets=tuple(fed),
        frames=tuple(numbers.get(position) for position in given),
        times=tuple(times[position] for position in given),
        all_times=tuple(times[position] for position in frames),
        restarts=tuple(position for position, picture in enumerate(pictures) if picture.restarts),
    )


def _times(packets: Sequence[Packet]) -> list[int]:
    times = [packet.pts for packet in packets if packet.pts is not None]
    if not packets or len(set(times)) < len(packets):
        raise UnsafeError("a presentation time is missing or twice there")
    return times


def _picture(codec: Codec, packet: Packet) -> Picture:
    if not packet.size or packet.is_corrupt:
        raise UnsafeError("a damaged packet")
    # A file can change the parameters of the decoder on the way.
    if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
        raise UnsafeError("the parameters change")
    return codec.picture(bytes(packet))


def _groups(pictures: Sequence[Picture]) -> Iterator[range]:
    """Positions of the packets from each restart to the next."""
    starts = [position for position, picture in enumerate(pictures) if picture.restarts]
    if starts[:1] != [0]:
        raise UnsafeError("decoding cannot begin at the first packet")
    for start, stop in zip(starts, [*starts[1:], len(pictures)], strict=True):
        yield range(start, stop)


def _check_order(codec: Codec, pictures: Sequence[Picture], group: range, shown: Sequence[int]) -> None:
    """The decoder goes by what the pictures say: times of the container that say another order are worth nothing."""
    order = codec.order(pictures[group.start : group.stop])
    by_order = sorted(group, key=lambda position: order[position - group.start])
    if len(set(order)) < len(order) or by_order != list(shown[group.start : group.stop]):
        raise UnsafeError("the times of the container are not those of the stream")
