"""What is published where, as ``releases.toml`` says, on mirrors and in path lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.config import load_releases
from k710.errors import InputError, UsageError
from k710.fetch.published import (
    archive_name,
    archive_stem,
    chosen_releases,
    mirrored,
    published_lists,
    published_videos,
    read_path_list,
)

S3 = "https://s3.amazonaws.com/kinetics"
DEEPMIND = "https://storage.googleapis.com/deepmind-media/Datasets"
LIST = f"{S3}/600/train/k600_train_path.txt"


def test_the_addresses_are_the_published_ones() -> None:
    splits = ("train", "val", "test")
    k600 = ("train.txt", "val.txt", "test.csv", "kinetics600_holdout_test.csv")
    assert {name: {file.url for file in release.published} for name, release in load_releases().items()} == {
        "k400": {
            *(f"{S3}/400/{split}/k400_{split}_path.txt" for split in splits),
            *(f"{S3}/400/annotations/{split}.csv" for split in splits),
            f"{S3}/400/replacement_for_corrupted_k400.tgz",
            f"{DEEPMIND}/kinetics400.tar.gz",
        },
        "k600": {
            *(f"{S3}/600/{split}/k600_{split}_path.txt" for split in splits),
            *(f"{S3}/600/annotations/{name}" for name in k600),
            f"{DEEPMIND}/kinetics600.tar.gz",
        },
        "k700": {f"{DEEPMIND}/kinetics700.tar.gz"},
        "k700-2020": {
            *(f"{S3}/700_2020/{split}/k700_2020_{split}_path.txt" for split in splits),
            *(f"{S3}/700_2020/annotations/{split}.csv" for split in splits),
            f"{DEEPMIND}/kinetics700_2020.tar.gz",
        },
    }


def test_every_file_that_names_a_split_is_of_it() -> None:
    for release in load_releases().values():
        splits = {*release.splits, *release.optional_splits}
        for file in release.published:
            assert file.split in splits if file.publisher == "cvdf" else file.split == ""
            if file.split and file.what != "replacement":
                assert file.split in file.url


def test_the_first_publisher_is_taken_unless_one_is_named() -> None:
    known = load_releases()
    assert {f.publisher for f in published_lists(known["k400"], None)} == {"cvdf"}
    assert {f.publisher for f in published_lists(known["k700"], None)} == {"deepmind"}
    assert [f.url for f in published_lists(known["k400"], "deepmind")] == [f"{DEEPMIND}/kinetics400.tar.gz"]


def test_what_is_not_published_is_said() -> None:
    known = load_releases()
    with pytest.raises(UsageError, match="no annotations of k700 by cvdf"):
        published_lists(known["k700"], "cvdf")
    with pytest.raises(UsageError, match="no videos of k700 are published") as caught:
        published_videos(known["k700"], ["train"])
    assert caught.value.hint == "there are those of k400, k600, k700-2020"
    with pytest.raises(UsageError, match="no videos of k600:holdout are published"):
        published_videos(known["k600"], ["holdout"])
    with pytest.raises(UsageError, match="unknown release 'k500'"):
        chosen_releases(["k400", "k500"])
    with pytest.raises(UsageError, match="no release is named"):
        chosen_releases([])


def test_replacements_come_with_the_training_videos() -> None:
    k400 = load_releases()["k400"]
    assert [f.what for f in published_videos(k400, ["train"])] == ["path_list", "replacement"]
    assert [f.what for f in published_videos(k400, ["val", "test"])] == ["path_list"] * 2


@pytest.mark.parametrize(
    ("url", "base", "there"),
    [
        (f"{S3}/400/a.csv", None, f"{S3}/400/a.csv"),
        (f"{S3}/400/a.csv", "http://localhost:80", "http://localhost:80/kinetics/400/a.csv"),
        (f"{S3}/400/a.csv?x=1", "http://h/mirror/", "http://h/mirror/kinetics/400/a.csv?x=1"),
        ("http://h/mirror/400/a.csv", "http://h/mirror", "http://h/mirror/400/a.csv"),
        ("http://h/mirror2/a.csv", "http://h/mirror", "http://h/mirror/mirror2/a.csv"),
    ],
)
def test_a_mirror_has_the_same_paths(url: str, base: str | None, there: str) -> None:
    assert mirrored(url, base) == there


@pytest.mark.parametrize(
    "base", ["localhost:8000", "file:///data", "s3://bucket", "http://", "http://[::1", "http://h:x"]
)
def test_a_mirror_speaks_http(base: str) -> None:
    with pytest.raises(UsageError, match="not an http or https address"):
        mirrored(f"{S3}/a.csv", base)


def test_a_path_list_names_archives_in_its_order_each_once() -> None:
    text = f"\ufeff{S3}/600/train/b c.tar.gz\r\n\n{S3}/600/train/a%20(b).tgz\n{S3}/600/train/b c.tar.gz\nd.tar\n"
    assert read_path_list(text.encode(), "p", LIST, "http://h") == [
        "http://h/kinetics/600/train/b c.tar.gz",
        "http://h/kinetics/600/train/a%20(b).tgz",
        "http://h/kinetics/600/train/d.tar",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no archive"),
        ("\n\n", "names no archive"),
        ("<html>nothing here", "a page, not a list of archives"),
        (f"{S3}/a.tar.gz\n{S3}/readme.html", "row 2: not the address of an archive"),
        ("file:///etc/a.tar.gz", "row 1: not the address of an archive"),
        ("ftp://h/a.tar.gz", "row 1: not the address of an archive"),
        (f"{S3}/..%2f..%2fa.tar.gz", "row 1: not the address of an archive"),
        (f"{S3}/x/..", "row 1: not the address of an archive"),
        ("http://[::1/a.tar.gz", "row 1: not the address of an archive"),
        ("http://h:port/a.tar.gz", "row 1: not the address of an archive"),
        (f"{S3}/.tar.gz", "row 1: not the address of an archive"),
        (f"{S3}/1/a.tar.gz\n{S3}/2/a.tar.gz", "row 2: a second archive called a.tar.gz"),
    ],
)
def test_a_path_list_that_cannot_be_is_refused_with_its_row(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"k600/p: {message}|k600/p {message}"):
        read_path_list(text.encode(), "k600/p", LIST, None)


def test_a_path_list_is_text() -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        read_path_list(b"\xff\xfe", "p", LIST, None)


@given(
    st.lists(
        st.text(max_size=40) | st.sampled_from(["http://[", "//h/a.tar", "\\\\h\\a.tar", "a.tar?\x00"]), max_size=5
    )
)
def test_of_any_text_come_addresses_with_fit_names_or_an_error(lines: list[str]) -> None:
    text = "\n".join(lines).encode(errors="replace")
    try:
        urls = read_path_list(text, "p", LIST, "http://h")
    except InputError:
        return
    for url in urls:
        assert url.startswith("http://h/")
        assert Path("/x", archive_name(url)).parent == Path("/x")


def test_an_archive_is_called_by_its_last_part() -> None:
    assert (
        archive_name(f"{S3}/600/train/shooting%20goal%20(soccer).tar.gz?versionId=3") == "shooting goal (soccer).tar.gz"
    )
    assert archive_stem("shooting goal (soccer).tar.gz") == "shooting goal (soccer)"
    assert archive_stem("replacement_for_corrupted_k400.tgz") == "replacement_for_corrupted_k400"
