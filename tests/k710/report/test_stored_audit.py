"""The audit that a build wrote, read again: its leaks are counted from the tables, not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_cases import A, B, C, Row, built

from k710.errors import FeedError, UsageError
from k710.lists.policy import Policy
from k710.report.stored import read_audit

LEAKY: list[Row] = [
    ("k400:train", A, 0, "yoga"),
    ("k400:train", B, 0, "yoga"),
    ("k400:train", C, 0, "zumba"),
    ("k400:val", C, 0, "zumba"),
    ("k600:train", B, 0, "yoga"),
    ("k600:test", A, 50, "yoga"),
]


def test_a_clean_build_has_no_leaks(tmp_path: Path) -> None:
    stored = read_audit(built(tmp_path, LEAKY))
    assert stored.leaking == []
    assert json.loads(stored.json_text)["schema"] == "k710.audit/3"
    assert stored.markdown.startswith("# Audit\n\nLeak-free against the lists given")


def test_leaks_are_counted_again_from_the_tables(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY, policy=Policy(leaks="report"))
    assert read_audit(out).leaking == [
        {"view": "k710-train", "list": "k400:val", "videos": 1},
        {"view": "k710-train", "list": "k600:test", "videos": 1},
    ]


def test_lists_that_are_not_protected_are_no_leak(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY, policy=Policy(protect=("test",), leaks="report"))
    assert [r["list"] for r in read_audit(out).leaking] == ["k600:test"]


def test_another_minimum_counts_the_thin_classes_anew(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    before = (out / "audit.json").read_bytes()
    stored = read_audit(out, minimum=1)
    assert {r["name"] for r in json.loads(stored.json_text)["thin_classes"]} == {"zumba"}
    assert "## Classes with fewer than 1 clips" in stored.markdown
    assert (out / "audit.json").read_bytes() == before
    with pytest.raises(UsageError, match="at least 0"):
        read_audit(out, minimum=-1)


def test_an_audit_of_an_older_build_is_refused_by_name(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    (out / "audit.json").write_text(json.dumps({"schema": "k710.audit/1"}))
    with pytest.raises(FeedError, match=r"schema is k710.audit/1, this version reads k710.audit/3") as caught:
        read_audit(out)
    assert "build" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"x"'])
def test_what_is_no_audit_is_refused(tmp_path: Path, text: str) -> None:
    out = built(tmp_path, LEAKY)
    (out / "audit.json").write_text(text)
    with pytest.raises(FeedError, match="not an audit"):
        read_audit(out)


@pytest.mark.parametrize("name", ["audit.json", "audit.md", "held_out.parquet", "manifest.parquet"])
def test_a_build_without_one_of_its_files_is_refused_by_name(tmp_path: Path, name: str) -> None:
    out = built(tmp_path, LEAKY)
    (out / name).unlink()
    with pytest.raises(FeedError, match=name):
        read_audit(out)


def test_a_folder_that_is_no_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no build here"):
        read_audit(tmp_path)
