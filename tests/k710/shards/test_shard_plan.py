"""The trie: which clip goes to which shard."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.segments import trie_digests
from k710.shards.plan import assign_leaves, group_name, leaf_name

ids = st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=60)
limits = st.integers(1, 9)


def bits_of(video: str, count: int) -> str:
    return f"{int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], 'big'):064b}"[:count]


def contents(videos: list[str], limit: int) -> dict[str, list[str]]:
    """Sorted videos of each leaf of one group."""
    leaves: dict[str, list[str]] = {}
    for video, leaf in zip(videos, planned(videos, ["g"] * len(videos), limit), strict=True):
        leaves.setdefault(leaf, []).append(video)
    return {leaf: sorted(members) for leaf, members in leaves.items()}


def planned(videos: list[str], groups: list[str], limit: int) -> list[str]:
    """The leaf of each clip."""
    names = sorted(set(groups))
    numbers = np.array([names.index(group) for group in groups], dtype=np.int64)
    hashes = np.frombuffer(trie_digests(videos), ">u8").astype(np.uint64)
    leaves, leaf = assign_leaves(hashes, numbers, names, limit)
    return [leaves[i] for i in leaf.tolist()]


@given(videos=ids, limit=limits)
def test_a_leaf_is_the_prefix_of_the_hash_of_its_videos(videos: list[str], limit: int) -> None:
    for leaf, members in contents(videos, limit).items():
        bits = leaf.removeprefix("shards/g/t-").removesuffix(".tar")
        bits = "" if bits == "root" else bits
        assert all(bits_of(video, len(bits)) == bits for video in members)


@given(videos=ids, limit=limits)
def test_a_leaf_holds_no_more_than_the_limit_unless_it_is_one_video(videos: list[str], limit: int) -> None:
    for members in contents(videos, limit).values():
        assert len(members) <= limit or len(set(members)) == 1


@given(videos=ids, limit=limits)
def test_no_leaf_could_be_merged_with_its_sibling(videos: list[str], limit: int) -> None:
    for leaf in contents(videos, limit):
        bits = leaf.removeprefix("shards/g/t-").removesuffix(".tar")
        if bits != "root":
            assert sum(bits_of(video, len(bits) - 1) == bits[:-1] for video in videos) > limit


@given(videos=ids, limit=limits, seed=st.randoms())
def test_the_order_of_clips_decides_nothing(videos: list[str], limit: int, seed: object) -> None:
    assert contents(videos[::-1], limit) == contents(videos, limit)


@given(videos=ids, limit=limits, more=st.text("xyz", min_size=1, max_size=6))
def test_one_more_video_changes_or_splits_one_leaf_only(videos: list[str], limit: int, more: str) -> None:
    before, after = contents(videos, limit), contents([*videos, more], limit)
    changed = [leaf for leaf in before if after.get(leaf) != before[leaf]]
    assert len(changed) <= 1
    new = {leaf: members for leaf, members in after.items() if before.get(leaf) != members}
    assert Counter(v for members in new.values() for v in members) == Counter(
        [more, *(v for leaf in changed for v in before[leaf])]
    )


@given(videos=ids, limit=limits)
def test_groups_do_not_touch_each_other(videos: list[str], limit: int) -> None:
    groups = ["a" if len(video) % 2 else "b" for video in videos]
    together = planned(videos, groups, limit)
    for group in ("a", "b"):
        own = [v for v, g in zip(videos, groups, strict=True) if g == group]
        assert [leaf for leaf, g in zip(together, groups, strict=True) if g == group] == planned(
            own, [group] * len(own), limit
        )


def test_an_undivided_group_is_its_root() -> None:
    assert planned(["a", "b"], ["g", "g"], 2) == ["shards/g/t-root.tar"] * 2


def test_a_video_with_more_clips_than_the_limit_stays_together() -> None:
    assert len(set(planned(["a"] * 5, ["g"] * 5, 2))) == 1


def test_no_clips_are_no_shards() -> None:
    assert planned([], [], 2) == []


def test_shards_are_named_by_their_views_and_bits() -> None:
    assert leaf_name(group_name(["k710-train", "k400-train"]), "010") == "shards/k400-train.k710-train/t-010.tar"


@pytest.mark.parametrize("limit", [1, 2])
def test_videos_part_at_the_first_bit_that_differs(limit: int) -> None:
    videos = sorted("abcdefgh", key=lambda v: bits_of(v, 64))
    leaves = planned(videos, ["g"] * 8, limit)
    assert leaves == sorted(leaves)
