"""What stands in the shards, their markers and their index, byte for byte."""

from __future__ import annotations

import gc
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from k710 import schema
from k710.errors import FeedError, UsageError
from k710.labels import load_labels
from k710.segments import id_hash
from k710.shards.index import ShardIndex
from k710.tables import read_table

BOTH, VAL, GONE = "-aaaaaaaaaa_000000_000001", "_bbbbbbbbbb_000003_000004", "1e2cccccccc_000005_000006"
TRAIN_SHARD = "shards/k400-train.k600-train.k710-train/t-root.tar"


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_table(out / "shards.parquet", schema.SHARDS).to_pylist()}


def tars(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("*/*.tar"))


def facts(out: Path, key: str) -> Any:
    row = rows(out)[key]
    data = (out / row["shard"]).read_bytes()
    return json.loads(data[row["json_offset"] :][: row["json_size_bytes"]])


def test_shards_are_named_by_their_views(tiny_build: Path) -> None:
    assert [str(p.relative_to(tiny_build)) for p in tars(tiny_build)] == [
        TRAIN_SHARD,
        "shards/k400-val.k710-val/t-root.tar",
    ]


# The reader leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_the_shards(tiny_build: Path) -> None:
    data = webdataset.WebDataset([str(p) for p in tars(tiny_build)], shardshuffle=False)
    samples = {s["__key__"]: s for s in data}
    del data
    gc.collect()
    assert sorted(samples) == [BOTH, VAL]
    for key, sample in samples.items():
        assert {k for k in sample if not k.startswith("__")} == {"mp4", "json", "cls"}
        assert json.loads(sample["json"])["id"] == key[:11]


def test_headers_tell_nothing_of_the_machine(tiny_build: Path) -> None:
    for path in tars(tiny_build):
        assert path.read_bytes()[257:265] == b"ustar\x0000"
        with tarfile.open(path) as tar:
            for info in tar:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
                assert (info.mode, info.type) == (0o444, tarfile.REGTYPE)


def test_members_stand_in_a_fixed_order(tiny_build: Path) -> None:
    with tarfile.open(tiny_build / TRAIN_SHARD) as tar:
        assert tar.getnames() == [f"{BOTH}.mp4", f"{BOTH}.json", f"{BOTH}.cls"]


def test_the_index_points_at_the_bytes(tiny_build: Path) -> None:
    for key in (BOTH, VAL):
        row = rows(tiny_build)[key]
        data = (tiny_build / row["shard"]).read_bytes()
        mp4 = data[row["mp4_offset"] :][: row["mp4_size_bytes"]]
        assert hashlib.sha256(mp4).hexdigest() == row["sha256"]
        assert data[row["cls_offset"] :][: row["cls_size_bytes"]] == str(row["class"]).encode()
        assert json.loads(data[row["json_offset"] :][: row["json_size_bytes"]])["id"] == row["id"]


def test_a_missing_clip_is_in_the_index_without_a_place(tiny_build: Path) -> None:
    row = rows(tiny_build)[GONE]
    assert row["status"] == "missing"
    assert [row[n] for n in ("shard", "mp4_offset", "mp4_size_bytes", "json_offset", "cls_offset", "sha256")] == [
        None
    ] * 6


def test_the_index_has_every_planned_clip(tiny_build: Path) -> None:
    manifest = read_table(tiny_build / "manifest.parquet", schema.MANIFEST)
    assert sorted(rows(tiny_build)) == sorted(manifest["key"].to_pylist()) == sorted([BOTH, VAL, GONE])


def test_markers_have_the_checksums_of_their_shards(tiny_build: Path) -> None:
    lock = json.loads((tiny_build / "k710.lock.json").read_text())
    for path in tars(tiny_build):
        data = path.read_bytes()
        marker = json.loads(path.with_suffix(".json").read_text())
        assert marker["sha256"] == hashlib.sha256(data).hexdigest()
        assert marker["md5"] == hashlib.md5(data).hexdigest()
        assert (marker["size_bytes"], marker["clips"]) == (len(data), 1)
        assert marker["plan"] == lock["digests"]["plan"]


def test_the_class_is_the_one_of_the_merged_views(tiny_build: Path) -> None:
    assert rows(tiny_build)[BOTH]["class"] == load_labels().canonical("k600", "waking up")


def test_a_clip_names_its_class_in_every_release_and_all_on_conflict(tiny_build: Path) -> None:
    labels = load_labels()
    baby, awake = labels.canonical("k400", "baby waking up"), labels.canonical("k600", "waking up")
    assert baby is not None
    assert awake is not None
    assert facts(tiny_build, BOTH) == {
        "id": "-aaaaaaaaaa",
        "segment": {"start_s": 0, "end_s": 1},
        "labels": {
            "k710": awake,
            "k400": {"index": labels.index_in("k400", baby), "name": "baby waking up"},
            "k600": {"index": labels.index_in("k600", awake), "name": "waking up"},
        },
        "classes": sorted([baby, awake]),
        "source": {"kind": "local", "file": f"{BOTH}.mp4"},
        "notes": [],
    }


def test_nothing_in_a_shard_names_a_folder_of_this_machine(tiny: Path, tiny_build: Path) -> None:
    for path in tars(tiny_build):
        assert str(tiny).encode() not in path.read_bytes()
        assert str(tiny_build).encode() not in path.read_bytes()


def test_the_lock_has_the_digest_of_the_manifest_as_it_lies_on_the_disk(tiny_build: Path) -> None:
    lock = json.loads((tiny_build / "k710.lock.json").read_text())
    data = (tiny_build / "manifest.parquet").read_bytes()
    assert lock["digests"]["manifest"] == hashlib.sha256(data).hexdigest()


def test_a_view_lists_its_planned_shards(tiny_build: Path) -> None:
    view = json.loads((tiny_build / "views" / "k710-train.json").read_text())
    assert view["shards"] == [TRAIN_SHARD, "shards/k600-train.k710-train/t-root.tar"]
    assert (view["clips"], view["videos"]) == (2, 2)


def test_a_reader_finds_the_clips_of_a_view_in_planned_order(tiny_build: Path) -> None:
    index = ShardIndex(tiny_build)
    view = index.view("k710-train")
    assert view.keys == (BOTH, GONE)
    assert view.present.tolist() == [0]
    assert hashlib.sha256(index.read_clip(view, 0)).hexdigest() == rows(tiny_build)[BOTH]["sha256"]


def test_a_release_view_has_its_own_class_of_a_clip(tiny_build: Path) -> None:
    view = ShardIndex(tiny_build).view("k400-train")
    assert view.classes.tolist() == [load_labels().canonical("k400", "baby waking up")]


def test_a_clip_without_bytes_cannot_be_read(tiny_build: Path) -> None:
    index = ShardIndex(tiny_build)
    with pytest.raises(FeedError, match=f"clip {GONE} has no bytes"):
        index.read_clip(index.view("k710-train"), 1)


def test_an_unknown_view_is_refused_with_those_there_are(tiny_build: Path) -> None:
    with pytest.raises(UsageError, match="view 'k700-val' is not in") as caught:
        ShardIndex(tiny_build).view("k700-val")
    assert "k400-train, k400-val, k600-train, k710-train, k710-val" in caught.value.hint


def test_a_folder_that_is_no_build_is_a_feed_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"k710\.lock\.json: no such file"):
        ShardIndex(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not a lock"), ("[]", "not a lock"), ('{"schema": "k710.lock/9"}', "schema is k710.lock/9")],
)
def test_a_lock_that_cannot_be_read_is_a_feed_error(tiny_copy: Path, content: str, message: str) -> None:
    (tiny_copy / "k710.lock.json").write_text(content)
    with pytest.raises(FeedError, match=message):
        ShardIndex(tiny_copy)


def test_held_out_videos_are_stored_as_hashes(tiny_build: Path) -> None:
    held_out = ShardIndex(tiny_build).held_out("k400")
    assert {split: ids.tolist() for split, ids in held_out.items()} == {"val": [id_hash("_bbbbbbbbbb")]}
