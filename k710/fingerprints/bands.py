"""Pairs of hashes that lie close to each other, among millions, without comparing all with all.

Locality-sensitive hashing by bands: two hashes that differ in few bits agree in all bits of some band. A hash is 32
bytes; a band is some of them, three as a rule, and each of the tables sorts all hashes by another band, so that those
that agree stand beside each other. What was found that way is compared bit by bit, so that nothing false is left; what
is missed is the part of pairs that agree in no band, which `agreeing_part` states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.fingerprints.frames import HASH_BYTES, Hashes

Ints = npt.NDArray[np.int64]

MIRROR = np.packbits(np.tile(np.arange(16) % 2 == 1, 16))
"""Bits that a mirrored picture changes: PDQ's odd horizontal frequencies change their sign."""
_MOST_NEIGHBOURS = 16
"""Each hash is compared with so many that follow it in its band. A picture that thousands of clips show, such as a logo
that fills the screen, would else be compared millions of times."""
_CHUNK = 1 << 19


@dataclass(frozen=True, kw_only=True, slots=True)
class BandSettings:
    """How thoroughly pairs are looked for."""

    tables: int = 24
    """Bands; each one costs a sort of all hashes."""
    distance: int = 64
    """Most bits in which two hashes of a pair may differ. Pictures of different scenes differ in 94 or more."""
    octets: tuple[int, ...] = tuple(range(HASH_BYTES))
    """Bytes of the hash that are looked at."""
    band_bytes: int = 3
    """Of these, bytes in a band."""

    def __post_init__(self) -> None:
        if not 1 <= self.tables <= 256:
            raise ValueError(f"tables must be between 1 and 256, got {self.tables}")
        if not 0 <= self.distance <= 96:
            raise ValueError(f"distance must be between 0 and 96, got {self.distance}")
        if not 1 <= self.band_bytes <= min(3, len(self.octets)):
            raise ValueError(f"band_bytes must be between 1 and 3, and no more than octets, got {self.band_bytes}")


DULL = BandSettings(distance=10, octets=tuple(range(17, HASH_BYTES, 2)), band_bytes=2)
"""For dull pictures: the 64 bits of the lowest frequencies, across and down. In a plain wall that is encoded anew 2 to
15 of these differ and a third of the others, in frames of different scenes 19 or more in all but one of a thousand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """Hashes by which clips are found, with the clip of each."""

    whole: Hashes
    """Hashes of whole frames, [entry, 32]."""
    middle: Hashes
    """Hashes of the same frames without their margin, [entry, 32]."""
    owner: npt.NDArray[np.int32]
    """The clip that each entry is of, [entry]."""

    def __len__(self) -> int:
        return len(self.owner)


def close_owners(entries: Entries, settings: BandSettings | None = None) -> Ints:
    """Pairs of owners with two hashes close to each other, [pair, 2], each once, the smaller first, ascending.

    A whole frame is looked for among whole frames, among the middles of others, and mirrored among both.
    """
    settings = settings or BandSettings()
    pool = _Pool(entries, settings.octets)
    found = np.empty(0, dtype=np.int64)
    for band in _bands(settings):
        parts = [found]
        for left, right in pool.agreeing(band):
            near = pool.distances(left, right) <= settings.distance
            a, b = pool.owners(left[near]), pool.owners(right[near])
            parts.append(np.minimum(a, b) << 32 | np.maximum(a, b))
        found = np.unique(np.concatenate(parts))
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1)


def distances(a: Hashes, b: Hashes) -> npt.NDArray[np.int16]:
    """In how many bits each of ``a`` [N, 32] differs from each of ``b`` [M, 32], [N, M]."""
    apart = np.zeros((len(a), len(b)), dtype=np.int16)
    # A word at a time: as a whole, [N, M, 4] words would go through memory.
    for left, right in zip(_words(a).T, _words(b).T, strict=True):
        apart += np.bitwise_count(left[:, None] ^ right[None, :])
    return apart


def agreeing_part(distance: int, settings: BandSettings) -> float:
    """About what part of the pairs of hashes that differ in ``distance`` bits, any ones, agree in a band."""
    band_bits, bits = 8 * settings.band_bytes, 8 * len(settings.octets)
    in_one = math.comb(bits - distance, band_bits) / math.comb(bits, band_bits)
    return 1 - (1 - in_one) ** settings.tables


class _Pool:
    """Three forms of each entry: whole, middle, mirrored whole, at positions ``entry + form * num_entries``."""

    def __init__(self, entries: Entries, octets: Sequence[int]) -> None:
        self._num = len(entries)
        self._owner = entries.owner
        mask = np.zeros(HASH_BYTES, dtype=np.uint8)
        mask[list(octets)] = 255
        self._hashes = np.concatenate([_words(entries.whole), _words(entries.middle)])
        if not mask.all():
            self._hashes &= _words(mask[None])
        self._mirror = _words((MIRROR & mask)[None])

    def agreeing(self, band: tuple[int, ...]) -> Iterator[tuple[Ints, Ints]]:
        """Positions that agree in the bytes of ``band``, pair by pair, those that are worth comparing."""
        keys = self._keys(band)
        place = np.sort(keys << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))
        keys = (place >> np.uint64(32)).astype(np.uint32)
        place = place.astype(np.uint32)
        alive = np.flatnonzero(keys[1:] == keys[:-1])
        for step in range(1, _MOST_NEIGHBOURS + 1):
            for start in range(0, len(alive), _CHUNK):
                at = alive[start : start + _CHUNK]
                yield self._useful(place[at].astype(np.int64), place[at + step].astype(np.int64))
            alive = alive[alive + step + 1 < len(keys)]
            alive = alive[keys[alive] == keys[alive + step + 1]]
            if not len(alive):
                return

    def _useful(self, left: Ints, right: Ints) -> tuple[Ints, Ints]:
        """Pairs of two owners in which a whole frame meets another form, or one as it was shot, mirrored."""
        a, b = left // self._num, right // self._num
        # Two middles, or two mirrored ones, differ as the whole frames do, which are compared.
        keep = (a != b) | ((a == 0) & (b == 0))
        keep &= self.owners(left) != self.owners(right)
        return left[keep], right[keep]

    def distances(self, left: Ints, right: Ints) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = np.bitwise_count(self._words(left) ^ self._words(right)).sum(
            axis=1, dtype=np.int64
        )
        return found

    def owners(self, positions: Ints) -> Ints:
        found: Ints = self._owner[positions % self._num].astype(np.int64) if self._num else positions
        return found

    def _words(self, positions: Ints) -> npt.NDArray[np.uint64]:
        is_mirrored = positions >= 2 * self._num
        words = self._hashes[np.where(is_mirrored, positions - 2 * self._num, positions)]
        words[is_mirrored] ^= self._mirror
        return words

    def _keys(self, band: tuple[int, ...]) -> npt.NDArray[np.uint64]:
        """The bytes of ``band`` of each position, as one number."""
        octets = self._hashes.view(np.uint8)
        keys = np.zeros(3 * self._num, dtype=np.uint64)
        for byte in band:
            column = octets[:, byte]
            mirrored = column[: self._num] ^ MIRROR[byte]
            keys = keys << np.uint64(8) | np.concatenate([column, mirrored])
        return keys


def _bands(settings: BandSettings) -> list[tuple[int, ...]]:
    """Bytes of each table; every byte stands in about as many as any other."""
    size, tables = settings.band_bytes, settings.tables
    rng = np.random.default_rng(0)
    found: list[tuple[int, ...]] = []
    while len(found) < tables:
        order = rng.permutation(settings.octets).tolist()
        found += (tuple(order[i : i + size]) for i in range(0, len(order) - size + 1, size))
    return found[:tables]


def _words(hashes: Hashes) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(hashes).view(np.uint64)
