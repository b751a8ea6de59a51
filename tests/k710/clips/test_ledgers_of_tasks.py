"""Ledgers of several tasks beside the one of the build: what counts, and how they become one."""

from __future__ import annotations

from pathlib import Path

import pytest

from k710.clips.ledger import LEDGER_FILE, Ledger, merge_ledgers
from k710.clips.outcomes import CORRUPT, MISSING, OK, ClipOutcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER_FILE


def write(path: Path, task: str, *outcomes: ClipOutcome, encode: str = "e") -> None:
    with Ledger(path, encode, task=task) as ledger:
        ledger.add_all(outcomes)


def statuses(path: Path, encode: str = "e") -> dict[str, str]:
    return {key: outcome.status for key, outcome in Ledger(path, encode).outcomes.items()}


def test_the_ledger_of_a_build_is_read_with_those_of_tasks(path: Path) -> None:
    write(path, "", ClipOutcome(key="a", status=OK), ClipOutcome(key="b", status=MISSING))
    write(path, "task-0", ClipOutcome(key="b", status=CORRUPT))
    write(path, "task-1", ClipOutcome(key="c", status=OK))
    assert statuses(path) == {"a": OK, "b": CORRUPT, "c": OK}


def test_two_runs_of_one_task_never_write_to_one_file(path: Path) -> None:
    write(path, "task-0", ClipOutcome(key="a", status=OK))
    write(path, "task-0", ClipOutcome(key="b", status=OK))
    assert len(list(path.parent.iterdir())) == 2
    assert set(statuses(path)) == {"a", "b"}


@pytest.mark.parametrize("names", [("task-0", "task-1"), ("task-1", "task-0")])
def test_of_several_tasks_the_clip_that_is_there_counts_and_then_more_attempts(
    path: Path, names: tuple[str, str]
) -> None:
    write(path, names[0], ClipOutcome(key="a", status=OK), ClipOutcome(key="b", status=CORRUPT, attempts=2))
    write(path, names[1], ClipOutcome(key="a", status=CORRUPT, attempts=3), ClipOutcome(key="b", status=MISSING))
    assert statuses(path) == {"a": OK, "b": CORRUPT}


def test_within_one_file_the_last_line_counts(path: Path) -> None:
    write(path, "task-0", ClipOutcome(key="a", status=CORRUPT, attempts=4), ClipOutcome(key="a", status=MISSING))
    assert statuses(path) == {"a": MISSING}


def test_merged_ledgers_tell_what_they_told_before(path: Path) -> None:
    write(path, "", ClipOutcome(key="a", status=OK), ClipOutcome(key="b", status=MISSING))
    write(path, "task-0", ClipOutcome(key="b", status=CORRUPT, notes=("one",)), encode="e")
    write(path, "task-1", ClipOutcome(key="b", status=OK), ClipOutcome(key="a", status=CORRUPT), encode="other")
    before = [Ledger(path, encode).outcomes for encode in ("e", "other")]
    merge_ledgers(path)
    assert [Ledger(path, encode).outcomes for encode in ("e", "other")] == before
    assert [found.name for found in path.parent.iterdir()] == [LEDGER_FILE]


def test_a_merge_that_was_killed_before_its_end_is_done_again(path: Path) -> None:
    write(path, "task-0", ClipOutcome(key="a", status=CORRUPT, attempts=2))
    (task,) = path.parent.glob("ledger-*")
    kept = task.read_bytes()
    merge_ledgers(path)
    task.write_bytes(kept)
    merge_ledgers(path)
    write(path, "", ClipOutcome(key="a", status=MISSING))
    assert statuses(path) == {"a": MISSING}


def test_a_torn_last_line_of_a_task_is_dropped(path: Path) -> None:
    write(path, "task-0", ClipOutcome(key="a", status=OK))
    (task,) = path.parent.glob("ledger-*")
    task.write_bytes(task.read_bytes() + b'{"schema": "k710.led')
    assert statuses(path) == {"a": OK}
    merge_ledgers(path)
    assert path.read_bytes().count(b"\n") == 1


def test_without_tasks_a_merge_leaves_the_ledger_as_it_is(path: Path) -> None:
    path.write_bytes(b'{"torn')
    merge_ledgers(path)
    assert path.read_bytes() == b'{"torn'
