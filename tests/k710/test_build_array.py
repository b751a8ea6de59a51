"""Tasks of an array job on one folder: the same bytes as one build, and nobody in each other's way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from broken_builds import ROOT, contents, kill_build

from k710 import build as building
from k710 import schema
from k710.build import BuildConfig, build
from k710.claims import CLAIMS_FOLDER, Claims
from k710.clip_stage import make_clip_with
from k710.clips.encodings import EncodeConfig
from k710.clips.ledger import LEDGER_FILE, Ledger
from k710.clips.make import ClipJob
from k710.clips.media import encode_frames
from k710.clips.outcomes import OK
from k710.config import to_mapping
from k710.errors import FeedError, SourceError, UsageError
from k710.labels import load_labels
from k710.lists.manifest import digest
from k710.retry import RetryConfig, retry
from k710.shards.index import ShardIndex
from k710.shards.packing import Packing
from k710.tables import read_table
from k710.takedown.forget import ForgetConfig, forget

NUM_CLIPS = 10

pytestmark = pytest.mark.xdist_group("build_array")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of half a second, of which the last is missing and the one before a web page."""
    root = tmp_path_factory.mktemp("array")
    (root / "annotations" / "k400").mkdir(parents=True)
    (root / "videos").mkdir()
    videos = [f"video_{number:05d}" for number in range(NUM_CLIPS)]
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in videos)
    (root / "annotations" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    first = root / "videos" / f"{videos[0]}_000000_000001.mp4"
    frames_THWC = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), dtype=np.uint8)
    encode_frames(frames_THWC, first, fps=10, config=EncodeConfig(preset="ultrafast"))
    for video in videos[1:-2]:
        os.link(first, first.with_name(f"{video}_000000_000001.mp4"))
    first.with_name(f"{videos[-2]}_000000_000001.mp4").write_text("<!doctype html><p>Sign in</p>")
    return root


def config_of(source: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        annotations=source / "annotations",
        videos=(str(source / "videos"),),
        out=out,
        workers=1,
        clips_per_shard=3,
        encode=EncodeConfig(preset="ultrafast"),
    )


@pytest.fixture
def config(source: Path, tmp_path: Path) -> BuildConfig:
    return config_of(source, tmp_path / "out")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one build makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(config_of(source, out))
    return out


def task(config: BuildConfig, index: int, num: int) -> BuildConfig:
    return replace(config, executor="array", task_index=index, num_tasks=num)


def keys_in_ledgers(out: Path) -> list[str]:
    lines = [line for path in out.glob("ledger*.jsonl") for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["key"] for line in lines)


@pytest.mark.parametrize("num", [*(pytest.param(num, marks=pytest.mark.slow) for num in (1, 2)), 3])
def test_tasks_one_after_the_other_give_the_bytes_of_one_build(config: BuildConfig, whole: Path, num: int) -> None:
    summaries = [build(task(config, index, num)) for index in range(num)]
    assert contents(config.out) == contents(whole)
    assert [summary.task for summary in summaries] == [*(f"task {index} of {num}" for index in range(num - 1)), ""]
    assert sum(summary.made for summary in summaries) == NUM_CLIPS - 2
    assert summaries[-1].clips == {"ok": NUM_CLIPS - 2, "not_a_video": 1, "missing": 1}
    assert summaries[-1].clips_per_s == pytest.approx(summaries[-1].tried / summaries[-1].seconds, rel=0.01)
    keys = keys_in_ledgers(config.out)
    assert [path.name for path in config.out.glob("ledger*")] == ["ledger.jsonl"]
    assert keys == sorted(set(keys))
    assert len(keys) == NUM_CLIPS


@pytest.mark.slow
def test_until_the_last_task_there_is_no_index(config: BuildConfig) -> None:
    build(task(config, 1, 2))
    with pytest.raises(FeedError, match="shards"):
        ShardIndex(config.out)
    build(task(config, 0, 2))
    assert ShardIndex(config.out)


@pytest.mark.slow
def test_more_tasks_than_shards_is_no_harm(config: BuildConfig, whole: Path) -> None:
    for index in reversed(range(12)):
        build(task(config, index, 12))
    assert contents(config.out) == contents(whole)


def test_another_number_of_tasks_and_one_build_go_on_with_what_is_there(config: BuildConfig, whole: Path) -> None:
    first = build(task(config, 0, 3))
    second = build(task(config, 2, 4))
    rest = build(config)
    assert first.made + second.made + rest.made == NUM_CLIPS - 2
    assert min(first.made, second.made, rest.made) > 0
    assert contents(config.out) == contents(whole)


@pytest.mark.slow
def test_a_task_that_is_run_again_has_nothing_to_do(config: BuildConfig) -> None:
    made = build(task(config, 0, 2)).made
    assert made
    assert build(task(config, 0, 2)).tried == 0


@pytest.mark.slow
def test_after_tasks_a_clip_can_be_retried_and_forgotten(
    config: BuildConfig, source: Path, whole: Path, tmp_path: Path
) -> None:
    for index in range(2):
        build(task(config, index, 2))
    assert retry(RetryConfig(out=config.out)).tried == 1
    shutil.copytree(whole, tmp_path / "alone")
    for out in (config.out, tmp_path / "alone"):
        forget(ForgetConfig(out=out, ids=("video_00003",)))
    assert contents(config.out) == contents(tmp_path / "alone")


def test_a_takedown_amid_the_tasks_leaves_no_line_of_the_video(config: BuildConfig) -> None:
    build(task(config, 0, 2))
    gone = next(key for key in keys_in_ledgers(config.out) if key < "video_00008")[:11]
    forget(ForgetConfig(out=config.out, ids=(gone,)))
    assert not any(key.startswith(gone) for key in keys_in_ledgers(config.out))
    for index in range(2):
        build(task(config, index, 2))
    assert read_table(config.out / "shards.parquet", schema.SHARDS).num_rows == NUM_CLIPS - 1


def test_a_plan_of_other_settings_is_refused(config: BuildConfig) -> None:
    build(task(config, 0, 2))
    with pytest.raises(UsageError, match="clips_per_shard"):
        build(replace(task(config, 1, 2), clips_per_shard=4))


@pytest.mark.parametrize(
    ("name", "facts", "refused"),
    [
        ("task-00000-of-00002", {"num_tasks": 2}, "a build alone"),
        pytest.param("task-00000-of-00002", {"num_tasks": 2}, "the same task", marks=pytest.mark.slow),
        pytest.param("task-00000-of-00003", {"num_tasks": 3}, "another number", marks=pytest.mark.slow),
        ("task-00001-of-00002", {"num_tasks": 2, "plan": "of other lists"}, "another plan"),
        ("alone", {"plan": ""}, "beside a build"),
    ],
)
def test_who_does_not_belong_together_is_refused_while_the_other_lives(
    config: BuildConfig, name: str, facts: dict[str, object], refused: str
) -> None:
    build(task(config, 1, 2))
    plan = json.loads((config.out / "k710.lock.json").read_text())["digests"]["plan"]
    told = {"who": name, "plan": plan} | facts
    mine = config if refused == "a build alone" else task(config, 0, 2)
    with Claims(config.out / CLAIMS_FOLDER).held(name, told):
        before = contents(config.out)
        with pytest.raises(UsageError, match=rf"out: {name} on .* is writing to it"):
            build(mine)
        assert contents(config.out) == before
    build(mine)


def test_a_task_waits_for_the_one_that_writes_the_index(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    build(task(config, 1, 2))
    plan = json.loads((config.out / "k710.lock.json").read_text())["digests"]["plan"]
    finisher = Claims(config.out / CLAIMS_FOLDER).held("alone", {"who": "it", "plan": plan})
    finisher.__enter__()
    waits: list[float] = []

    def ends(seconds: float) -> None:
        waits.append(seconds)
        finisher.__exit__(None, None, None)

    monkeypatch.setattr("k710.writers.time.sleep", ends)
    assert build(task(config, 0, 2)).task == ""
    assert len(waits) == 1


def test_a_task_that_was_taken_over_commits_nothing_more(config: BuildConfig) -> None:
    def take_over(_: object) -> None:
        (claim,) = (config.out / CLAIMS_FOLDER).glob("task-*")
        claim.write_text('{"token": "of another"}')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("k710.claims.EXPIRY_S", 0.0)  # every look is a beat
        patch.setattr("k710.home.Claims.alive", lambda self: {})
        with pytest.raises(SourceError, match="another took its place"):
            build(task(config, 0, 2), on_clips=take_over)
    assert keys_in_ledgers(config.out) in ([], [f"video_{NUM_CLIPS - 1:05d}_000000_000001"])  # the missing one


@pytest.mark.slow
def test_another_ffmpeg_than_that_of_the_other_tasks_is_refused(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(task(config, 0, 2))
    monkeypatch.setattr(building, "ffmpeg_build", lambda: "ffmpeg version 0.1")
    with pytest.raises(SourceError, match=r"other tasks use another ffmpeg .* than this machine has \(ffmpeg ver"):
        build(task(config, 1, 2))


def test_a_worker_elsewhere_with_another_ffmpeg_makes_no_clip() -> None:
    with pytest.raises(SourceError, match=r"has another ffmpeg \(.+\) than this build \(ffmpeg version 0.1\)"):
        make_clip_with("ffmpeg version 0.1", cast(ClipJob, None))


def test_tasks_share_the_clips_of_a_folder_that_was_planned_anew(config: BuildConfig, whole: Path) -> None:
    build(replace(config, clips_per_shard=100))
    build(replace(config, manifest_only=True, replan=True))
    assert [build(task(config, index, 2)).made for index in range(2)] == [0, 0]
    assert contents(config.out) == contents(whole)


@pytest.mark.parametrize("error", [None, KeyError("its shard was packed anew")])
def test_a_clip_that_another_task_puts_into_the_cache_while_it_is_read_is_found(
    config: BuildConfig, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(replace(config, keep_clips=True))
    ledger = Ledger(config.out / LEDGER_FILE, digest(to_mapping(config.encode)))
    manifest = read_table(config.out / "manifest.parquet", schema.MANIFEST)
    packing = Packing(config.out, manifest, load_labels(), ledger.outcomes)
    key = next(key for key, outcome in ledger.outcomes.items() if outcome.status == OK)

    def stale(self: Packing, key: str) -> bytes:
        if error is not None:
            raise error
        return b"of another shard"

    monkeypatch.setattr(Packing, "_found", stale)
    assert packing.has_bytes(key)
    packing.cached(key).unlink()
    assert not packing.has_bytes(key)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": "array"}, "needs task_index and num_tasks"),
        ({"executor": "array", "task_index": 2, "num_tasks": 2}, "between 0 and 1 for 2 tasks, got 2"),
        ({"executor": "array", "task_index": 0, "num_tasks": 0}, "at least 1, got 0"),
        ({"task_index": 0, "num_tasks": 2}, "are of executor array, and this is local"),
        ({"executor": "array", "task_index": 0, "num_tasks": 2, "replan": True}, "cannot replan"),
        ({"executor": "slurm"}, "one of local, array, ray, got slurm"),
        ({"ray_address": "auto"}, "of executor ray, and this is local"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    config: BuildConfig, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        replace(config, **settings)  # type: ignore[arg-type]


def start(source: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    places = ["--annotations", str(source / "annotations"), "--videos", str(source / "videos"), "--out", str(out)]
    settings = ["--workers", "1", "--clips-per-shard", "3", "--preset", "ultrafast"]
    command = [sys.executable, "-m", "cli", "build", *places, *settings, *more]
    with (out.parent / "said.txt").open("ab") as words:
        return subprocess.Popen(command, cwd=ROOT, stdout=words, stderr=words, start_new_session=True)


def start_task(source: Path, out: Path, index: int, num: int) -> subprocess.Popen[bytes]:
    return start(source, out, "--executor", "array", "--task-index", str(index), "--num-tasks", str(num))


def test_two_tasks_at_the_same_time_give_the_bytes_of_one_build(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks = [start_task(source, out, index, 2) for index in range(2)]
    assert [process.wait(120) for process in tasks] == [0, 0], (tmp_path / "said.txt").read_text()
    assert contents(out) == contents(whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tasks_that_are_killed_and_run_again_give_the_bytes_of_one_build(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for round_ in range(4):
        tasks = [start_task(source, out, index, 3) for index in range(3)]
        deadline = time.monotonic() + 60
        while len(keys_of_whole_lines(out)) <= round_ and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in tasks[round_ % 2 :]:
            kill_build(process)
        for process in tasks:
            process.wait(120)
    tasks = [start_task(source, out, index, 3) for index in range(3)]
    assert [process.wait(120) for process in tasks] == [0, 0, 0], (tmp_path / "said.txt").read_text()
    assert contents(out) == contents(whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_while_a_task_lives_a_build_is_refused_and_when_it_is_killed_it_is_not(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start_task(source, out, 0, 2)
    deadline = time.monotonic() + 60
    while not list(out.glob(f"{CLAIMS_FOLDER}/task-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    # Else it might be done before the build comes to look.
    os.kill(process.pid, signal.SIGSTOP)
    assert start(source, out).wait(60) == 2
    assert "is writing to it" in (tmp_path / "said.txt").read_text()
    kill_build(process)
    assert start(source, out).wait(60) == 0
    # The claim of a dead task stays, and is nobody's.
    shutil.rmtree(out / CLAIMS_FOLDER, ignore_errors=True)
    assert contents(out) == contents(whole)


def keys_of_whole_lines(out: Path) -> list[bytes]:
    return [line for path in out.glob("ledger*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
