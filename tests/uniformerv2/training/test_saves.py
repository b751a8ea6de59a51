"""Checkpoints on disk: which are kept, what is told of a damaged one, and that saving disturbs nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from saved_state import checkpoint_of, is_whole, scores_of

from k710.errors import CheckpointError
from uniformerv2.training import saves as saves_module
from uniformerv2.training.checkpoint import load_checkpoint
from uniformerv2.training.digest import content_digest
from uniformerv2.training.folder import open_run
from uniformerv2.training.saves import Saves, newest_checkpoint_path, step_path


def save_all(out: Path, *steps: int, keep: int = 2) -> Saves:
    saves = Saves(out, keep)
    for step in steps:
        saves.save(checkpoint_of(step))
    saves.wait()
    return saves


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def flip_a_bit(path: Path, step: int) -> None:
    """Change one weight of the checkpoint after ``step`` steps a little, and nothing else of the file."""
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((64,), float(step)).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = dataclasses.replace(checkpoint_of(7), validation=scores_of(0.5, 0.75), best=scores_of(0.9))
    saves = Saves(tmp_path, 2)
    saves.save(saved)
    saves.wait()
    read = Saves(tmp_path, 2).newest()
    assert read is not None
    assert is_whole(read)
    for name in ("state", "validation", "best", "scaler"):
        assert getattr(read, name) == getattr(saved, name)
    assert read.optimizer["param_groups"] == saved.optimizer["param_groups"]
    assert read.provenance.classes == saved.provenance.classes


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert Saves(tmp_path, 2).newest() is None
    assert Saves(tmp_path, 2).best() is None
    assert newest_checkpoint_path(tmp_path) is None


def test_what_the_loop_does_after_a_save_is_not_in_it(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(1, numbers=500_000)
    saves = Saves(tmp_path, 9)
    for step in range(1, 5):
        saves.save(dataclasses.replace(checkpoint, state=dataclasses.replace(checkpoint.state, step=step)))
        for tensor in (
            *checkpoint.model.values(),
            *checkpoint.optimizer["state"][0].values(),
            checkpoint.ema["weight"],
        ):
            tensor += 1
    saves.wait()
    assert all(is_whole(load_checkpoint(step_path(tmp_path, step))) for step in range(1, 5))


def test_an_optimizer_that_has_more_to_say_than_at_the_last_save_is_saved_whole(tmp_path: Path) -> None:
    saves = Saves(tmp_path, 2)
    saves.save(dataclasses.replace(checkpoint_of(1), optimizer={"state": {}, "param_groups": []}, ema={}))
    saves.save(checkpoint_of(2))
    saves.save(checkpoint_of(3, numbers=99))
    saves.wait()
    assert all(is_whole(load_checkpoint(step_path(tmp_path, step))) for step in (2, 3))


def test_a_save_does_not_wait_for_its_file_and_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), saves_module.write_checkpoint
    monkeypatch.setattr(saves_module, "write_checkpoint", lambda *given: may_write.wait(30) and write(*given))
    saves = Saves(tmp_path, 2)
    saves.save(checkpoint_of(1))
    assert newest_checkpoint_path(tmp_path) is None
    threading.Timer(0.1, may_write.set).start()
    saves.save(checkpoint_of(2))
    assert step_path(tmp_path, 1).is_file()
    saves.wait()
    assert names(tmp_path) == ["step-00000001.pt", "step-00000002.pt"]


def test_the_newest_few_and_the_best_are_kept(tmp_path: Path) -> None:
    saves = Saves(tmp_path, 2)
    for step in range(1, 6):
        saves.save(checkpoint_of(step, scores=scores_of(0.1 * step)), best=step == 2)
    saves.wait()
    assert names(tmp_path) == ["best.pt", "step-00000004.pt", "step-00000005.pt"]
    best = saves.best()
    assert best is not None
    assert load_checkpoint(best).state.step == 2
    saves.save(checkpoint_of(6), best=True)
    saves.wait()
    assert load_checkpoint(best).state.step == 6


def test_steps_are_in_order_of_number_and_not_of_name(tmp_path: Path) -> None:
    save_all(tmp_path, 99_999_999, 100_000_000)
    assert newest_checkpoint_path(tmp_path) == tmp_path / "checkpoints/step-100000000.pt"


def test_the_best_is_a_copy_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    saves = Saves(tmp_path, 1)
    saves.save(checkpoint_of(1), best=True)
    saves.wait()
    assert names(tmp_path) == ["best.pt", "step-00000001.pt"]
    assert is_whole(load_checkpoint(tmp_path / "checkpoints/best.pt"))


def test_a_file_is_as_readable_as_the_users_others(tmp_path: Path) -> None:
    saves = Saves(tmp_path, 1)
    saves.save(checkpoint_of(1), best=True)
    saves.wait()
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in (*(tmp_path / "checkpoints").iterdir(), tmp_path / "other")}
    assert len(modes) == 1


def test_one_flipped_bit_is_damage(tmp_path: Path) -> None:
    save_all(tmp_path, 3)
    flip_a_bit(step_path(tmp_path, 3), 3)
    with pytest.raises(CheckpointError, match="damaged: its content is not what was saved"):
        load_checkpoint(step_path(tmp_path, 3))


@pytest.mark.parametrize("damage", ["a bit", "cut off", "empty", "text"])
def test_a_damaged_newest_gives_way_to_the_one_before_and_it_is_said(tmp_path: Path, damage: str) -> None:
    save_all(tmp_path, 3, 4)
    path = step_path(tmp_path, 4)
    whole = path.read_bytes()
    if damage == "a bit":
        flip_a_bit(path, 4)
    else:
        path.write_bytes({"cut off": whole[: len(whole) // 2], "empty": b"", "text": b"<html>"}[damage])
    saves = Saves(tmp_path, 2)
    newest = saves.newest()
    assert newest is not None
    assert newest.state.step == 3
    [said] = saves.said
    assert str(path) in said
    assert said.endswith("going on from step-00000003.pt instead")


def test_the_best_is_taken_when_nothing_else_is_whole(tmp_path: Path) -> None:
    saves = Saves(tmp_path, 1)
    saves.save(checkpoint_of(1), best=True)
    saves.save(checkpoint_of(2))
    saves.wait()
    step_path(tmp_path, 2).write_bytes(b"")
    newest = saves.newest()
    assert newest is not None
    assert newest.state.step == 1


def test_without_a_whole_one_all_stay_and_it_is_an_error(tmp_path: Path) -> None:
    save_all(tmp_path, 3, 4)
    for step in (3, 4):
        step_path(tmp_path, step).write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole") as caught:
        Saves(tmp_path, 2).newest()
    assert (
        caught.value.hint
        == f"put sound copies of them into {tmp_path}, or begin anew: --fresh in a new folder, by another --out"
    )
    assert names(tmp_path) == ["step-00000003.pt", "step-00000004.pt"]


def test_a_damaged_one_is_not_counted_among_those_kept_and_goes_with_the_next_save(tmp_path: Path) -> None:
    save_all(tmp_path, 3, 6)
    step_path(tmp_path, 6).write_bytes(b"")
    saves = Saves(tmp_path, 2)
    saves.newest()
    assert names(tmp_path) == ["step-00000003.pt", "step-00000006.pt"]
    saves.save(checkpoint_of(5))
    saves.wait()
    assert names(tmp_path) == ["step-00000003.pt", "step-00000005.pt"]


def test_a_damaged_one_between_whole_ones_is_not_counted_either(tmp_path: Path) -> None:
    save_all(tmp_path, 3, 6)
    step_path(tmp_path, 6).write_bytes(b"")
    saves = Saves(tmp_path, 2)
    saves.newest()
    saves.save(checkpoint_of(7))
    saves.wait()
    assert names(tmp_path) == ["step-00000003.pt", "step-00000007.pt"]


def test_one_of_a_later_version_is_not_passed_over(tmp_path: Path) -> None:
    save_all(tmp_path, 3, 4)
    path = step_path(tmp_path, 4)
    torch.save(torch.load(path, weights_only=True) | {"schema_version": 3}, path)
    with pytest.raises(CheckpointError, match="schema version 3, this version reads 1 and 2"):
        Saves(tmp_path, 2).newest()


def test_the_single_checkpoint_of_an_older_run_is_read_and_goes_when_enough_newer_ones_are_there(
    tmp_path: Path,
) -> None:
    save_all(tmp_path / "new", 3)
    content = torch.load(step_path(tmp_path / "new", 3), weights_only=True)
    old = {k: v for k, v in content.items() if k not in ("digest", "ema", "scaler", "validation", "best")}
    out = tmp_path / "old"
    out.mkdir()
    torch.save(old | {"schema_version": 1}, out / "checkpoint.pt")
    assert newest_checkpoint_path(out) == out / "checkpoint.pt"
    saves = Saves(out, 2)
    newest = saves.newest()
    assert newest is not None
    assert (newest.state.step, newest.ema, newest.scaler, newest.best) == (3, {}, {}, None)
    for step in (4, 5):
        assert (out / "checkpoint.pt").is_file()
        saves.save(checkpoint_of(step))
        saves.wait()
    assert [path.name for path in out.iterdir()] == ["checkpoints"]


def test_a_full_disk_is_said_at_the_next_call_and_leaves_what_was_there(tmp_path: Path) -> None:
    saves = save_all(tmp_path, 1, 2)
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    for ask in (saves.wait, lambda: saves.save(checkpoint_of(4))):
        with full_disk(2000):
            saves.save(checkpoint_of(3), best=True)
            with pytest.raises(CheckpointError, match=r"step-00000003.pt: cannot be written") as caught:
                ask()
        assert "make room" in caught.value.hint
        assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    saves.save(checkpoint_of(5))
    saves.wait()
    assert names(tmp_path) == ["step-00000002.pt", "step-00000005.pt"]


@pytest.mark.parametrize("numbers", [64, 100_000])
def test_a_full_disk_is_told_in_plain_words_with_what_is_needed_and_free(tmp_path: Path, numbers: int) -> None:
    saves = Saves(tmp_path, 2)
    with full_disk(2000):
        saves.save(checkpoint_of(1, numbers=numbers))
        with pytest.raises(CheckpointError) as caught:
            saves.wait()
    needed = f"{3 * numbers * 4 / 2**20:,.1f}"
    said = (
        rf"\.pt: cannot be written: the disk took only a part of it; it takes about {needed} MiB; [\d,.]+ MiB are free$"
    )
    assert re.search(said, caught.value.message)


def test_a_folder_that_may_not_be_written_to_is_not_called_full(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    saves = Saves(tmp_path, 2)
    saves.save(checkpoint_of(1))
    with pytest.raises(CheckpointError, match=r"cannot be written: \w[\w ]+$") as caught:
        saves.wait()
    assert "make room" not in caught.value.hint


def test_what_a_kill_left_is_removed_by_the_next_run_and_nothing_else(tmp_path: Path) -> None:
    settings = {"recipe": {"seed": 1}}
    with ExitStack() as guard:
        open_run(tmp_path, settings, resume=False, fresh=False, guard=guard)
    save_all(tmp_path, 1)
    for name in (".step-00000002.pt.a1.partial", ".best.pt.a1.partial", ".mine.partial"):
        (tmp_path / "checkpoints" / name).touch()
    with ExitStack() as guard:
        open_run(tmp_path, settings, resume=False, fresh=False, guard=guard)
    assert names(tmp_path) == [".mine.partial", "step-00000001.pt"]


def test_a_second_save_of_a_step_takes_the_place_of_the_first(tmp_path: Path) -> None:
    saves = save_all(tmp_path, 1)
    saves.save(checkpoint_of(1, scores=scores_of(0.5)), best=True)
    saves.wait()
    newest = saves.newest()
    assert newest is not None
    assert newest.validation == scores_of(0.5)
    assert names(tmp_path) == ["best.pt", "step-00000001.pt"]


CONTENT = {"a": torch.zeros(4), "b": [1, 2.5, None, True], "c": {"d": "x"}}


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([0.0, 0, 0, -0.0])},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"b": [1, 2.5, None, 1]},
        {"b": [1, 2.5, None]},
        {"c": {"e": "x"}},
        {"c": {"d": ""}},
        {"e": None},
    ],
)
def test_contents_that_differ_have_other_digests(other: dict[str, object]) -> None:
    assert content_digest(CONTENT) == content_digest(dict(CONTENT))
    assert content_digest({**CONTENT, **other}) != content_digest(CONTENT)


def test_what_is_no_plain_value_has_no_digest() -> None:
    with pytest.raises(TypeError, match="not set"):
        content_digest({"a": {1}})


def test_a_save_in_flight_is_finished_by_a_process_that_ends_by_an_error(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        try:
            saves = Saves(tmp_path, 2)
            saves.save(checkpoint_of(1, numbers=2_000_000))
        finally:
            # As the interpreter does on its way out.
            threading._shutdown()  # type: ignore[attr-defined]
            os._exit(1)
    os.waitpid(child, 0)
    assert is_whole(load_checkpoint(step_path(tmp_path, 1)))


def test_a_checkpoint_of_a_large_model_blocks_the_loop_for_less_than_its_writing_takes(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(1, numbers=4_000_000)
    saves = Saves(tmp_path, 1)
    for _ in range(2):  # the first also takes the memory
        saves.wait()
        began = time.perf_counter()
        saves.save(checkpoint)
        blocked_s = time.perf_counter() - began
    began = time.perf_counter()
    saves.wait()
    assert blocked_s < time.perf_counter() - began
