"""Samples and batches out of a build."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_build import Clip, write_build
from torch.utils.data._utils.pin_memory import pin_memory

from k710.errors import FeedError, UsageError
from k710.labels import load_labels
from k710.shards.index import ShardIndex, View
from k710.store import Store
from uniformerv2.data import samples
from uniformerv2.data.augment import AugmentConfig, augment, test_views
from uniformerv2.data.decode import decode_frames
from uniformerv2.data.feed import (
    ClipBytes,
    Hole,
    RestOfRun,
    TestClips,
    TrainClips,
    collate_train,
    running,
    train_loader,
)
from uniformerv2.data.order import Batching, Order
from uniformerv2.data.sampling import dense_eval_indices, dense_train_indices, stream
from uniformerv2.training.feeds import target_labels

test_views.__test__ = False  # type: ignore[attr-defined]


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


def test_dense_sampling_takes_neighbouring_frames(clips: TrainClips) -> None:
    dense = dataclasses.replace(clips, sampling="dense", stride=3)[0, 0]
    indices = dense_train_indices(8, 2, 3, stream("frames", 1, 0, 0))
    assert indices[1] == indices[0] + 3
    frames = decode_frames(clips.clips.read(0), indices)
    assert not isinstance(dense, Hole)
    assert torch.equal(dense[1][0], augment(frames, clips.augment, 32, stream("augment", 1, 0, 0, 1)))


def test_test_clips_are_sampled_densely_when_asked(build: Path) -> None:
    index = ShardIndex(build)
    view = index.view("k710-val")
    plain = TestClips(
        clips=ClipBytes(index.store, view), keys=view.keys, num_frames=2, size_px=32, num_clips=2, num_crops=1
    )
    dense = dataclasses.replace(plain, sampling="dense", stride=3)
    data = index.read_clip(view, 0)
    picked = [dense_eval_indices(8, 2, 3, clip, 2) for clip in range(2)]
    wanted = torch.cat([test_views(decode_frames(data, indices), 32, 1) for indices in picked])
    made = dense[0]
    assert not isinstance(made, Hole)
    assert torch.equal(made[1], wanted)
    assert not torch.equal(made[1], plain[0][1])  # type: ignore[union-attr]


def test_frames_become_the_same_test_views_later(build: Path) -> None:
    index = ShardIndex(build)
    view = index.view("k710-val")
    made = TestClips(
        clips=ClipBytes(index.store, view), keys=view.keys, num_frames=2, size_px=32, num_clips=2, num_crops=3
    )
    frames = dataclasses.replace(made, frames_only=True)[3]
    assert not isinstance(frames, Hole)
    assert (frames[1].dtype, frames[1].shape) == (torch.uint8, (4, 40, 48, 3))
    assert torch.equal(made.views(frames[1]), made[3][1])  # type: ignore[union-attr]
    on_device = torch.cat([samples._views_on_device(clip, 32, 3) for clip in frames[1].unflatten(0, (2, 2))])
    assert torch.equal(on_device, made[3][1])  # type: ignore[union-attr]


def test_a_batch_comes_through_a_queue_whole(clips: TrainClips) -> None:
    batch = collate_train([clips[0, 0], Hole(position=9, reason="x"), clips[0, 2]])
    again = pickle.loads(pickle.dumps(batch))
    assert again.holes == batch.holes
    for name in ("clips", "labels", "positions", "repeats"):
        assert torch.equal(getattr(again, name), getattr(batch, name))
        assert getattr(again, name).dtype == getattr(batch, name).dtype


# Data that are not what they should be


def write_over(build: Path, view: View, position: int, data: bytes) -> None:
    """Put other bytes of the same length where the clip is."""
    path = build / "shards" / "all.tar"
    whole, offset = bytearray(path.read_bytes()), int(view.offsets[position])
    size = int(view.sizes_bytes[position])
    whole[offset : offset + size] = data.ljust(size, b"\0")[:size]
    path.write_bytes(whole)


def test_an_offset_into_something_else_is_a_hole_that_says_so(clips: TrainClips, build: Path) -> None:
    view = ShardIndex(build).view("k710-train")
    sha256 = np.zeros((len(view), 32), dtype=np.uint8)
    for position in (0, 3):
        sha256[position] = list(hashlib.sha256(ShardIndex(build).read_clip(view, position)).digest())
    clips = dataclasses.replace(clips, clips=ClipBytes(Store(build), view, sha256=sha256))
    write_over(build, view, 3, b"an index of another tar")
    assert not isinstance(clips[0, 0], Hole)
    hole = clips[0, 3]
    assert isinstance(hole, Hole)
    assert hole.reason.endswith("its bytes are not those that the index was made of")
    write_over(build, view, 6, b"no digest is known of this one")
    unknown = clips[0, 6]
    assert isinstance(unknown, Hole)
    assert "not those that the index" not in unknown.reason


def test_a_shard_of_another_build_makes_holes_of_its_clips(clips: TrainClips, build: Path) -> None:
    view = ShardIndex(build).view("k710-train")
    digests = [hashlib.sha256(ShardIndex(build).read_clip(view, p)).digest() for p in view.present]
    sha256 = np.zeros((len(view), 32), dtype=np.uint8)
    sha256[view.present] = [list(digest) for digest in digests]
    clips = dataclasses.replace(clips, clips=ClipBytes(Store(build), view, sha256=sha256))
    path = build / "shards" / "all.tar"
    path.write_bytes(path.read_bytes()[1:] + b"\0")
    holes = [clips[0, int(position)] for position in view.present]
    assert all(
        isinstance(h, Hole) and "another file than the one that the index was made of" in h.reason for h in holes
    )


def test_a_torn_shard_makes_holes_of_the_clips_behind_the_tear(clips: TrainClips, build: Path) -> None:
    view = ShardIndex(build).view("k710-train")
    path = build / "shards" / "all.tar"
    with path.open("r+b") as shard:
        shard.truncate(int(view.offsets[8]) + 10)
    made = [clips[0, int(position)] for position in view.present]
    holes = [one for one in made if isinstance(one, Hole)]
    assert [hole.position for hole in holes] == [p for p in view.present if view.offsets[p] >= view.offsets[8]]
    assert "shards/all.tar: ends before byte" in holes[0].reason


def test_a_view_with_classes_that_the_target_lacks_is_refused_by_name(tmp_path: Path, drawn: list[bytes]) -> None:
    labels = load_labels()
    outside = next(c for c in range(710) if labels.index_in("k400", c) is None)
    both = [Clip(id=f"clip{c:07d}", views={"k710-train": c}) for c in (0, outside)]
    view = ShardIndex(write_build(tmp_path / "wide", both, drawn)).view("k710-train")
    with pytest.raises(
        UsageError, match=f"k710-train has 1 clips of classes that k400 lacks, such as {labels.rows[outside].name!r}"
    ):
        target_labels(view, "k400", labels)


def test_a_build_with_a_class_table_that_is_not_there_is_refused(build: Path) -> None:
    lock = json.loads((build / "k710.lock.json").read_text())
    (build / "k710.lock.json").write_text(json.dumps({**lock, "class_table": "another"}))
    with pytest.raises(FeedError, match="the class table that it was built with is not there"):
        ShardIndex(build).labels  # noqa: B018 - reading it is the test


def test_a_hole_says_how_its_shard_is_mended() -> None:
    assert (
        "remove shards/a/b.json and run `k710 build` again"
        in Hole(position=1, reason="x", shard="shards/a/b.tar").repair
    )
    assert "k710 build" in Hole(position=1, reason="x").repair
