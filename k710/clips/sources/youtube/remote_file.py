"""A file on a server as one that can be read and sought in; only blocks that are read are asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BLOCK_BYTES = 1 << 19
"""Bytes asked for at a time."""
_BLOCKS_KEPT = 8
"""A demuxer goes back and forth between the index and what it leads to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes of a file."""

    data: bytes
    """As many as were asked for, or those up to the file's end."""
    total_bytes: int
    """Size of the whole file."""


class TooManyBytesError(Exception):
    """More was read than may be."""


class Blocks:
    """The blocks of a file that came, the last few of them."""

    def __init__(self, get: Callable[[int, int], Piece], *, max_bytes: int, block_bytes: int = BLOCK_BYTES) -> None:
        """Get the first block; raises what ``get`` does, which takes the first and the last byte wanted."""
        self.block_bytes = block_bytes
        """Bytes of each but the last."""
        self.num_bytes = 0
        """Bytes that came."""
        self.size_bytes = 0
        """Size of the whole file."""
        self._get, self._max_bytes = get, max_bytes
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.block(0)

    def block(self, number: int) -> bytes:
        """One block, asked for if it is not here.

        Raises:
            TooManyBytesError: more than the limit came.
            Exception: what getting it raised.
        """
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        first = number * self.block_bytes
        last = first + self.block_bytes - 1
        piece = self._get(first, min(last, self.size_bytes - 1) if self.size_bytes else last)
        self.num_bytes += len(piece.data)
        if self.num_bytes > self._max_bytes:
            raise TooManyBytesError
        self.size_bytes = piece.total_bytes
        self._kept[number] = piece.data
        if len(self._kept) > _BLOCKS_KEPT:
            self._kept.popitem(last=False)
        return piece.data


class RemoteFile:
    """A file that is read by blocks, at a place of its own.

    Whatever is raised while reading is kept in ``failure`` and looks like the file's end: a demuxer in C that calls
    these methods would lose it.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.failure: BaseException | None = None
        """What was raised while reading."""
        self._blocks = blocks
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, of one block."""
        try:
            if self.failure is not None or self._position >= self._blocks.size_bytes:
                return b""
            number, inside = divmod(self._position, self._blocks.block_bytes)
            block = self._blocks.block(number)
            data = block[inside:] if size < 0 else block[inside : inside + size]
            self._position += len(data)
            return data
        except BaseException as error:
            self.failure = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._blocks.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The byte that is read next."""
        return self._position

    def raise_failure(self) -> None:
        """Raise what went wrong while reading."""
        if self.failure is not None:
            raise self.failure
