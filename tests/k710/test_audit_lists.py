"""The audit of anybody's lists: files of any dialect, clips, shards and builds, against each other."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from k710 import schema
from k710.audits.lists import audit_lists
from k710.audits.sources import owner_of, read_given
from k710.build import BuildConfig, build
from k710.errors import FeedError, InputError, UsageError
from k710.labels import load_labels
from k710.lists.dialects.options import ReadOptions
from k710.tables import read_table

A, B, C, D = "aaaaaaaaaaa", "bbbbbbbbbbb", "-cccccccccc", "_dddddddddd"
HEADER = "label,youtube_id,time_start,time_end,split\n"


def write_csv(path: Path, ids: Iterable[str], split: str = "train", label: str = "yoga") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{label},{i},0,10,{split}\n" for i in ids))
    return path


def write_clips(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_build(folder: Path, words: tuple[str, ...] = ("default",)) -> Path:
    """A build of Kinetics-400 lists: A and B to train on, C and A in val, D in test."""
    lists = folder / "annotations" / "kinetics400"
    write_csv(lists / "train.csv", [A, B])
    write_csv(lists / "val.csv", [A, C], "val")
    write_csv(lists / "test.csv", [D], "test")
    config = BuildConfig(
        annotations=folder / "annotations", out=folder / "out", manifest_only=True, views=words, workers=1
    )
    build(config)
    return folder / "out"


def ids_of(path: Path | str, *, for_training: bool = True) -> dict[str, list[str]]:
    given = read_given(str(path), ReadOptions(), load_labels(), for_training=for_training)
    return {f"{g.title}:{g.split}": sorted(g.rows["id"].to_pylist()) for g in given.lists}


# What it says.


def test_lists_without_a_common_video_are_leak_free_against_the_lists_given(tmp_path: Path) -> None:
    found = audit_lists([write_csv(tmp_path / "a.csv", [A])], [write_csv(tmp_path / "c.csv", [B])])
    assert found.document["statement"] == "leak-free against the lists given: c:val."
    assert found.leaking == []


def test_lists_with_a_common_video_are_not(tmp_path: Path) -> None:
    found = audit_lists([write_csv(tmp_path / "a.csv", [A, B])], [write_csv(tmp_path / "c.csv", [B, C])])
    assert found.document["statement"] == "NOT leak-free: 1 video of a:train stands in c:val."
    assert [(r["train"], r["held_out"], r["videos"], r["examples"]) for r in found.leaking] == [
        ("a:train", "c:val", 1, [B])
    ]
    assert found.leaks["id"].to_pylist() == [B]


def test_several_lists_on_both_sides_are_compared_each_with_each(tmp_path: Path) -> None:
    train = [write_csv(tmp_path / "a.csv", [A, B]), write_csv(tmp_path / "b.csv", [C])]
    held_out = [write_csv(tmp_path / "c.csv", [C]), write_csv(tmp_path / "d.csv", [A, D])]
    found = audit_lists(train, held_out)
    assert {(r["train"], r["held_out"]) for r in found.leaking} == {("a:train", "d:val"), ("b:train", "c:val")}


def test_lists_of_one_name_are_told_apart(tmp_path: Path) -> None:
    train = [write_csv(tmp_path / "x" / "mine.csv", [A]), write_csv(tmp_path / "y" / "mine.csv", [B])]
    found = audit_lists(train, [write_csv(tmp_path / "c.csv", [B])])
    assert [r["list"] for r in found.document["lists"]] == ["mine:train", "mine#2:train", "c:val"]
    assert [r["train"] for r in found.leaking] == ["mine#2:train"]


def test_what_was_given_is_listed_with_its_checksum(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [A])
    first = audit_lists([path], [write_csv(tmp_path / "c.csv", [B])]).document["inputs"][0]
    assert (first["list"], first["source"], first["kind"], first["dialect"]) == (
        "a:train",
        str(path),
        "list",
        "official",
    )
    assert len(first["sha256"]) == 64


def test_a_class_that_leaks_away_is_named(tmp_path: Path) -> None:
    found = audit_lists([write_csv(tmp_path / "a.csv", [A])], [write_csv(tmp_path / "c.csv", [A])], minimum=1)
    assert [(r["name"], r["emptied"]) for r in found.document["thin_classes"]] == [("yoga", True)]


def test_the_three_files_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    train, held_out = write_csv(tmp_path / "a.csv", [A]), write_csv(tmp_path / "c.csv", [A])
    found = audit_lists([train], [held_out], out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found.document
    assert (tmp_path / "out" / "audit.md").read_text().startswith("# Audit\n\nNOT leak-free")
    assert read_table(tmp_path / "out" / "leaks.parquet", schema.LEAKS).num_rows == 1


def test_thirty_lists_stay_readable(tmp_path: Path) -> None:
    lists = [write_csv(tmp_path / f"list{i:02d}.csv", [A, f"id{i:09d}"]) for i in range(30)]
    found = audit_lists(lists[:10], lists[10:])
    assert len(found.leaking) == 200
    assert max(map(len, found.markdown.splitlines())) < 300
    assert len(found.markdown.splitlines()) < 250
    assert found.document["statement"].endswith("and 197 more pairs of lists share videos.")


# Whose list it is.


def test_a_forks_list_of_test_rows_is_seen_as_a_leak_of_its_own_release(tmp_path: Path, shared: Path) -> None:
    test = shared / "kinetics" / "annotations" / "kinetics400" / "test.csv.gz"
    rows = gzip.decompress(test.read_bytes()).decode().splitlines()[1 : 1 + 26_778]
    fork = tmp_path / "reduced_kinetics-400_train.csv"
    cells = (row.split(",") for row in rows)
    fork.write_text(HEADER + "".join(f"{c[0]},{c[1]},{c[2]},{c[3]},train\n" for c in cells))
    found = audit_lists([fork], [test])
    assert found.document["statement"] == (
        "NOT leak-free: 26,778 videos of reduced_kinetics-400_train:train stand in k400:test, "
        "a held-out list of its own release."
    )
    assert set(found.leaks["kind"].to_pylist()) == {"own_train_eval"}
    assert found.document["own_leaks"] == [
        {
            "train": "reduced_kinetics-400_train:train",
            "held_out": "k400:test",
            "videos": 26_778,
            "train_rows": 26_778,
        }
    ]


def test_a_list_of_a_releases_classes_is_known_without_a_telling_name(tmp_path: Path) -> None:
    classes = load_labels().taxonomy_names("k600")
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + "".join(f'"{c}",id{i:09d},0,10,train\n' for i, c in enumerate(classes)))
    (given,) = read_given(str(path), ReadOptions(), load_labels(), for_training=True).lists
    assert given.owner == "k600"


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("kinetics400/train.csv", "k400"),
        ("reduced_kinetics-400_train.csv", "k400"),
        ("k700_2020_val.csv", "k700-2020"),
        ("k700-2020/val.csv", "k700-2020"),
        ("kinetics710/k600_train_list_videos.txt", "k600"),
        ("mine/train.csv", None),
        ("mykinetics400x.csv", None),
    ],
)
def test_a_list_is_of_the_release_that_its_name_or_folder_says(path: str, owner: str | None) -> None:
    assert owner_of(Path("/lists") / path) == owner


# What may be given.


def test_a_folder_of_clips_is_read_by_the_names_of_its_files(tmp_path: Path) -> None:
    folder = write_clips(
        tmp_path / "clips",
        f"yoga/{A}_000003_000013.mp4",
        f"yoga/{C}.mkv",
        f"zumba/{D}_000000500_000010500.webm",
        "yoga/._x.mp4",
        "yoga/notes.txt",
    )
    (given,) = read_given(str(folder), ReadOptions(), load_labels(), for_training=False).lists
    rows = {r["id"]: (r["start_s"], r["end_s"], r["label"]) for r in given.rows.to_pylist()}
    assert rows == {A: (3.0, 13.0, "yoga"), C: (None, None, "yoga"), D: (0.5, 10.5, "zumba")}
    assert (given.kind, given.split, given.title) == ("clips", "val", f"{tmp_path.name}/clips")


def test_files_whose_names_hold_no_id_are_counted_as_not_checked(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", f"{A}.mp4", f"{B}.mp4", "holiday.mp4")
    found = audit_lists([folder], [write_csv(tmp_path / "c.csv", [C])])
    said = f"1 of 3 rows of {tmp_path.name}/clips:train (no held-out list has ids of their kind)"
    assert found.document["not_checked"] == [said]
    assert f"; not checked: {said}" in found.document["statement"]
    assert found.unchecked_lists == []


def test_a_folder_of_one_releases_lists_gives_the_side_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "kinetics600"
    write_csv(folder / "train.csv", [A])
    write_csv(folder / "validate.csv", [B], "validate")
    write_csv(folder / "test.csv", [C], "test")
    assert ids_of(folder) == {"k600:train": [A]}
    assert ids_of(folder, for_training=False) == {"k600:val": [B], "k600:test": [C]}


def test_a_folder_of_releases_gives_the_lists_of_each(tmp_path: Path) -> None:
    write_csv(tmp_path / "lists" / "kinetics400" / "val.csv", [A], "val")
    write_csv(tmp_path / "lists" / "kinetics600" / "val.csv", [B], "val")
    assert ids_of(tmp_path / "lists", for_training=False) == {"k400:val": [A], "k600:val": [B]}


def test_a_path_list_is_a_list_too(tmp_path: Path) -> None:
    path = tmp_path / "k400_train_list_videos.txt"
    path.write_text(f"videos/{A}_000000_000010.mp4 3\nvideos/{B}.mp4 4\n")
    assert ids_of(path) == {"k400_train_list_videos:train": [A, B]}


def test_shards_are_read_by_their_keys_and_ours_by_their_facts(tmp_path: Path) -> None:
    facts = {"id": A, "segment": {"start_s": 1.5, "end_s": 9}, "labels": {"k710": 0}}
    other = {"id": 17}
    tar = write_tar(
        tmp_path / "shards" / "t-root.tar",
        {
            "some-other-key.mp4": b"",
            "some-other-key.json": json.dumps(facts).encode(),
            f"{B}_000000_000010.mp4": b"",
            f"{B}_000000_000010.json": json.dumps(other).encode(),
            f"{C}.mp4": b"",
            f"{C}.json": b"\xff not json",
        },
    )
    for path in (tar, tar.parent):
        (given,) = read_given(str(path), ReadOptions(), load_labels(), for_training=True).lists
        rows = {r["id"]: (r["start_s"], r["end_s"], r["label"], r["canonical"]) for r in given.rows.to_pylist()}
        assert rows == {A: (1.5, 9.0, "abseiling", 0), B: (0.0, 10.0, None, -1), C: (None, None, None, -1)}
        assert given.kind == "shards"


def test_a_build_gives_its_training_views_or_its_held_out_ones(tmp_path: Path) -> None:
    out = write_build(tmp_path)
    assert ids_of(out) == {"out/k400:train": [B], "out/k710:train": [B]}
    assert ids_of(out, for_training=False) == {"out/k400:val": [C, A], "out/k710:val": [C, A]}
    assert ids_of(f"{out}:k400-val") == {"out/k400:train": [C, A]}


def test_held_out_lists_of_a_build_that_no_view_holds_are_said_to_be_unchecked(tmp_path: Path) -> None:
    out = write_build(tmp_path)
    train = write_csv(tmp_path / "a.csv", [D])
    assert audit_lists([train], [out]).document["not_checked"] == [f"k400:test of {out} (no view holds it)"]
    whole = write_build(tmp_path / "whole", ("default", "k400-test"))
    assert audit_lists([train], [whole]).leaking[0]["held_out"] == "out/k400:test"


def test_the_classes_of_a_build_are_known(tmp_path: Path) -> None:
    (given,) = read_given(f"{write_build(tmp_path)}:k400-train", ReadOptions(), load_labels(), for_training=True).lists
    assert given.rows["label"].to_pylist() == ["yoga"]
    assert given.owner == "k400"


def test_other_ids_than_youtubes_are_said_to_be_unchecked_against_youtubes(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", "1.webm", "2.webm")
    found = audit_lists([folder], [write_csv(tmp_path / "c.csv", [A])])
    assert found.document["not_checked"] == [f"{tmp_path.name}/clips:train (no held-out list has ids of its kind)"]


def test_a_view_without_a_clip_is_a_list_all_the_same(tmp_path: Path) -> None:
    lists = tmp_path / "annotations" / "kinetics400"
    write_csv(lists / "train.csv", [A])
    write_csv(lists / "val.csv", [A], "val")
    build(BuildConfig(annotations=lists.parent, out=tmp_path / "out", manifest_only=True, workers=1))
    found = audit_lists([f"{tmp_path / 'out'}:k400-train"], [lists / "val.csv"])
    assert found.document["statement"] == "leak-free against the lists given: k400:val."
    assert [(r["list"], r["rows"]) for r in found.document["lists"]] == [("out/k400:train", 0), ("k400:val", 1)]


def test_names_that_are_no_unicode_are_read_and_printed(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/clips\xff"))
    write_clips(folder, f"{A}.mp4", os.fsdecode(b"yog\xe9/" + B.encode() + b".mp4"))
    found = audit_lists([folder], [write_csv(tmp_path / "c.csv", [B])], out=tmp_path / "out")
    assert found.document["inputs"][0]["list"].endswith("/clips?:train")
    assert [r["examples"] for r in found.leaking] == [[B]]


@pytest.mark.parametrize(
    "text",
    [
        b'{"id": "\\ud800", "segment": {"start_s": 0, "end_s": 1}}',
        b'{"id": "x", "segment": {"start_s": "x", "end_s": 1}}',
        b'{"id": "x", "segment": "0-1"}',
        b"[" * 100_000,
        b"null",
    ],
)
def test_facts_that_are_not_ours_leave_the_key_to_speak(tmp_path: Path, text: bytes) -> None:
    tar = write_tar(tmp_path / "x.tar", {f"{A}.mp4": b"", f"{A}.json": text})
    assert list(ids_of(tar).values()) == [[A]]


# What may not.


def test_nothing_where_a_word_points_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone: no such file or folder"):
        audit_lists([tmp_path / "gone"], [tmp_path])


@pytest.mark.parametrize(("train", "held_out", "flag"), [([], ["c.csv"], "--train"), (["a.csv"], [], "--eval")])
def test_a_side_without_a_list_is_refused(train: list[str], held_out: list[str], flag: str) -> None:
    with pytest.raises(UsageError, match=f"no list after {flag}"):
        audit_lists(train, held_out)


def test_a_word_given_twice_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [A])
    with pytest.raises(UsageError, match="given twice"):
        audit_lists([path, path], [path])


def test_an_empty_folder_and_one_without_clips_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_clips(tmp_path / "texts", "readme.md")
    for name in ("empty", "texts"):
        with pytest.raises(InputError, match=rf"{name}: no clips, shards or lists in it"):
            ids_of(tmp_path / name)


def test_a_folder_of_lists_without_one_of_the_side_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "lists" / "val.csv", [A], "val")
    with pytest.raises(InputError, match=r"no training list among val.csv"):
        ids_of(tmp_path / "lists")


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\0" * 700])
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises((FeedError, InputError), match=r"x.tar: (not a whole tar archive|no samples in it)"):
        ids_of(tmp_path / "x.tar")


def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {f"{A}.mp4": b"x" * 5000, f"{B}.mp4": b"x" * 5000})
    tar.write_bytes(tar.read_bytes()[:7000])
    with pytest.raises(FeedError, match="not a whole tar archive"):
        ids_of(tar)


def test_a_build_without_its_manifest_is_refused(tmp_path: Path) -> None:
    out = write_build(tmp_path)
    (out / "manifest.parquet").unlink()
    with pytest.raises(FeedError, match=r"manifest.parquet: no such file"):
        ids_of(out)


def test_a_view_that_a_build_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    out = write_build(tmp_path)
    with pytest.raises(UsageError, match="view 'k900-train' is not in") as caught:
        ids_of(f"{out}:k900-train")
    assert "k400-train" in caught.value.hint


def test_a_view_of_what_is_no_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no build here"):
        ids_of(f"{tmp_path}:k710-train")


def test_an_audit_does_not_replace_that_of_a_build(tmp_path: Path) -> None:
    out = write_build(tmp_path)
    path = write_csv(tmp_path / "a.csv", [A])
    with pytest.raises(UsageError, match="holds a build"):
        audit_lists([path], [path], out=out)


def test_an_out_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [A])
    with pytest.raises(UsageError, match="cannot be written"):
        audit_lists([path], [path], out=path)


def test_ids_that_one_file_name_could_stand_for_are_two_videos_all_the_same(tmp_path: Path) -> None:
    rows = [[("a b", 0, 10), ("c", 0, 10)], [("a_b", 0, 10), ("c", 0, 10)]]
    paths = []
    for name, own in zip(("mine", "theirs"), rows, strict=True):
        paths.append(tmp_path / f"{name}.csv")
        lines = [f"{i},{start},{end}" for i, start, end in own]
        paths[-1].write_text("\n".join(["youtube_id,time_start,time_end", *lines]) + "\n")
    (leak,) = audit_lists([paths[0]], [paths[1]]).document["leaks"]
    assert (leak["videos"], leak["examples"]) == (1, ["c"])
