"""Foreign WebDataset shards: the same batches, dealt to ranks and workers, and what is wrong with them by name."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest
import torch
from torch.utils.data import DataLoader

from k710.errors import FeedError, UsageError
from uniformerv2.data import streaming
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.feed import running
from uniformerv2.data.samples import Augmenting, Batch
from uniformerv2.data.streaming import StreamConfig, expand, label_of, rest_of_stream, stream_digest, stream_loader

pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def tar(members: dict[str, bytes]) -> bytes:
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as shard:
        for name, data in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            shard.addfile(facts, io.BytesIO(data))
    return blob.getvalue()


@pytest.fixture
def folder(tmp_path: Path, drawn: list[bytes]) -> Path:
    """Four shards of six clips; labels as ``cls`` in the first two, in ``json`` in the others."""
    for number in range(4):
        members: dict[str, bytes] = {}
        for clip in range(6):
            key, label = f"clip{number}{clip}", clip % 4
            members[f"{key}.mp4"] = drawn[label]
            if number < 2:
                members[f"{key}.cls"] = b"%d\n" % label
            else:
                members[f"{key}.json"] = json.dumps({"label": label}).encode()
        (tmp_path / f"part-{number:03}.tar").write_bytes(tar(members))
    return tmp_path


def config(*shards: str | Path, clips: int = 24, **changes: object) -> StreamConfig:
    plain = {"num_classes": 4, "clips_per_epoch": clips, "window_clips": 8, **changes}
    return StreamConfig(shards=tuple(map(str, shards)), **plain)  # type: ignore[arg-type]


def batches(config: StreamConfig, **changes: object) -> list[Batch]:
    plain = {"epoch": 0, "rank": 0, "world": 1, "micro_batch": 4, "workers": 0, "seed": 1, **changes}
    loader = stream_loader(config, num_frames=2, size_px=32, augment=AugmentConfig(), **plain)  # type: ignore[arg-type]
    with running(loader) as made:
        return list(made)


def positions(made: list[Batch]) -> list[int]:
    return [int(p) for batch in made for p in batch.positions]


def test_an_epoch_has_every_clip_once_with_its_label(folder: Path) -> None:
    made = batches(config(folder / "part-*.tar"))
    assert [batch.clips.shape for batch in made] == [(4, 3, 2, 32, 32)] * 6
    assert made[0].clips.dtype == torch.uint8
    assert len(set(positions(made))) == 24
    assert sorted(int(label) for batch in made for label in batch.labels) == [0] * 8 + [1] * 8 + [2] * 4 + [3] * 4


def test_an_epoch_is_a_function_of_seed_and_epoch(folder: Path) -> None:
    shards = config(folder / "part-{000..003}.tar")
    first, again = batches(shards), batches(shards)
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(first, again, strict=True))
    later, other = batches(shards, epoch=1), batches(shards, seed=2)
    assert positions(first) != positions(later) != positions(other) != positions(first)
    assert set(positions(first)) == set(positions(later))


def test_a_sample_is_made_as_from_our_own_shards(folder: Path, drawn: list[bytes]) -> None:
    (batch,) = batches(config(folder / "part-000.tar", clips=4))
    augmenting = Augmenting(num_frames=2, size_px=32, augment=AugmentConfig(), seed=1)
    for pixels, label, position in zip(batch.clips, batch.labels, batch.positions, strict=True):
        (wanted,) = augmenting.samples(drawn[int(label)], 8, label=0, epoch=0, position=int(position))
        assert torch.equal(pixels, wanted[0])


def test_ranks_have_different_clips_and_as_many_batches(folder: Path) -> None:
    parts = [batches(config(folder / "part-*.tar"), rank=rank, world=2) for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    assert len({*positions(parts[0]), *positions(parts[1])}) == 24


def test_a_rank_has_other_shards_in_another_epoch(folder: Path) -> None:
    shards = config(folder / "part-*.tar")
    seen = [frozenset(positions(batches(shards, world=2, epoch=epoch))) for epoch in range(4)]
    assert len(set(seen)) > 1


def test_one_shard_is_shuffled_anew_in_every_epoch(folder: Path) -> None:
    shard = config(folder / "part-000.tar", clips=6)
    seen = [positions(batches(shard, micro_batch=6, epoch=epoch)) for epoch in range(3)]
    assert len({*map(tuple, seen)}) == 3
    assert len({*map(frozenset, seen)}) == 1


@pytest.mark.timeout(60)
def test_workers_have_different_clips(folder: Path) -> None:
    made = batches(config(folder / "part-*.tar"), workers=2, start="fork")
    assert len(made) == 6
    assert len(set(positions(made))) == 24


def test_repeats_are_made_of_one_clip(folder: Path) -> None:
    (batch, *_) = batches(config(folder / "part-*.tar", repeats=2))
    assert batch.repeats.tolist() == [0, 1] * 4
    assert len(set(batch.positions.tolist())) == 4


def test_shards_that_hold_less_than_a_rank_owes_are_begun_again(folder: Path) -> None:
    made = batches(config(folder / "part-000.tar", clips=16))
    assert len(made) == 4
    assert len(set(positions(made))) == 6


def test_a_run_has_the_same_number_of_batches_in_every_epoch(folder: Path) -> None:
    shards, begun = config(folder / "part-*.tar"), []

    def make(epoch: int) -> DataLoader[Batch]:
        begun.append(epoch)
        settings = {"num_frames": 2, "size_px": 32, "seed": 1, "rank": 0, "world": 1, "micro_batch": 4, "workers": 0}
        return stream_loader(shards, augment=AugmentConfig(), epoch=epoch, **settings)  # type: ignore[arg-type]

    with contextlib.closing(rest_of_stream(make, epochs=range(1, 3), batches=5)) as made:  # type: ignore[type-var]
        run = list(made)
    assert begun == [1, 2]
    assert positions(run[:5]) == positions(batches(shards, epoch=1))[:20]
    assert positions(run[5:]) == positions(batches(shards, epoch=2))[:20]


def test_the_digest_of_a_stream_is_that_of_its_shards(folder: Path) -> None:
    every = stream_digest(config(folder / "part-*.tar"))
    assert every == stream_digest(config(folder / "part-{003..000}.tar"))
    assert every != stream_digest(config(folder / "part-{000..002}.tar"))


def test_shards_are_read_from_an_object_store(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        files.pipe_file(f"/{folder.name}/{path.name}", path.read_bytes())
    local, remote = batches(config(folder / "part-*.tar")), batches(config(f"memory://{folder.name}/part-*.tar"))
    assert set(positions(local)) == set(positions(remote))
    assert expand([f"memory://{folder.name}/part-*.tar"])[0] == f"memory://{folder.name}/part-000.tar"


def test_dense_sampling_takes_neighbours(folder: Path) -> None:
    sparse, dense = (
        batches(config(folder / "part-000.tar", clips=4, sampling=s, stride=1)) for s in ("sparse", "dense")
    )
    assert positions(sparse) == positions(dense)
    assert not torch.equal(sparse[0].clips, dense[0].clips)


# What is wrong with them


def test_a_damaged_clip_is_a_hole_that_names_key_and_shard(tmp_path: Path, drawn: list[bytes]) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"x.mp4": b"no video", "x.cls": b"1", "y.mp4": drawn[0], "y.cls": b"0"}))
    (batch,) = batches(config(path, clips=2), micro_batch=2)
    assert len(batch) == 1
    (hole,) = batch.holes
    assert hole.reason.startswith("sample x: ")
    assert (hole.shard, hole.repair) == (str(path), f"replace {path} by a sound copy")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x.cls": b"cat"}, r"a.tar: sample x: the label is 'cat', not an integer"),
        ({"x.cls": b"4"}, r"a.tar: sample x: the label 4 is not one of 4 classes"),
        ({"x.cls": b"-1"}, r"a.tar: sample x: the label -1 is not one of 4 classes"),
        ({"x.cls": b"\xff"}, r"a.tar: sample x: the label cannot be read"),
        ({"x.json": b'{"label": 1.0}'}, r"a.tar: sample x: the label is 1.0, not an integer"),
        ({"x.json": b'{"label": true}'}, r"a.tar: sample x: the label is True, not an integer"),
        ({"x.json": b'{"class": 1}'}, r"a.tar: sample x has no label: no 'label'"),
        ({"x.json": b"[1]"}, r"a.tar: sample x: the label cannot be read"),
        ({"x.json": b"{"}, r"a.tar: sample x: the label cannot be read"),
        ({"x.txt": b"1"}, r"a.tar: sample x has no label: no 'json'"),
    ],
)
def test_a_label_that_is_no_class_names_shard_and_key(
    tmp_path: Path, drawn: list[bytes], members: dict[str, bytes], said: str
) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"x.mp4": drawn[0], **members}))
    with pytest.raises(FeedError, match=said):
        batches(config(tmp_path / "a.tar", clips=1), micro_batch=1)


def test_a_sample_without_a_video_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"x.jpg": b"", "x.cls": b"1"}))
    with pytest.raises(FeedError, match=r"a.tar: sample x has no video, only jpg, cls"):
        batches(config(tmp_path / "a.tar", clips=1), micro_batch=1)


def test_a_torn_shard_or_one_that_is_no_tar_is_named(folder: Path) -> None:
    whole = (folder / "part-000.tar").read_bytes()
    for harm in (whole[: len(whole) // 2 + 100], b"no tar" * 1000):
        (folder / "part-000.tar").write_bytes(harm)
        with pytest.raises(FeedError, match=r"part-000.tar: not a sound tar"):
            batches(config(folder / "part-000.tar", clips=8))
    (folder / "part-000.tar").write_bytes(tar({}))
    with pytest.raises(FeedError, match=r"part-000.tar: no samples in it"):
        batches(config(folder / "part-000.tar", clips=8))
    with pytest.raises(FeedError, match=r"part-009.tar: no such file"):
        batches(config(folder / "part-009.tar", clips=8))


def test_a_shard_that_was_cut_off_is_said_to_be(folder: Path) -> None:
    path = folder / "part-000.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(FeedError, match=r"^\S+part-000.tar: not a sound tar \(it is cut off: [\w ]+\)$") as caught:
        batches(config(path, clips=8))
    assert caught.value.hint == "fetch the shard again, or leave it out of --stream"


@pytest.mark.timeout(60)
def test_an_error_in_a_worker_is_as_clear_as_one_here(tmp_path: Path, drawn: list[bytes]) -> None:
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar({"x.mp4": drawn[0], "x.cls": b"cat"}))
    with pytest.raises(FeedError, match=r"^\S*.tar: sample x: the label is 'cat', not an integer$") as caught:
        batches(config(tmp_path / "*.tar", clips=2), micro_batch=1, workers=1, start="fork")
    assert "integers from 0 to 3" in caught.value.hint


def test_what_cannot_be_dealt_is_refused_with_the_numbers(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"4 shard\(s\) cannot be dealt to 5 processes"):
        batches(config(folder / "part-*.tar", clips=100), world=5)
    with pytest.raises(UsageError, match=r"an epoch of 24 clips has no batch of 16 for each of 2 process\(es\)"):
        batches(config(folder / "part-*.tar"), micro_batch=16, world=2)
    with pytest.raises(UsageError, match=r"--stream .*other-\*.tar: no such shard"):
        batches(config(folder / "other-*.tar"))


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(UsageError, match="--stream needs the package webdataset"):
        streaming.expand(["a.tar"])


def test_shards_of_a_build_are_read_by_the_label_of_what_is_trained() -> None:
    labels = {"k710": 12, "k400": {"index": 3, "name": "abseiling"}}
    sample = {"cls": b"12", "json": json.dumps({"id": "abc", "labels": labels}).encode()}
    of = {taxonomy: config("x.tar", num_classes=20, taxonomy=taxonomy) for taxonomy in ("", "k710", "k400", "k600")}
    assert [label_of(sample, of[taxonomy], where="x") for taxonomy in ("", "k710", "k400")] == [12, 12, 3]
    with pytest.raises(FeedError, match="x has no label: no 'k600'"):
        label_of(sample, of["k600"], where="x")
    assert label_of({"cls": b"12", "json": b"not json"}, of["k400"], where="x") == 12
