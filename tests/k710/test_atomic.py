"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from k710 import atomic
from k710.errors import UsageError


def test_a_file_gets_its_bytes(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "new" / "file", b"data")
    assert (tmp_path / "new" / "file").read_bytes() == b"data"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        _fail_to_write(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def _fail_to_write(path: Path) -> None:
    with atomic.replacing(path) as partial:
        partial.write_text("ne")
        raise RuntimeError("disk full")


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with atomic.replacing(tmp_path / "file") as partial:
        partial.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_very_long_names_can_be_written(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / ("x" * 250), "x")
    assert len(next(tmp_path.iterdir()).name) == 250


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a", {"b": 1, "a": "é"})
    atomic.write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == '{\n "a": "é",\n "b": 1\n}\n'.encode()


def test_values_that_are_not_json_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def _fail(path: Path, reason: int) -> None:
    with atomic.writable(path):
        raise OSError(reason, os.strerror(reason), str(path / "file"))


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_folder_that_takes_no_files_is_a_usage_error(tmp_path: Path, reason: int) -> None:
    with pytest.raises(UsageError) as caught:
        _fail(tmp_path, reason)
    assert caught.value.message == f"{tmp_path}: cannot be written ({os.strerror(reason)}: {tmp_path / 'file'})"
    assert "goes on from here" in caught.value.hint


def test_failures_that_are_not_the_folders_pass(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError):
        _fail(tmp_path, errno.EPIPE)


def test_a_folder_without_rights_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(UsageError, match=r"new/out: cannot be written \(Permission denied"),
        atomic.writable(tmp_path / "new" / "out"),
    ):
        pytest.fail("was entered")
    assert not list(tmp_path.iterdir())


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"cannot be written \(not a folder: .*/file\)"),
        atomic.writable(tmp_path / "file" / "a" / "b"),
    ):
        pytest.fail("was entered")
