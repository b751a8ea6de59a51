"""Which clip stands in which shard: a binary trie over sha256 of the video id, one trie per group of views.

A clip added or removed changes its own leaf (or splits or merges it); every other leaf keeps its name and bytes.
"""

from __future__ import annotations

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


def assign_leaves(
    hashes: npt.NDArray[np.uint64], groups: npt.NDArray[np.int64], names: Sequence[str], clips_per_shard: int
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The planned shards, at most ``clips_per_shard`` clips in one, and the position of each clip's among them.

    The clips of one video share a leaf; only a video with more clips than that makes a larger one.

    Args:
        hashes: ``segments.trie_digests`` of each clip's video.
        groups: which of ``names`` each clip is in.
        names: folder of each group, as ``group_name`` makes it.
        clips_per_shard: most clips in one shard.
    """
    leaves: list[str] = []
    leaf = np.empty(len(hashes), dtype=np.int64)
    order = np.lexsort((hashes, groups))
    bounds = np.searchsorted(groups[order], np.arange(len(names) + 1))
    for group, name in enumerate(names):
        positions = order[bounds[group] : bounds[group + 1]]
        for low, high, bits in _leaves(hashes[positions], 0, len(positions), "", clips_per_shard):
            leaf[positions[low:high]] = len(leaves)
            leaves.append(leaf_name(name, bits))
    return leaves, leaf


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
