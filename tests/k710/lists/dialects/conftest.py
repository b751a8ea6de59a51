"""Ways to read a few bytes as a list of a build and as anyone's list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k710.config import load_releases
from k710.labels import load_labels
from k710.lists.annotations import AnnotationList, ListFile, ReadOptions, read_list
from k710.lists.dialects.foreign import ForeignList, read_foreign


@pytest.fixture
def build_list(tmp_path: Path) -> Callable[..., AnnotationList]:
    """Reads ``content`` as the ``split`` list of ``release``."""

    def read(
        content: bytes | str, name: str = "train.csv", release: str = "k400", split: str = "train", **options: Any
    ) -> AnnotationList:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        file = ListFile(release=load_releases()[release], split=split, path=path)
        return read_list(file, load_labels(), ReadOptions(**options))

    return read


@pytest.fixture
def foreign_lists(tmp_path: Path) -> Callable[..., list[ForeignList]]:
    """Reads ``content`` as a file that anyone may have written."""

    def read(
        content: bytes | str, name: str = "list.txt", taxonomy: str | None = None, **options: Any
    ) -> list[ForeignList]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_foreign(path, load_labels(), ReadOptions(**options), taxonomy=taxonomy)

    return read
