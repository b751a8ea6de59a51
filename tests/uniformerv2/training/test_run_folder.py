"""The folder of a run: one trainer at a time, and nobody else's folder."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from k710.errors import UsageError
from uniformerv2.training.folder import open_run

SETTINGS = {"recipe": {"seed": 1}}


def test_a_second_trainer_on_a_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        assert not open_run(tmp_path / "run", SETTINGS, resume=False, fresh=False, guard=first)
        with pytest.raises(UsageError, match="another process is training in"):
            open_run(tmp_path / "run", SETTINGS, resume=False, fresh=False, guard=second)
        first.close()
        assert open_run(tmp_path / "run", SETTINGS, resume=False, fresh=False, guard=second)


def test_the_guard_of_a_dead_process_holds_nobody_back(tmp_path: Path) -> None:
    out = tmp_path / "run"
    if (child := os.fork()) == 0:
        with ExitStack() as guard:
            open_run(out, SETTINGS, resume=False, fresh=False, guard=guard)
            os._exit(0)
    os.waitpid(child, 0)
    with ExitStack() as guard:
        assert open_run(out, SETTINGS, resume=True, fresh=False, guard=guard)


def test_a_folder_with_nothing_but_a_guard_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".run-guard").touch()
    with ExitStack() as guard, pytest.raises(UsageError, match="no run to resume"):
        open_run(tmp_path, SETTINGS, resume=True, fresh=False, guard=guard)
    with ExitStack() as guard:
        assert not open_run(tmp_path, SETTINGS, resume=False, fresh=True, guard=guard)


def test_a_foreign_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with ExitStack() as guard, pytest.raises(UsageError, match="not a run"):
        open_run(tmp_path, SETTINGS, resume=False, fresh=False, guard=guard)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
