"""One official CSV: what is read in all the forms people have it, and how each kind of damage is named."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from k710.config import load_releases
from k710.errors import InputError, UsageError
from k710.labels import load_labels
from k710.lists.annotations import ListFile, find_lists, read_list
from k710.lists.rows import LIST_ROWS

HEADER = "label,youtube_id,time_start,time_end,split\n"
ROW = "abseiling,aaaaaaaaaaa,1,11,train\n"


def read(tmp_path: Path, content: bytes | str, split: str = "train", release: str = "k400") -> pa.Table:
    path = tmp_path / "kinetics" / f"{split}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_list(ListFile(release=load_releases()[release], split=split, path=path), load_labels()).rows


def test_a_row_is_read_with_its_canonical_class(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + "abseiling,-_aaaaaaaaa,1,11,train\n")
    assert rows.schema.equals(LIST_ROWS, check_metadata=True)
    assert rows.to_pylist() == [
        {"id": "-_aaaaaaaaa", "start_s": 1.0, "end_s": 11.0, "label": "abseiling", "canonical": 0, "is_cc": None}
    ]


@pytest.mark.parametrize(
    "video", ["1e2aaaaaaaa", "NaN________", "-----------", "___________", "12345678901", "0x123456789", "nullnullnul"]
)
def test_ids_are_never_numbers(tmp_path: Path, video: str) -> None:
    assert read(tmp_path, f"{HEADER}abseiling,{video},1,11,train\n")["id"].to_pylist() == [video]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + (HEADER + ROW).encode(),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + ROW).replace("\n", "\r").encode(),
        (HEADER + ROW).rstrip().encode(),
        (HEADER + ROW + "\n\r\n  \n").encode(),
        gzip.compress((HEADER + ROW).encode(), mtime=0),
        b'"label","youtube_id","time_start","time_end","split"\n"abseiling","aaaaaaaaaaa","1","11","train"\n',
        b"label,youtube_id,time_start,time_end,split,is_cc\nabseiling,aaaaaaaaaaa,1,11,train,1\n",
        b"split,time_end,time_start,youtube_id,label\ntrain,11,1,aaaaaaaaaaa,abseiling\n",
        b"label,youtube_id,time_start,time_end\nabseiling,aaaaaaaaaaa,1.0,11\n",
    ],
    ids=["bom", "crlf", "cr", "no last line end", "blank tail", "gzip", "quotes", "is_cc", "column order", "no split"],
)
def test_every_published_form_gives_the_same_row(tmp_path: Path, content: bytes) -> None:
    rows = read(tmp_path, content)
    assert rows.select(["id", "start_s", "end_s", "canonical"]).to_pylist() == [
        {"id": "aaaaaaaaaaa", "start_s": 1.0, "end_s": 11.0, "canonical": 0}
    ]


def test_quoted_labels_may_hold_commas_of_other_writers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label 'abseiling, really' is not a class of k400"):
        read(tmp_path, HEADER + '"abseiling, really",aaaaaaaaaaa,1,11,train\n')


def test_a_test_list_may_have_no_labels(tmp_path: Path) -> None:
    rows = read(tmp_path, "youtube_id,time_start,time_end,split\naaaaaaaaaaa,1,11,test\n", "test", "k700")
    assert rows["canonical"].to_pylist() == [-1]
    assert rows["label"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("split", "word"), [("val", "validate"), ("val", "val"), ("holdout", "holdout_test"), ("test", "test")]
)
def test_published_split_words_are_understood(tmp_path: Path, split: str, word: str) -> None:
    assert len(read(tmp_path, f"{HEADER}abseiling,aaaaaaaaaaa,1,11,{word}\n", split, "k600")) == 1


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "train.csv: empty file", "fetch it again"),
        (b"\xef\xbb\xbf\r\n", "train.csv: empty file", "fetch it again"),
        (HEADER, "train.csv: no rows", "cut off"),
        (HEADER.strip(), "train.csv: no rows", "cut off"),
        ("\n" + HEADER + ROW, "row 1: column 'youtube_id' is missing", "official columns"),
        ("label,time_start,time_end\nabseiling,1,11\n", "row 1: column 'youtube_id' is missing", "official columns"),
        ("youtube_id,time_start,time_end\naaaaaaaaaaa,1,11\n", "row 1: column 'label' is missing", "official columns"),
        (HEADER.replace("split", "label") + ROW, "row 1: column 'label' stands twice", "official columns"),
        (HEADER.replace("split", "fold") + ROW, "row 1: unknown column 'fold'", "official columns"),
        (b"<html>\n<body>404</body>\n", "row 1: column 'youtube_id' is missing", "official columns"),
        (b"x" * 200_000 + b"\n1\n", "row 1: not a readable CSV", "fetch it again"),
        (HEADER + ROW + "abseiling,short,1,11,train\n", "row 3: youtube_id 'short' is not 11 characters", ""),
        (HEADER + ROW + "abseiling,aaaa aaaaaa,1,11,train\n", "row 3: youtube_id 'aaaa aaaaaa' is not 11", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaé,1,11,train\n", "row 3: youtube_id 'aaaaaaaaaaé' is not 11", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,x,11,train\n", "row 3: time_start 'x' is not a time in seconds", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,nan,11,train\n", "row 3: time_start 'nan' is not a time", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,-1,11,train\n", "row 3: time_start '-1' is not a time", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,inf,train\n", "row 3: time_end 'inf' is not a time", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,1e300,train\n", "row 3: time_end '1e300' is not a time", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,,train\n", "row 3: time_end '' is not a time", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,11,1,train\n", "row 3: time_end '1' is not after time_start 11", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,4,4,train\n", "row 3: time_end '4' is not after time_start 4", ""),
        (HEADER + ROW + ",aaaaaaaaaaa,1,11,train\n", "row 3: label '' is not a class of k400", "no k400 name"),
        (HEADER + ROW + "absailing,aaaaaaaaaaa,1,11,train\n", "row 3: label 'absailing' is not a class", "abseiling"),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,11,test\n", "row 3: split 'test' does not belong in the train", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,11,\n", "row 3: split '' does not belong in the train list", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1\n" + ROW, "row 3: expected 5 columns, found 3", ""),
        (HEADER + ROW + "abseiling,aaaaaaaaaaa,1,11,train,1\n", "row 3: expected 5 columns, found 6", ""),
        (HEADER + ROW + "\n" + ROW, "row 3: empty row", "take the empty line out"),
        (HEADER + ROW * 3 + "\r\n" + ROW, "row 5: empty row", "take the empty line out"),
        (HEADER + ROW + "  \n" + ROW, "row 3: empty row", "take the empty line out"),
        (HEADER + ROW + ",,,,\n" + ROW, "row 3: empty row", "take the empty line out"),
        (HEADER + ROW + '"abseiling,aaaaaaaaaaa,1,11,train\n' + ROW, "row 3: expected 5 columns, found 1", ""),
        ((HEADER + ROW).encode() + b"caf\xe9,aaaaaaaaaaa,1,11,train\n", "row 3: not UTF-8", "UTF-8"),
        ((HEADER + ROW).encode("utf-16"), "row 1: not UTF-8", "UTF-8"),
        (gzip.compress((HEADER + ROW * 99).encode(), mtime=0)[:-12], "train.csv: not a whole gzip file", "fetch it"),
        (b"\x1f\x8bnothing", "train.csv: not a whole gzip file", "fetch it again"),
    ],
    ids=lambda value: "bytes" if isinstance(value, bytes) else str(value)[:60],
)  # fmt: skip
def test_damage_is_named_by_file_row_and_column(tmp_path: Path, content: bytes | str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert caught.value.exit_code == 3
    assert "kinetics/train.csv" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint


def test_further_rows_of_one_damage_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2: youtube_id 'x' .* \(and 2 more rows\)"):
        read(tmp_path, HEADER + "abseiling,x,1,11,train\n" * 3 + ROW)


def test_names_of_another_release_are_not_understood(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label 'dying hair' is not a class of k600") as caught:
        read(tmp_path, HEADER + "dying hair,aaaaaaaaaaa,1,11,train\n", release="k600")
    assert "dyeing hair" in caught.value.hint


def test_the_rows_of_a_test_list_relabelled_as_train_are_refused(tmp_path: Path, shared: Path) -> None:
    data = (shared / "kinetics" / "annotations" / "kinetics400" / "test.csv.gz").read_bytes()
    with pytest.raises(
        InputError, match=r"row 2: split 'test' does not belong in the train list \(and 39804 more rows\)"
    ):
        read(tmp_path, data)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(HEADER)
    return folder


def test_lists_are_found_in_release_folders_of_any_alias(tmp_path: Path) -> None:
    put(
        tmp_path,
        "K700/val.csv",
        "kinetics400/train.csv.gz",
        "kinetics-600/holdout_test.csv",
        "kinetics700_2020/test.csv",
    )
    assert [f.name for f in find_lists(tmp_path)] == ["k400:train", "k600:holdout", "k700:val", "k700-2020:test"]


def test_other_files_and_folders_are_not_lists(tmp_path: Path) -> None:
    put(
        tmp_path, "k400/train.csv", "k400/._val.csv", "k400/train.json", "k400/classes.csv", "other/val.csv", "test.csv"
    )
    assert [f.name for f in find_lists(tmp_path)] == ["k400:train"]


@pytest.mark.parametrize("kind", ["dangling link", "folder", "link to itself"])
@pytest.mark.parametrize("name", ["test.csv", "VAL.CSV", "val.csv.gz"])
def test_a_list_that_is_there_but_no_file_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = put(tmp_path, "k400/train.csv") / "k400" / name
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(name if kind == "link to itself" else "/nowhere/val.csv")
    with pytest.raises(InputError) as caught:
        find_lists(tmp_path)
    assert str(path) in caught.value.message
    assert "take it out" in caught.value.hint


def test_a_release_folder_that_is_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (put(tmp_path, "k400/train.csv") / "k600").symlink_to("/nowhere")
    with pytest.raises(InputError, match="k600: cannot be read"):
        find_lists(tmp_path)


def test_names_of_lists_are_understood_in_any_case(tmp_path: Path) -> None:
    put(tmp_path, "k400/VAL.CSV", "k400/Test.csv.GZ")
    assert [f.name for f in find_lists(tmp_path)] == ["k400:val", "k400:test"]


def test_a_list_that_may_not_be_read_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"kinetics/train.csv: cannot be read \(Permission denied\)"):
        read(tmp_path, HEADER + ROW)


def test_releases_can_be_chosen(tmp_path: Path) -> None:
    put(tmp_path, "k400/train.csv", "k600/train.csv")
    assert [f.name for f in find_lists(tmp_path, ["k600"])] == ["k600:train"]


@pytest.mark.parametrize("second", ["k400/val.csv.gz", "k400/validate.csv", "kinetics400/val.csv"])
def test_two_files_for_one_list_are_refused(tmp_path: Path, second: str) -> None:
    put(tmp_path, "k400/val.csv", second)
    with pytest.raises(InputError, match="second file for k400:val") as caught:
        find_lists(tmp_path)
    assert "keep one" in caught.value.hint


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        find_lists(tmp_path / "nowhere")


def test_a_folder_without_lists_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotation lists found"):
        find_lists(tmp_path)


def test_an_unknown_release_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown release 'k500'") as caught:
        find_lists(tmp_path, ["k500"])
    assert "k400, k600, k700, k700-2020" in caught.value.hint


def test_a_release_without_its_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "k400/train.csv")
    with pytest.raises(UsageError, match="no folder for k600") as caught:
        find_lists(tmp_path, ["k400", "k600"])
    assert "kinetics600" in caught.value.hint
