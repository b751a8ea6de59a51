"""What an audit of lists may answer: whose rows count, by which ids, and what is no yes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from k710.audits.lists import audit_lists
from k710.audits.sources import read_given
from k710.labels import load_labels
from k710.lists.dialects.options import ReadOptions

A, B = "aaaaaaaaaaa", "bbbbbbbbbbb"
HEADER = "label,youtube_id,time_start,time_end,split\n"


def write_csv(path: Path, ids: Iterable[str], label: str = "yoga") -> Path:
    path.write_text(HEADER + "".join(f"{label},{i},0,10,train\n" for i in ids))
    return path


def test_all_rows_of_a_file_are_what_the_user_says(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_text(HEADER + f"yoga,{A},0,10,train\nyoga,{B},0,10,val\n")
    (given,) = read_given(str(path), ReadOptions(), load_labels(), for_training=True).lists
    assert given.rows["id"].to_pylist() == [A, B]
    found = audit_lists([path], [write_csv(tmp_path / "c.csv", [B])])
    assert found.document["statement"] == (
        "NOT leak-free: 1 video of both:train stands in c:val; "
        "note: both.csv: 1 row says val; it was taken as training rows, as you said."
    )


def test_a_file_on_both_sides_is_taken_by_what_its_rows_say(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_text(HEADER + f"yoga,{A},0,10,train\nyoga,{B},0,10,val\n")
    assert audit_lists([path], [path]).document["statement"] == "leak-free against the lists given: both:val."


def test_a_bad_row_with_an_id_leaks_all_the_same(tmp_path: Path) -> None:
    held_out = write_csv(tmp_path / "c.csv", [B])
    held_out.write_text(held_out.read_text() + f"yoga,{A},10,0,train\n")
    options = ReadOptions(on_bad_row="report")
    found = audit_lists([write_csv(tmp_path / "a.csv", [A])], [held_out], options=options)
    assert found.document["statement"] == (
        "NOT leak-free: 1 video of a:train stands in c:val; note: 1 bad row of c:val was compared by id alone."
    )
    assert found.document["inputs"][1]["bad_rows"] == 1


def test_the_youtube_ids_of_a_list_of_mostly_other_ids_are_found(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "a.csv", ["clip1", "clip2", "clip3", A])
    found = audit_lists([train], [write_csv(tmp_path / "c.csv", [A])])
    assert found.document["statement"] == (
        "NOT CHECKED: 3 of 4 rows of a:train (no held-out list has ids of their kind); "
        "of what was compared: NOT leak-free: 1 video of a:train stands in c:val."
    )
    assert [r["list"] for r in found.document["lists"]] == ["a:train", "a (other ids):train", "c:val"]


def test_classes_that_cannot_be_compared_are_no_zero(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{A}\n{B}\n")
    found = audit_lists([tmp_path / "a.txt"], [write_csv(tmp_path / "c.csv", [A])])
    assert found.document["pairs"][0]["class_differs_videos"] is None
    assert "`-`: no two rows have classes that can be compared." in found.markdown


def test_classes_that_nearly_all_differ_hint_at_the_order(tmp_path: Path) -> None:
    ids = [f"id{i:09d}" for i in range(20)]
    found = audit_lists([write_csv(tmp_path / "a.csv", ids)], [write_csv(tmp_path / "c.csv", ids, label="zumba")])
    assert "20 of 20 pairs of rows of a:train and c:val have different classes: the order of" in found.markdown
