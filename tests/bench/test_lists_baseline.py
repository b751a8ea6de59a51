"""The plain pandas version does the build's job: on awkward lists the two count the same."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lists
import lists_pandas
import pandas as pd
import pytest

from k710.build import BuildConfig, build

OTHER = "air drumming"
ROWS: Mapping[str, Sequence[tuple[Any, ...]]] = {
    "kinetics400/train.csv": [
        *(("abseiling", f"only400___{i}", 0, 10) for i in range(4)),
        *(("abseiling", f"everywhere{i}", 3, 13) for i in range(3)),
        (OTHER, "two_classes", 3, 13),
        ("abseiling", "held_by_val", 1, 11),
        ("abseiling", "held_by_600", 1, 11),
        ("abseiling", "half_second", 0.5, 10.25),
    ],
    "kinetics400/val.csv": [
        ("abseiling", "held_by_val", 20, 30),
        ("abseiling", "val_of_both", 0, 10),
        (OTHER, "only_a_val_", 0, 10),
    ],
    "kinetics400/test.csv": [("abseiling", "only_a_test", 0, 10)],
    "kinetics600/train.csv.gz": [
        *(("abseiling", f"everywhere{i}", 3, 13) for i in range(3)),
        *(("abseiling", f"everywhere{i}", 8, 18) for i in range(2)),
        ("abseiling", "two_classes", 5, 15),
        ("abseiling", "two_classes", 5, 15),
        (OTHER, "two_classes", 5, 15),
        ("abseiling", "held_by_val", 100, 110),
        ("abseiling", "own_leak___", 0, 10),
    ],
    "kinetics600/validate.csv": [
        (OTHER, "val_of_both", 0, 10),
        ("abseiling", "held_by_600", 5, 15),
        ("abseiling", "own_leak___", 7, 17),
        ("abseiling", "own_leak___", 2, 12),
    ],
    "kinetics600/holdout_test.csv": [(None, "everywhere2", 3, 13)],
    "kinetics700/train.csv": [
        ("abseiling", "everywhere0", 3, 13),
        (OTHER, "everywhere1", 9, 19),
        ("abseiling", "NaN________", 0, 10),
    ],
    "kinetics700/test.csv": [(None, "held_by_val", 25, 35), (None, "only400___3", 0, 10)],
}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Lists with leaks, several segments of a video, repeated rows and classes that differ."""
    splits = lists_pandas.SPLIT_OF_FILE
    for name, rows in ROWS.items():
        path = tmp_path / "annotations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        labelled = rows[0][0] is not None
        table = pd.DataFrame([(*row, splits[path.name.split(".")[0]]) for row in rows])
        table.columns = pd.Index(["label", "youtube_id", "time_start", "time_end", "split"])
        text = table.to_csv(index=False, columns=list(table.columns if labelled else table.columns[1:])).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return tmp_path / "annotations"


def test_the_baseline_counts_what_the_build_counts(annotations: Path, tmp_path: Path) -> None:
    build(BuildConfig(annotations=annotations, out=tmp_path / "ours", manifest_only=True))
    ours, baseline = lists.read_counts(tmp_path / "ours"), lists_pandas.run(annotations, tmp_path / "baseline")
    assert {name: baseline[name] for name in ours} == ours
    assert set(baseline["excluded"]["k710-train"]) == {"held_out", "same_clip", "other_segment"}
    assert baseline["excluded"]["k600-train"] == {"held_out": 2, "same_clip": 2}
    assert baseline["conflicts"]


def test_the_baseline_excludes_the_rows_that_the_build_excludes(annotations: Path, tmp_path: Path) -> None:
    build(BuildConfig(annotations=annotations, out=tmp_path / "ours", manifest_only=True))
    lists_pandas.run(annotations, tmp_path / "baseline")
    ours, baseline = (pd.read_parquet(tmp_path / side / "excluded.parquet") for side in ("ours", "baseline"))
    pd.testing.assert_frame_equal(baseline[ours.columns], ours, check_dtype=False)


def test_the_baseline_plans_the_shards_that_the_build_plans(annotations: Path, tmp_path: Path) -> None:
    build(BuildConfig(annotations=annotations, out=tmp_path / "ours", manifest_only=True))
    lists_pandas.run(annotations, tmp_path / "baseline")
    assert lists.planned_shards(tmp_path / "baseline") == lists.planned_shards(tmp_path / "ours")


def test_row_pairs_say_where_segments_overlap_and_classes_differ(annotations: Path, tmp_path: Path) -> None:
    pairs = lists_pandas.run(annotations, tmp_path / "out")["row_pairs"]
    assert pairs["k400:train k600:val"] == {"pairs": 1, "overlapping": 1, "class_differs": 0}
    assert pairs["k400:val k600:val"] == {"pairs": 1, "overlapping": 1, "class_differs": 1}
    assert pairs["k400:val k600:train"] == {"pairs": 1, "overlapping": 0, "class_differs": 0}
    assert pairs["k400:val k700:test"] == {"pairs": 1, "overlapping": 1, "class_differs": 0}
    assert lists.read_row_pairs(tmp_path / "out" / "leaks.parquet") == pairs


def test_copies_of_a_video_are_other_videos() -> None:
    ids = [copy for video in ("everywhere0", "everywhere1") for copy in lists.copies(video)]
    assert ids[0] == "everywhere0"
    assert len(set(ids)) == 8
    assert {len(i) for i in ids} == {11}


def test_stage_lines_add_up_by_name() -> None:
    assert lists.read_stages("reading lists: 1 of 2\nstage read 1.5\nstage views 1\nstage read 0.5\n") == {
        "read": 2.0,
        "views": 1.0,
    }
