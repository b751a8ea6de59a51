"""What a simulated build has to make: shards as the plan has them, and how long each of their clips takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from k710.shards.plan import assign_leaves

GROUPS: Mapping[str, int] = {
    "k600-train.k700-train.k710-train": 217_759,
    "k400-train.k600-train.k700-train.k710-train": 160_142,
    "k700-train.k710-train": 93_454,
    "k400-train.k710-train": 52_044,
    "k700-train": 40_851,
    "k700-val.k710-val": 34_324,
    "k600-val.k700-train.k710-train": 14_048,
    "k400-val.k600-val.k700-train.k710-train": 13_428,
    "k600-train.k710-train": 7_952,
    "k400-val.k700-train.k710-train": 5_140,
    "k400-train.k600-train.k710-train": 4_992,
    "k600-val.k710-val": 1_824,
    "k600-train": 1_032,
    "k400-val.k710-val": 1_005,
    "k400-train.k600-val.k700-train.k710-train": 489,
    "others": 1_024,
}
"""Clips per group of views in a plan of the published lists, with a stand-in for Kinetics-700 train; 649,508 in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTimes:
    """How long clips take on one core: measured times, and assumptions about the mix."""

    measured_s: tuple[float, ...] = (1.16, 1.83, 0.80)
    """CPU seconds of `sparse8`, each with the look at what was written, for real clips of 10 s whose short side is 256
    or 320 px; they count alike. `python bench/scheduler.py measure` measures them again."""
    large_s: float = 3.2
    """The same of 1080p: measured 0.64 for 2 s."""
    large_part: float = 0.05
    """Assumed: part of the clips that are so large."""
    spread: float = 0.25
    """Assumed: standard deviation of the logarithm around each, for busier and calmer pictures."""
    tail_part: float = 0.001
    """Assumed: part of the clips that take many times as long."""
    tail_times: float = 20.0
    """Assumed: how many times."""


def plan_sizes(clips_per_shard: int, seed: int, manifest: Path | None = None) -> list[int]:
    """Clips of each planned shard, in order of name: of a build's plan, or of random ids in ``GROUPS``."""
    if manifest is not None:
        names, sizes = np.unique(pq.read_table(manifest, columns=["leaf"])["leaf"].to_numpy(), return_counts=True)
        return [int(size) for _, size in sorted(zip(names, sizes, strict=True))]
    groups = np.repeat(np.arange(len(GROUPS)), list(GROUPS.values()))
    hashes = np.random.default_rng(seed).integers(0, 2**64, len(groups), dtype=np.uint64)
    leaves, leaf = assign_leaves(hashes, groups, list(GROUPS), clips_per_shard)
    sizes = np.bincount(leaf, minlength=len(leaves))
    return [int(size) for _, size in sorted(zip(leaves, sizes, strict=True))]


def clip_seconds(num: int, times: ClipTimes, seed: int) -> npt.NDArray[np.float64]:
    """How long each of ``num`` clips takes on one core."""
    rng = np.random.default_rng(seed)
    seconds = rng.choice(times.measured_s, num)
    seconds[rng.random(num) < times.large_part] = times.large_s
    # The mean stays that of the measured times.
    seconds *= rng.lognormal(-(times.spread**2) / 2, times.spread, num)
    seconds[rng.random(num) < times.tail_part] *= times.tail_times
    return seconds


def split(seconds: npt.NDArray[np.float64], sizes: Sequence[int]) -> list[list[float]]:
    """The clips of each shard."""
    return [part.tolist() for part in np.split(seconds, np.cumsum(sizes)[:-1])]


def node_speeds(nodes: int, slow_part: float, slow_speed: float, seed: int) -> tuple[float, ...]:
    """Of each node: some are slow, the others differ by some percent."""
    rng = np.random.default_rng(seed)
    speeds = rng.normal(1.0, 0.03, nodes).clip(0.8, 1.2)
    speeds[rng.permutation(nodes)[: round(slow_part * nodes)]] = slow_speed
    return tuple(float(speed) for speed in speeds)
