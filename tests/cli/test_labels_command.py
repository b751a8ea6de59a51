"""`k710 labels` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
OWN = """index,name,mine_index,mine_name,other_index,other_name,merged_because
0,jump,1,jump,0,leap,the same films
1,run,0,run,,,
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A class table of a user."""
    path = tmp_path / "own.csv"
    path.write_text(OWN)
    return path


def test_show_prints_counts_merges_membership_and_orders(k710: Run) -> None:
    code, out, err = k710("labels", "show")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "725 names (k400 400, k600 600, k700 700) on 710 classes (k710)"
    assert "15 classes with more than one name" in lines
    assert "108\tdyeing hair\tk400: dying hair\tshared videos: 326" in lines
    for row in (
        "382\tk400 + k600 + k700",
        "216\tk600 + k700",
        "92\tk700",
        "10\tk400 + k700",
        "8\tk400",
        "2\tk600",
    ):
        assert row in lines
    assert any(line.startswith("uniformerv2_k600\t600\tvideomaev2_k600\t") for line in lines)


def test_show_lists_merges_or_membership_or_one_taxonomy(k710: Run) -> None:
    code, out, _ = k710("labels", "show", "--merges")
    assert (code, len(out.splitlines())) == (0, 17)
    code, out, _ = k710("labels", "show", "--membership")
    assert "k600\tbull fighting" in out.splitlines()
    assert len(out.splitlines()) == 711
    code, out, _ = k710("labels", "show", "--taxonomy", "k400")
    assert out.splitlines()[109] == "108\tdying hair\t108\tdyeing hair"
    code, out, _ = k710("labels", "show", "--taxonomy", "uniformerv2_k400")
    assert out.splitlines()[1].startswith("0\triding a bike\t")


def test_show_places_a_class_everywhere(k710: Run) -> None:
    code, out, _ = k710("labels", "show", "Dying_Hair", "bull fighting")
    assert code == 0
    assert "row in uniformerv2_k400: 246" in out
    assert "bull fighting (class 709)" in out
    assert "row in k700: none" in out


def test_show_is_read_by_machines(k710: Run) -> None:
    summary = json.loads(k710("labels", "show", "--json")[1])
    assert (summary["num_classes"], len(summary["merges"]), len(summary["membership"])) == (710, 15, 6)
    assert set(json.loads(k710("labels", "show", "--json", "--merges", "--membership")[1])) == {"merges", "membership"}
    assert json.loads(k710("labels", "show", "--json", "zumba")[1])[0]["rows"]["k400"] == 399
    assert len(json.loads(k710("labels", "show", "--json", "--taxonomy", "k600")[1])) == 600


def test_show_takes_one_question_at_a_time(k710: Run) -> None:
    code, _, err = k710("labels", "show", "zumba", "--merges")
    assert code == 2
    assert "one of them" in err
    code, _, err = k710("labels", "show", "absailing")
    assert code == 2
    assert "'abseiling'" in err
    code, _, err = k710("labels", "show", "--taxonomy", "k500")
    assert code == 2
    assert "known: k710" in err


def test_diff_says_what_only_one_has_and_what_moved(k710: Run) -> None:
    code, out, _ = k710("labels", "diff", "k600", "k700")
    assert code == 0
    assert "only in k600: 2\n  bull fighting\n  chopping vegetables\nonly in k700: 102" in out
    assert "  ... and 82 more (--json has all)" in out
    assert "  picking fruit -> picking apples" in out
    found = json.loads(k710("labels", "diff", "k600", "k700", "--json")[1])
    assert (len(found["only_a"]), len(found["only_b"]), len(found["renamed"])) == (2, 102, 2)
    assert k710("labels", "diff", "k400", "mmaction2_k400")[1].endswith("the same classes, names and indices\n")


def test_what_export_writes_check_names(k710: Run, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    code, out, _ = k710("labels", "export", "--order", "uniformerv2_k710", "--out", path)
    assert (code, out) == (0, f"done 710 rows of uniformerv2_k710 -> {path}\n")
    code, out, err = k710("labels", "check", path)
    assert (code, err) == (0, "")
    assert "exactly uniformerv2_k710 = videomaev2_k710" in out
    code, out, _ = k710("labels", "check", path, "--json")
    assert json.loads(out)["orders"] == ["uniformerv2_k710", "videomaev2_k710"]


def test_export_prints_names_and_index_lists(k710: Run, tmp_path: Path) -> None:
    code, out, _ = k710("labels", "export")
    assert (code, out.splitlines()[0], len(out.splitlines())) == (0, "abseiling", 710)
    code, out, _ = k710("labels", "export", "--map", "k710:k400", "--format", "json")
    assert json.loads(out) == list(range(400))
    code, out, _ = k710("labels", "export", "--map", "uniformerv2_k400:uniformerv2_k710", "--out", tmp_path / "a.txt")
    assert "done 710 rows of uniformerv2_k400:uniformerv2_k710 (310 without a place)" in out
    made = json.loads(k710("labels", "export", "--order", "k600", "--json")[1])
    assert (made["what"], made["form"], made["num_rows"], made["out"]) == ("k600", "txt", 600, None)


@pytest.mark.parametrize(
    "flags",
    [
        ("--order", "k500"),
        ("--map", "k710"),
        ("--map", "k710:k500"),
        ("--format", "xml"),
        ("--order", "k400", "--map", "k710:k400"),
    ],
)
def test_a_wrong_export_ends_with_2(k710: Run, flags: tuple[str, ...]) -> None:
    code, out, err = k710("labels", "export", *flags)
    assert (code, out) == (2, "")
    assert "hint: " in err


def test_a_file_that_contradicts_every_order_ends_with_1_and_the_rows(k710: Run, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    names = k710("labels", "export", "--order", "k400")[1].splitlines()
    names[0], names[399] = names[399], names[0]
    path.write_text("\n".join(names))
    code, out, err = k710("labels", "check", path)
    assert code == 1
    assert "rows that contradict it: 2\n  row 0: 'zumba', expected 'abseiling'" in out
    assert "2 rows of k400 contradicted" in err
    assert "hint: `k710 labels export --order k400`" in err
    code, out, _ = k710("labels", "check", path, "--json")
    assert code == 1
    assert json.loads(out)["contradictions"][0] == {"row": 0, "found": "zumba", "expected": "abseiling"}


def test_only_the_first_rows_are_shown_and_all_are_in_json(k710: Run, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    names = k710("labels", "export", "--order", "k400")[1].splitlines()
    path.write_text("\n".join(names[1:] + names[:1]))
    out = k710("labels", "check", path)[1]
    assert "the 400 classes of k400, in no known order" in out
    assert out.count("expected") == 20
    assert "  ... and 380 more (--json has all)" in out
    assert len(json.loads(k710("labels", "check", path, "--json")[1])["contradictions"]) == 400


def test_a_wrong_index_list_ends_with_1(k710: Run, tmp_path: Path) -> None:
    path = tmp_path / "map_k400.json"
    path.write_text(json.dumps([1, 0, *range(2, 400)]))
    code, out, err = k710("labels", "check", path)
    assert code == 1
    assert "row 0: 1 ('air drumming'), expected 0 ('abseiling') for 'abseiling'" in out
    assert "hint: `k710 labels export --map k710:k400`" in err


def test_what_is_no_label_file_ends_with_3_and_an_absent_one_with_2(k710: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear diary\ntoday\n")
    code, _, err = k710("labels", "check", tmp_path / "notes.txt")
    assert code == 3
    assert "none of its 2 names" in err
    assert k710("labels", "check", tmp_path / "absent.txt")[0] == 2
    assert k710("labels", "check")[0] == 2


def test_a_users_table_is_shown_exported_and_checked(k710: Run, own: Path, tmp_path: Path) -> None:
    table = ("--class-table", own)
    assert k710("labels", "show", *table)[1].startswith("3 names (mine 2, other 1) on 2 classes (canonical)\n")
    assert "other: leap\tthe same films" in k710("labels", "show", "--merges", *table)[1]
    assert k710("labels", "export", "--map", "other:mine", *table)[1] == "-1\n0\n"
    (tmp_path / "a.txt").write_text("run\njump\n")
    assert "exactly mine" in k710("labels", "check", tmp_path / "a.txt", *table)[1]
    assert "only in mine: 1\n  run" in k710("labels", "diff", "mine", "other", *table)[1]


def test_a_broken_table_ends_with_3_and_its_place(k710: Run, own: Path) -> None:
    own.write_text(OWN.replace("the same films", ""))
    code, _, err = k710("labels", "show", "--class-table", own)
    assert code == 3
    assert "own.csv row 2, column merged_because: empty, but the names differ" in err
    assert "hint: say why names were merged" in err
    assert k710("labels", "show", "--class-table", own.with_name("absent.csv"))[0] == 2


def test_help_of_each_command_is_there(k710: Run) -> None:
    for command in ("show", "diff", "export", "check"):
        code, out, _ = k710("labels", command, "--help")
        assert code == 0
        assert "--class-table" in out


def test_names_on_a_terminal_are_a_table_and_printed_as_they_are(
    k710: Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.write_text(OWN.replace("jump", ":train: [bold]jump"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = k710("labels", "show", "--taxonomy", "mine", "--class-table", own)[1]
    assert "1      :train: [bold]jump" in out
