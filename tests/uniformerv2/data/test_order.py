"""The order of clips, and how they are dealt to steps and ranks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from k710.errors import UsageError
from uniformerv2.data.order import BLOCK_CLIPS, Batching, Order, splitmix64


def order_of(num: int, *, seed: int = 0, digest: str = "d", window: int = 0, out: tuple[int, ...] = ()) -> Order:
    return Order(seed=seed, view_digest=digest, num_planned=num, window=window, taken_out=np.array(out, dtype=np.int64))


def test_splitmix64_is_the_published_function() -> None:
    state = np.array([0], dtype=np.uint64)
    assert int(splitmix64(state)[0]) == 0xE220A8397B1DCDAF


def test_the_order_never_changes() -> None:
    # Computed apart, with plain integers.
    assert order_of(12, seed=6666, digest="abc").epoch(3).tolist() == [8, 1, 2, 10, 4, 7, 3, 11, 5, 6, 9, 0]


@given(num=st.integers(1, 3000), epoch=st.integers(0, 50), window=st.integers(0, 2), seed=st.integers(0, 2**31))
def test_an_epoch_has_every_clip_once(num: int, epoch: int, window: int, seed: int) -> None:
    assert sorted(order_of(num, seed=seed, window=window).epoch(epoch)) == list(range(num))


@given(num=st.integers(2, 500), out=st.sets(st.integers(0, 499)), epoch=st.integers(0, 9))
def test_taking_clips_out_leaves_the_others_in_their_order(num: int, out: set[int], epoch: int) -> None:
    out = {position for position in out if position < num}
    whole = [p for p in order_of(num).epoch(epoch).tolist() if p not in out]
    assert order_of(num, out=tuple(sorted(out))).epoch(epoch).tolist() == whole


def test_seed_epoch_view_and_window_each_change_the_order() -> None:
    base = order_of(3000).epoch(0).tolist()
    others = [
        order_of(3000, seed=1).epoch(0),
        order_of(3000).epoch(1),
        order_of(3000, digest="e").epoch(0),
        order_of(3000, window=1).epoch(0),
    ]
    assert all(o.tolist() != base for o in others)


def test_a_window_reads_few_blocks_at_a_time() -> None:
    order = order_of(10 * BLOCK_CLIPS, window=2).epoch(0)
    for start in range(0, len(order), 2 * BLOCK_CLIPS):
        assert len(set(order[start : start + 2 * BLOCK_CLIPS] // BLOCK_CLIPS)) == 2


def test_two_ranks_see_in_one_micro_batch_each_what_one_rank_sees_in_two() -> None:
    order = order_of(40).epoch(0)
    one = Batching(num_clips=40, global_batch=8, micro_batch=4)
    two = Batching(num_clips=40, global_batch=8, micro_batch=4, world=2)
    for step in range(one.steps_per_epoch):
        alone = [chunk.tolist() for chunk in one.micro_batches(order, step, 0)]
        together = [chunk.tolist() for rank in range(2) for chunk in two.micro_batches(order, step, rank)]
        assert alone == together
    assert (one.accumulation, two.accumulation) == (2, 1)


@given(num_clips=st.integers(64, 300), micro=st.integers(1, 4), world=st.integers(1, 4), accumulation=st.integers(1, 4))
def test_steps_and_ranks_share_out_the_epoch_without_overlap(
    num_clips: int, micro: int, world: int, accumulation: int
) -> None:
    batching = Batching(num_clips=num_clips, global_batch=micro * world * accumulation, micro_batch=micro, world=world)
    order = order_of(num_clips).epoch(0)
    dealt = [
        int(p)
        for step in range(batching.steps_per_epoch)
        for rank in range(world)
        for chunk in batching.micro_batches(order, step, rank)
        for p in chunk
    ]
    assert len(dealt) == len(set(dealt)) == num_clips // batching.global_batch * batching.global_batch


def test_a_view_smaller_than_a_batch_names_the_setting_to_lower() -> None:
    with pytest.raises(UsageError, match="7 usable clips, less than one global batch of 8") as caught:
        Batching(num_clips=7, global_batch=8, micro_batch=4)
    assert caught.value.hint == "lower it: --set data.global_batch=4"
    with pytest.raises(UsageError, match="7 usable clips") as caught:
        Batching(num_clips=7, global_batch=16, micro_batch=8, world=2)
    assert caught.value.hint == "lower it: --set data.global_batch=6 --set data.micro_batch=3"


@given(num_clips=st.integers(1, 200), micro=st.integers(1, 50), world=st.integers(1, 8), steps=st.integers(1, 9))
def test_the_batch_that_is_named_for_a_small_view_fits_it(num_clips: int, micro: int, world: int, steps: int) -> None:
    assume(world <= num_clips < micro * world * steps)
    with pytest.raises(UsageError) as caught:
        Batching(num_clips=num_clips, global_batch=micro * world * steps, micro_batch=micro, world=world)
    named = {name: int(value) for name, value in re.findall(r"data\.(\w+)=(\d+)", caught.value.hint)}
    Batching(**{"num_clips": num_clips, "micro_batch": micro, "world": world, **named})


def test_more_processes_than_clips_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match="5 usable clips, fewer than the 8 processes") as caught:
        Batching(num_clips=5, global_batch=8, micro_batch=1, world=8)
    assert caught.value.hint == "use 5 devices or fewer, or a larger view"


def test_a_view_without_a_usable_clip_is_refused() -> None:
    with pytest.raises(UsageError, match="0 usable clips: none of them has both bytes and a class"):
        Batching(num_clips=0, global_batch=8, micro_batch=1)


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="not a multiple"):
        Batching(num_clips=70, global_batch=8, micro_batch=4, world=3)


def test_ranks_take_turns_so_that_early_micro_batches_stay_early() -> None:
    order = np.arange(16)
    two = [Batching(num_clips=16, global_batch=8, micro_batch=2, world=2).micro_batches(order, 1, r) for r in (0, 1)]
    assert [[chunk.tolist() for chunk in chunks] for chunks in two] == [[[8, 9], [12, 13]], [[10, 11], [14, 15]]]
