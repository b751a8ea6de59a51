"""What is exported can be audited, compared and built again, and says what the build says."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import Export

from k710.audits.lists import ListsAudit, audit_lists
from k710.build import BuildConfig, build
from k710.errors import FeedError, UsageError
from k710.exports.clips import named_order
from k710.exports.export import ExportConfig, export
from k710.exports.kinetics_csv import seconds
from k710.labels import read_labels
from k710.shards.index import ShardIndex

LISTS: dict[str, Callable[[str, str], str]] = {
    "csv": lambda release, split: f"{release}/{split}.csv",
    "mmaction2": lambda release, split: f"{release}_{split}_list_videos.txt",
    "slowfast": lambda release, split: f"{release}/{split}.csv",
    "uniformerv2": lambda release, split: f"{release}/{split}.csv",
    "videomaev2": lambda release, split: f"{release}/{split}.csv",
    "vjepa2": lambda release, split: f"{release}-{split}.csv",
}
PLACES = ("id", "a_start_s", "a_end_s", "b_start_s", "b_end_s", "overlap_s")


@pytest.fixture(scope="module")
def exported(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each export that is a list."""
    root = tmp_path_factory.mktemp("lists")
    for name in LISTS:
        extract = None if name == "csv" else root / "clips"
        export(ExportConfig(format=name, build=str(built), out=root / name, extract=extract))
    return root


def leaks_of(audit: ListsAudit, *columns: str) -> list[tuple[Any, ...]]:
    pairs = [row for row in audit.leaks.to_pylist() if row["kind"] in ("train_eval", "own_train_eval")]
    return sorted(tuple(row[name] for name in columns) for row in pairs)


@pytest.mark.parametrize("name", LISTS)
def test_an_audit_of_exported_lists_finds_the_leaks_and_counts_of_the_build(
    exported: Path, built: Path, name: str
) -> None:
    train, val = (exported / name / LISTS[name](*view) for view in (("k710", "train"), ("k400", "val")))
    found = audit_lists([train], [val])
    wanted = audit_lists([f"{built}:k710-train"], [f"{built}:k400-val"])
    assert leaks_of(found, *PLACES) == leaks_of(wanted, *PLACES)
    assert {row[0] for row in leaks_of(found, "id")} == {"leak4leak4l", "vvvvvvvvvvv"}
    assert [leak["videos"] for leak in found.leaking] == [2]
    remaining = json.loads((built / "audit.json").read_text())["remaining"]
    assert {"view": "k710-train", "list": "k400:val", "videos": 2, "protected": True}.items() <= next(
        row.items() for row in remaining if (row["view"], row["list"]) == ("k710-train", "k400:val")
    )
    summary = json.loads((exported / name / "export.json").read_text())["views"]
    rows = [facts["rows"] for facts in found.document["lists"]]
    assert rows == [summary[view]["clips"] for view in ("k710-train", "k400-val")]


def test_an_audit_of_exported_csvs_finds_the_classes_too(exported: Path, built: Path) -> None:
    found = audit_lists([exported / "csv/k710/train.csv"], [exported / "csv/k400/val.csv"])
    wanted = audit_lists([f"{built}:k710-train"], [f"{built}:k400-val"])
    assert leaks_of(found, "id", "a_class", "b_class", "class_differs") == leaks_of(
        wanted, "id", "a_class", "b_class", "class_differs"
    )
    assert any(row[1] for row in leaks_of(found, "id", "class_differs"))


def test_csvs_have_the_official_columns_and_words(exported: Path) -> None:
    rows = list(csv.reader((exported / "csv/k400/train.csv").read_text().splitlines()))
    assert rows[0] == ["label", "youtube_id", "time_start", "time_end", "split"]
    assert ["massaging person's head", "_bbbbbbbbbb", "0", "1", "train"] in rows
    assert ["passing American football (in game)", "-cccccccccc", "0.5", "1.5", "train"] in rows
    merged = (exported / "csv/k710/train.csv").read_text()
    assert "abseiling,-cccccccccc,0.5,1.5,train\n" in merged  # the newest release's class
    assert "bull fighting,1e2dddddddd,0,1,train\n" in merged


def test_a_csv_without_classes_has_no_column_for_them_and_single_ones_are_empty(
    run: Export, built: Path, tmp_path: Path
) -> None:
    run("csv", built, views=("k600-holdout", "k710-test"))
    holdout = (tmp_path / "out/k600/holdout.csv").read_text()
    assert holdout == "youtube_id,time_start,time_end,split\nhhhhhhhhhhh,0,1,holdout_test\n"
    test = (tmp_path / "out/k710/test.csv").read_text().splitlines()
    assert sorted(test[1:]) == [",hhhhhhhhhhh,0,1,test", "abseiling,ttttttttttt,0,1,test"]
    audit = audit_lists([tmp_path / "out/k710/test.csv"], [tmp_path / "out/k600/holdout.csv"])
    assert [leak["videos"] for leak in audit.leaking] == [1]


def test_a_build_of_exported_csvs_has_the_views_they_were_made_of(
    run: Export, built: Path, config: BuildConfig, tmp_path: Path
) -> None:
    run("csv", built, views=("k400-train", "k400-val"))
    again = replace(config, annotations=tmp_path / "out", out=tmp_path / "again", videos=(), manifest_only=True)
    build(replace(again, views=("k400-train", "k400-val")))
    for view in ("k400-train", "k400-val"):
        digests = [json.loads((out / "k710.lock.json").read_text())["views"][view] for out in (built, again.out)]
        assert digests[0]["digest"] == digests[1]["digest"]


def test_a_build_of_lists_alone_gives_csvs_of_every_planned_clip_and_says_so(
    run: Export, lists_only: Path, tmp_path: Path
) -> None:
    summary = run("csv", lists_only)
    assert summary.views["k600-train"].clips == summary.views["k600-train"].planned == 3
    assert "missing6ids" in (tmp_path / "out/k600/train.csv").read_text()
    assert summary.notes == ("the build has no videos yet: every planned clip is listed",)
    for name in ("mmaction2", "wids"):
        with pytest.raises(FeedError, match="the build has no clips yet"):
            run(name, lists_only, out=tmp_path / name)


def test_planned_clips_without_bytes_are_listed_when_asked_for(run: Export, built: Path, tmp_path: Path) -> None:
    assert run("csv", built).views["k600-train"].left_out == {"without bytes": 1}
    assert "missing6ids" not in (tmp_path / "out/k600/train.csv").read_text()
    assert run("csv", built, planned=True).views["k600-train"].left_out == {}
    assert "missing6ids" in (tmp_path / "out/k600/train.csv").read_text()


def test_an_export_counts_what_the_index_counts(built: Path, exported: Path) -> None:
    index = ShardIndex(built)
    views = json.loads((exported / "csv/export.json").read_text())["views"]
    for name, facts in views.items():
        view = index.view(name)
        assert (facts["clips"], facts["planned"]) == (len(view.present), len(view))
        assert facts["clips"] + sum(facts["left_out"].values()) == facts["planned"]
        assert facts["digest"] == view.digest


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"views": ("k400-tset",)}, "view 'k400-tset' is not in"),
        ({"views": ("k400-val", "k400-val")}, "--view k400-val: given twice"),
        ({"target": "k500"}, "--target k500: unknown"),
        ({"extract": Path("clips")}, "--extract: csv reads no files of clips"),
        ({"order": "k400"}, "--order: csv has no class numbers"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_is_written(
    run: Export, built: Path, tmp_path: Path, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run("csv", built, **flags)
    assert not (tmp_path / "out").exists()


def test_shards_take_no_target_and_files_no_planned_clips(run: Export, built: Path) -> None:
    with pytest.raises(UsageError, match="--target: wids reads the shards"):
        run("wids", built, target="k400")
    with pytest.raises(UsageError, match="--planned: slowfast needs the clips themselves"):
        run("slowfast", built, planned=True)
    with pytest.raises(UsageError, match="unknown format 'coco'"):
        run("coco", built)


def test_a_folder_that_holds_something_else_is_left_as_it_is(run: Export, built: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty, and no export"):
        run("csv", built)
    (tmp_path / "out" / "mine.txt").unlink()
    run("csv", built)
    with pytest.raises(UsageError, match="holds an export for csv"):
        run("wids", built)


def test_written_again_for_other_views_the_files_of_before_go_and_others_stay(
    run: Export, built: Path, tmp_path: Path
) -> None:
    run("csv", built)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    run("csv", built, views=("k710-val",))
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {"README.md", "export.json", "mine.txt", "k710/val.csv"}


def test_the_same_export_gives_the_same_bytes(run: Export, built: Path, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files}

    for name in ("csv", "wids", "hf", "croissant"):
        run(name, built)
        before = contents()
        run(name, built)
        assert contents() == before
        for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_no_build_is_an_error_that_says_how_to_make_one(run: Export, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"no build here \(k710.lock.json is missing\)"):
        run("csv", tmp_path / "none")


def test_a_build_with_a_class_table_of_its_own_has_its_names_and_orders(
    run: Export, config: BuildConfig, tmp_path: Path
) -> None:
    from k710.config import manifests_folder

    table = tmp_path / "classes.csv"
    lines = (manifests_folder() / "classes.csv").read_text().splitlines()
    # One merged class is called otherwise: no longer the packaged table.
    table.write_text("\n".join([lines[0], lines[1].replace("0,abseiling", "0,roping down", 1), *lines[2:]]) + "\n")
    out = tmp_path / "own"
    build(replace(config, out=out, videos=(), manifest_only=True, class_table=table))
    run("csv", out, views=("k710-train", "k400-train"))
    assert "roping down,__aaaaaaaaa,0,1,train" in (tmp_path / "out/k710/train.csv").read_text()
    assert "abseiling,__aaaaaaaaa,0,1,train" in (tmp_path / "out/k400/train.csv").read_text()


def test_a_class_table_without_an_order_says_which_ones_it_has(tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    header = "index,name,merged_because,k400_index,k400_name,mine_index,mine_name"
    table.write_text(f"{header}\n0,running,,1,running,,\n1,diving,,0,diving,1,diving\n2,eating,,,,0,eating\n")
    labels = read_labels(table)
    for taxonomy, own in (
        ("k400", "--order k400 takes the table's own numbers (alphabetical)"),
        ("mine", "--order mine takes the table's own numbers"),
        ("k710", "--order canonical takes the table's own numbers"),
    ):
        with pytest.raises(UsageError, match="has no order 'mmaction2_x'") as error:
            named_order("mmaction2_x", labels, taxonomy)
        assert error.value.hint == f"{own}; known: canonical, k400, mine"


@pytest.mark.slow
def test_real_lists_come_back_with_the_counts_that_are_known(shared: Path, tmp_path: Path, run: Export) -> None:
    lists = tmp_path / "annotations" / "kinetics600"
    shutil.copytree(shared / "kinetics/annotations/kinetics600", lists)
    config = BuildConfig(annotations=lists.parent, out=tmp_path / "data", manifest_only=True, workers=1)
    build(replace(config, views=("k600-train", "k600-val")))
    run("csv", tmp_path / "data")
    with (tmp_path / "out/k600/train.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    # Every training video but those that stand in Kinetics-600's own val and test lists.
    assert len({row["youtube_id"] for row in rows}) == 391_388
    assert len({row["label"] for row in rows}) == 600
    found = audit_lists([tmp_path / "out/k600/train.csv"], [tmp_path / "out/k600/val.csv", lists / "test.csv.gz"])
    assert found.leaking == []
    found = audit_lists([lists / "train.csv.gz"], [tmp_path / "out/k600/val.csv"])
    assert [leak["videos"] for leak in found.leaking] == [142]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.integers(0, 999_999), st.integers(0, 999_999_999).map(lambda ms: ms / 1000)))
def test_seconds_come_back_as_they_were(value: float) -> None:
    text = seconds(float(value))
    assert float(text) == float(value)
    assert ("." in text) == (np.floor(value) != value)
    assert "e" not in text or value < 1e-4
