"""Bytes by path and range, from folders and URLs alike."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import pytest

import k710.store
from k710.errors import FeedError, UsageError
from k710.store import Store


@pytest.fixture(params=["path", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with the file ``a/b``, of ten bytes."""
    if request.param == "memory":
        root = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/a/b", b"0123456789")
        return Store(root)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"0123456789")
    return Store(tmp_path if request.param == "path" else f"file://{tmp_path}/")


def test_a_file_is_read_whole(store: Store) -> None:
    assert store.read("a/b") == b"0123456789"


def test_a_range_is_read(store: Store) -> None:
    assert store.read_range("a/b", 3, 4) == b"3456"


def test_a_range_past_the_end_is_a_feed_error(store: Store) -> None:
    with pytest.raises(FeedError, match="a/b: ends before byte 12"):
        store.read_range("a/b", 8, 4)


def test_a_missing_file_is_a_feed_error(store: Store) -> None:
    with pytest.raises(FeedError, match="a/c: no such file"):
        store.read("a/c")
    with pytest.raises(FeedError, match="a/c: no such file"):
        store.read_range("a/c", 0, 1)


def test_existence_is_told(store: Store) -> None:
    assert store.exists("a/b")
    assert not store.exists("a/c")


def test_a_store_can_be_pickled_after_use(store: Store) -> None:
    store.read("a/b")
    assert pickle.loads(pickle.dumps(store)).read_range("a/b", 0, 1) == b"0"


def test_names_that_fit_a_pattern_are_listed_in_order(store: Store, tmp_path: Path) -> None:
    for name in ("a/d.tar", "a/c.tar", "a/c.json"):
        if store.is_local:
            (tmp_path / name).touch()
        else:
            fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", b"")
    assert store.glob("a/*.tar") == ["a/c.tar", "a/d.tar"]
    assert store.glob("*.tar") == []


def test_a_file_is_read_from_its_start_in_pieces(store: Store) -> None:
    with store.open("a/b") as stream:
        assert [stream.read(4), stream.read(4), stream.read(4), stream.read()] == [b"0123", b"4567", b"89", b""]


def test_a_stream_that_is_not_there_is_a_feed_error(store: Store) -> None:
    with pytest.raises(FeedError, match="a/c: no such file"), store.open("a/c"):
        pass


def test_a_stream_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k710.store, "WAITS_S", (0.0,))
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/{tmp_path.name}/a", b"0123456789")
    opened, failures = type(files)._open, [TimeoutError(), ConnectionError()]

    class Weak:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def read(self, size: int) -> bytes:
            if len(failures) == 2 or (failures and self.stream.tell() == 8):  # type: ignore[attr-defined]
                raise failures.pop()
            return bytes(self.stream.read(size))  # type: ignore[attr-defined]

        def __enter__(self) -> Weak:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()  # type: ignore[attr-defined]

    monkeypatch.setattr(type(files), "open", lambda self, path, mode: Weak(opened(self, path, mode)))
    with Store(f"memory://{tmp_path.name}").open("a") as stream:
        assert [stream.read(4) for _ in range(3)] == [b"0123", b"4567", b"89"]
    assert failures == []


def test_what_is_no_file_is_a_feed_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    store = Store(tmp_path)
    for path, reason in (("folder", "Is a directory"), ("file/x", "Not a directory")):
        with pytest.raises(FeedError, match=rf"{path}: cannot be read \({reason}\)"):
            store.read(path)
        with pytest.raises(FeedError, match=rf"{path}: cannot be read \({reason}\)"):
            store.read_range(path, 0, 1)


def test_a_file_whose_rights_cannot_be_had_is_a_feed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(FeedError, match=r"x: cannot be read \(Permission denied\)"):
        Store(tmp_path).exists("x")


def test_an_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"nosuch://bucket: cannot be opened .*Protocol not known") as caught:
        Store("nosuch://bucket").read("x")
    assert "install" in caught.value.hint


def test_a_protocol_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(UsageError, match="s3://bucket: a package for this protocol is missing") as caught:
        Store("s3://bucket").exists("x")
    assert caught.value.hint == "Install s3fs to access S3"
