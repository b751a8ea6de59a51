"""Building again without the clips that look like others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from content_cases import ALONE, COPY, LEAKED, MIRRORED, TWICE

from k710 import schema
from k710.fingerprints.content import ContentConfig, audit_content
from k710.report.near_duplicates import NEAR_DUPLICATES, TABLE_FILE
from k710.retry import last_build
from k710.tables import read_table

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rebuild(compared: Path, sources: Path, invoke: Invoke) -> Callable[..., tuple[int, str, str]]:
    """Builds into that build again, with more flags."""

    def run(*flags: str) -> tuple[int, str, str]:
        lists, videos = sources / "annotations", sources / "videos"
        fixed = ("--unit", "segment", "--encode", "copy", "--workers", "1", "--out", str(compared))
        return invoke("build", "--annotations", str(lists), "--videos", str(videos), *fixed, *flags)

    return run


def ids(build: Path, view: str) -> set[str]:
    rows = read_table(build / "manifest.parquet", schema.MANIFEST).to_pylist()
    return {row["id"] for row in rows if view in row["views"]}


def reasons(build: Path) -> dict[str, dict[str, int]]:
    return {v["view"]: v["excluded"] for v in json.loads((build / "audit.json").read_bytes())["views"]}


def test_a_clip_that_looks_like_a_held_out_one_leaves_the_training_views(
    compared: Path, rebuild: Invoke, invoke: Invoke
) -> None:
    table = compared / TABLE_FILE
    code, _, err = rebuild("--drop-near-duplicates", str(table))
    assert code == 2
    assert "near_duplicates: None -> {'count': 2" in err
    assert rebuild("--replan", "--drop-near-duplicates", str(table))[0] == 0
    assert ids(compared, "k710-train") == {ALONE, TWICE}
    assert LEAKED not in ids(compared, "k400-train")
    assert MIRRORED not in ids(compared, "k600-train")
    assert ids(compared, "k710-val") == {COPY}
    assert reasons(compared)["k710-train"]["near_duplicate"] == 2
    assert "near_duplicate" not in reasons(compared)["k710-val"]
    lock = json.loads((compared / "k710.lock.json").read_bytes())
    assert lock["config"]["selection"]["near_duplicates"]["count"] == 2
    assert invoke("audit", str(compared), "--level", "content", "--workers", "1", "--fail-on-leak")[0] == 0


def test_built_and_compared_again_nothing_comes_back(compared: Path, rebuild: Invoke) -> None:
    flags = ("--drop-near-duplicates", str(compared / TABLE_FILE))
    assert rebuild("--replan", *flags)[0] == 0
    lock = (compared / "k710.lock.json").read_bytes()
    document = audit_content(ContentConfig(folder=compared)).document
    assert (document["pairs"], document["gave_way_pairs"]) == (0, 3)
    assert document["between"] == []
    before = (compared / TABLE_FILE).read_bytes()
    audit_content(ContentConfig(folder=compared))
    assert (compared / TABLE_FILE).read_bytes() == before
    assert rebuild(*flags)[0] == 0
    assert (compared / "k710.lock.json").read_bytes() == lock
    assert last_build(compared).policy.selection.near_duplicates == (LEAKED, MIRRORED)


def test_without_the_flag_they_come_back(compared: Path, rebuild: Invoke) -> None:
    before = json.loads((compared / "k710.lock.json").read_bytes())
    assert "near_duplicates" not in before["config"]["selection"]
    assert rebuild("--replan", "--drop-near-duplicates", str(compared / TABLE_FILE))[0] == 0
    assert rebuild("--replan")[0] == 0
    assert json.loads((compared / "k710.lock.json").read_bytes())["config"] == before["config"]
    found = audit_content(ContentConfig(folder=compared))
    assert (found.document["pairs"], found.document["gave_way_pairs"]) == (3, 0)


def test_the_held_out_side_gives_way_where_the_policy_says_so(compared: Path, rebuild: Invoke) -> None:
    flags = ("--replan", "--leaks", "drop-eval", "--drop-near-duplicates", str(compared / TABLE_FILE))
    assert rebuild(*flags)[0] == 0
    assert ids(compared, "k710-val") == set()
    assert ids(compared, "k710-train") == {LEAKED, ALONE, TWICE}
    assert reasons(compared)["k710-val"] == {"near_duplicate": 1}


def test_a_file_that_is_no_table_of_pairs_is_refused(compared: Path, rebuild: Invoke, tmp_path: Path) -> None:
    other = shutil.copy(compared / "manifest.parquet", tmp_path / "other.parquet")
    code, _, err = rebuild("--drop-near-duplicates", str(other))
    assert code != 0
    assert "other.parquet" in err
    assert read_table(compared / TABLE_FILE, NEAR_DUPLICATES).num_rows == 4
