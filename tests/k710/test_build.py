"""The whole build on a toy Kinetics with planted cases, against what the toy says of itself."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k710 import atomic, schema
from k710.build import BuildConfig, BuildSummary, build
from k710.errors import FeedError, SourceError, UsageError
from k710.report.stored import read_audit
from k710.shards.index import ShardIndex
from k710.synth.plan import SynthConfig, min_clips
from k710.synth.write import synth
from k710.tables import read_table

HEADER = "label,youtube_id,time_start,time_end,split\n"


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file by its path, but the ledger, in order of completion, and what names folders or workers."""
    own = ("ledger.jsonl", ".build-guard", "build.json")
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in own)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def ledger_lines(out: Path) -> list[str]:
    return (out / "ledger.jsonl").read_text().splitlines()


@pytest.fixture(scope="session")
def toy_kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "toy"
    synth(SynthConfig(num_clips=min_clips(4), num_classes=4), out, workers=2)
    return out


@pytest.fixture(scope="session")
def toy_truth(toy_kinetics: Path) -> Any:
    return json.loads((toy_kinetics / "truth.json").read_text())


@pytest.fixture(scope="session")
def config(toy_kinetics: Path) -> BuildConfig:
    """Small shards, one worker; ``out`` is for the test to say."""
    videos = (str(toy_kinetics / "videos"),)
    return BuildConfig(annotations=toy_kinetics / "annotations", videos=videos, clips_per_shard=6, workers=1)


@pytest.fixture(scope="session")
def built(
    config: BuildConfig, toy_kinetics: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, BuildSummary]:
    """A finished build and its summary: do not write to it."""
    out = tmp_path_factory.mktemp("built") / "out"
    before = contents(toy_kinetics)
    summary = build(replace(config, out=out))
    assert contents(toy_kinetics) == before, "a user's file was changed"
    return out, summary


@pytest.fixture
def copy(built: tuple[Path, BuildSummary], tmp_path: Path) -> Path:
    """A finished build to go on with."""
    shutil.copytree(built[0], tmp_path / "out")
    return tmp_path / "out"


def test_views_hold_the_videos_that_the_toy_expects(built: Any, toy_truth: Any) -> None:
    out, summary = built
    manifest = read_table(out / "manifest.parquet", schema.MANIFEST).to_pylist()
    for name, clips in summary.views.items():
        expected = toy_truth["views"][name]
        members = [c for c in manifest if name in c["views"]]
        assert (clips, len(members)) == (expected["clips"], expected["clips"]), name
        assert sorted({c["id"] for c in members}) == expected["ids"], name


def test_views_have_bytes_for_the_clips_that_the_toy_says_are_usable(built: Any, toy_truth: Any) -> None:
    index = ShardIndex(built[0])
    for name in index.view_names:
        assert len(index.view(name).present) == toy_truth["views"][name]["usable_clips"], name


def test_each_unusable_file_has_the_status_that_was_planted(built: Any, toy_truth: Any) -> None:
    found = {r["key"]: r["status"] for r in read_table(built[0] / "shards.parquet", schema.SHARDS).to_pylist()}
    planted = {f["key"]: f["status"] for f in toy_truth["files_expected_to_fail"] if f["key"] in found}
    assert {key: status for key, status in found.items() if status != "ok"} == planted
    assert len(set(planted.values())) == 3


def test_every_clip_has_its_planned_length(built: Any, toy_truth: Any) -> None:
    rows = {r["key"]: r for r in read_table(built[0] / "shards.parquet", schema.SHARDS).to_pylist()}
    for clip in toy_truth["clips"]:
        row = rows.get(clip["key"])
        if row and row["status"] == "ok":
            start_s, end_s = (int(t) for t in clip["key"][-13:].split("_"))
            assert abs(row["frames"] / row["fps"] - (end_s - start_s)) <= 1, clip["key"]


def test_leaks_are_those_that_were_planted(built: Any, toy_truth: Any) -> None:
    found = {f"{r['train']} & {r['held_out']}": r["videos"] for r in built[1].audit["leaks"]}
    assert found == {pair: n for pair, n in toy_truth["leaks"]["pairs"].items() if n}


def test_the_summary_counts_what_was_made(built: Any) -> None:
    _, summary = built
    assert summary.made == summary.clips["ok"]
    assert sum(summary.clips.values()) == len(ledger_lines(built[0]))


def test_the_cache_is_empty_after_a_build(built: Any) -> None:
    assert not (built[0] / "cache").exists()


def test_clips_are_kept_when_asked_for(config: BuildConfig, built: Any, tmp_path: Path) -> None:
    build(replace(config, out=tmp_path / "out", keep_clips=True))
    kept = list((tmp_path / "out" / "cache").glob("*/*.mp4"))
    assert len(kept) == built[1].clips["ok"]
    shutil.rmtree(tmp_path / "out" / "cache")
    assert contents(tmp_path / "out") == contents(built[0])


def test_another_folder_and_more_workers_give_the_same_bytes(config: BuildConfig, built: Any, tmp_path: Path) -> None:
    build(replace(config, out=tmp_path / "elsewhere" / "ü", workers=2))
    assert contents(tmp_path / "elsewhere" / "ü") == contents(built[0])


def test_the_same_build_again_does_nothing(config: BuildConfig, built: Any, copy: Path) -> None:
    before = ledger_lines(copy)
    times = {p: p.stat().st_mtime_ns for p in copy.glob("shards/*/*")}
    summary = build(replace(config, out=copy))
    assert (summary.made, summary.replanned, summary.clips) == (0, [], built[1].clips)
    assert ledger_lines(copy) == before
    assert {p: p.stat().st_mtime_ns for p in copy.glob("shards/*/*")} == times
    assert contents(copy) == contents(built[0])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clips_per_shard": 7}, "config.clips_per_shard: 6 -> 7"),
        ({"views": ("default", "k710-test")}, "config.views"),
        ({"releases": ("k400", "k600")}, "list k700:train: gone"),
    ],
)
def test_another_config_is_refused_by_field_and_touches_nothing(
    config: BuildConfig, built: Any, copy: Path, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(replace(config, out=copy, **change))
    assert caught.value.exit_code == 2
    assert field in caught.value.message
    assert "--replan" in caught.value.hint
    assert contents(copy) == contents(built[0])


def test_smaller_shards_are_replanned_without_encoding(config: BuildConfig, copy: Path, tmp_path: Path) -> None:
    before = ledger_lines(copy)
    changed = replace(config, clips_per_shard=3)
    summary = build(replace(changed, out=copy, replan=True))
    assert (summary.made, ledger_lines(copy)) == (0, before)
    build(replace(changed, out=tmp_path / "fresh"))
    assert contents(copy) == contents(tmp_path / "fresh")


def test_fewer_lists_and_back_encode_only_what_was_lost(
    config: BuildConfig, built: Any, copy: Path, tmp_path: Path
) -> None:
    fewer = replace(config, releases=("k400", "k600"), replan=True)
    assert build(replace(fewer, out=copy)).made == 0
    build(replace(fewer, out=tmp_path / "fresh"))
    assert contents(copy) == contents(tmp_path / "fresh")
    lines = len(ledger_lines(copy))
    summary = build(replace(config, out=copy, replan=True))
    assert len(ledger_lines(copy)) == lines + summary.made
    assert contents(copy) == contents(built[0])


def one_list(folder: Path, name: str, *rows: str) -> Path:
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return folder


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    one_list(tmp_path / "a", "k400/train", "abseiling,aaaaaaaaaaa,0,10,train", "zumba,bbbbbbbbbbb,0,10,train")
    return one_list(tmp_path / "a", "k400/val", "abseiling,ccccccccccc,0,10,val")


def test_a_held_out_list_more_is_another_build_even_if_no_view_changes(lists: Path, tmp_path: Path) -> None:
    only_lists = BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)
    build(only_lists)
    one_list(lists, "k600/test", "abseiling,ddddddddddd,0,10,test")
    with pytest.raises(UsageError, match="list k600:test: added"):
        build(only_lists)
    assert build(replace(only_lists, replan=True)).replanned[0] == "list k600:test: added"


def test_the_order_of_rows_is_no_other_build(lists: Path, tmp_path: Path) -> None:
    only_lists = BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)
    build(only_lists)
    before = contents(tmp_path / "out")
    one_list(lists, "k400/train", "zumba,bbbbbbbbbbb,0,10,train", "abseiling,aaaaaaaaaaa,0,10,train")
    build(only_lists)
    after = contents(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {"k710.lock.json", "report/audit.html"}


def test_a_build_with_one_clip_per_view_can_be_planned(tmp_path: Path) -> None:
    one_list(tmp_path / "a", "k400/train", "abseiling,aaaaaaaaaaa,0,10,train")
    summary = build(BuildConfig(annotations=tmp_path / "a", out=tmp_path / "out", manifest_only=True))
    assert summary.views == {"k400-train": 1, "k710-train": 1}


def test_lists_that_were_not_given_are_named_or_refused(lists: Path, tmp_path: Path) -> None:
    only_lists = BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)
    summary = build(only_lists)
    assert summary.audit["statement"] == (
        "leak-free against the lists given (protected: val,test); not checked: k400:test."
    )
    assert json.loads((tmp_path / "out" / "k710.lock.json").read_text())["not_checked"] == ["k400:test"]
    assert (tmp_path / "out" / "audit.md").read_text().startswith("# Audit\n\nLeak-free against the lists given")
    with pytest.raises(UsageError, match="lists not given: k400:test"):
        build(replace(only_lists, require_complete=True))


def test_lists_alone_are_a_build_without_shards(lists: Path, tmp_path: Path) -> None:
    build(BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True))
    with pytest.raises(FeedError, match="the build has no shards yet"):
        ShardIndex(tmp_path / "out")


def test_replanned_lists_without_shards_do_not_keep_the_old_index(config: BuildConfig, copy: Path) -> None:
    build(replace(config, out=copy, releases=("k400",), manifest_only=True, replan=True))
    with pytest.raises(FeedError, match="the build has no shards yet"):
        ShardIndex(copy)


@pytest.mark.parametrize("name", ["thesis.tex", "film.mp4.partial", "shards.parquet"])
def test_a_folder_that_is_no_build_is_refused_and_left_alone(lists: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match="not empty and not a build"):
        build(BuildConfig(annotations=lists, out=out, manifest_only=True))
    assert {p.name: p.read_text() for p in out.iterdir()} == {name: "mine"}


@pytest.mark.parametrize("lock", ["", "[]", "{}", '{"schema": "k710.lock/9"}', "null"])
def test_a_lock_that_is_not_ours_is_refused(lists: Path, tmp_path: Path, lock: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "k710.lock.json").write_text(lock)
    with pytest.raises(UsageError, match="not a lock of this version"):
        build(BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True, replan=True))
    assert (tmp_path / "out" / "k710.lock.json").read_text() == lock


def test_a_file_as_out_is_refused(lists: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="not a folder"):
        build(BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True))


def test_an_out_that_cannot_be_is_refused_before_the_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    nowhere = BuildConfig(annotations=tmp_path / "nowhere", manifest_only=True)
    for out, reason in (("file", "not a folder"), ("file/below", "not a folder"), ("thesis", "not a build")):
        with pytest.raises(UsageError, match=reason):
            build(replace(nowhere, out=tmp_path / out))


def test_a_disk_that_fills_up_is_named_and_the_next_run_goes_on(
    lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = atomic.write_bytes

    def fill(path: Path, data: bytes) -> None:
        if path.suffix != ".parquet":
            return write(path, data)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    only_lists = BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)
    with monkeypatch.context() as full:
        full.setattr("k710.atomic.write_bytes", fill)
        with pytest.raises(UsageError, match=r"out: cannot be written \(No space left") as caught:
            build(only_lists)
    assert "goes on from here" in caught.value.hint
    assert (tmp_path / "out" / "k710.lock.json").exists()
    assert build(only_lists).replanned == []


def test_lists_alone_keep_the_outcomes_of_clips_that_are_there(config: BuildConfig, built: Any, copy: Path) -> None:
    build(replace(config, out=copy, videos=(), manifest_only=True))
    assert read_audit(copy) == read_audit(built[0])
    assert json.loads(read_audit(copy).json_text)["clips"] == built[1].clips


def test_replanned_lists_have_no_outcomes(config: BuildConfig, copy: Path) -> None:
    build(replace(config, out=copy, releases=("k400",), manifest_only=True, replan=True))
    assert "clips" not in json.loads(read_audit(copy).json_text)


@pytest.mark.parametrize("text", ["", "garbage", "null", "{}", '{"schema": "k710.audit/9"}'])
def test_an_audit_that_is_none_is_a_feed_error(copy: Path, text: str) -> None:
    (copy / "audit.json").write_text(text)
    with pytest.raises(FeedError, match=r"audit\.json: (not an audit|schema is)") as caught:
        read_audit(copy)
    assert "k710 build" in caught.value.hint


def test_an_audit_that_is_not_text_is_a_feed_error(copy: Path) -> None:
    (copy / "audit.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FeedError, match=r"audit\.json: cannot be read"):
        read_audit(copy)


def test_what_killed_writes_left_is_removed(config: BuildConfig, built: Any, copy: Path) -> None:
    for folder in (copy, copy / "views", next(copy.glob("shards/*"))):
        (folder / ".file.12345678.partial").touch()
    build(replace(config, out=copy))
    assert contents(copy) == contents(built[0])


def test_a_second_builder_is_refused(lists: Path, tmp_path: Path) -> None:
    only_lists = BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)
    build(only_lists)
    with (tmp_path / "out" / ".build-guard").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another k710 build is writing to"):
            build(only_lists)
    build(only_lists)


def test_no_videos_are_a_usage_error(lists: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no videos given"):
        build(BuildConfig(annotations=lists, out=tmp_path / "out"))


def test_videos_of_which_none_fits_are_a_source_error(lists: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "zzzzzzzzzzz.mp4").touch()
    with pytest.raises(SourceError, match="none of the 3 planned clips has a video in") as caught:
        build(BuildConfig(annotations=lists, videos=(str(tmp_path / "videos"),), out=tmp_path / "out"))
    assert caught.value.exit_code == 4


def test_a_video_that_turns_up_later_is_picked_up(
    config: BuildConfig, built: Any, toy_kinetics: Path, toy_truth: Any, tmp_path: Path
) -> None:
    train = set(toy_truth["views"]["k710-train"]["ids"])
    late = next(c for c in toy_truth["clips"] if c["status"] == "ok" and c["layout"] == "timed" and c["id"] in train)
    videos = tmp_path / "videos"
    shutil.copytree(toy_kinetics / "videos", videos, copy_function=shutil.copy2)
    waiting = (videos / late["path"].removeprefix("videos/")).rename(tmp_path / "late.mp4")
    here = replace(config, videos=(str(videos),), out=tmp_path / "out")
    assert build(here).clips["ok"] == built[1].clips["ok"] - 1
    waiting.rename(videos / late["path"].removeprefix("videos/"))
    assert build(here).made == 1
    assert contents(tmp_path / "out") == contents(built[0])


def test_an_audit_counts_leaks_again_from_the_tables(lists: Path, tmp_path: Path) -> None:
    one_list(lists, "k400/test", "zumba,bbbbbbbbbbb,0,10,test")
    safe = BuildConfig(annotations=lists, out=tmp_path / "safe", manifest_only=True)
    build(safe)
    assert read_audit(tmp_path / "safe").leaking == []
    build(replace(safe, out=tmp_path / "leaky", policy=replace(safe.policy, leaks="report")))
    assert read_audit(tmp_path / "leaky").leaking == [{"view": "k710-train", "list": "k400:test", "videos": 1}]


def test_an_audit_of_no_build_is_a_feed_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no build here"):
        read_audit(tmp_path)


@pytest.mark.parametrize(("setting", "value"), [("workers", 0), ("clips_per_shard", 0)])
def test_settings_below_one_are_refused(config: BuildConfig, setting: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{setting} must be at least 1, got 0"):
        replace(config, **{setting: value})
