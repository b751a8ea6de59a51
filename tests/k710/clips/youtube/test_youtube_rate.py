"""The token bucket: its law, and what processes that share it may do to each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.clips.sources.youtube.rate import Bucket
from k710.clips.sources.youtube.shared_record import SIZE_BYTES, SharedRecord, now_s, state_folder
from k710.errors import SourceError, UsageError

FORK = multiprocessing.get_context("fork")


def bucket(folder: Path, clock: list[float], rate_per_h: float = 3600, burst: int = 3) -> Bucket:
    return Bucket(folder, rate_per_h=rate_per_h, burst=burst, clock=lambda: clock[0])


@given(
    steps_s=st.lists(st.floats(0, 20), max_size=60),
    rate_per_h=st.floats(100, 20_000),
    burst=st.integers(1, 8),
    obeys=st.booleans(),
)
def test_no_span_of_time_sees_more_draws_than_the_rate_and_one_burst(
    tmp_path_factory: pytest.TempPathFactory, steps_s: list[float], rate_per_h: float, burst: int, obeys: bool
) -> None:
    clock = [1000.0]
    drawn = []
    ours = bucket(tmp_path_factory.mktemp("state"), clock, rate_per_h, burst)
    for step_s in steps_s:
        wait_s = ours.draw()
        if wait_s == 0:
            drawn.append(clock[0])
        # Who waits as long as it is told gets a token then.
        clock[0] += wait_s if obeys and wait_s else step_s
    for first, begin in enumerate(drawn):
        for last, end in enumerate(drawn[first:], start=first):
            assert last - first + 1 <= rate_per_h / 3600 * (end - begin) + burst + 1e-6


def test_who_waits_as_told_gets_a_token(tmp_path: Path) -> None:
    clock = [0.0]
    ours = bucket(tmp_path, clock, rate_per_h=300, burst=2)
    assert [ours.draw(), ours.draw()] == [0, 0]
    assert ours.draw() == pytest.approx(12)
    clock[0] += 12
    assert ours.draw() == 0
    assert ours.draw() > 0


def test_two_buckets_in_one_folder_are_one(tmp_path: Path) -> None:
    clock = [0.0]
    assert bucket(tmp_path, clock, burst=1).draw() == 0
    assert bucket(tmp_path, clock, burst=1).draw() > 0


@pytest.mark.parametrize(
    "content",
    [b"{", b"[1]", b'{"full_at_s": "soon"}', b"\xff" * SIZE_BYTES, b'{"full_at_s": 1e30}', b'{"full_at_s": NaN}'],
)
def test_a_damaged_record_is_an_empty_bucket_and_not_a_stopped_one(tmp_path: Path, content: bytes) -> None:
    clock = [5000.0]
    SharedRecord(tmp_path, "bucket").path.write_bytes(content)
    ours = bucket(tmp_path, clock, burst=3)
    assert 0 < ours.draw() <= 3
    clock[0] += 3
    assert ours.draw() == 0


def test_a_clock_that_goes_back_costs_no_more_than_one_burst(tmp_path: Path) -> None:
    clock = [1e6]
    ours = bucket(tmp_path, clock, burst=3)
    assert ours.draw() == 0
    clock[0] = 10.0
    assert 0 < ours.draw() <= 3
    clock[0] += 3
    assert ours.draw() == 0


def test_times_are_those_since_the_start_of_the_machine() -> None:
    before = now_s()
    time.sleep(0.01)
    assert 0.005 < now_s() - before < 5
    assert abs(now_s() - float(Path("/proc/uptime").read_text().split()[0])) < 5


def _draw_for(folder: Path, seconds: float, drawn: Path) -> None:
    ours = Bucket(folder, rate_per_h=3600 * 20, burst=4)
    end = time.monotonic() + seconds
    with drawn.open("a") as file:
        while time.monotonic() < end:
            wait_s = ours.draw()
            if wait_s == 0:
                file.write(f"{now_s()}\n")
                file.flush()
            else:
                time.sleep(min(wait_s, 0.02))


def test_several_processes_together_keep_to_the_rate(tmp_path: Path) -> None:
    records = [tmp_path / str(n) for n in range(4)]
    began = now_s()
    processes = [FORK.Process(target=_draw_for, args=(tmp_path / "state", 1.0, record)) for record in records]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    passed_s = now_s() - began
    drawn = sum(len(record.read_text().splitlines()) for record in records)
    assert 15 <= drawn <= 20 * passed_s + 4


def _hold(folder: Path, ready: Path) -> None:
    with SharedRecord(folder, "bucket").changing() as record:
        record["full_at_s"] = 1e9
        ready.touch()
        time.sleep(60)


def test_a_holder_that_is_killed_lets_go_and_has_changed_nothing(tmp_path: Path) -> None:
    state, ready = tmp_path / "state", tmp_path / "ready"
    ours = Bucket(state, rate_per_h=3600, burst=5)
    assert ours.draw() == 0
    before = SharedRecord(state, "bucket").path.read_bytes()
    process = FORK.Process(target=_hold, args=(state, ready))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert SharedRecord(state, "bucket").path.read_bytes() == before
    assert ours.draw() == 0


def test_a_folder_that_is_no_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SourceError, match="state"):
        Bucket(tmp_path / "state", rate_per_h=1, burst=1).draw()


def test_a_folder_among_the_temporary_files_must_be_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"k710-youtube-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not a folder of yours"):
        state_folder(None)


def test_the_folder_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = state_folder(None)
    assert folder.stat().st_mode & 0o077 == 0
    Bucket(folder, rate_per_h=1, burst=1).draw()
    assert SharedRecord(folder, "bucket").path.stat().st_mode & 0o077 == 0
