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


def test_a_run_from_before_a_setting_existed_is_one_with_its_default(tmp_path: Path) -> None:
    before = {"recipe": {"seed": 1, "optim": {"epochs": 3}}}
    now = {"recipe": {"seed": 1, "optim": {"epochs": 3, "ema_decay": 0.0, "layer_decay": 1.0}, "test": {"clips": 3}}}
    other = {"recipe": {"seed": 1, "optim": {"epochs": 3, "ema_decay": 0.5}}}
    with ExitStack() as guard:
        open_run(tmp_path, before, resume=False, fresh=False, guard=guard)
    with ExitStack() as guard, pytest.raises(UsageError, match=r"recipe.optim.ema_decay: 0.0 -> 0.5$"):
        open_run(tmp_path, other, resume=True, fresh=False, guard=guard)
    with ExitStack() as guard:
        assert open_run(tmp_path, now, resume=True, fresh=False, guard=guard)


@pytest.mark.parametrize(
    ("table", "name", "value", "may"),
    [
        ("runtime", "sharding", "fsdp", True),
        ("runtime", "device", "cuda", True),
        ("runtime", "keep_checkpoints", 9, True),
        ("runtime", "log_every", 9, True),
        ("runtime", "compile", True, True),
        ("runtime", "precision", "bf16", False),
        ("validation", "view", "k400-val", True),
        ("validation", "every_epochs", 9, True),
        ("optim", "max_bad_steps", 9, True),
        ("optim", "label_smoothing", 0.1, False),
        ("data", "sampling", "dense", False),
        ("data", "micro_batch", 9, True),
    ],
)
def test_what_may_differ_when_a_run_goes_on(tmp_path: Path, table: str, name: str, value: object, may: bool) -> None:
    with ExitStack() as guard:
        open_run(tmp_path, SETTINGS, resume=False, fresh=False, guard=guard)
    changed = {"recipe": {**SETTINGS["recipe"], table: {name: value}}}
    with ExitStack() as guard:
        if may:
            assert open_run(tmp_path, changed, resume=True, fresh=False, guard=guard)
        else:
            with pytest.raises(UsageError, match=rf"other settings: recipe.{table}.{name}: "):
                open_run(tmp_path, changed, resume=True, fresh=False, guard=guard)


@pytest.mark.parametrize(("table", "name", "value"), [("model", "local_blocks", 1), ("augment", "mixup", 0.8)])
def test_a_micro_batch_that_decides_the_result_may_not_differ(
    tmp_path: Path, table: str, name: str, value: float
) -> None:
    before = {"recipe": {**SETTINGS["recipe"], table: {name: value}}}
    with ExitStack() as guard:
        open_run(tmp_path, before, resume=False, fresh=False, guard=guard)
    changed = {"recipe": {**before["recipe"], "data": {"micro_batch": 9}}}
    with ExitStack() as guard, pytest.raises(UsageError, match=r"other settings: recipe.data.micro_batch: "):
        open_run(tmp_path, changed, resume=True, fresh=False, guard=guard)
