"""What packet selection needs to know of a coded picture, and the interface of a codec that can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class UnsafeError(Exception):
    """This stream has something under which leaving packets out is not known to be right."""


class Picture(NamedTuple):
    """The one shown picture of a packet; a tuple, since hundreds are made for each clip."""

    restarts: bool
    """Decoding can begin here: neither this picture nor any later one needs what came before."""

    referred: bool
    """Later pictures of the same temporal layer may need it."""

    layer: int = 0
    """Temporal layer: only pictures of the same or a higher one may need this one."""

    header: bytes = b""
    """First bytes of its slice header, where the order of presentation is read from them."""


class Codec(Protocol):
    """Reads packets of one stream, by the parameters that its decoder starts with."""

    @property
    def reorder(self) -> int:
        """How many pictures the decoder holds back to put them in order of presentation."""

    def picture(self, data: bytes) -> Picture:
        """The picture in a packet.

        Raises:
            UnsafeError: the packet holds anything but one shown picture, or something whose effect outlasts it.
        """

    def order(self, group: Sequence[Picture]) -> list[int]:
        """A number for each picture of a group, which begins at a restart: they are presented from small to large.

        Raises:
            UnsafeError: a picture is missing, or the order cannot be told.
        """
