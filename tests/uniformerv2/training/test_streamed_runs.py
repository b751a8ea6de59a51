"""Runs on foreign WebDataset shards: no build is read, an epoch begins anew after a stop, the lineage is unknown."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from runs import assert_same, saved_in, stop_at

from k710.errors import CheckpointError, FeedError, StoppedOnPurposeError, UsageError
from uniformerv2.finetune import FinetuneConfig, finetune
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.source import read_source

pytest.importorskip("webdataset")

SHARDS, CLIPS = 3, 8


@pytest.fixture
def config(tmp_path: Path, recipe: str, drawn: list[bytes]) -> PretrainConfig:
    """Two epochs of 24 clips in three shards of somebody's, whose labels are those of the merged classes."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(SHARDS):
        with tarfile.open(folder / f"{number:03}.tar", "w") as shard:
            for clip in range(CLIPS):
                for suffix, data in (("mp4", drawn[clip % 4]), ("cls", b"%d" % (clip % 4))):
                    facts = tarfile.TarInfo(f"clip{number}{clip}.{suffix}")
                    facts.size = len(data)
                    shard.addfile(facts, io.BytesIO(data))
    return PretrainConfig(
        recipe=recipe,
        data=str(tmp_path / "no-build"),
        out=tmp_path / "run",
        stream=(f"{folder}/{{000..002}}.tar",),
        stream_clips=SHARDS * CLIPS,
        overrides=("model.num_classes=710", "optim.epochs=2"),
    )


def test_a_run_on_foreign_shards_needs_no_build(config: PretrainConfig) -> None:
    said: list[str] = []
    summary = pretrain(config, on_progress=lambda progress: said.extend(progress.said))
    assert (summary.view, summary.target, summary.clips_per_epoch) == ("streamed shards", "k710", 24)
    assert summary.steps == 2 * (24 // saved_in(config.out).state.global_batch)
    assert summary.loss is not None
    assert not summary.leaks_checked
    assert "no index" in said[0]


def test_what_was_streamed_is_not_known(config: PretrainConfig) -> None:
    lineage = read_source(pretrain(config).model).lineage
    assert (lineage.known, dict(lineage.views)) == (False, {})


def test_a_stopped_run_goes_on_at_the_start_of_its_epoch(config: PretrainConfig, tmp_path: Path) -> None:
    whole = pretrain(replace(config, out=tmp_path / "whole"))
    steps = whole.steps // 2
    with pytest.raises(StoppedOnPurposeError, match="at the start of the epoch"):
        pretrain(config, on_progress=stop_at(steps + 1))
    assert saved_in(config.out).state.step == steps
    assert pretrain(config).resumed_at_step == steps
    assert_same(config.out, tmp_path / "whole")


def test_other_shards_are_not_gone_on_with(config: PretrainConfig) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(config, on_progress=stop_at(SHARDS * CLIPS // 4 + 1))
    with pytest.raises(CheckpointError, match="view_digest"):
        pretrain(replace(config, stream_clips=16))


@pytest.mark.parametrize("change", [{"stream_clips": None}, {"stream": ()}])
def test_shards_and_their_number_of_clips_go_together(config: PretrainConfig, change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--stream and --stream-clips go together"):
        pretrain(replace(config, **change))  # type: ignore[arg-type]


def test_a_number_of_classes_that_no_release_has_is_named(config: PretrainConfig) -> None:
    with pytest.raises(UsageError, match="one of 400, 600, 700, 710, got 5"):
        pretrain(replace(config, overrides=("model.num_classes=5",)))


def test_a_clip_that_cannot_be_read_is_named_in_the_log(config: PretrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "shards" / "000.tar"
    data = path.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + 4] + bytes(200) + data[start + 204 :])
    summary = pretrain(replace(config, overrides=(*config.overrides, "data.max_hole_fraction=0.5")))
    assert summary.holes > 0
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    holes = [hole for line in lines for hole in line.get("holes", [])]
    assert {hole["clip"] for hole in holes} == {str(path)}
    assert all(hole["reason"].startswith("sample clip0") for hole in holes)


def test_too_many_holes_name_shard_and_sample(config: PretrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "shards" / "000.tar"
    data = path.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + 4] + bytes(200) + data[start + 204 :])
    with pytest.raises(FeedError, match=rf"the last, in {path}: sample clip0"):
        pretrain(replace(config, overrides=(*config.overrides, "data.max_hole_fraction=0")))


def test_an_epoch_of_less_than_a_batch_names_the_flag(config: PretrainConfig) -> None:
    with pytest.raises(UsageError, match="--stream-clips 3 is less than one global batch of 4") as caught:
        pretrain(replace(config, stream_clips=3))
    assert "--stream-clips 4 or more" in caught.value.hint


def test_fine_tuning_streams_too(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, overrides=(*config.overrides, "optim.epochs=0", "optim.warmup_epochs=0")))
    summary = finetune(
        FinetuneConfig(
            target="k400",
            source=config.out,
            data=config.data,
            out=tmp_path / "tuned",
            recipe=config.recipe,
            epochs=1,
            stream=config.stream,
            stream_clips=config.stream_clips,
        )
    )
    assert (summary.view, summary.target, summary.steps) == ("streamed shards", "k400", 6)
