"""Claims on a folder: one owner each, told dead by the lock here and by age elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from k710 import claims
from k710.claims import Claims, TakenError
from k710.errors import SourceError

HOLD = (
    "import sys, time; from pathlib import Path; from k710.claims import Claims\n"
    "with Claims(Path(sys.argv[1])).held('one', {'who': 'a test'}): print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "claims"


def of_elsewhere(folder: Path, age_s: float) -> Path:
    """A claim of another machine that was last touched so long ago."""
    folder.mkdir(parents=True)
    path = folder / "one"
    path.write_text(json.dumps({"token": "theirs", "machine": "another", "host": "node7", "pid": 5, "who": "task 3"}))
    now = path.stat().st_mtime
    os.utime(path, (now - age_s, now - age_s))
    return path


def test_a_claim_that_is_held_is_taken_and_tells_its_owner(folder: Path) -> None:
    with Claims(folder).held("one", {"who": "task 1"}):
        assert set(Claims(folder).alive()) == {"one"}
        with pytest.raises(TakenError, match=rf"out: task 1 on .*\(process {os.getpid()}\)"):
            Claims(folder).held("one", {}).__enter__()
        with Claims(folder).held("two", {}):
            assert set(Claims(folder).alive()) == {"one", "two"}
    assert not folder.exists()


def test_the_claim_of_a_killed_process_of_this_machine_is_free_at_once(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(TakenError, match="a test"):
            Claims(folder).held("one", {}).__enter__()
        process.send_signal(signal.SIGKILL)
    assert (folder / "one").exists()
    assert Claims(folder).alive() == {}
    with Claims(folder).held("one", {}):
        assert set(Claims(folder).alive()) == {"one"}


def test_the_claim_of_another_machine_lives_until_it_expires(folder: Path) -> None:
    of_elsewhere(folder, claims.EXPIRY_S - 20)
    with pytest.raises(TakenError, match=r"task 3 on node7 \(process 5\)"):
        Claims(folder).held("one", {}).__enter__()


def test_the_claim_of_another_machine_is_free_when_it_has_expired(folder: Path) -> None:
    of_elsewhere(folder, claims.EXPIRY_S + 1)
    assert Claims(folder).alive() == {}
    with Claims(folder).held("one", {}):
        pass
    assert not folder.exists()


def test_a_claim_whose_owner_has_not_come_to_write_it_lives(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "one").touch()
    assert Claims(folder).alive() == {"one": {}}


def test_a_claim_that_was_made_in_place_of_a_dead_one_is_not_buried_with_it(folder: Path) -> None:
    path = of_elsewhere(folder, claims.EXPIRY_S + 1)
    Claims(folder)._bury(path, "of the one before")
    assert json.loads(path.read_text())["token"] == "theirs"
    Claims(folder)._bury(path, "theirs")
    assert list(folder.iterdir()) == []


def test_a_burial_that_was_killed_is_forgotten_like_a_claim(folder: Path) -> None:
    path = of_elsewhere(folder, claims.EXPIRY_S + 1)
    (folder / ".dead-theirs").touch()
    os.utime(folder / ".dead-theirs", (1, 1))
    with Claims(folder).held("one", {}):
        assert json.loads(path.read_text())["token"] != "theirs"
    assert not folder.exists()


def test_a_claim_is_touched_while_it_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    with Claims(folder).held("one", {}):
        path = folder / "one"
        os.utime(path, (1, 1))
        for _ in range(500):
            if path.stat().st_mtime > 1:
                break
            threading.Event().wait(0.01)
        assert path.stat().st_mtime > 1


def test_who_was_taken_over_is_told_and_leaves_the_claim_of_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "EXPIRY_S", 0.0)
    with Claims(folder).held("one", {}) as held:
        held.require()
        (folder / "one").write_text('{"token": "theirs"}')
        with pytest.raises(SourceError, match="another took its place"):
            held.require()
    assert (folder / "one").read_text() == '{"token": "theirs"}'


def test_of_many_that_take_over_a_dead_claim_one_has_it(folder: Path) -> None:
    of_elsewhere(folder, claims.EXPIRY_S + 1)
    start, end = threading.Barrier(8), threading.Barrier(8)
    winners: list[int] = []

    def contend(number: int) -> None:
        start.wait()
        try:
            with Claims(folder).held("one", {}):
                winners.append(number)
                end.wait(20)
        except TakenError:
            end.wait(20)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
