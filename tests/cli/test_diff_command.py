"""`k710 diff` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def other(k710: Run, toy: Path, tmp_path: Path) -> Path:
    """The lists of the toy under another policy."""
    out = tmp_path / "other"
    code, *_ = k710("build", "--annotations", toy / "annotations", "--out", out, "--manifest-only", "--protect", "none")
    assert code == 0
    return out


def test_a_build_does_not_differ_from_itself(k710: Run, built: Path) -> None:
    code, out, err = k710("diff", built, built, "--fail-on-difference")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "done: nothing differs"


def test_two_builds_differ_in_views_settings_and_shards(k710: Run, built: Path, other: Path, tmp_path: Path) -> None:
    code, out, _ = k710("diff", built, other, "--out", tmp_path / "d.csv")
    assert code == 0
    assert "config.protect: ['val', 'test'] -> []" in out
    assert "k710-train: only in B: " in out
    assert "shards: " in out
    assert "encoded video of A: " in out
    rows = len((tmp_path / "d.csv").read_text().splitlines()) - 1
    assert out.splitlines()[-1] == f"done: {rows:,} rows differ -> {tmp_path / 'd.csv'}"


def test_a_difference_fails_only_when_asked(k710: Run, built: Path, other: Path) -> None:
    assert k710("diff", built, other)[0] == 0
    code, out, err = k710("diff", built, other, "--fail-on-difference")
    assert code == 1
    assert "rows differ" in out
    assert "error:" in err


def test_a_view_is_compared_with_a_list_as_json(k710: Run, built: Path, toy: Path) -> None:
    listed = toy / "annotations" / "kinetics400" / "val.csv"
    code, out, err = k710("diff", f"{built}:k400-val", listed, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["differs"] is False
    assert [(v["view"], v["b"]) for v in document["views"]] == [("k400-val", "val.csv")]


def test_lists_of_ids_alone_are_compared(k710: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aaaaaaaaaaa\nbbbbbbbbbbb\n")
    (tmp_path / "b.txt").write_text("aaaaaaaaaaa\n")
    code, out, err = k710("diff", tmp_path / "a.txt", tmp_path / "b.txt")
    assert (code, err) == (0, "")
    assert "\n  bbbbbbbbbbb\n" in out
    assert "1 row differs" in out


@pytest.mark.parametrize(
    ("b", "arguments", "code", "said"),
    [
        ("nothing", [], 2, "nothing: no such build or list"),
        ("", ["--out", "rows.txt"], 2, "--out rows.txt"),
        ("", ["--class-order", "k400"], 2, "both sides are builds"),
        ("", ["--class-table", "no.csv"], 2, "no.csv"),
        ("list.csv", [], 3, "list.csv"),
        ("list.csv", ["--columns", "id"], 2, "--columns id"),
    ],
)
def test_what_cannot_be_compared_is_said(
    k710: Run, built: Path, tmp_path: Path, b: str, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "list.csv").write_text("")
    found, _, err = k710("diff", built, tmp_path / b if b else built, *arguments)
    assert found == code
    assert said in err
    assert "hint:" in err
