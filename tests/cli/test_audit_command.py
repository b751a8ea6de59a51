"""`k710 audit` as a user runs it, on a build and on anybody's lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
A, B, C = "aaaaaaaaaaa", "bbbbbbbbbbb", "-cccccccccc"


def listed(path: Path, *ids: str) -> Path:
    path.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(f"yoga,{i},0,10,train\n" for i in ids))
    return path


@pytest.fixture
def lists(tmp_path: Path) -> dict[str, Path]:
    """Two training lists and two held-out lists; the second ones share video B."""
    return {
        name: listed(tmp_path / f"{name}.csv", *ids) for name, ids in {"a": [A], "b": [B], "c": [C], "d": [B]}.items()
    }


def test_a_build_is_named_by_its_place_or_by_a_flag(k710: Run, built: Path) -> None:
    code, out, err = k710("audit", built)
    assert (code, err) == (0, "")
    assert out.startswith("# Audit\n\nLeak-free against the lists given")
    assert k710("audit", "--data", built) == (0, out, "")


def test_a_build_as_json_is_its_audit_file(k710: Run, built: Path) -> None:
    assert k710("audit", built, "--json")[1] == (built / "audit.json").read_text()


def test_another_minimum_of_clips_is_counted_anew(k710: Run, built: Path) -> None:
    found = json.loads(k710("audit", built, "--min-per-class", 1, "--json")[1])
    assert (found["min_per_class"], found["thin_classes"]) == (1, [])


def test_several_lists_follow_one_flag_or_flags_that_are_repeated(k710: Run, lists: dict[str, Path]) -> None:
    a, b, c, d = lists.values()
    code, out, err = k710("audit", "--train", a, b, "--eval", c, d)
    assert (code, err) == (0, "")
    assert out.startswith("# Audit\n\nNOT leak-free: 1 video of b:train stands in d:val.")
    assert k710("audit", "--train", a, "--train", b, "--eval", c, "--eval", d)[1] == out
    assert k710("audit", f"--train={a}", b, "--eval", c, d)[1] == out


def test_a_flag_after_the_lists_ends_them(k710: Run, lists: dict[str, Path]) -> None:
    a, b, c, d = lists.values()
    found = json.loads(k710("audit", "--train", a, b, "--json", "--eval", c, d)[1])
    assert [r["list"] for r in found["lists"]] == ["a:train", "b:train", "c:val", "d:val"]


@pytest.mark.parametrize(("name", "expected"), [("a", 0), ("b", 1)])
def test_a_leak_fails_only_when_asked_to(k710: Run, lists: dict[str, Path], name: str, expected: int) -> None:
    words = ("audit", "--train", lists[name], "--eval", lists["c"], lists["d"])
    assert k710(*words)[0] == 0
    code, _, err = k710(*words, "--fail-on-leak")
    assert code == expected
    assert ("b:train shares 1 video with d:val" in err) == bool(expected)


def test_the_files_are_written_to_out(k710: Run, lists: dict[str, Path], tmp_path: Path) -> None:
    code, out, err = k710("audit", "--train", lists["b"], "--eval", lists["d"], "--out", tmp_path / "found")
    assert code == 0
    assert (tmp_path / "found" / "audit.md").read_text() == out
    names = ["audit.json", "audit.md", "leaks.parquet", "report/audit.html"]
    found = tmp_path / "found"
    assert sorted(str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()) == names
    assert err == f"wrote leaks.parquet, audit.json, audit.md and report/audit.html -> {found}\n"


def test_the_page_of_lists_goes_to_a_file(k710: Run, lists: dict[str, Path], tmp_path: Path) -> None:
    words = ("audit", "--train", lists["b"], "--eval", lists["d"])
    code, out, err = k710(*words, "--out", tmp_path / "found", "--html", tmp_path / "pages" / "leaks.html")
    assert code == 0
    assert out == k710(*words)[1]
    assert err.endswith(f"wrote the page -> {tmp_path / 'pages' / 'leaks.html'}\n")
    page = (tmp_path / "found" / "report" / "audit.html").read_bytes()
    assert (tmp_path / "pages" / "leaks.html").read_bytes() == page


def test_the_page_of_a_build_goes_to_a_file_and_a_leak_still_fails(k710: Run, built: Path, tmp_path: Path) -> None:
    assert k710("audit", built, "--html", tmp_path / "audit.html", "--fail-on-leak")[0] == 0
    assert (tmp_path / "audit.html").read_bytes() == (built / "report" / "audit.html").read_bytes()


def test_a_page_that_cannot_be_written_is_a_usage_error(k710: Run, built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = k710("audit", built, "--html", tmp_path / "file" / "audit.html")
    assert code == 2
    assert "cannot be written" in err


def test_columns_of_lists_in_no_known_form_are_named(k710: Run, tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / name).write_text(f"what,which,from,to\nyoga,{A},0,10\n")
    columns = "id=which,start=from,end=to,label=what"
    code, out, _ = k710("audit", "--train", tmp_path / "a", "--eval", tmp_path / "c", "--columns", columns)
    assert code == 0
    assert "1 video of a:train stands in c:val" in out


def test_bad_rows_stop_or_are_said_to_be_unchecked(k710: Run, lists: dict[str, Path]) -> None:
    with lists["a"].open("a") as handle:
        handle.write("".join(f"yoga,id{i:09d},0,10,train\n" for i in range(20)) + "yoga,too short,0,10,train\n")
    words = ("audit", "--train", lists["a"], "--eval", lists["c"])
    code, _, err = k710(*words)
    assert (code, "a.csv row 23" in err) == (3, True)
    code, out, _ = k710(*words, "--on-bad-row", "report")
    assert (code, "not checked: 1 row of a:train" in out) == (0, True)


def test_what_could_not_be_checked_is_no_yes(k710: Run, lists: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("clips/1.mp4 3\nclips/2.mp4 3\n")
    words = ("audit", "--train", tmp_path / "own.txt", "--eval", lists["c"])
    code, out, _ = k710(*words)
    assert (code, "NOT CHECKED: own:train (no held-out list has ids of its kind)." in out) == (0, True)
    code, _, err = k710(*words, "--fail-on-leak")
    assert (code, "not checked: own:train" in err) == (1, True)


def test_a_view_of_a_build_is_clean_and_its_lists_are_not(k710: Run, built: Path, toy: Path) -> None:
    words = ("--eval", toy / "annotations" / "kinetics400", "--fail-on-leak")
    assert k710("audit", "--train", f"{built}:k710-train", *words)[0] == 0
    assert k710("audit", "--train", toy / "annotations" / "kinetics600", *words)[0] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gone"], 5, "gone: no build here"),
        (["--train", "gone", "--eval", "gone"], 2, "gone: no such file or folder"),
        (["--train", "."], 2, "no list after --eval"),
        (["--eval", "."], 2, "no list after --train"),
        (["--train", ".", "--eval", "."], 3, "no clips, shards or lists in it"),
        (["--columns", "id=1"], 2, "--columns is for --train and --eval"),
        (["--out", "x"], 2, "--out is for --train and --eval"),
        (["--on-bad-row", "report"], 2, "--on-bad-row is for --train and --eval"),
        (["x", "--data", "x"], 2, "named twice"),
        (["x", "--train", "x", "--eval", "x"], 2, "a build is audited by itself"),
    ],
)
def test_wrong_words_end_with_one_clear_line(
    k710: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = k710("audit", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) <= 2
