"""Samples and batches out of a build."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_build import Clip, write_build
from torch.utils.data._utils.pin_memory import pin_memory

from k710.errors import FeedError
from k710.labels import load_labels
from k710.shards.index import ShardIndex
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.feed import ClipBytes, Hole, RestOfRun, TrainClips, collate_train, running, train_loader
from uniformerv2.data.order import Batching, Order
from uniformerv2.training.session import target_labels


@pytest.fixture
def clips(build: Path) -> TrainClips:
    index = ShardIndex(build)
    view = index.view("k710-train")
    return TrainClips(
        clips=ClipBytes(index.store, view),
        labels=view.classes,
        num_frames=2,
        size_px=32,
        augment=AugmentConfig(),
        seed=1,
        repeats=2,
    )


def rest(epoch: int, step: int) -> RestOfRun:
    order = Order(seed=0, view_digest="d", num_planned=14, window=0, taken_out=np.array([5]))
    batching = Batching(num_clips=13, global_batch=4, micro_batch=2)
    return RestOfRun(order, batching, rank=0, epoch=epoch, step_in_epoch=step, epochs=3)


def test_a_sample_is_a_function_of_seed_epoch_position_and_repeat(clips: TrainClips) -> None:
    first, again, later = clips[0, 3], pickle.loads(pickle.dumps(clips))[0, 3], clips[1, 3]
    assert not isinstance(first, Hole)
    assert not isinstance(later, Hole)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    assert not torch.equal(first[0][0], first[1][0])
    assert [sample[1:] for sample in first] == [(3, 3, 0), (3, 3, 1)]


def test_a_batch_has_every_repeat_of_its_clips(clips: TrainClips) -> None:
    batch = collate_train([clips[0, 0], Hole(position=9, reason="x"), clips[0, 2]])
    assert batch.clips.shape == (4, 3, 2, 32, 32)
    assert batch.labels.tolist() == [0, 0, 2, 2]
    assert batch.repeats.tolist() == [0, 1, 0, 1]
    assert [h.position for h in batch.holes] == [9]


def test_the_rest_of_a_run_is_the_tail_of_the_whole_run() -> None:
    whole = list(rest(0, 0))
    assert len(whole) == len(rest(0, 0)) == 18
    assert list(rest(1, 2)) == whole[6 + 4 :]
    assert len(rest(1, 2)) == 8


def test_workers_give_the_batches_of_one_process_in_order(clips: TrainClips) -> None:
    alone = list(train_loader(clips, rest(2, 0), workers=0, pin=False))
    apart = list(train_loader(clips, rest(2, 0), workers=2, pin=False))
    assert len(alone) == len(apart) == 6
    for a, b in zip(alone, apart, strict=True):
        assert torch.equal(a.clips, b.clips)
        assert torch.equal(a.positions, b.positions)


def test_bytes_that_may_not_be_read_are_a_hole(clips: TrainClips, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    hole = clips[0, 3]
    assert isinstance(hole, Hole)
    assert (hole.position, hole.shard) == (3, "shards/all.tar")
    assert "shards/all.tar: cannot be read" in hole.reason
    assert "Permission denied" in hole.reason


def test_a_worker_that_is_killed_is_named_as_the_cause(clips: TrainClips) -> None:
    loader = train_loader(clips, rest(0, 0), workers=1, pin=False)
    with running(loader) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(FeedError, match="a decoding process was killed"):
            list(batches)


def test_clips_can_be_pinned_where_the_loader_looks_for_it(clips: TrainClips, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate_train([clips[0, 0]])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    assert torch.equal(pin_memory(batch).clips, batch.clips + 1)


def test_other_frames_are_taken_in_every_epoch(clips: TrainClips) -> None:
    whole_picture = AugmentConfig(area=(1.0, 1.0), aspect=(1.2, 1.2), flip=0)
    clips = dataclasses.replace(clips, augment=whole_picture, repeats=1)
    seen = [collate_train([clips[epoch, 0]]).clips for epoch in range(6)]
    assert not all(torch.equal(seen[0], later) for later in seen[1:])


def test_the_class_of_a_clip_is_the_one_it_has_in_the_view(tmp_path: Path, drawn: list[bytes]) -> None:
    both = Clip(id="conflict000", views={"k400-train": 0, "k710-train": 2})
    index, labels = ShardIndex(write_build(tmp_path / "conflict", [both], drawn)), load_labels()
    assert target_labels(index.view("k400-train"), "k400", labels).tolist() == [labels.index_in("k400", 0)]
    assert target_labels(index.view("k710-train"), "k710", labels).tolist() == [2]


def test_a_hole_says_how_its_shard_is_mended() -> None:
    assert (
        "remove shards/a/b.json and run `k710 build` again"
        in Hole(position=1, reason="x", shard="shards/a/b.tar").repair
    )
    assert "k710 build" in Hole(position=1, reason="x").repair
