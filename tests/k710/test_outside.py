"""What is written for people or other tools lies in no build."""

from __future__ import annotations

from pathlib import Path

import pytest

from k710.errors import UsageError
from k710.outside import require_outside_builds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a build."""
    (tmp_path / "data/shards").mkdir(parents=True)
    (tmp_path / "data/k710.lock.json").write_text("{}")
    return tmp_path / "data"


def test_a_build_and_all_in_it_is_refused_however_it_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder / "shards")
    monkeypatch.chdir(folder / "shards")
    for inside in (folder, folder / "a/b", tmp_path / "link/new", folder / "shards/../new", Path("new"), Path("..")):
        with pytest.raises(UsageError, match=rf"--out {inside}: belongs to the build {folder}$"):
            require_outside_builds(inside, "--out")


def test_folders_elsewhere_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "mine").symlink_to(tmp_path / "elsewhere")
    for outside in (tmp_path, tmp_path / "data2", folder / "../new", folder / "mine/new"):
        require_outside_builds(outside, "--out")


def test_a_place_of_a_builds_own_is_excepted_but_not_a_build_in_it(folder: Path) -> None:
    own = folder / "exports"
    for place in (own, own / "a/b"):
        require_outside_builds(place, "--out", except_for=own)
    (own / "second").mkdir(parents=True)
    (own / "second/k710.lock.json").write_text("{}")
    for place in (own / "second", own / "second/shards", folder / "exports2"):
        with pytest.raises(UsageError, match="belongs to the build") as error:
            require_outside_builds(place, "--out", except_for=own)
        assert f"or one in {own}" in error.value.hint
