"""The program, stopped in the middle by a signal: it goes on to the same bytes, and no committed clip is made twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broken_builds import (
    NUM_CLIPS,
    ROOT,
    Site,
    assert_unbroken,
    committed,
    contents,
    descendants,
    encoders,
    encodes,
    kill_build,
    ledger,
    make_site,
    nothing_twice,
    said,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("broken_builds")

SLOWLY = "sleep 60"
"""Makes each encode take longer than anybody waits for a program to stop."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def whole(site: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A build that nobody stopped, and how long it took in seconds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    begun = time.monotonic()
    site.finish(out)
    assert sorted(encodes(out)) == sorted(set(encodes(out)))
    assert len(encodes(out)) == NUM_CLIPS
    return out, time.monotonic() - begun


def test_a_build_killed_again_and_again_goes_on_to_the_same_bytes(
    site: Site, whole: tuple[Path, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    moment = random.Random(5)
    with nothing_twice(out) as mark:
        for lines in (1, 5, 9, 12):
            process = site.start(out)
            wait_until(lambda lines=lines: len(ledger(out)) >= lines, process)  # type: ignore[misc]
            time.sleep(moment.uniform(0, 0.1))
            assert process.poll() is None
            kill_build(process)
            mark()
        # A line of the ledger whose file was not yet in its place is not one.
        assert len(committed(out)) >= 12 - 4
        site.finish(out)
    assert_unbroken(out, whole[0])
    # Two workers lose the clips in their hands and those that wait to be committed, no more.
    assert len(encodes(out)) <= NUM_CLIPS + 4 * 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_build_killed_at_any_moment_goes_on_to_the_same_bytes(
    site: Site, whole: tuple[Path, float], tmp_path: Path
) -> None:
    moment = random.Random(25)
    killed = 0
    for number in range(25):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        with nothing_twice(out) as mark:
            process = site.start(out)
            time.sleep(whole[1] * (number + moment.random()) / 25)
            killed += process.poll() is None
            kill_build(process)
            mark()
            site.finish(out)
        assert_unbroken(out, whole[0])
    assert killed > 15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_build_killed_at_25_moments_goes_on_to_the_same_bytes(
    site: Site, whole: tuple[Path, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    moment = random.Random(26)
    with nothing_twice(out) as mark:
        for _ in range(25):
            before = len(ledger(out))
            process = site.start(out)
            # Every other time somewhere in the beginning, else once it has got a little further.
            if moment.random() < 0.5:
                time.sleep(moment.uniform(0, whole[1] / 2))
            else:
                wait_until(lambda before=before: len(ledger(out)) > before, process)  # type: ignore[misc]
                time.sleep(moment.uniform(0, 0.1))
            kill_build(process)
            mark()
        site.finish(out)
    assert_unbroken(out, whole[0])


def test_workers_and_encoders_do_not_outlive_a_build_that_is_killed(
    site: Site, whole: tuple[Path, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = site.start(out, encoder=SLOWLY)
    wait_until(lambda: len(encoders(out)) == 2, process)
    begun = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    wait_until(lambda: not any(is_alive(pid) for pid in begun), limit_s=10)
    site.finish(out)
    assert_unbroken(out, whole[0])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_build_that_is_told_to_stop_stops_and_goes_on(
    site: Site, whole: tuple[Path, float], tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out"
    with nothing_twice(out) as mark:
        process = site.start(out)
        wait_until(lambda: len(ledger(out)) >= 5, process)
        # A terminal interrupts all that runs in it, a scheduler may as well.
        os.killpg(process.pid, number)
        assert process.wait(20) == code, said(out)
        assert "run the same command again" in said(out)
        assert "Traceback" not in said(out)
        mark()
        site.finish(out)
    assert_unbroken(out, whole[0])


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 75, id="SIGTERM"),
        pytest.param(signal.SIGINT, 130, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_build_that_is_told_to_stop_does_not_wait_for_its_encodes(
    site: Site, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out"
    process = site.start(out, encoder=SLOWLY)
    wait_until(lambda: len(encoders(out)) == 2, process)
    begun = descendants(process.pid)
    os.kill(process.pid, number)
    try:
        assert (process.wait(15), "Traceback" in said(out)) == (code, False), said(out)
        wait_until(lambda: not any(is_alive(pid) for pid in begun), limit_s=5)
        assert ledger(out) == []
    finally:
        kill_build(process)


def test_a_killed_replan_goes_on_without_encoding_a_clip_again(
    site: Site, whole: tuple[Path, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    site.finish(out, "--clips-per-shard", str(NUM_CLIPS))
    before = ledger(out)
    for share in (0.6, 0.8):
        process = site.start(out, "--replan")
        time.sleep(whole[1] * share / 2)
        kill_build(process)
    site.finish(out, "--replan")
    assert (ledger(out), len(encodes(out))) == (before, NUM_CLIPS)
    assert_unbroken(out, whole[0])


@pytest.mark.slow
def test_two_builders_of_one_folder_do_not_meet(site: Site, whole: tuple[Path, float], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = site.start(out)
    wait_until(lambda: ledger(out), first)
    second = subprocess.run(site.command(out), cwd=ROOT, env=site.environment(out), capture_output=True, text=True)
    assert first.wait(60) == 0
    assert second.returncode == 2 or "0 made now" in second.stdout
    assert contents(out) == contents(whole[0])


@pytest.mark.parametrize(("leaks", "code"), [("drop-train", 0), ("report", 1)])
def test_the_audit_answers_by_exit_code_only_when_asked_to(tmp_path: Path, leaks: str, code: int) -> None:
    for split in ("train", "val"):
        path = tmp_path / "a" / "k400" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,0,5,{split}\n")
    run = [sys.executable, "-m", "cli"]
    out = str(tmp_path / "out")
    lists = ["--annotations", str(tmp_path / "a"), "--manifest-only", "--out", out, "--leaks", leaks]
    assert subprocess.run([*run, "build", *lists], cwd=ROOT, capture_output=True).returncode == 0
    assert subprocess.run([*run, "audit", "--data", out], cwd=ROOT, capture_output=True).returncode == 0
    strict = subprocess.run([*run, "audit", "--data", out, "--fail-on-leak"], cwd=ROOT, capture_output=True, text=True)
    assert strict.returncode == code
    assert ("k710-train shares 1 video" in strict.stderr) == bool(code)


def is_alive(pid: int) -> bool:
    """Whether a process is there and does more than wait to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
