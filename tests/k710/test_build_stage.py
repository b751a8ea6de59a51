"""What a build says and counts, clips that stay in place, workers that die, and what is tried again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k710 import schema
from k710.build import BuildConfig, build
from k710.build_summary import require_clips
from k710.clip_figures import SoFar
from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, make_clip
from k710.clips.media import encode_frames
from k710.clips.outcomes import ClipOutcome
from k710.errors import AnswerIsNo, SourceError, UsageError
from k710.shards.index import ShardIndex
from k710.tables import read_table

IDS = [f"video_{number:05d}" for number in range(6)]
GOOD = IDS[:4]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of one second, of which the fifth is a web page and the last is missing; and two files too many."""
    root = tmp_path_factory.mktemp("stage")
    (root / "annotations" / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in IDS)
    (root / "annotations" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (root / "videos").mkdir()
    for seed, video in enumerate(GOOD):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, root / "videos" / f"{video}_000000_000001.mp4", fps=10, config=EncodeConfig())
    (root / "videos" / f"{IDS[4]}_000000_000001.mp4").write_text("<!doctype html><p>Sign in</p>")
    shutil.copyfile(root / "videos" / f"{IDS[0]}_000000_000001.mp4", root / "videos" / "zzzzzzzzzzz_000000_000001.mp4")
    shutil.copyfile(root / "videos" / f"{IDS[0]}_000000_000001.mp4", root / "videos" / f"{IDS[0]}_000007_000008.mp4")
    return root


@pytest.fixture
def config(source: Path, tmp_path: Path) -> BuildConfig:
    videos = (str(source / "videos"),)
    return BuildConfig(annotations=source / "annotations", videos=videos, out=tmp_path / "out", workers=1)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_table(out / "shards.parquet", schema.SHARDS).to_pylist()}


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def shards(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("shards/*/*.tar")}


def test_the_summary_counts_what_was_tried_made_and_written(config: BuildConfig) -> None:
    summary = build(config)
    assert (summary.tried, summary.made, summary.clips) == (5, 4, {"ok": 4, "not_a_video": 1, "missing": 1})
    assert summary.size_bytes == sum(r["mp4_size_bytes"] for r in rows(config.out).values() if r["mp4_size_bytes"])
    assert summary.clips_per_s == pytest.approx(5 / summary.seconds, rel=0.01)
    assert summary.usable == {"k400-train": (4, 6), "k710-train": (4, 6)}


def test_how_far_it_is_ends_with_every_clip(config: BuildConfig) -> None:
    seen: list[tuple[int, int, str]] = []
    build(config, on_clips=lambda so_far: seen.append((so_far.done, so_far.total, so_far.note())))
    assert seen[0][:2] == (1, 6)
    assert seen[-1][:2] == (6, 6)
    assert "clips/s" in seen[-1][2]
    assert "0 s left, ok 4, missing 1, not_a_video 1" in seen[-1][2]


def test_the_room_that_is_needed_is_said_before_the_first_clip(config: BuildConfig) -> None:
    said: list[str] = []
    build(config, on_clips=lambda so_far: said.append(f"{so_far.tried} tried"), say=said.append)
    assert said[0].startswith(
        "disk: at most about 569.0 kB for 5 clips to be made (clips 284.5 kB, twice while packed 284.5 kB"
    )
    assert "archives in flight 0" in said[0]


def test_too_little_room_is_a_warning(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("k710.clip_figures.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    build(config, say=said.append)
    assert said[0].startswith("WARNING: disk: at most about")


def test_files_that_no_row_can_use_are_listed(config: BuildConfig, source: Path) -> None:
    assert build(config).unclaimed == 2
    with (config.out / "unclaimed_files.csv").open(newline="") as handle:
        listed = list(csv.reader(handle))
    assert listed == [
        ["path", "reason"],
        [str(source / "videos" / f"{IDS[0]}_000007_000008.mp4"), "its times are no annotation's"],
        [str(source / "videos" / "zzzzzzzzzzz_000000_000001.mp4"), "no annotation names its id"],
    ]


@pytest.mark.parametrize(("percent", "fits"), [(66.6, True), (66.7, False), (0.0, True)])
def test_too_few_clips_are_a_no_once_everything_is_written(config: BuildConfig, percent: float, fits: bool) -> None:
    summary = build(replace(config, min_clips_pct=percent))
    assert (config.out / "shards.parquet").exists()
    if fits:
        require_clips(summary)
    else:
        with pytest.raises(AnswerIsNo, match=r"all clips: 4 of 6 \(66\.67 %\); k400-train: 4 of 6") as caught:
            require_clips(summary)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_clips_pct": 101.0}, "min_clips_pct must be between 0 and 100, got 101"),
        ({"min_clips_pct": 5.0, "manifest_only": True}, "min_clips_pct counts clips"),
        ({"videos_are": "films"}, "videos_are must be one of auto, clips, originals, got films"),
    ],
)
def test_settings_that_cannot_be_are_refused(config: BuildConfig, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(config, **setting)


def test_the_encode_is_a_setting_that_the_lock_keeps(config: BuildConfig) -> None:
    build(config)
    with pytest.raises(UsageError, match=r"config\.encode\.crf: 23 -> 30"):
        build(replace(config, encode=EncodeConfig(crf=30)))


@pytest.fixture
def in_place(config: BuildConfig) -> BuildConfig:
    return replace(config, encode=EncodeConfig(encode="none"))


def test_clips_in_place_are_indexed_where_they_are_and_nothing_is_written(in_place: BuildConfig, source: Path) -> None:
    before = {p: p.read_bytes() for p in (source / "videos").iterdir()}
    summary = build(in_place)
    assert (summary.clips["ok"], summary.shards) == (4, 0)
    assert not (in_place.out / "shards").exists()
    assert not (in_place.out / "cache").exists()
    for video in GOOD:
        row, path = rows(in_place.out)[video], source / "videos" / f"{video}_000000_000001.mp4"
        assert (row["path"], row["mp4_offset"], row["mp4_size_bytes"]) == (str(path), 0, path.stat().st_size)
        assert (row["shard"], row["sha256"], row["frames"]) == (None, None, 10)
    assert {p: p.read_bytes() for p in (source / "videos").iterdir()} == before


def test_clips_in_place_are_read_as_those_of_shards(in_place: BuildConfig, tmp_path: Path) -> None:
    build(in_place)
    copied = replace(in_place, out=tmp_path / "copied", encode=EncodeConfig(encode="copy"))
    build(copied)
    first, second = ShardIndex(in_place.out), ShardIndex(copied.out)
    a, b = first.view("k710-train"), second.view("k710-train")
    assert (a.keys, a.present.tolist()) == (b.keys, b.present.tolist())
    assert (a.frames.tolist(), a.classes.tolist()) == (b.frames.tolist(), b.classes.tolist())
    for position in a.present:
        assert first.read_clip(a, int(position))[4:8] == b"ftyp"


def test_relative_folders_stay_relative_to_the_build(
    in_place: BuildConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source, tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    build(replace(in_place, videos=("videos",), out=Path("deep/out")))
    row = rows(tmp_path / "all" / "deep" / "out")[GOOD[0]]
    assert row["path"] == f"../../videos/{GOOD[0]}_000000_000001.mp4"
    monkeypatch.chdir(tmp_path)
    moved = (tmp_path / "all").rename(tmp_path / "moved")
    index = ShardIndex(moved / "deep" / "out")
    view = index.view("k710-train")
    assert all(index.read_clip(view, int(position)) for position in view.present)


def test_a_file_in_place_that_changes_is_looked_at_again(in_place: BuildConfig, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "videos", tmp_path / "videos")
    here = replace(in_place, videos=(str(tmp_path / "videos"),))
    build(here)
    assert build(here).tried == 0
    (tmp_path / "videos" / f"{GOOD[0]}_000000_000001.mp4").write_bytes(b"")
    summary = build(here)
    assert (summary.tried, summary.clips["ok"], summary.clips["not_a_video"]) == (1, 3, 2)
    assert ledger(here.out)[-1]["attempts"] == 2


def test_whole_videos_cannot_stay_in_place(in_place: BuildConfig, source: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    frames_THWC = np.zeros((50, 32, 48, 3), dtype=np.uint8)
    encode_frames(frames_THWC, tmp_path / "whole" / f"{GOOD[0]}.mp4", fps=10, config=EncodeConfig())
    summary = build(replace(in_place, videos=(str(tmp_path / "whole"),)))
    assert summary.clips == {"missing": 5, "needs_cut": 1}


def test_from_copies_to_clips_in_place_the_shards_go(config: BuildConfig) -> None:
    build(replace(config, encode=EncodeConfig(encode="copy")))
    assert shards(config.out)
    summary = build(replace(config, encode=EncodeConfig(encode="none"), replan=True))
    assert (summary.clips["ok"], shards(config.out)) == (4, {})


def killed_once(job: ClipJob) -> ClipOutcome:
    """Dies at the first attempt at the second clip, by a mark beside the videos' lists."""
    mark = job.target.parents[2] / "died"
    if job.segment.id == IDS[1] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return make_clip(job)


def killed_always(job: ClipJob) -> ClipOutcome:
    if job.segment.id == IDS[1]:
        os.kill(os.getpid(), 9)
    return make_clip(job)


def killed_by_any(job: ClipJob) -> ClipOutcome:
    os.kill(os.getpid(), 9)
    return make_clip(job)


def test_a_clip_whose_worker_dies_is_tried_again_and_the_result_is_the_same(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(replace(config, out=tmp_path / "whole"))
    monkeypatch.setattr("k710.clip_stage.make_clip", killed_once)
    summary = build(config)
    (config.out / "died").unlink()
    assert (summary.made, summary.tried) == (4, 5)
    lines = [line for line in ledger(config.out) if line["key"].startswith(IDS[1])]
    assert [(line["status"], line.get("detail"), line.get("attempts", 1)) for line in lines] == [
        ("corrupt", "its worker died", 1),
        ("ok", None, 2),
    ]
    assert shards(config.out) == shards(tmp_path / "whole")
    assert (config.out / "shards.parquet").read_bytes() == (tmp_path / "whole" / "shards.parquet").read_bytes()


def test_a_clip_that_kills_two_workers_is_corrupt_and_the_others_go_on(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.clip_stage.make_clip", killed_always)
    summary = build(config)
    assert summary.clips == {"ok": 3, "corrupt": 1, "not_a_video": 1, "missing": 1}
    last = [line for line in ledger(config.out) if line["key"].startswith(IDS[1])][-1]
    assert (last["detail"], last["attempts"]) == ("its worker died twice", 2)
    monkeypatch.undo()
    assert build(config).tried == 0


def test_workers_that_die_one_after_the_other_stop_the_build(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.clip_stage.make_clip", killed_by_any)
    monkeypatch.setattr("k710.clip_stage._MAX_DEATHS_IN_A_ROW", 2)
    with pytest.raises(SourceError, match="3 worker processes died one after the other") as caught:
        build(config)
    assert "--workers 1" in caught.value.hint
    assert not (config.out / "shards.parquet").exists()
    monkeypatch.undo()
    assert build(config).made == 4


def test_attempts_count_over_runs(config: BuildConfig, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "videos", tmp_path / "videos")
    here = replace(config, videos=(str(tmp_path / "videos"),))
    build(here)
    page = tmp_path / "videos" / f"{IDS[4]}_000000_000001.mp4"
    for attempts in (2, 3):
        page.write_text("<!doctype html>" + "x" * attempts)
        build(here)
        last = ledger(here.out)[-1]
        assert (last["key"], last["status"], last["attempts"]) == (f"{IDS[4]}_000000_000001", "not_a_video", attempts)
        assert last["detail"]
    shutil.copyfile(tmp_path / "videos" / f"{IDS[0]}_000000_000001.mp4", page)
    assert build(here).made == 1
    assert ledger(here.out)[-1]["attempts"] == 4


def test_figures_so_far_say_nothing_of_speed_before_the_first_clip() -> None:
    assert SoFar(total=3, counts=Counter({"missing": 1})).note() == "missing 1"
