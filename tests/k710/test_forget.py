"""Takedown on real builds: what is gone, and that what stays is what a build without the videos would be."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk

from k710 import atomic, schema
from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig
from k710.errors import FeedError, UsageError
from k710.lists.annotations import ReadOptions
from k710.lists.policy import Policy, Selection
from k710.segments import id_hash
from k710.shards.index import ShardIndex
from k710.synth.plan import SynthConfig, min_clips
from k710.synth.write import synth
from k710.tables import read_table
from k710.takedown.forget import ForgetConfig, ForgetSummary, forget
from k710.takedown.forgotten import read_forgotten

HEADER = "label,youtube_id,time_start,time_end,split\n"
NOT_COMPARED = ("ledger.jsonl", ".build-guard", "build.json", "forgotten.json")
"""The ledger is in order of completion; a build from scratch has no other two."""


def contents(folder: Path, *, also: tuple[str, ...] = ()) -> dict[str, str]:
    """sha256 of every file by its path."""
    files = (p for p in folder.rglob("*") if p.is_file() and (p.name in also or p.name not in NOT_COMPARED))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def everything(folder: Path) -> dict[str, str]:
    return contents(folder, also=NOT_COMPARED)


def index_rows(out: Path) -> list[dict[str, Any]]:
    return read_table(out / "shards.parquet", schema.SHARDS).to_pylist()


def videos_of(out: Path) -> list[str]:
    """Planned videos whose clips have bytes, in order of shard."""
    return list(dict.fromkeys(row["id"] for row in index_rows(out) if row["status"] == "ok"))


def forgetting(config: BuildConfig, ids: list[str]) -> BuildConfig:
    """The settings of a build from scratch that leaves ``ids`` out."""
    selection = replace(config.policy.selection, forgotten=tuple(id_hash(i) for i in ids))
    return replace(config, policy=replace(config.policy, selection=selection))


def take_down(out: Path, *ids: str) -> ForgetSummary:
    return forget(ForgetConfig(ids=ids, out=out))


@pytest.fixture(scope="session")
def toy_config(tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    """A toy Kinetics with planted cases, in small shards."""
    toy = tmp_path_factory.mktemp("toy") / "toy"
    synth(SynthConfig(num_clips=min_clips(4), num_classes=4), toy, workers=2)
    encode = EncodeConfig(preset="ultrafast")
    return BuildConfig(
        annotations=toy / "annotations",
        videos=(str(toy / "videos"),),
        clips_per_shard=6,
        workers=2,
        views=("default", "k710-test", "k400-test"),
        encode=encode,
    )


@pytest.fixture(scope="session")
def toy_built(toy_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build: do not write to it."""
    out = tmp_path_factory.mktemp("built") / "out"
    build(replace(toy_config, out=out))
    return out


@pytest.fixture
def out(toy_built: Path, tmp_path: Path) -> Path:
    """A finished build to take videos from."""
    shutil.copytree(toy_built, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("pick", [slice(0, 1), slice(5, 40, 4), slice(2, 30)], ids=["one", "some", "most"])
def test_what_is_left_is_what_a_build_without_the_videos_writes(
    toy_config: BuildConfig, toy_built: Path, out: Path, tmp_path: Path, pick: slice
) -> None:
    ids = videos_of(toy_built)[pick]
    summary = take_down(out, *ids)
    build(replace(forgetting(toy_config, ids), out=tmp_path / "fresh"))
    assert contents(out) == contents(tmp_path / "fresh")
    assert summary.clips == sum(row["id"] in ids for row in index_rows(toy_built))
    ledgers = [sorted((folder / "ledger.jsonl").read_text().splitlines()) for folder in (out, tmp_path / "fresh")]
    assert [json.loads(line)["key"] for line in ledgers[0]] == [json.loads(line)["key"] for line in ledgers[1]]
    again = build(replace(toy_config, out=out))
    assert (again.replanned, again.made) == ([], 0)
    assert contents(out) == contents(tmp_path / "fresh")


def test_every_video_can_be_forgotten(toy_config: BuildConfig, toy_built: Path, out: Path) -> None:
    take_down(out, *{row["id"] for row in index_rows(toy_built)})
    assert index_rows(out) == []
    assert list(out.glob("shards/*")) == []
    assert build(replace(toy_config, out=out)).replanned == []


def test_only_the_shards_concerned_are_written(toy_built: Path, out: Path) -> None:
    video = videos_of(toy_built)[0]
    concerned = {row["shard"] for row in index_rows(out) if row["id"] == video}
    before = {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("shards/*/*.tar")}
    summary = take_down(out, video)
    after = {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("shards/*/*.tar")}
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == concerned
    assert summary.shards_rewritten + summary.shards_removed == len(concerned)


def test_no_file_holds_the_bytes_or_plans_the_video(toy_built: Path, out: Path) -> None:
    index = ShardIndex(toy_built)
    view = index.view("k710-train")
    position = int(view.present[0])
    clip, key = index.read_clip(view, position), view.keys[position]
    video = key[:11]
    for left in ("", "views", "shards/k710-new", f"cache/{key[:2]}"):
        (out / left).mkdir(parents=True, exist_ok=True)
        (out / left / ".x.mp4.12345678.partial").write_bytes(clip)
    (out / "cache" / "tmp-1").mkdir()
    (out / "cache" / "tmp-1" / f"{key}.mp4").write_bytes(clip)
    (out / "cache" / key[:2] / f"{key}.mp4").write_bytes(clip)
    take_down(out, video)
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert [p for p, data in files.items() if clip in data] == []
    # What the lists say stays: the audit's examples and the rows that are in no view.
    assert [p for p, data in files.items() if video.encode() in data and p.suffix in (".tar", ".jsonl")] == []
    assert [
        p for p in (*out.glob("views/*"), *out.glob("*lock*"), out / "forgotten.json") if video in p.read_text()
    ] == []
    for name, like in (("manifest.parquet", schema.MANIFEST), ("shards.parquet", schema.SHARDS)):
        assert video not in read_table(out / name, like)["id"].to_pylist()
    rows = [r for r in read_table(out / "excluded.parquet", schema.EXCLUDED).to_pylist() if r["id"] == video]
    assert {r["reason"] for r in rows} == {"not_selected"}
    assert read_forgotten(out) == (id_hash(video),)


def test_what_names_clips_by_their_pictures_goes_too(toy_built: Path, out: Path) -> None:
    atomic.write_bytes(out / "fingerprints" / "shard.parquet", b"of the video")
    for name in ("near_duplicates.parquet", "near_duplicates.json"):
        atomic.write_bytes(out / name, b"of the video")
    take_down(out, videos_of(toy_built)[0])
    assert [path for path in out.iterdir() if path.name.startswith(("near_duplicates", "fingerprints"))] == []


def test_a_forgotten_video_stays_held_out(toy_built: Path, out: Path) -> None:
    held_out = set(read_table(out / "held_out.parquet", schema.HELD_OUT)["id_hash"].to_pylist())
    video = next(row["id"] for row in index_rows(out) if row["id_hash"] in held_out)
    take_down(out, video)
    assert (out / "held_out.parquet").read_bytes() == (toy_built / "held_out.parquet").read_bytes()


def test_kept_clips_of_the_video_leave_the_cache(toy_config: BuildConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(replace(toy_config, out=out, keep_clips=True))
    before = {p.stem for p in out.glob("cache/*/*.mp4")}
    video = videos_of(out)[0]
    take_down(out, video)
    assert {p.stem for p in out.glob("cache/*/*.mp4")} == {key for key in before if key[:11] != video}


def test_a_video_that_the_build_does_not_know_is_kept_out_and_no_shard_is_touched(toy_built: Path, out: Path) -> None:
    times = {p: p.stat().st_mtime_ns for p in [*out.glob("shards/*/*"), out / "shards.parquet"]}
    summary = take_down(out, "zzzzzzzzzzz")
    assert (summary.not_listed, summary.clips, summary.shards_rewritten) == (["zzzzzzzzzzz"], 0, 0)
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert read_forgotten(out) == (id_hash("zzzzzzzzzzz"),)
    before, after = contents(toy_built), contents(out)
    assert {name for name in before if before[name] != after[name]} == {"k710.lock.json", "report/audit.html"}


def test_forgetting_twice_changes_nothing_more(toy_built: Path, out: Path) -> None:
    video = videos_of(toy_built)[0]
    take_down(out, video)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".build-guard"}
    summary = take_down(out, video)
    assert (summary.videos, summary.forgotten_before, summary.clips, summary.not_listed) == (1, 1, 0, [])
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_a_dry_run_tells_the_same_and_writes_nothing(toy_built: Path, out: Path) -> None:
    ids = tuple(videos_of(toy_built)[3:12])
    before = everything(out)
    told = forget(ForgetConfig(ids=ids, out=out, dry_run=True))
    assert everything(out) == before
    assert replace(told, dry_run=False) == take_down(out, *ids)


def test_a_replanned_build_does_not_bring_it_back(toy_config: BuildConfig, toy_built: Path, out: Path) -> None:
    video = videos_of(toy_built)[0]
    take_down(out, video)
    build(replace(toy_config, out=out, clips_per_shard=3, replan=True))
    assert video not in videos_of(out)


@pytest.mark.parametrize("ids", [("aaa",), ("https://youtu.be/aaaaaaaaaaa",), ("aaaaaaaaaaa", "bbbbbbbbbb "), ()])
def test_an_id_that_is_none_is_refused_and_nothing_is_written(out: Path, ids: tuple[str, ...]) -> None:
    before = everything(out)
    with pytest.raises(UsageError, match=r"is not a YouTube id|no video named"):
        take_down(out, *ids)
    assert everything(out) == before


def test_a_build_that_another_process_writes_is_refused(out: Path, toy_built: Path) -> None:
    with (out / ".build-guard").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another k710 build is writing to"):
            take_down(out, videos_of(out)[0])
    assert everything(out) == everything(toy_built)


def test_a_folder_without_a_build_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no build here"):
        take_down(tmp_path / "nowhere", "aaaaaaaaaaa")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_list_of_forgotten_videos_is_not_overwritten(out: Path) -> None:
    (out / "forgotten.json").write_text("{}")
    with pytest.raises(FeedError, match="not a list of forgotten videos"):
        take_down(out, "aaaaaaaaaaa")
    assert (out / "forgotten.json").read_text() == "{}"


def test_a_disk_that_is_full_is_named_and_the_same_command_goes_on(toy_built: Path, out: Path, tmp_path: Path) -> None:
    ids = videos_of(toy_built)[:3]
    with full_disk(2048), pytest.raises(UsageError, match="cannot be written"):
        take_down(out, *ids)
    assert len(read_forgotten(out)) == 3
    take_down(out, *ids)
    shutil.copytree(toy_built, tmp_path / "other")
    take_down(tmp_path / "other", *ids)
    assert everything(out) == everything(tmp_path / "other")


def without_outcome(out: Path, key: str) -> None:
    """As if the build had been killed before it came to a clip."""
    lines = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
    (out / "ledger.jsonl").write_text("".join(line for line in lines if json.loads(line)["key"] != key))
    (out / "shards.parquet").unlink()


def test_a_build_that_is_not_finished_loses_the_bytes_at_once_and_goes_on(
    toy_config: BuildConfig, toy_built: Path, out: Path, tmp_path: Path
) -> None:
    rows = [row for row in index_rows(out) if row["status"] == "ok"]
    video, neighbour = next((a, b) for a, b in itertools.pairwise(rows) if a["leaf"] == b["leaf"])
    without_outcome(out, neighbour["key"])
    num_lines = len((out / "ledger.jsonl").read_text().splitlines())
    summary = take_down(out, video["id"])
    assert (summary.unfinished, (out / "shards.parquet").exists()) == (True, False)
    for shard in out.glob("shards/*/*.tar"):
        with tarfile.open(shard) as tar:
            assert not any(name.startswith(video["id"]) for name in tar.getnames())
    build(replace(toy_config, out=out))
    num_forgotten = sum(row["id"] == video["id"] for row in index_rows(toy_built))
    assert len((out / "ledger.jsonl").read_text().splitlines()) == num_lines - num_forgotten + 1
    build(replace(forgetting(toy_config, [video["id"]]), out=tmp_path / "fresh"))
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_build_without_its_tables_still_takes_the_wish(toy_config: BuildConfig, toy_built: Path, out: Path) -> None:
    (out / "manifest.parquet").unlink()
    video = videos_of(toy_built)[0]
    with pytest.raises(FeedError, match=r"manifest\.parquet: no such file") as caught:
        take_down(out, video)
    assert "forgotten.json" in caught.value.hint
    build(replace(toy_config, out=out, replan=True))
    assert video not in videos_of(out)


# Lists alone: every policy, and every way in which a row can be left out.

POLICIES = {
    "default": Policy(),
    "val only": Policy(protect=("val",)),
    "nothing protected": Policy(protect=()),
    "drop-eval": Policy(leaks="drop-eval"),
    "report": Policy(leaks="report"),
    "segments": Policy(unit="segment", prefer=("oldest",)),
    "conflicts": Policy(conflicts="drop"),
    "classes": Policy(selection=Selection(exclude_classes=(0,), exclude_ids=("video_00003",))),
    "near-duplicates": Policy(
        selection=Selection(near_duplicates=("video_00004", "video_00006"), near_duplicates_held_out=("video_00005",))
    ),
}


@pytest.fixture(scope="session")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists in which 24 videos stand in several lists, segments and classes; two rows are bad."""
    folder = tmp_path_factory.mktemp("lists")
    names = ["abseiling", "zumba", "air drumming"]
    rows: dict[str, list[str]] = {}
    for number in range(24):
        for place, name in enumerate(
            ("k400/train", "k400/val", "k400/test", "k600/train", "k600/val", "k700/train", "k700/val", "k700/test")
        ):
            if (number * 7 + place * 3) % 5 in (0, 3 if number % 2 else 0):
                start, label = 10 * ((number + place) % 3), names[(number + place // 4) % 3]
                row = f"{label},video_{number:05d},{start},{start + 10},{name.split('/')[1]}\n"
                rows.setdefault(name, []).extend([row] * (2 if number % 6 == 0 else 1))
                if number % 4 == 0:
                    rows[name].append(f"{names[number % 3]},video_{number:05d},50.5,60,{name.split('/')[1]}\n")
    rows["k400/train"] += ["zumba,video_00000,10,5,train\n", "no class,video_00001,0,10,train\n"]
    for name, listed in rows.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.csv").write_text(HEADER + "".join(listed))
    return folder


@pytest.fixture(scope="session")
def lists_config(lists: Path) -> BuildConfig:
    views = ("default", "k710-test", "k700-test")
    options = ReadOptions(on_bad_row="report")
    return BuildConfig(annotations=lists, manifest_only=True, clips_per_shard=3, views=views, options=options)


@pytest.mark.parametrize("name", POLICIES)
def test_lists_alone_forget_to_the_same_bytes_under_every_policy(
    lists_config: BuildConfig, tmp_path: Path, name: str
) -> None:
    config = replace(lists_config, policy=POLICIES[name])
    build(replace(config, out=tmp_path / "out"))
    for numbers in ([0], [0, 1, 2, 3], list(range(4, 20))):
        ids = [f"video_{n:05d}" for n in numbers]
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "out", tmp_path / "copy")
        take_down(tmp_path / "copy", *ids)
        build(replace(forgetting(config, ids), out=tmp_path / f"fresh-{len(ids)}"))
        assert contents(tmp_path / "copy") == contents(tmp_path / f"fresh-{len(ids)}")
        assert build(replace(config, out=tmp_path / "copy")).replanned == []


def test_videos_forgotten_one_by_one_are_those_forgotten_at_once(lists_config: BuildConfig, tmp_path: Path) -> None:
    ids = [f"video_{n:05d}" for n in (9, 0, 17, 4)]
    for folder in ("steps", "once"):
        build(replace(lists_config, out=tmp_path / folder))
    for video in ids:
        take_down(tmp_path / "steps", video)
    take_down(tmp_path / "once", *ids)
    assert everything(tmp_path / "steps") == everything(tmp_path / "once")


def test_a_build_that_draws_per_class_says_that_others_may_come_in(lists_config: BuildConfig, tmp_path: Path) -> None:
    config = replace(lists_config, policy=Policy(selection=Selection(per_class=2)))
    out = tmp_path / "out"
    build(replace(config, out=out))
    video = read_table(out / "manifest.parquet", schema.MANIFEST)["id"].to_pylist()[0]
    assert take_down(out, video).drawn
    assert video not in read_table(out / "manifest.parquet", schema.MANIFEST)["id"].to_pylist()
    build(replace(config, out=out, replan=True))
    build(replace(forgetting(config, [video]), out=tmp_path / "fresh"))
    assert contents(out) == contents(tmp_path / "fresh")
