"""Training from files that stay where they are is training from shards: the same frames, the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.shards.index import ShardIndex
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.feed import ClipBytes, Hole, TrainClips
from uniformerv2.pretrain import PretrainConfig, pretrain

CLASSES = ("abseiling", "zumba", "archery", "yoga")


@pytest.fixture
def builds(tmp_path: Path, drawn: list[bytes]) -> list[Path]:
    """Eight clips of training, two of validation: copied into shards, and in place."""
    (tmp_path / "videos").mkdir()
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(10):
        split, video = ("train" if number < 8 else "val"), f"video{number:06d}"
        lists[split].append(f"{CLASSES[number % 4]},{video},0,1,{split}\n")
        (tmp_path / "videos" / f"{video}_000000_000001.mp4").write_bytes(drawn[number % 4])
    (tmp_path / "annotations" / "k400").mkdir(parents=True)
    for split, rows in lists.items():
        path = tmp_path / "annotations" / "k400" / f"{split}.csv"
        path.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(rows))
    for encode in ("copy", "none"):
        config = EncodeConfig(encode=encode)  # type: ignore[arg-type]
        videos = (str(tmp_path / "videos"),)
        build(
            BuildConfig(
                annotations=tmp_path / "annotations", videos=videos, out=tmp_path / encode, workers=1, encode=config
            )
        )
    return [tmp_path / "copy", tmp_path / "none"]


def samples(folder: Path) -> TrainClips:
    index = ShardIndex(folder)
    view = index.view("k710-train")
    return TrainClips(
        clips=ClipBytes(index.store, view),
        labels=view.classes,
        num_frames=4,
        size_px=32,
        augment=AugmentConfig(),
        seed=1,
    )


def test_samples_are_the_same(builds: list[Path]) -> None:
    from_shards, in_place = map(samples, builds)
    for position in range(8):
        a, b = from_shards[0, position], in_place[0, position]
        assert not isinstance(a, Hole)
        assert not isinstance(b, Hole)
        assert torch.equal(a[0][0], b[0][0])
        assert a[0][1:] == b[0][1:]


def test_training_gives_the_same_weights(builds: list[Path], recipe: str, tmp_path: Path) -> None:
    found = []
    for folder in builds:
        out = tmp_path / f"run-{folder.name}"
        pretrain(PretrainConfig(recipe=recipe, data=str(folder), out=out))
        found.append(load_file(out / "model.safetensors"))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_file_that_is_gone_is_a_hole_that_says_which_file_to_replace(builds: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "videos" / "video000003_000000_000001.mp4"
    path.unlink()
    view = ShardIndex(builds[1]).view("k710-train")
    hole = samples(builds[1])[0, view.keys.index("video000003_000000_000001")]
    assert isinstance(hole, Hole)
    assert hole.shard == str(path)
    assert hole.repair.startswith(f"replace {path} by a sound copy")
