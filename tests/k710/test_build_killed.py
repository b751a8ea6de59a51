"""The program, killed in the middle: it goes on to the same bytes, and no committed clip is made twice."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from k710.clips.media import EncodeConfig, encode_frames

NUM_CLIPS = 24
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 videos that take about 50 ms each to encode, and their list."""
    root = tmp_path_factory.mktemp("killed")
    rng = np.random.default_rng(0)
    picture_THWC = rng.integers(0, 255, (50, 128, 160, 3), dtype=np.uint8)
    encode_frames(picture_THWC, root / "one.mp4", fps=10, config=EncodeConfig(preset="ultrafast"))
    (root / "videos").mkdir()
    rows = []
    for number in range(NUM_CLIPS):
        video = f"video_{number:05d}"
        os.link(root / "one.mp4", root / "videos" / f"{video}_000000_000005.mp4")
        rows.append(f"abseiling,{video},0,5,train\n")
    (root / "annotations" / "k400").mkdir(parents=True)
    (root / "annotations" / "k400" / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n" + "".join(rows)
    )
    return root


def command(source: Path, out: Path, *more: str) -> list[str]:
    places = ["--annotations", str(source / "annotations"), "--videos", str(source / "videos"), "--out", str(out)]
    return [sys.executable, "-m", "cli", "build", *places, "--workers", "1", "--clips-per-shard", "4", *more]


def finish(source: Path, out: Path, *more: str) -> None:
    done = subprocess.run(command(source, out, *more), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stop_in_the_middle(source: Path, out: Path, lines: int, number: int, *more: str) -> tuple[int, str]:
    """Send signal ``number`` when the ledger has ``lines`` lines; returns the exit code and stderr."""
    process = subprocess.Popen(
        command(source, out, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(ledger(out)) < lines and process.poll() is None:
        assert time.monotonic() < deadline, "the build does not get on"
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def ledger(out: Path) -> list[bytes]:
    path = out / "ledger.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def contents(out: Path) -> dict[str, str]:
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in ("ledger.jsonl", ".build-guard"))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="session")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(source, out)
    return out


def test_a_killed_build_goes_on_to_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept: list[bytes] = []
    for lines in (3, 9):
        code, _ = stop_in_the_middle(source, out, lines, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert kept == ledger(out)[: len(kept)]
        # The last line's file may not have been moved to the cache yet: that clip was not committed.
        kept = ledger(out)[:-1]
    finish(source, out)
    assert contents(out) == contents(whole)
    assert ledger(out)[: len(kept)] == kept
    assert len(ledger(out)) <= NUM_CLIPS + 2


def test_a_killed_replan_goes_on_without_encoding_a_clip_again(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(source, out, "--clips-per-shard", "24")
    before = ledger(out)
    for delay_s in (0.9, 1.2):
        process = subprocess.Popen(
            command(source, out, "--replan"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        process.kill()
        process.wait()
    finish(source, out, "--replan")
    assert ledger(out) == before
    assert contents(out) == contents(whole)


def test_a_build_that_is_told_to_stop_says_so_and_goes_on(source: Path, whole: Path, tmp_path: Path) -> None:
    code, errors = stop_in_the_middle(source, tmp_path / "out", 5, signal.SIGTERM)
    assert code == 75
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    finish(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def test_an_interrupt_ends_with_130_and_without_a_traceback(source: Path, tmp_path: Path) -> None:
    code, errors = stop_in_the_middle(source, tmp_path / "out", 5, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in errors


@pytest.mark.slow
def test_two_builders_of_one_folder_do_not_meet(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(command(source, out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ledger(out):
        time.sleep(0.005)
    second = subprocess.run(command(source, out), cwd=ROOT, capture_output=True, text=True)
    assert first.wait() == 0
    assert second.returncode == 2 or "0 made now" in second.stdout
    assert contents(out) == contents(whole)


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
    assert ("k710-train shares 1 videos with k400:val" in strict.stderr) == bool(code)
