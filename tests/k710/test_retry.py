"""Trying clips again that came to nothing: which, with what arguments, and what stays."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, make_clip
from k710.clips.media import encode_frames
from k710.clips.outcomes import STATUSES, ClipOutcome
from k710.errors import FeedError, UsageError
from k710.lists.policy import Policy, Selection
from k710.retry import DEFAULT_STATUSES, RetryConfig, last_build, retry

IDS = [f"video_{number:05d}" for number in range(4)]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of one second, one that is a web page, one that is missing."""
    root = tmp_path_factory.mktemp("retry")
    (root / "annotations" / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in IDS)
    (root / "annotations" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (root / "videos").mkdir()
    for seed, video in enumerate(IDS[:2]):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, root / "videos" / f"{video}_000000_000001.mp4", fps=10, config=EncodeConfig())
    (root / "videos" / f"{IDS[2]}_000000_000001.mp4").write_text("<!doctype html><p>Sign in</p>")
    return root


@pytest.fixture
def config(source: Path, tmp_path: Path) -> BuildConfig:
    videos = (str(source / "videos"),)
    return BuildConfig(annotations=source / "annotations", videos=videos, out=tmp_path / "out", workers=1)


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def outcome_of(out: Path, video: str) -> dict[str, Any]:
    return [line for line in ledger(out) if line["key"].startswith(video)][-1]


def test_a_clip_that_cannot_be_made_anew_stays_as_it_is(source: Path, config: BuildConfig, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(source / "videos", own)
    build(replace(config, videos=(str(own),)))
    shards = {path: path.read_bytes() for path in config.out.glob("shards/*/*.tar")}
    before = ledger(config.out)
    (own / f"{IDS[0]}_000000_000001.mp4").unlink()
    (own / f"{IDS[1]}_000000_000001.mp4").write_text("<!doctype html><p>Sign in</p>")
    summary = retry(RetryConfig(out=config.out, statuses=("ok",)))
    assert summary.clips["ok"] == 2
    assert {path: path.read_bytes() for path in config.out.glob("shards/*/*.tar")} == shards
    assert [line for line in ledger(config.out) if line not in before] == []


def timed_out(job: ClipJob) -> ClipOutcome:
    made = make_clip(job)
    return replace(made, status="timeout", detail="too long", sha256="") if job.segment.id == IDS[1] else made


def test_only_the_clips_of_the_statuses_asked_for_are_tried(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.clip_stage.make_clip", timed_out)
    assert build(config).clips["timeout"] == 1
    monkeypatch.undo()
    assert build(config).tried == 0
    summary = retry(RetryConfig(out=config.out, statuses=("corrupt", "timeout")))
    assert (summary.tried, summary.made, summary.clips["ok"]) == (1, 1, 2)
    assert outcome_of(config.out, IDS[1])["attempts"] == 2
    whole = replace(config, out=tmp_path / "whole")
    build(whole)
    for name in ("shards.parquet", "manifest.parquet", "audit.json", "k710.lock.json"):
        assert (config.out / name).read_bytes() == (whole.out / name).read_bytes(), name


def test_without_a_word_everything_but_ok_is_tried_again(config: BuildConfig) -> None:
    build(config)
    lines = len(ledger(config.out))
    summary = retry(RetryConfig(out=config.out))
    assert (summary.tried, summary.made) == (1, 0)
    assert outcome_of(config.out, IDS[2])["attempts"] == 2
    # A clip without any file has nothing to be tried with.
    assert len(ledger(config.out)) == lines + 1
    assert set(DEFAULT_STATUSES) == set(STATUSES) - {"ok"}


def test_clips_that_are_there_are_made_anew_when_asked_for_by_name(config: BuildConfig) -> None:
    build(config)
    before = (config.out / "shards.parquet").read_bytes()
    assert retry(RetryConfig(out=config.out, statuses=("ok",))).made == 2
    assert (config.out / "shards.parquet").read_bytes() == before


def test_other_folders_may_be_given_and_are_remembered(config: BuildConfig, source: Path, tmp_path: Path) -> None:
    build(config)
    (tmp_path / "more").mkdir()
    shutil.copyfile(
        source / "videos" / f"{IDS[0]}_000000_000001.mp4", tmp_path / "more" / f"{IDS[3]}_000000_000001.mp4"
    )
    videos = (*config.videos, str(tmp_path / "more"))
    assert retry(RetryConfig(out=config.out, statuses=("missing",), videos=videos)).clips["ok"] == 3
    assert last_build(config.out).videos == videos


def test_the_last_build_is_known_with_all_its_arguments(config: BuildConfig) -> None:
    told = replace(
        config,
        clips_per_shard=7,
        views=("k400-train",),
        policy=Policy(protect=("val",), selection=Selection(exclude_ids=("aaaaaaaaaaa",), per_class=3)),
        videos_are="clips",
        min_clips_pct=12.5,
        encode=EncodeConfig(crf=30),
    )
    build(told)
    assert last_build(told.out) == told


def test_relative_paths_are_found_from_another_folder(
    config: BuildConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    build(replace(config, annotations=Path("annotations"), videos=("videos",)))
    monkeypatch.chdir(tmp_path)
    assert last_build(Path("out")).videos == (os.path.relpath(source / "videos"),)
    assert retry(RetryConfig(out=Path("out"))).tried == 1


def test_lists_that_have_changed_are_refused(config: BuildConfig, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "annotations", tmp_path / "annotations")
    build(replace(config, annotations=tmp_path / "annotations"))
    path = tmp_path / "annotations" / "k400" / "train.csv"
    path.write_text(path.read_text() + "abseiling,aaaaaaaaaaa,0,1,train\n")
    with pytest.raises(UsageError, match="holds another build"):
        retry(RetryConfig(out=config.out))


def test_a_build_that_never_came_to_clips_cannot_be_retried(config: BuildConfig) -> None:
    build(replace(config, videos=(), manifest_only=True))
    with pytest.raises(FeedError, match="no build here has come to clips"):
        retry(RetryConfig(out=config.out))


@pytest.mark.parametrize("text", ["", "null", "{}", '{"schema": "k710.build_arguments/9", "folder": "", "config": {}}'])
def test_arguments_that_cannot_be_read_are_a_feed_error(config: BuildConfig, text: str) -> None:
    config.out.mkdir()
    (config.out / "build.json").write_text(text)
    with pytest.raises(FeedError, match=r"build\.json: (cannot be read|schema is)"):
        last_build(config.out)


@pytest.mark.parametrize("statuses", [("timeout", "lost"), ()])
def test_a_status_that_there_is_not_is_refused(statuses: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="statuses must be some of ok, missing, ambiguous"):
        RetryConfig(statuses=statuses)
