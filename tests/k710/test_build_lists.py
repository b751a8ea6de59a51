"""What a build of lists alone writes and refuses: bad rows, locks, and class tables of a user's own."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k710 import schema
from k710.build import BuildConfig, build
from k710.config import manifests_folder
from k710.errors import FeedError, InputError, UsageError
from k710.lists.annotations import ReadOptions
from k710.lists.policy import Policy, Selection
from k710.shards.index import ShardIndex
from k710.tables import read_table, write_table

HEADER = "label,youtube_id,time_start,time_end,split\n"
A, B, C, D = "aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc", "-dddddddddd"


def write_list(folder: Path, name: str, *rows: str) -> Path:
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row},{path.stem}\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    lists = tmp_path / "lists"
    write_list(lists, "k400/train", f"abseiling,{A},0,10", f"zumba,{B},3,13", f"drinking,{C},3,13")
    write_list(lists, "k700/train", f"sipping cup,{C},3,13", f"zumba,{D},3,13")
    write_list(lists, "k400/val", f"yoga,{B},3,13")
    return BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True)


def written(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_a_bad_row_stops_a_build_and_is_named(config: BuildConfig) -> None:
    write_list(config.annotations, "k600/train", f"abseiling,{A},7,3", f"zumba,{B},3,13")
    with pytest.raises(InputError, match=r"k600/train\.csv row 2: time_end '3' is not after time_start 7"):
        build(config)
    assert not (config.out / "manifest.parquet").exists()


def test_reported_bad_rows_are_excluded_from_each_view_and_listed(config: BuildConfig) -> None:
    write_list(config.annotations, "k600/train", f"abseiling,{A},7,3", f"zumba,{B},3,13", "yoga,short,0,10")
    summary = build(replace(config, options=ReadOptions(on_bad_row="report")))
    assert summary.bad_rows == 2
    excluded = read_table(config.out / "excluded.parquet", schema.EXCLUDED).to_pylist()
    bad = [(r["view"], r["id"], r["label"]) for r in excluded if r["reason"] == "bad_row"]
    assert sorted(bad, key=str) == sorted(
        [(v, i, n) for v in ("k600-train", "k710-train") for i, n in ((A, "abseiling"), (None, "yoga"))], key=str
    )
    with (config.out / "bad_rows.csv").open(newline="") as handle:
        lines = [(r["file"], r["row"], r["column"], r["value"]) for r in csv.DictReader(handle)]
    assert lines == [("k600/train.csv", "2", "time_end", "3"), ("k600/train.csv", "4", "youtube_id", "short")]
    assert summary.excluded["k710-train"]["bad_row"] == 2


def test_a_bad_held_out_row_that_names_a_video_still_holds_it_out(config: BuildConfig) -> None:
    write_list(config.annotations, "k600/val", f"nosuchclass,{A},3,13", f"yoga,{D},9,4", f"yoga,{B},3,13")
    summary = build(replace(config, options=ReadOptions(on_bad_row="report")))
    manifest = read_table(config.out / "manifest.parquet", schema.MANIFEST).to_pylist()
    assert [c["id"] for c in manifest if "k710-train" in c["views"]] == [C]
    excluded = read_table(config.out / "excluded.parquet", schema.EXCLUDED).to_pylist()
    held = {r["id"]: (r["by_release"], r["by_split"]) for r in excluded if r["reason"] == "held_out"}
    assert held[A] == held[D] == ("k600", "val")
    assert "2 rows could not be used (bad_rows.csv)" in summary.audit["statement"]


def test_clips_are_looked_for_beside_rows_that_could_not_be_used(config: BuildConfig, tmp_path: Path) -> None:
    write_list(config.annotations, "k600/val", f"nosuchclass,{A},3,13", f"yoga,{B},3,13")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / f"{B}_000003_000013.mp4").write_bytes(b"")
    (tmp_path / "videos" / f"{A}.mp4").write_bytes(b"")
    options = ReadOptions(on_bad_row="report")
    summary = build(replace(config, options=options, manifest_only=False, videos=(str(tmp_path / "videos"),)))
    assert summary.clips["not_a_video"] >= 1


def test_a_selection_that_leaves_nothing_is_refused(config: BuildConfig) -> None:
    nothing = Policy(selection=Selection(classes=(0,), exclude_classes=(0,)))
    with pytest.raises(UsageError, match="no row of any list is selected"):
        build(replace(config, policy=nothing))


def test_lists_that_do_not_say_their_licence_are_named(config: BuildConfig) -> None:
    path = config.annotations / "k400" / "train.csv"
    path.write_text(HEADER.strip() + f",is_cc\nabseiling,{A},0,10,train,1\n")
    (note,) = build(replace(config, policy=Policy(selection=Selection(only_cc=True)))).notes
    assert note.startswith("--only-cc takes no row of k400:val, k700:train")


def test_excluded_ids_that_stand_in_no_list_are_counted(config: BuildConfig) -> None:
    policy = Policy(selection=Selection(exclude_ids=(A, "zzzzzzzzzzz")))
    assert build(replace(config, policy=policy)).notes == ["--exclude-ids: 1 of 2 ids stand in the lists"]


@pytest.mark.parametrize("flag", ["annotations", "out"])
def test_an_address_is_not_taken_for_a_folder(config: BuildConfig, flag: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag} s3:/bucket/x: not a folder on this machine"):
        build(replace(config, **{flag: Path("s3://bucket/x")}))


def test_an_unknown_class_order_is_refused_even_when_no_list_needs_it(config: BuildConfig) -> None:
    with pytest.raises(UsageError, match="nope"):
        build(replace(config, options=ReadOptions(class_order="nope")))


def test_a_locked_build_takes_the_same_rows_in_any_order(config: BuildConfig) -> None:
    build(config)
    before = written(config.out)
    path = config.annotations / "k400" / "train.csv"
    header, *rows = path.read_text().splitlines()
    random.Random(0).shuffle(rows)
    path.write_text("\n".join([header, *rows]) + "\n")
    build(replace(config, locked=True))
    after = written(config.out)
    assert {n for n in before if before[n] != after[n]} <= {"k710.lock.json", "report/audit.html"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": Policy(protect=())}, r"config\.protect: \['val', 'test'\] -> \[\]"),
        ({"clips_per_shard": 5}, "config.clips_per_shard: 1000 -> 5"),
        ({"views": ("k710-train",)}, "config.views"),
    ],
)
def test_a_locked_build_refuses_other_settings_and_names_them(config: BuildConfig, change: Any, named: str) -> None:
    build(config)
    before = written(config.out)
    with pytest.raises(UsageError, match=named):
        build(replace(config, locked=True, **change))
    assert written(config.out) == before


def test_a_locked_build_refuses_another_row(config: BuildConfig) -> None:
    build(config)
    write_list(config.annotations, "k400/val", f"yoga,{B},3,13", f"yoga,{A},3,13")
    with pytest.raises(UsageError, match=r"--locked.*\n.*list k400:val: 1 -> 2 rows"):
        build(replace(config, locked=True))


def test_somebodys_lock_in_a_new_folder_gives_what_they_built(config: BuildConfig, tmp_path: Path) -> None:
    build(config)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "k710.lock.json").write_bytes((config.out / "k710.lock.json").read_bytes())
    build(replace(config, out=theirs, locked=True))
    assert written(theirs) == written(config.out)


def test_a_locked_build_needs_a_lock(config: BuildConfig) -> None:
    with pytest.raises(UsageError, match=r"out: no k710\.lock\.json to keep to"):
        build(replace(config, locked=True))


def test_locked_and_replan_contradict_each_other(config: BuildConfig) -> None:
    with pytest.raises(UsageError, match="locked keeps the plan as it is, and replan changes it"):
        replace(config, locked=True, replan=True)


def without_merge(path: Path) -> Path:
    """The packaged table with ``drinking`` and ``sipping cup`` as two classes."""
    lines = list(csv.DictReader((manifests_folder() / "classes.csv").read_text().splitlines()))
    (merged,) = (line for line in lines if line["k400_name"] == "drinking")
    apart = {**dict.fromkeys(merged, ""), "index": "710", "name": "drinking"}
    for column in ("k400_index", "k400_name"):
        apart[column], merged[column] = merged[column], ""
    merged["merged_because"] = ""
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(merged))
        writer.writeheader()
        writer.writerows([*lines, apart])
    return path


def test_a_users_class_table_decides_the_classes_and_stays_with_the_build(config: BuildConfig, tmp_path: Path) -> None:
    table = without_merge(tmp_path / "own.csv")
    assert build(replace(config, policy=Policy(conflicts="drop"))).views["k710-train"] == 3
    own = replace(config, out=tmp_path / "own", class_table=table)
    summary = build(replace(own, policy=Policy(conflicts="drop")))
    assert summary.num_classes == 711
    assert summary.excluded["k710-train"]["label_conflict"] == 2
    assert (own.out / "classes.csv").read_bytes() == table.read_bytes()


def test_readers_take_the_class_table_of_the_build(config: BuildConfig, tmp_path: Path) -> None:
    build(replace(config, class_table=without_merge(tmp_path / "own.csv")))
    write_table(config.out / "shards.parquet", schema.SHARDS.empty_table(), schema.SHARDS)
    assert ShardIndex(config.out).labels.canonical("k400", "drinking") == 710
    (config.out / "classes.csv").unlink()
    with pytest.raises(FeedError, match="the class table that it was built with is not there"):
        _ = ShardIndex(config.out).labels


def test_a_class_table_without_a_release_is_refused(config: BuildConfig, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("index,name,k400_index,k400_name,merged_because\n0,yoga,0,yoga,\n")
    with pytest.raises(InputError, match=r"own\.csv: no columns for k600, k700"):
        build(replace(config, class_table=table))


def test_videos_may_be_forgotten_before_the_first_build(config: BuildConfig) -> None:
    config.out.mkdir()
    document = {"schema": "k710.forgotten/1", "id_hashes": []}
    (config.out / "forgotten.json").write_text(json.dumps(document))
    assert build(config).views["k710-train"] == 3
