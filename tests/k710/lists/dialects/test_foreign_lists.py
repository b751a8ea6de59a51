"""Anyone's lists: what is found out about them, and what is not asked of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from k710.errors import InputError, UsageError
from k710.labels import load_labels
from k710.lists.dialects.foreign import ForeignList, read_foreign
from k710.lists.rows import LIST_ROWS

Foreign = Callable[..., list[ForeignList]]


def test_a_list_of_files_without_times_is_read(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("your_path/k400/---QUuC4vJs.mp4 0 -1\nyour_path/k400/aaaaaaaaaaa.mp4 0 -1\n")
    assert found.rows.schema.equals(LIST_ROWS, check_metadata=True)
    assert found.rows["id"].to_pylist() == ["---QUuC4vJs", "aaaaaaaaaaa"]
    assert found.rows["start_s"].to_pylist() == [None, None]
    assert found.rows["label"].to_pylist() == [None, None]
    assert (found.dialect, found.taxonomy, found.split) == ("paths", None, None)


def test_numbers_without_an_order_stay_numbers(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("a/aaaaaaaaaaa.mp4 5\na/bbbbbbbbbbb.mp4 6\n", "k400_val_list_videos.txt")
    assert found.rows["label"].to_pylist() == ["5", "6"]
    assert found.rows["canonical"].to_pylist() == [-1, -1]
    assert (found.taxonomy, found.split) == (None, "val")


@pytest.mark.parametrize("order", ["k400", "k600", "k700", "k710", "uniformerv2_k700"])
def test_a_named_order_gives_names_and_taxonomy(foreign_lists: Foreign, order: str) -> None:
    (found,) = foreign_lists("a/aaaaaaaaaaa.mp4 5\na/bbbbbbbbbbb.mp4 6\n", class_order=order)
    assert found.taxonomy == order[-4:]
    names = load_labels().canonical_of(order[-4:])
    assert found.rows["canonical"].to_pylist() == [names[n] for n in found.rows["label"].to_pylist()]


@pytest.mark.parametrize(
    ("names", "taxonomy"),
    [
        (["abseiling", "dying hair"], "k400"),
        (["abseiling", "dyeing hair"], "k600"),
        (["abseiling", "arresting"], "k700"),
        (["cleaning floor", "sipping cup"], "k710"),
        (["abseiling", "Long Jump"], None),
    ],
)
def test_the_smallest_taxonomy_with_all_names_is_found(
    foreign_lists: Foreign, names: list[str], taxonomy: str | None
) -> None:
    text = "".join(f"{'abcd'[n] * 11},{n},{n + 10},{name}\n" for n, name in enumerate(names))
    (found,) = foreign_lists(text)
    assert found.taxonomy == taxonomy
    assert all((c >= 0) == (taxonomy is not None) for c in found.rows["canonical"].to_pylist())


def test_a_named_taxonomy_is_insisted_on(foreign_lists: Foreign) -> None:
    with pytest.raises(InputError, match="row 1: label 'dying hair' is not a class of k600"):
        foreign_lists("aaaaaaaaaaa,1,11,dying hair\n", taxonomy="k600")
    with pytest.raises(UsageError, match="unknown taxonomy 'k500'"):
        foreign_lists("aaaaaaaaaaa,1,11,dying hair\n", taxonomy="k500")


def test_splits_of_one_file_are_lists(foreign_lists: Foreign) -> None:
    database = {
        "v_aaaaaaaaaaa": {"subset": "training", "annotations": [{"label": "Long jump", "segment": [0.5, 9.75]}]},
        "bbbbbbbbbbb": {"subset": "validation", "annotations": [{"label": "Long jump", "segment": [1, 2]}] * 2},
        "ccccccccccc": {"subset": "testing", "annotations": []},
    }
    lists = foreign_lists(json.dumps({"database": database}), "activity_net.v1-3.min.json")
    assert [(f.name.partition(":")[2], f.split, f.rows.num_rows) for f in lists] == [
        ("train", "train", 1),
        ("val", "val", 2),
        ("test", "test", 1),
    ]
    assert [f.rows["id"].to_pylist()[0] for f in lists] == ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"]
    assert lists[2].rows["start_s"].to_pylist() == [None]
    assert {f.dialect for f in lists} == {"activitynet"}


def test_ids_of_other_kinds_are_kept_whole(foreign_lists: Foreign) -> None:
    text = "".join(f"ucf/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c{n:02d}.avi {n}\n" for n in range(9))
    (found,) = foreign_lists(text)
    assert found.rows["id"].to_pylist()[0] == "v_ApplyEyeMakeup_g01_c00"


@pytest.mark.parametrize("name", ["v_abcdefghi", "v_abcdefghi_000001_000011", "v_v_abcdefghi_000001_000011"])
def test_an_id_that_begins_with_v_is_itself(foreign_lists: Foreign, name: str) -> None:
    (found,) = foreign_lists(f"x/{name}.mp4 1\n")
    assert found.rows["id"].to_pylist() == ["v_abcdefghi"]


@pytest.mark.parametrize(
    "name",
    [
        "aaaa_aa_-__",
        "aaaa_aa_-__-00",
        "aaaa_aa_-__-1-11",
        "aaaa_aa_-___256",
        "aaaa_aa_-__.f137",
        "aaaa_aa_-___000001_000011_x",
    ],
)
def test_the_id_is_the_first_11_characters_of_the_name(foreign_lists: Foreign, name: str) -> None:
    (found,) = foreign_lists(f"x/{name}.mp4 1\n")
    assert found.rows["id"].to_pylist() == ["aaaa_aa_-__"]


def test_each_path_is_of_its_own_kind(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("own/1.mp4 0\nown/2.mp4 0\nown/3.mp4 0\nk/aaaaaaaaaaa_000001_000011.mp4 0\n")
    assert found.rows["id"].to_pylist() == ["1", "2", "3", "aaaaaaaaaaa"]


def test_a_folder_of_frames_has_the_id_of_the_folder_above(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("k/aaaaaaaaaaa/frames 300 5\nk/bbbbbbbbbbb/frames 300 5\n")
    assert found.rows["id"].to_pylist() == ["aaaaaaaaaaa", "bbbbbbbbbbb"]


@pytest.mark.parametrize(
    "cell",
    [
        " aaaaaaaaaaa ",
        "https://www.youtube.com/watch?v=aaaaaaaaaaa&t=3",
        "https://youtube.com/watch?t=3&v=aaaaaaaaaaa",
        "https://youtu.be/aaaaaaaaaaa",
        "youtube.com/embed/aaaaaaaaaaa",
        "https://m.youtube.com/shorts/aaaaaaaaaaa",
    ],
)
def test_an_id_is_found_in_its_cell(foreign_lists: Foreign, cell: str) -> None:
    (found,) = foreign_lists(f"video;what\n{cell};x\n", columns={"id": "video", "label": "what"})
    assert found.rows["id"].to_pylist() == ["aaaaaaaaaaa"]


def test_lines_that_end_in_a_carriage_return_alone_are_lines(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("label,youtube_id,time_start,time_end\rabseiling,aaaaaaaaaaa, 1 , 11\r")
    assert found.rows.select(["id", "start_s", "end_s"]).to_pylist() == [
        {"id": "aaaaaaaaaaa", "start_s": 1.0, "end_s": 11.0}
    ]


def test_bare_ids_are_a_list(foreign_lists: Foreign) -> None:
    (found,) = foreign_lists("aaaaaaaaaaa\nbbbbbbbbbbb\n")
    assert found.rows["id"].to_pylist() == ["aaaaaaaaaaa", "bbbbbbbbbbb"]


def test_bad_rows_of_several_splits_are_reported_once(foreign_lists: Foreign) -> None:
    text = "label,youtube_id,time_start,time_end,split\nx,aaaaaaaaaaa,1,11,train\nx,bbbbbbbbbbb,2,12,val\nbroken\n"
    lists = foreign_lists(text, on_bad_row="report")
    assert [f.bad_rows.num_rows for f in lists] == [1, 0]
    assert lists[0].bad_rows["row"].to_pylist() == [4]


def archive(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


CSV = b"label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,1,11,validate\n"
JSON = b'{"aaaaaaaaaaa": {"annotations": {"label": "abseiling", "segment": [1, 11]}, "subset": "test"}}'


def test_an_archive_holds_one_list_per_member_and_its_csv_goes_before_its_json(tmp_path: Path) -> None:
    path = tmp_path / "kinetics400.tar.gz"
    names = ("kinetics400/._validate.csv", "kinetics400/validate.csv", "kinetics400/validate.json")
    data = archive({names[0]: b"\0", names[1]: CSV, names[2]: b"damaged", "kinetics400/test.json": JSON})
    path.write_bytes(data)
    lists = read_foreign(path, load_labels())
    assert [(f.name, f.split, f.dialect) for f in lists] == [
        ("kinetics400.tar.gz/kinetics400/validate.csv", "val", "official"),
        ("kinetics400.tar.gz/kinetics400/test.json", "test", "deepmind"),
    ]


def test_an_archive_without_lists_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive({"videos/aaaaaaaaaaa.mp4": b"x"}))
    with pytest.raises(InputError, match="no annotation lists in the archive"):
        read_foreign(tmp_path / "a.tar.gz", load_labels())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: not a file"):
        read_foreign(tmp_path / "nothing", load_labels())
