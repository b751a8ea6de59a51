"""Each published form of a list gives the same rows, however its file is called."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k710.errors import InputError
from k710.labels import load_labels, published_order
from k710.lists.annotations import AnnotationList
from k710.lists.rows import LIST_ROWS

Build = Callable[..., AnnotationList]
IDS = ("-_aaaaaaaaa", "bbbb_bbbbbb", "ccccccccccc")
LABELS = ("abseiling", "air drumming", "answering questions")
STARTS = (1, 20, 333)
ROWS = list(zip(IDS, LABELS, STARTS, strict=True))
WANTED = [(i, float(s), float(s + 10), label) for i, label, s in ROWS]
OFFICIAL = "label,youtube_id,time_start,time_end,split\n" + "".join(
    f"{label},{i},{s},{s + 10},train\n" for i, label, s in ROWS
)
UNIFORMER = {c: i for i, c in enumerate(published_order("uniformerv2_k400"))}


def deepmind(split: str = "train") -> str:
    entries = {
        i: {
            "annotations": {"label": label, "segment": [float(s), s + 10]},
            "duration": 10.0,
            "subset": split,
            "url": f"https://www.youtube.com/watch?v={i}",
        }
        for i, label, s in ROWS
    }
    return json.dumps(entries)


def activitynet() -> str:
    database = {
        i: {
            "duration": 99.5,
            "subset": "training",
            "annotations": [{"label": label, "segment": [s, s + 10]}],
        }
        for i, label, s in ROWS
    }
    return json.dumps({"version": "1.3", "taxonomy": [], "database": database})


def stem(video: str, start: int) -> str:
    return f"{video}_{start:06d}_{start + 10:06d}"


def parquet(columns: Mapping[str, list[object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink)
    return sink.getvalue()


PLAIN: dict[str, str | bytes] = {
    "official": OFFICIAL,
    "official, quoted": OFFICIAL.replace("air drumming", '"air drumming"'),
    "DeepMind JSON": deepmind(),
    "ActivityNet JSON": activitynet(),
    "CVDF text, commas": "".join(f"{i},{s},{s + 10},{label},train\n" for i, label, s in ROWS),
    "CVDF text, tabs, label first": "".join(f"{label}\t{i}\t{s}\t{s + 10}\n" for i, label, s in ROWS),
    "CVDF text, spaces, quotes": "".join(f'"{label}" {i}  {s} {s + 10} train\n' for i, label, s in ROWS),
    "CVDF text, is_cc": "".join(f"{label},{i},{s},{s + 10},train,0\n" for i, label, s in ROWS),
    "text with another header": "name;clip;from;to\n" + "".join(f"{c};{i};{s};{s + 10}\n" for i, c, s in ROWS),
    "text with clip names": "".join(f"{stem(i, s)},{label}\n" for i, label, s in ROWS),
    "path label by name": "".join(f"train/{stem(i, s)}.mp4 {c.replace(' ', '_')}\n" for i, c, s in ROWS),
    "path,label by name": "".join(f"train/{stem(i, s)}.mp4,{label}\n" for i, label, s in ROWS),
    "folder is the class": "".join(f"/data/{label}/{stem(i, s)}.webm 7\n" for i, label, s in ROWS),
    "folder is the class, _": "".join(f"/x y/{c.replace(' ', '_')}/{stem(i, s)}.MP4\n" for i, c, s in ROWS),
    "Windows paths": "".join(f"D:\\k400\\{label}\\{stem(i, s)}.mp4\r\n" for i, label, s in ROWS),
    "ActivityNet's v_": "".join(f"v_{stem(i, s)}.mp4 {label}\n" for i, label, s in ROWS),
    "milliseconds": "".join(f"{i}_{s * 1000:09d}_{s * 1000 + 10000:09d}.mp4 {label}\n" for i, label, s in ROWS),
    "parquet of ours": parquet(
        {"id": [*IDS], "start_s": [*STARTS], "end_s": [s + 10.0 for s in STARTS], "label": [*LABELS]}
    ),
    "parquet of theirs": parquet(
        {"youtube_id": [*IDS], "time_start": [*STARTS], "time_end": [s + 10 for s in STARTS], "label": [*LABELS]}
    ),
}  # fmt: skip


def as_rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.select(["id", "start_s", "end_s", "label"]).to_pylist()]


@pytest.mark.parametrize("name", ["train.csv", "train.json.gz", "train.txt"])
@pytest.mark.parametrize("pack", [0, 1, 2])
@pytest.mark.parametrize("form", PLAIN)
def test_every_form_gives_the_same_rows_under_any_name(build_list: Build, form: str, name: str, pack: int) -> None:
    content = PLAIN[form]
    data = content.encode() if isinstance(content, str) else content
    for _ in range(pack):
        data = gzip.compress(data, mtime=0)
    found = build_list(data, name)
    assert found.rows.schema.equals(LIST_ROWS, check_metadata=True)
    assert as_rows(found.rows) == WANTED
    assert found.rows["canonical"].to_pylist() == [0, 1, 2]
    assert found.bad_rows.num_rows == 0


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("k400", [load_labels().index_in("k400", load_labels().canonical_of("k400")[c]) for c in LABELS]),
        ("k710", [load_labels().canonical_of("k400")[c] for c in LABELS]),
        ("uniformerv2_k400", [UNIFORMER[load_labels().canonical_of("k400")[c]] for c in LABELS]),
    ],
)
@pytest.mark.parametrize(
    "line", ["{path}.mp4 {label}", "{path}.mp4,{label}", "{path} 300 {label}", "{path}.mp4 0 {label}"]
)
def test_numbers_are_labels_in_the_order_that_is_named(
    build_list: Build, order: str, numbers: list[int], line: str
) -> None:
    text = "".join(
        line.format(path=f"k400/{stem(i, s)}", label=n) + "\n" for (i, _, s), n in zip(ROWS, numbers, strict=True)
    )
    assert as_rows(build_list(text, class_order=order).rows) == WANTED


def test_numbers_without_an_order_are_refused(build_list: Build) -> None:
    text = "".join(f"k400/{stem(i, s)}.mp4 {n}\n" for n, (i, _, s) in enumerate(ROWS))
    with pytest.raises(InputError, match="labels are numbers") as caught:
        build_list(text)
    assert "--class-order" in caught.value.hint


def test_a_number_that_is_no_class_is_refused(build_list: Build) -> None:
    with pytest.raises(InputError, match="row 1: label '650' is not a class of k400"):
        build_list(f"k400/{stem(IDS[0], 1)}.mp4 650\n", class_order="k400")


def test_an_order_that_contradicts_the_folders_is_refused(build_list: Build) -> None:
    text = "".join(f"{label}/{stem(i, s)}.mp4 {n}\n" for n, (i, label, s) in zip((0, 1, 2), ROWS, strict=True))
    with pytest.raises(InputError, match=r"row 2: label '1' is 'acting in play' in .* folder is 'air drumming'"):
        build_list(text, release="k600", class_order="k600")


def test_a_list_of_files_without_times_is_refused_in_a_build(build_list: Build) -> None:
    with pytest.raises(InputError, match="the rows have no times") as caught:
        build_list("".join(f"k400/{i}.mp4 {c.replace(' ', '_')}\n" for i, c, _ in ROWS))
    assert "audits" in caught.value.hint


def test_a_file_whose_name_is_no_id_is_refused(build_list: Build) -> None:
    text = f"a/{stem(IDS[0], 1)}.mp4 abseiling\na/abcdefghijkl.mp4 abseiling\n"
    with pytest.raises(InputError, match="row 2: id 'abcdefghijkl' is not 11 characters"):
        build_list(text)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ("id=1,start=2,end=3,label=4", "{i},{s},{e},{c},9,9\n"),
        ("id=5,start=2,end=3,label=4", "9\t{s}\t{e}\t{c}\t{i}\n"),
        ("id=video,start=t0,end=t1,label=class", "n|class|video|t0|t1"),
        ("id=video,start=t0,end=t1,label=class", "n,class,video,t0,t1"),
    ],
)
def test_columns_can_be_named(build_list: Build, columns: str, text: str) -> None:
    from k710.lists.annotations import parse_columns

    if "video" in text:
        sign = "|" if "|" in text else ","
        lines = [text, *(sign.join(["x", c, i, str(s), str(s + 10)]) for i, c, s in ROWS)]
        content = "\n".join(lines)
    else:
        content = "".join(text.format(i=i, s=s, e=s + 10, c=c) for i, c, s in ROWS)
    assert as_rows(build_list(content, "any.list", columns=parse_columns(columns)).rows) == WANTED


def test_columns_of_a_parquet_file_can_be_named(build_list: Build) -> None:
    data = parquet({"v": [*IDS], "a": [*STARTS], "b": [s + 10 for s in STARTS], "c": [*LABELS], "d": [[1], [], [2]]})
    rows = build_list(data, columns={"id": "v", "start": "a", "end": "b", "label": "c"}).rows
    assert as_rows(rows) == WANTED
    with pytest.raises(InputError, match="not a readable parquet list"):
        build_list(data, columns={"id": "d", "start": "a", "end": "b", "label": "c"})
    with pytest.raises(InputError, match="column 'w' is missing"):
        build_list(data, columns={"id": "w"})


def test_parquet_text_that_is_not_utf8_is_refused(build_list: Build) -> None:
    data = parquet({"id": [*IDS], "start_s": [*STARTS], "end_s": [s + 10 for s in STARTS], "label": [*LABELS]})
    assert b"ccccccccccc" in data
    with pytest.raises(InputError, match="not a readable parquet list"):
        build_list(data.replace(b"ccccccccccc", b"ccccc\xe5ccccc"))


def test_paths_can_be_a_named_column(build_list: Build) -> None:
    text = "idx,file,what\n" + "".join(f"1,videos/{stem(i, s)}.mp4,{c}\n" for i, c, s in ROWS)
    assert as_rows(build_list(text, columns={"path": "file", "label": "what"}).rows) == WANTED


def test_a_column_that_is_not_there_is_named_with_those_that_are(build_list: Build) -> None:
    with pytest.raises(InputError, match="row 1: column 'video' is missing") as caught:
        build_list("vid,a,b\nx,1,2\n", columns={"id": "video"})
    assert "1='vid', 2='a', 3='b'" in caught.value.hint


def test_official_lists_beside_others_need_no_columns(build_list: Build) -> None:
    assert as_rows(build_list(OFFICIAL, columns={"id": "video", "start": "t0"}).rows) == WANTED
    assert as_rows(build_list(OFFICIAL, columns={"id": "1", "start": "2"}).rows) == WANTED


def test_a_layout_that_cannot_be_told_is_shown_with_numbers(build_list: Build) -> None:
    with pytest.raises(InputError, match="row 1: which columns hold id and times cannot be told") as caught:
        build_list("x1 aaaaaaaaaaa 5 4 3\nx2 bbbbbbbbbbb 5 1 9\n", "train.txt")
    assert "--columns id=1" in caught.value.hint
    assert "1='x1', 2='aaaaaaaaaaa'" in caught.value.hint


def test_a_video_that_stands_twice_in_a_json_object_is_two_rows(build_list: Build) -> None:
    one = '"aaaaaaaaaaa": {"annotations": {"label": "abseiling", "segment": [%d, %d]}, "subset": "train"}'
    rows = build_list("{" + one % (1, 11) + "," + one % (40, 50) + "}").rows
    assert rows["start_s"].to_pylist() == [1.0, 40.0]


def test_every_annotation_of_an_activitynet_video_is_a_row_of_its_entry(build_list: Build) -> None:
    content = json.loads(activitynet())
    content["database"][IDS[1]]["annotations"].append({"label": "no such class", "segment": [0.5, 1.25]})
    with pytest.raises(InputError, match="row 2: label 'no such class' is not a class of k400"):
        build_list(json.dumps(content))
    content["database"][IDS[1]]["annotations"][1]["label"] = "abseiling"
    assert as_rows(build_list(json.dumps(content)).rows)[2] == (IDS[1], 0.5, 1.25, "abseiling")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a JSON file of no known form"),
        ("{}", "a JSON file of no known form"),
        ('{"a": 1}', "a JSON file of no known form"),
        ('{"a": {"subset": "train"}', "row 1: not readable JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"database": {"aaaaaaaaaaa": 5}}', "row 1: an entry is not an object"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": 5}}}', "row 1: annotations are neither"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": [5]}}}', "row 1: an annotation is not an object"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": [{"segment": [1]}]}}}', r"row 1: segment is not \[start"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": []}}}', "the rows have no times"),
        ('{"database": {"\\ud800": {"annotations": [{"label": "a", "segment": [1, 2]}]}}}', r"row 1: id '\?' is not"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": [{"label": "a", "segment": [1e999, NaN]}]}}}', "row 1: seg"),
        ('{"database": {"aaaaaaaaaaa": {"annotations": [{"label": [], "segment": [1, 2]}]}}}', r"row 1: label '\[\]'"),
    ],
)  # fmt: skip
def test_damaged_json_is_named_by_entry(build_list: Build, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_list(text)


def test_a_held_out_json_may_have_no_labels(build_list: Build) -> None:
    content = {IDS[0]: {"annotations": {"segment": [1, 11]}, "subset": "test"}}
    found = build_list(json.dumps(content), split="test")
    assert as_rows(found.rows) == [(IDS[0], 1.0, 11.0, None)]
    assert found.rows["canonical"].to_pylist() == [-1]


def test_broken_entries_with_names_that_are_no_text_are_listed(build_list: Build) -> None:
    good = '"aaaaaaaaaaa": {"annotations": {"label": "abseiling", "segment": [1, 11]}, "subset": "train"}'
    found = build_list("{" + good + ', "\\udca9": 5}', on_bad_row="report")
    assert found.bad_rows["value"].to_pylist() == ["?"]


def test_entries_without_annotations_cannot_be_built(build_list: Build) -> None:
    content = {"database": {IDS[0]: {"subset": "testing", "annotations": []}}}
    with pytest.raises(InputError, match="the rows have no times"):
        build_list(json.dumps(content), split="test")


@pytest.mark.parametrize("word", ["val", "validate", "validation", "Validate "])
def test_split_words_of_all_publishers_are_understood(build_list: Build, word: str) -> None:
    assert build_list(deepmind(word), split="val").rows.num_rows == 3
    with pytest.raises(InputError, match=r"row 1: subset .* does not belong in the test list"):
        build_list(deepmind(word), split="test")


def test_bad_rows_are_left_out_and_listed_when_that_is_asked(build_list: Build) -> None:
    text = (
        OFFICIAL
        + "abseiling,short,1,11,train\n"
        + "\n"
        + "abseiling,ddddddddddd,11,1,train\n"
        + "one,two\n"
        + "absailing,eeeeeeeeeee,2,12,train\n"
    )
    found = build_list(text, on_bad_row="report")
    assert as_rows(found.rows) == WANTED
    bad = found.bad_rows.to_pylist()
    assert [(b["row"], b["column"], b["value"], b["id"]) for b in bad] == [
        (5, "youtube_id", "short", None),
        (6, "", "", None),
        (7, "time_end", "1", "ddddddddddd"),
        (8, "", "one,two", None),
        (9, "label", "absailing", "eeeeeeeeeee"),
    ]
    assert [b["reason"] for b in bad] == [
        "is not 11 characters of A-Za-z0-9_-",
        "empty row",
        "is not after time_start 11",
        "expected 5 columns, found 2",
        "is not a class of k400",
    ]
    assert {(b["release"], b["split"]) for b in bad} == {("k400", "train")}
    assert (bad[2]["start_s"], bad[2]["end_s"], bad[2]["label"]) == (11.0, 1.0, "abseiling")


def test_a_list_without_one_good_row_is_an_error_even_then(build_list: Build) -> None:
    with pytest.raises(InputError, match=r"not one good row: .*train.csv row 2: youtube_id 'x' is not 11"):
        build_list("label,youtube_id,time_start,time_end\nabseiling,x,1,11\n", on_bad_row="report")


def test_large_files_are_read_as_small_ones_are(build_list: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "".join(f"air drumming,{n:011d},{n % 900},{n % 900 + 10},train\r\n" for n in range(3000))
    text = "label,youtube_id,time_start,time_end,split\r\n" + body
    fast = build_list(text).rows
    monkeypatch.setattr("k710.lists.dialects.delimited._FAST_BYTES", 1 << 40)
    assert fast.equals(build_list(text).rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "row 2502: empty row"),
        ("abseiling,aaaaaaaaaaa,1", "row 2502: expected 5 columns, found 3"),
        ('"abseiling\nx",aaaaaaaaaaa,1,11,train', "row 2502: expected 5 columns, found 1"),
        ("abseiling,aaaaaaaaaaa,1,11,train\rx", "row 2502: not a readable CSV"),
        ("abseiling,aaaaaaaaaaa,x,11,train", "row 2502: time_start 'x' is not a time"),
    ],
)
def test_rows_of_large_files_are_counted_exactly(build_list: Build, line: str, message: str) -> None:
    rows = [f"air drumming,{n:011d},{n % 900},{n % 900 + 10},train" for n in range(3000)]
    rows.insert(2500, line)
    with pytest.raises(InputError, match=message):
        build_list("label,youtube_id,time_start,time_end,split\n" + "\n".join(rows))
