"""Pipes where files are expected: refused by name, since to open one could wait for ever."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from k710.class_names.files import read_label_file
from k710.errors import InputError, UsageError
from k710.labels import load_labels, read_labels
from k710.lists.selection import classes_named, read_ids

READERS: list[Callable[[Path], object]] = [
    read_label_file,
    read_labels,
    lambda path: read_ids(path, "--exclude-ids"),
    lambda path: classes_named([f"@{path}"], load_labels(), "--classes"),
]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_a_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((UsageError, InputError), match="pipe: not a file"):
        read(tmp_path / "pipe")


def test_a_gzipped_label_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt.gz").write_bytes(gzip.compress(b"abseiling\nyoga\n"))
    assert [row.name for row in read_label_file(tmp_path / "names.txt.gz").rows] == ["abseiling", "yoga"]
