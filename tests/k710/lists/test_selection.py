"""How classes and videos are named on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from k710.errors import InputError, UsageError
from k710.labels import load_labels
from k710.lists.selection import classes_named, read_ids


def named(*words: str) -> tuple[int, ...]:
    return classes_named(words, load_labels(), "--classes")


def test_a_class_is_known_by_any_release_s_name_for_it() -> None:
    dyeing = load_labels().canonical("k600", "dyeing hair")
    assert named("dying hair") == named("dyeing hair") == (dyeing,)


def test_a_release_can_be_named_with_the_class() -> None:
    assert named("k400:dying hair", "k710:abseiling") == tuple(sorted((0, *named("dying hair"))))


def test_a_file_holds_one_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# a comment\nabseiling\n\n  zumba \n", encoding="utf-8")
    assert named(f"@{file}") == (0, 399)


def test_an_unknown_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="--classes: no class is called 'abseilin'") as caught:
        named("abseilin")
    assert "abseiling" in caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--classes .*nothing\.txt: cannot be read"):
        named(f"@{tmp_path / 'nothing.txt'}")


def test_ids_that_begin_with_a_dash_are_ids(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("-aaaaaaaaaa\n_bbbbbbbbbb\n# gone\n")
    assert read_ids(file, "--exclude-ids") == ("-aaaaaaaaaa", "_bbbbbbbbbb")


def test_a_line_that_is_more_than_an_id_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("aaaaaaaaaaa,3,13\n")
    with pytest.raises(InputError, match=r"--exclude-ids .*ids.csv: id 1 \('aaaaaaaaaaa,3,13'\) is more than one word"):
        read_ids(file, "--exclude-ids")


@pytest.mark.parametrize("line", ["aaaaaaaaaaa.mp4", "https://youtu.be/aaaaaaaaaaa", "notanid"])
def test_what_is_no_id_is_not_taken_for_one_that_no_list_has(tmp_path: Path, line: str) -> None:
    file = tmp_path / "ids.txt"
    file.write_text(f"bbbbbbbbbbb\n{line}\n")
    with pytest.raises(InputError, match=r"id 2 .* is not a YouTube id"):
        read_ids(file, "--exclude-ids")


def test_a_file_without_a_name_is_not_every_class(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="names no class"):
        named(f"@{file}")
