"""The ledger of a build in an object store: parts that come to one, and count once."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.clips.ledger import LEDGER_FILE, Ledger, merge_ledgers
from k710.clips.outcomes import CORRUPT, OK, ClipOutcome
from k710.objects import parts as ledger_parts
from k710.objects.objects import Objects
from k710.objects.parts import LedgerParts, parts_in, pull_ledgers, put_merged


@pytest.fixture
def objects() -> Objects:
    return Objects(f"memory://{secrets.token_hex(6)}/k710")


def write(parts: LedgerParts, folder: Path, *outcomes: ClipOutcome) -> None:
    """Outcomes as a run records them, each with a commit of its own."""
    folder.mkdir(exist_ok=True)
    with Ledger(folder / LEDGER_FILE, "e", also=parts.note) as ledger:
        for outcome in outcomes:
            ledger.add(outcome)
            parts.flush()


def statuses(objects: Objects, folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    pull_ledgers(objects, objects.listed(), folder)
    return {key: outcome.status for key, outcome in Ledger(folder / LEDGER_FILE, "e").outcomes.items()}


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.lists(st.binary(min_size=1, max_size=30), max_size=3), max_size=12), size=st.integers(1, 60))
def test_the_parts_of_a_run_are_all_that_it_wrote_in_order(batches: list[list[bytes]], size: int) -> None:
    objects = Objects(f"memory://{secrets.token_hex(6)}/k710")
    parts = LedgerParts(objects, "alone")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(ledger_parts, "PART_BYTES", size)
        for batch in batches:
            for line in batch:
                parts.note(line)
            parts.flush()
        pull_ledgers(objects, objects.listed(), Path(folder))
        found = [path.read_bytes() for path in Path(folder).glob("ledger-*")]
    wanted = b"".join(line for batch in batches for line in batch)
    assert found == ([wanted] if wanted else [])
    assert parts_in(objects.listed()) == parts.names


def test_lines_of_a_task_count_more_than_the_ledger_that_it_found(objects: Objects, tmp_path: Path) -> None:
    objects.put(LEDGER_FILE, b"")
    write(LedgerParts(objects, "alone"), tmp_path / "a", ClipOutcome(key="k", status=CORRUPT))
    write(LedgerParts(objects, "task-1"), tmp_path / "b", ClipOutcome(key="k", status=OK, attempts=2))
    assert statuses(objects, tmp_path / "c") == {"k": OK}


@pytest.mark.parametrize("kept", ["all parts", "one part"])
def test_parts_that_the_ledger_holds_do_not_count_again_after_a_kill(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    write(LedgerParts(objects, "a"), tmp_path / "a", ClipOutcome(key="k", status=CORRUPT))
    write(LedgerParts(objects, "b"), tmp_path / "b", ClipOutcome(key="k", status=OK, attempts=2))
    work = tmp_path / "work"
    assert statuses(objects, work) == {"k": OK}
    merge_ledgers(work / LEDGER_FILE)
    names = parts_in(objects.listed())

    def killed(paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            put_merged(objects, names, work)
    if kept == "one part":
        # The better one is gone: what is left would take the clip back.
        objects.delete([name for name in names if "-b-" in name])
    assert parts_in(objects.listed())
    assert statuses(objects, tmp_path / "next") == {"k": OK}
    put_merged(objects, parts_in(objects.listed()), tmp_path / "next")
    assert sorted(objects.listed()) == [LEDGER_FILE]


def test_parts_count_while_the_ledger_that_holds_them_is_not_there(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(LedgerParts(objects, "a"), tmp_path / "a", ClipOutcome(key="k", status=OK))
    work = tmp_path / "work"
    statuses(objects, work)
    merge_ledgers(work / LEDGER_FILE)

    def killed(file: object, path: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(objects, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            put_merged(objects, parts_in(objects.listed()), work)
    assert json.loads(objects.read(".merged-ledger.json"))["parts"]
    assert statuses(objects, tmp_path / "next") == {"k": OK}
