"""In which order clips come: a function of (seed, epoch, view digest, window), on every machine and library version.

The order runs over planned positions, with those taken out that cannot be trained on; so a clip that is missing moves
its successors forward and changes nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.errors import UsageError

Positions = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

BLOCK_CLIPS = 1000
"""Neighbouring planned positions that stay in one window: no shard of the default size has more clips."""
OBJECT_STORE_WINDOW = 64
"""Blocks a window spans on an object store: groups differ in class mix, so fewer would make lopsided batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The clips of a training view, epoch by epoch."""

    seed: int
    """Of the run."""
    view_digest: str
    """Which view, and which clips and classes it lists."""
    num_planned: int
    """Planned positions of the view."""
    window: int
    """Blocks that are shuffled together; 0: the whole view."""
    taken_out: Positions
    """Planned positions without bytes, or without a class; sorted."""

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""
        return self.num_planned - len(self.taken_out)

    @property
    def taken_out_digest(self) -> str:
        """sha256 over the positions taken out."""
        return hashlib.sha256(self.taken_out.astype("<i8").tobytes()).hexdigest()

    def epoch(self, epoch: int) -> Positions:
        """Planned positions in the order of an epoch, those taken out left out."""
        key = _key(self.seed, epoch, self.view_digest, self.window)
        positions = np.arange(self.num_planned, dtype=np.uint64)
        rank = splitmix64(positions ^ key)
        if self.window:
            order = np.lexsort((rank, self._window_of(positions, splitmix64(key))))
        else:
            order = np.argsort(rank, kind="stable")
        keep = np.ones(self.num_planned, dtype=bool)
        keep[self.taken_out] = False
        return order[keep[order]].astype(np.int64)

    def _window_of(self, positions: Hashes, key: Hashes) -> Positions:
        num_blocks = -(-self.num_planned // BLOCK_CLIPS)
        blocks = np.argsort(splitmix64(np.arange(num_blocks, dtype=np.uint64) ^ key), kind="stable")
        place = np.empty(num_blocks, dtype=np.int64)
        place[blocks] = np.arange(num_blocks)
        return np.asarray(place[positions.astype(np.int64) // BLOCK_CLIPS] // self.window)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How the clips of an epoch are dealt to steps, micro-batches and ranks."""

    num_clips: int
    """Clips in an epoch."""
    global_batch: int
    """Clips of one optimiser step, over all ranks and micro-batches."""
    micro_batch: int
    """Clips of one forward pass on one rank."""
    world: int = 1
    """Number of ranks."""

    def __post_init__(self) -> None:
        if not self.num_clips:
            raise UsageError(
                "the train view has 0 usable clips: none of them has both bytes and a class",
                hint="`k710 build` with --videos makes clips; or name another view",
            )
        if self.num_clips < self.world:
            raise UsageError(
                f"the train view has {self.num_clips} usable clips, fewer than the {self.world} processes",
                hint=f"use {self.num_clips} devices or fewer, or a larger view",
            )
        if self.global_batch % (self.micro_batch * self.world):
            raise UsageError(
                f"data.global_batch {self.global_batch} is not a multiple of data.micro_batch {self.micro_batch} "
                f"times {self.world} process(es)",
                hint="--accumulate 1 makes the micro-batch fit; or change data.micro_batch, or the number of devices",
            )
        if self.num_clips < self.global_batch:
            raise UsageError(
                f"the train view has {self.num_clips} usable clips, less than one global batch of {self.global_batch}",
                hint=f"lower it: {self._largest_batch}",
            )

    @property
    def _largest_batch(self) -> str:
        """The settings of the largest step that the clips are enough for."""
        micro = min(self.micro_batch, self.num_clips // self.world)
        whole = self.num_clips // (micro * self.world) * micro * self.world
        also = f" --set data.micro_batch={micro}" if micro < self.micro_batch else ""
        return f"--set data.global_batch={whole}{also}"

    @property
    def accumulation(self) -> int:
        """Micro-batches of a step on each rank."""
        return self.global_batch // (self.micro_batch * self.world)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last, partial global batch is dropped, as in the published training."""
        return self.num_clips // self.global_batch

    def micro_batches(self, order: Positions, step: int, rank: int) -> list[Positions]:
        """Positions of a rank's micro-batches in step ``step`` of the epoch.

        Chunk ``m * world + rank`` is micro-batch ``m``: two ranks see in one step what one rank sees in two.
        """
        chunks = order[step * self.global_batch : (step + 1) * self.global_batch].reshape(-1, self.micro_batch)
        return list(chunks[rank :: self.world])


def splitmix64(x: Hashes) -> Hashes:
    """SplitMix64 of every element (Steele, Lea and Flood, OOPSLA 2014): a fixed, well-spread 64-bit value."""
    x = x + np.array([0x9E3779B97F4A7C15], dtype=np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.array([0xBF58476D1CE4E5B9], dtype=np.uint64)
    x = (x ^ (x >> np.uint64(27))) * np.array([0x94D049BB133111EB], dtype=np.uint64)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _key(*parts: int | str) -> Hashes:
    name = "|".join(map(str, parts)).encode()
    return np.frombuffer(hashlib.blake2b(name, digest_size=8).digest(), dtype="<u8").astype(np.uint64)
