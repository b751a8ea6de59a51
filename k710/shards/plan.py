"""Which clip stands in which shard: a binary trie over sha256 of the video id, one trie per group of views.

A clip added or removed changes its own leaf (or splits or merges it); every other leaf keeps its name and bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

SHARDS_FOLDER = "shards"
ROOT = "root"


def group_name(views: Sequence[str]) -> str:
    """Folder of the clips that serve exactly these views."""
    return ".".join(sorted(views))


def leaf_name(group: str, bits: str) -> str:
    """Path, relative to the build, of the shard that holds the clips of ``group`` whose hash begins with ``bits``."""
    return f"{SHARDS_FOLDER}/{group}/t-{bits or ROOT}.tar"


def assign_leaves(ids: Sequence[str], groups: Sequence[str], clips_per_shard: int) -> list[str]:
    """The planned shard of each clip, at most ``clips_per_shard`` clips in one.

    The clips of one video share a leaf; only a video with more clips than that makes a larger one.
    """
    hashes = {i: _hash(i) for i in set(ids)}
    values = np.array([hashes[i] for i in ids], dtype=np.uint64)
    by_group: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        by_group.setdefault(group, []).append(position)
    leaves = [""] * len(ids)
    for group, members in by_group.items():
        positions = np.array(members)[np.argsort(values[members], kind="stable")]
        for low, high, bits in _leaves(values[positions], 0, len(positions), "", clips_per_shard):
            name = leaf_name(group, bits)
            for position in positions[low:high]:
                leaves[position] = name
    return leaves


def _leaves(
    values: npt.NDArray[np.uint64], low: int, high: int, bits: str, limit: int
) -> Iterator[tuple[int, int, str]]:
    if low == high:
        return
    if high - low <= limit or len(bits) == 64:
        yield low, high, bits
        return
    # The values are sorted, so the two halves of the node meet at the first value whose next bit is set.
    boundary = int(bits + "1", 2) << (63 - len(bits))
    middle = low + int(np.searchsorted(values[low:high], np.uint64(boundary)))
    yield from _leaves(values, low, middle, bits + "0", limit)
    yield from _leaves(values, middle, high, bits + "1", limit)


def _hash(video_id: str) -> int:
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big")
