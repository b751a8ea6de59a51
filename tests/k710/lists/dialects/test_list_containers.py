"""Archives, gzip and names of list files: what is found, what is taken, and what is refused in time."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from k710.config import load_releases
from k710.errors import InputError, UsageError
from k710.labels import load_labels
from k710.lists.annotations import ListFile, find_lists, parse_columns, read_list
from k710.lists.dialects import container
from k710.lists.dialects.names import list_name

CSV = "label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,1,11,{}\n"


def tar(members: dict[str, str | bytes], mode: str = "w:gz") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def deepmind(top: str, words: tuple[str, ...] = ("train", "validate", "test")) -> bytes:
    csvs = {f"{top}/{w}.csv": CSV.format(w) for w in words}
    return tar({**csvs, **{f"{top}/{w}.json": "{}" for w in words}, f"{top}/._train.csv": "\0"})


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("place", ["kinetics400.tar.gz", "k400/kinetics400.tar.gz", "k400/annotations.tar.gz"])
def test_the_lists_of_an_archive_are_found_and_read(tmp_path: Path, place: str, mode: str) -> None:
    (tmp_path / "k400").mkdir()
    data = tar({f"./kinetics400/{w}.csv": CSV.format(w) for w in ("train", "validate", "test")}, mode)
    (tmp_path / place).write_bytes(data)
    files = find_lists(tmp_path)
    assert [f.name for f in files] == ["k400:train", "k400:val", "k400:test"]
    assert "kinetics400/validate.csv" in files[1].short_path
    found = read_list(files[1], load_labels())
    assert found.rows["id"].to_pylist() == ["aaaaaaaaaaa"]
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_the_csv_of_an_archive_is_taken_before_its_json(tmp_path: Path) -> None:
    (tmp_path / "kinetics700_2020.tar.gz").write_bytes(deepmind("kinetics700_2020"))
    files = find_lists(tmp_path, ["k700-2020"])
    assert [(f.name, f.member) for f in files][:2] == [
        ("k700-2020:train", "kinetics700_2020/train.csv"),
        ("k700-2020:val", "kinetics700_2020/validate.csv"),
    ]


def test_an_archive_of_any_name_is_known_by_its_folders(tmp_path: Path) -> None:
    (tmp_path / "lists.tgz").write_bytes(tar({"k400/train.csv": "x", "x/kinetics600/val.csv": "x", "val.csv": "x"}))
    assert [f.name for f in find_lists(tmp_path)] == ["k400:train", "k600:val"]


def test_an_archive_that_holds_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kinetics700.tar.gz").write_bytes(deepmind("kinetics700_2020"))
    with pytest.raises(InputError, match="is of k700-2020, but the archive's name or place says k700"):
        find_lists(tmp_path)


def test_a_list_in_a_folder_and_in_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kinetics400").mkdir()
    (tmp_path / "kinetics400" / "train.csv").write_text(CSV.format("train"))
    (tmp_path / "kinetics400.tar.gz").write_bytes(deepmind("kinetics400"))
    with pytest.raises(InputError, match="second file for k400:train") as caught:
        find_lists(tmp_path)
    assert "keep one" in caught.value.hint


@pytest.mark.parametrize("damage", ["cut", "flipped", "no tar"])
def test_a_damaged_archive_is_an_input_error(tmp_path: Path, damage: str) -> None:
    data = deepmind("kinetics400")
    data = {"cut": data[:-20], "flipped": data[:60] + bytes([data[60] ^ 255]) + data[61:], "no tar": b"plain"}[damage]
    (tmp_path / "kinetics400.tar.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"kinetics400\.tar\.gz"):
        find_lists(tmp_path)


def test_other_archives_and_links_in_them_are_passed_over(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        link = tarfile.TarInfo("kinetics400/train.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        folder = tarfile.TarInfo("kinetics400/val.csv")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    (tmp_path / "kinetics400.tar.gz").write_bytes(sink.getvalue())
    (tmp_path / "part_0.tar.gz").write_bytes(tar({"aaaaaaaaaaa_000001_000011.mp4": "x"}))
    (tmp_path / "other.tar").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no annotation lists found"):
        find_lists(tmp_path)


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_BYTES", 1 << 20)
    one = gzip.compress(b"\n" * (1 << 20) + b"x")
    with pytest.raises(InputError, match="more than 1048576 bytes unpacked"):
        container.unpacked(one, "train.csv")
    with pytest.raises(InputError, match="more than 1048576 bytes unpacked"):
        container.unpacked(gzip.compress(b"x" * 700_000) * 2, "train.csv")


def test_a_member_or_archive_past_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar({"k400/train.csv": b"x" * 5000})
    monkeypatch.setattr(container, "MAX_BYTES", 4999)
    with pytest.raises(InputError, match=r"k400/train.csv is too large for a list \(5000 bytes\)"):
        container.read_members(data, "a.tar.gz", {"k400/train.csv"})
    monkeypatch.setattr(container, "MAX_ARCHIVE_BYTES", 4000)
    with pytest.raises(InputError, match="more than 4000 bytes unpacked"):
        container.member_names(data, "a.tar.gz")


def test_a_file_too_large_for_a_list_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_BYTES", 10)
    (tmp_path / "train.csv").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="11 bytes is too large"):
        container.read_file(tmp_path / "train.csv")


def test_several_gzip_members_are_one_file() -> None:
    assert container.unpacked(gzip.compress(b"ab") + gzip.compress(b"c") + b"\0\0", "x") == b"abc"
    with pytest.raises(InputError, match="not a whole gzip file"):
        container.unpacked(gzip.compress(b"ab") + b"rest", "x")


@pytest.mark.parametrize(
    ("name", "split", "rank"),
    [
        ("train.csv", "train", 0),
        ("validation.TSV", "val", 0),
        ("holdout_test.csv.gz", "holdout", 0),
        ("val.parquet", "val", 0),
        ("test.txt.gz", "test", 0),
        ("validate.json", "val", 1),
        ("k400_train_list_videos.txt", "train", 2),
        ("kinetics_train_list.txt", "train", 2),
        ("kinetics400_val_list_rawframes.txt", "val", 2),
        ("val_list.csv", "val", 2),
    ],
)
def test_names_of_lists_are_known(name: str, split: str, rank: int) -> None:
    found = list_name(name)
    assert found is not None
    assert (found.split, found.rank) == (split, rank)


@pytest.mark.parametrize(
    "name", ["train", "train.mp4", "trainer.csv", "classes.csv", "label_map_k400.txt", "._val.csv"]
)
def test_other_names_are_no_lists(name: str) -> None:
    assert list_name(name) is None


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CSV.format("train"))
    return folder


def test_a_list_is_taken_before_its_json_and_before_a_list_of_files(tmp_path: Path) -> None:
    put(tmp_path, "k400/train.csv", "k400/train.json", "k400/k400_train_list_videos.txt", "k400/validate.json")
    put(tmp_path, "k400/kinetics400_test_list_videos.txt")
    assert [f.path.name for f in find_lists(tmp_path)] == [
        "train.csv",
        "validate.json",
        "kinetics400_test_list_videos.txt",
    ]


def test_two_lists_of_one_split_in_other_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.txt: second file for k600:train"):
        find_lists(put(tmp_path, "k600/train.csv", "k600/train.txt"))


def test_a_list_of_files_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a list of k400 in the folder of k600"):
        find_lists(put(tmp_path, "k600/k400_train_list_videos.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id", "expected name=column"),
        ("id=", "expected name=column"),
        ("id=a,,start=b", "expected name=column"),
        ("id=a,id=b", "'id' is named twice"),
        ("video=a", "unknown column 'video'"),
        ("start=a", "neither id nor path"),
    ],
)
def test_a_wrong_mapping_of_columns_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_columns(text)


def test_a_mapping_of_columns_is_read() -> None:
    assert parse_columns("id=video, start=t 0,label=3") == {"id": "video", "start": "t 0", "label": "3"}


def test_every_release_says_how_its_clips_are_called() -> None:
    assert {r.pattern for r in load_releases().values()} == {"{id}_{start:06d}_{end:06d}"}


def test_short_paths_name_the_member(tmp_path: Path) -> None:
    file = ListFile(release=load_releases()["k400"], split="val", path=tmp_path / "a.tar.gz", member="x/val.csv")
    assert file.short_path == f"{tmp_path.name}/a.tar.gz:x/val.csv"
    assert file.name == "k400:val"


def test_a_release_may_have_other_ids_and_file_names(tmp_path: Path) -> None:
    own = dataclasses.replace(
        load_releases()["k400"], name="own", id_kind="opaque", pattern="clip-{id}@{start:04d}-{end:04d}"
    )
    path = tmp_path / "train.txt"
    path.write_text("x/clip-any id, really@0003-0013.mp4 abseiling\nx/clip-b.c@0020-0021.mp4 abseiling\n")
    rows = read_list(ListFile(release=own, split="train", path=path), load_labels()).rows
    assert rows.select(["id", "start_s", "end_s"]).to_pylist() == [
        {"id": "any id, really", "start_s": 3.0, "end_s": 13.0},
        {"id": "b.c", "start_s": 20.0, "end_s": 21.0},
    ]
