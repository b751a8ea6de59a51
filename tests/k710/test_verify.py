"""What `k710 verify` finds in builds, folders and tars, and that it writes nothing but its list."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from k710 import schema
from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig, encode_frames
from k710.errors import FeedError, SourceError, UsageError
from k710.tables import read_table, write_table
from k710.verify import VerifyConfig, VerifySummary, verify

IDS = ("-aaaaaaaaaa", "_bbbbbbbbbb", "1e2cccccccc", "ddddddddddd", "eeeeeeeeeee")
NUM_CLIPS = 4
"""Of these videos, the last of which has no file."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``annotations/`` and ``videos/``: four noisy clips of a second, and one that is missing."""
    root = tmp_path_factory.mktemp("source")
    lists = {
        "kinetics400/train": "".join(f"abseiling,{i},0,1,train\n" for i in (IDS[0], IDS[2], IDS[3], IDS[4])),
        "kinetics600/train": f"waking up,{IDS[0]},0,1,train\n",
        "kinetics400/val": f"abseiling,{IDS[1]},0,1,val\n",
    }
    for name, rows in lists.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (root / "videos").mkdir()
    for seed, video in enumerate(IDS[:NUM_CLIPS]):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 48, 64, 3), dtype=np.uint8)
        target = root / "videos" / f"{video}_000000_000001.mp4"
        encode_frames(frames_THWC, target, fps=10, config=EncodeConfig(preset="ultrafast"))
    return root


def built(source: Path, out: Path, encode: EncodeConfig | None = None) -> Path:
    """A build of ``source`` in ``out``."""
    videos = (str(source / "videos"),)
    config = BuildConfig(
        annotations=source / "annotations", videos=videos, out=out, workers=1, encode=encode or EncodeConfig()
    )
    build(config)
    return out


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build: not to be changed."""
    return built(source, tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A finished build to damage."""
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def look(path: Path, **settings: object) -> VerifySummary:
    return verify(VerifyConfig(path=path, workers=1, **settings))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def shard_of(data: Path, key: str) -> tuple[Path, dict[str, object]]:
    """The shard that holds a clip, and the clip's row of the index."""
    rows = read_table(data / "shards.parquet", schema.SHARDS).to_pylist()
    row = next(row for row in rows if row["key"] == key)
    return data / row["shard"], row


def overwrite(data: Path, key: str, member: str, new: bytes, at: int = 0) -> Path:
    """Put ``new`` into a member of a clip; its shard."""
    shard, row = shard_of(data, key)
    with shard.open("r+b") as handle:
        handle.seek(int(str(row[f"{member}_offset"])) + at)
        handle.write(new)
    return shard


KEY = f"{IDS[0]}_000000_000001"


@pytest.mark.parametrize("mode", ["ends", "sample", "full"])
def test_a_finished_build_is_good_and_stays_as_it_is(whole: Path, mode: str) -> None:
    before = contents(whole)
    found = look(whole, mode=mode)
    assert found.is_good
    assert (found.kind, found.clips, found.statuses, found.without_bytes) == (
        "build",
        NUM_CLIPS + 1,
        {"ok": NUM_CLIPS},
        1,
    )
    assert found.remarks == []
    assert contents(whole) == before


def test_a_changed_byte_of_a_clip_is_found_by_its_checksum(data: Path) -> None:
    shard = overwrite(data, KEY, "mp4", b"\x5a", at=2000)
    found = look(data)
    assert [(c.key, c.status) for c in found.bad] == [(KEY, "corrupt")]
    assert "sha256" in found.bad[0].reason
    assert found.problems == [f"{shard.relative_to(data)}: not the bytes that its marker was written for (sha256)"]


def test_a_changed_class_is_found_in_both_places(data: Path) -> None:
    overwrite(data, KEY, "cls", b"7")
    other = f"{IDS[1]}_000000_000001"
    shard, row = shard_of(data, other)
    text = shard.read_bytes()[int(str(row["json_offset"])) :][: int(str(row["json_size_bytes"]))]
    overwrite(data, other, "json", text.replace(b"abseiling", b"abseilinG"))
    assert {c.key: c.reason for c in look(data).bad} == {
        KEY: f"{KEY}.cls is not 668",
        other: f"{other}.json differs from the manifest in labels",
    }


def test_a_missing_shard_makes_its_clips_missing(data: Path) -> None:
    shard, _ = shard_of(data, KEY)
    shard.unlink()
    found = look(data)
    assert found.statuses["missing"] == len(found.bad) >= 1
    assert {c.path for c in found.bad} == {str(shard.relative_to(data))}
    assert found.problems == [f"{shard.relative_to(data)}: missing, though the plan names it"]


def test_a_shard_that_was_cut_off_is_truncated(data: Path) -> None:
    shard, row = shard_of(data, KEY)
    os.truncate(shard, int(str(row["mp4_offset"])) + 100)
    found = look(data)
    assert next(c for c in found.bad if c.key == KEY).status == "truncated"
    assert any("its marker is missing, unreadable, or of a file of another size" in p for p in found.problems)


def test_a_marker_of_another_plan_or_none_is_a_problem(data: Path) -> None:
    shard, _ = shard_of(data, KEY)
    marker = shard.with_suffix(".json")
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"plan": "0" * 64}))
    assert look(data).problems == [f"{shard.relative_to(data)}: its marker names another plan"]
    marker.unlink()
    found = look(data)
    assert len(found.problems) == 1
    assert not found.bad
    assert not found.is_good


def test_a_member_that_no_plan_names_is_a_problem_and_a_file_is_a_remark(data: Path) -> None:
    shard, _ = shard_of(data, KEY)
    with tarfile.open(shard, "a") as tar:
        tar.addfile(tarfile.TarInfo("stray.txt"))
    (shard.parent / "notes.txt").write_text("mine")
    found = look(data)
    assert any("members that no plan names: 1, the first is stray.txt" in p for p in found.problems)
    assert found.remarks == [f"{shard.parent.relative_to(data)}/notes.txt: no plan names it"]


def test_an_index_of_another_manifest_is_refused(data: Path) -> None:
    table = read_table(data / "manifest.parquet", schema.MANIFEST)
    write_table(data / "manifest.parquet", table.slice(1), schema.MANIFEST)
    with pytest.raises(FeedError, match="not the index of the manifest beside it"):
        look(data)


def test_a_build_in_place_is_decoded_where_its_files_are(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    out = built(tmp_path / "source", tmp_path / "out", EncodeConfig(encode="none"))
    found = look(out, mode="full", out=tmp_path / "list.csv")
    assert found.is_good
    assert found.statuses == {"ok": NUM_CLIPS}
    with (tmp_path / "list.csv").open(newline="") as handle:
        sums = {row["key"]: row["sha256"] for row in csv.DictReader(handle)}
    videos = tmp_path / "source" / "videos"
    assert sums == {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in videos.iterdir()}
    (videos / f"{KEY}.mp4").unlink()
    with (videos / f"{IDS[1]}_000000_000001.mp4").open("ab") as handle:
        handle.write(b"more")
    assert Counter(c.status for c in look(out).bad) == {"missing": 1, "corrupt": 1}


def test_a_folder_of_any_layout_is_read_once_though_links_go_round_in_it(source: Path, tmp_path: Path) -> None:
    class_folder = tmp_path / "videos" / "riding a bike"
    shutil.copytree(source / "videos", class_folder)
    (class_folder / "up").symlink_to("..")
    (tmp_path / "videos" / "self").symlink_to(".")
    (class_folder / "empty.MKV").touch()
    (class_folder / "._apple.mp4").touch()
    (class_folder / "new\nline.mp4").symlink_to("gone.mp4")
    os.mkfifo(class_folder / "pipe.mp4")
    found = look(tmp_path / "videos")
    assert (found.kind, found.clips) == ("folder", NUM_CLIPS + 3)
    assert {(Path(c.path).name, c.status) for c in found.bad} == {
        ("empty.MKV", "not_a_video"),
        ("pipe.mp4", "not_a_video"),
        ("new\nline.mp4", "missing"),
    }


def test_a_build_inside_a_folder_is_not_entered_but_named(whole: Path, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source / "videos", tmp_path / "all" / "videos")
    shutil.copytree(whole, tmp_path / "all" / "data")
    found = look(tmp_path / "all")
    assert found.clips == NUM_CLIPS
    assert found.remarks == ["data: a build, not entered; give it by itself"]


def test_tars_of_anybody_are_read_by_key(source: Path, tmp_path: Path) -> None:
    videos = sorted((source / "videos").iterdir())
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        for video in videos[:2]:
            tar.add(video, f"class/{video.stem}.mp4")
            tar.add(source / "annotations" / "kinetics400" / "val.csv", f"class/{video.stem}.txt")
        tar.add(videos[2], f"class/{videos[0].stem}.mp4")
    (tmp_path / "tars" / "b.tar").write_bytes(b"this is no tar" * 100)
    with tarfile.open(tmp_path / "tars" / "c.tar", "w") as tar:
        tar.add(videos[3], "x.y.mp4")
    os.truncate(tmp_path / "tars" / "c.tar", 2048)
    found = look(tmp_path / "tars", out=tmp_path / "list.csv")
    assert found.kind == "shards"
    assert [(c.path, c.key, c.status) for c in found.bad] == [
        ("a.tar", f"class/{videos[0].stem}", "corrupt"),
        ("c.tar", "x", "truncated"),
    ]
    assert [p.split(":")[0] for p in found.problems] == ["b.tar", "c.tar"]
    with (tmp_path / "list.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4
    good = next(row for row in rows if row["key"] == f"class/{videos[1].stem}")
    assert (good["path"], good["status"], good["frames"], good["width_px"]) == ("a.tar", "ok", "10", "64")
    assert good["sha256"] == hashlib.sha256(videos[1].read_bytes()).hexdigest()


def test_one_video_or_one_tar_may_be_named(source: Path, tmp_path: Path) -> None:
    video = next((source / "videos").iterdir())
    assert look(video).statuses == {"ok": 1}
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        tar.add(video, "one.mp4")
    assert look(tmp_path / "one.tar").statuses == {"ok": 1}


def test_what_cannot_be_read_at_all_is_an_error(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.tar").write_bytes(b"no tar")
    with pytest.raises(UsageError, match="no such file or folder"):
        look(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no videos and no \.tar files"):
        look(tmp_path / "empty")
    with pytest.raises(FeedError, match="not a tar"):
        look(tmp_path / "no.tar")
    with pytest.raises(UsageError, match="cannot be written"):
        look(whole, out=tmp_path / "no" / "list.csv")


def test_a_report_replaces_a_report_and_nothing_else(data: Path, tmp_path: Path) -> None:
    before = (data / "manifest.parquet").read_bytes()
    with pytest.raises(UsageError, match=r"--out .*manifest\.parquet: exists and is not a report"):
        look(data, out=data / "manifest.parquet")
    assert (data / "manifest.parquet").read_bytes() == before
    look(data, out=tmp_path / "report.csv")
    look(data, out=tmp_path / "report.csv")


def test_workers_do_not_change_what_is_found(data: Path) -> None:
    overwrite(data, KEY, "mp4", b"\x5a", at=2000)
    one, two = (verify(VerifyConfig(path=data, workers=n)) for n in (1, 2))
    assert (one.bad, one.problems, one.statuses) == (two.bad, two.problems, two.statuses)
