"""What the measurement of many clips builds is what it says, and what it reads of a build is true."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import many_clips
import many_clips_world
import pyarrow.parquet as pq
import pytest
from process_tree import look_at

from k710.build import BuildConfig, build
from k710.clips.sources.local import SUFFIXES

_CHILD = """
import subprocess, sys
held = bytearray(60_000_000)
child = subprocess.Popen([sys.executable, "-c", "held = bytearray(30_000_000); print('ready', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", flush=True)
input()
child.communicate(b"\\n")
"""


def sample(clips: int, wall_s: float, run: str = "build") -> many_clips.Sample:
    return many_clips.Sample(
        run=run,
        wall_s=wall_s,
        clips=clips,
        main_bytes=1_000_000 + clips,
        workers_bytes=5_000_000,
        main_cpu_s=wall_s / 10,
        workers_cpu_s=wall_s,
        load=1.0,
    )


def test_a_world_plans_as_many_clips_as_asked_each_with_a_file(tmp_path: Path) -> None:
    many_clips_world.write_world(tmp_path, 60, 2)
    built = build(BuildConfig(annotations=tmp_path / "annotations", out=tmp_path / "built", manifest_only=True))
    planned = pq.read_table(tmp_path / "built" / "manifest.parquet", columns=["key"])["key"].to_pylist()
    files = [path for path in (tmp_path / "videos").rglob("*") if path.suffix in SUFFIXES]
    assert len(planned) == 60
    assert sorted(planned) == sorted(path.stem for path in files)
    assert built.views["k700-train"] > built.views["k600-train"] > built.views["k400-train"] > 0
    assert len({path.stat().st_ino for path in files}) == 2


def test_lines_are_counted_while_a_file_grows(tmp_path: Path) -> None:
    counter = many_clips.LineCounter(tmp_path / "ledger.jsonl")
    assert counter.count() == 0
    (tmp_path / "ledger.jsonl").write_text("a\nb\ntorn")
    assert counter.count() == 2
    (tmp_path / "ledger.jsonl").write_text("a\nb\ntorn and whole\n")
    assert counter.count() == 3


def test_a_clip_costs_what_its_window_took_and_not_what_comes_after_the_last() -> None:
    samples = [sample(clips, clips * 0.01) for clips in range(0, 1001, 10)]
    samples += [sample(1000, 10 + second) for second in range(1, 60)]
    found = many_clips.windows(samples, 1000)
    assert len(found) == many_clips.NUM_WINDOWS
    assert [round(window["wall_ms"], 6) for window in found] == [10] * len(found)
    assert [round(window["main_cpu_ms"], 6) for window in found] == [1] * len(found)


def test_windows_never_span_a_kill() -> None:
    samples = [sample(clips, clips * 0.01) for clips in range(0, 551, 10)]
    samples += [sample(clips, (clips - 550) * 0.01 + 30, "resume") for clips in range(550, 1001, 10)]
    assert {round(window["wall_ms"], 6) for window in many_clips.windows(samples, 1000)} == {10}


def test_memory_of_a_process_and_of_those_below_it_is_told_apart() -> None:
    process = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    used = look_at(process.pid)
    process.communicate("\n")
    assert used is not None
    assert 60e6 <= used.main_bytes < 85e6
    assert 30e6 <= used.workers_bytes < 55e6
    assert used.main_cpu_s > 0
    assert look_at(process.pid) is None


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on_and_then_finds_nothing_to_do(tmp_path: Path) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    many_clips.main(
        argparse.Namespace(
            folder=tmp_path, sizes=[400], encode="copy", kill_at=0.5, workers=2, drawn=3, every=0.1, keep=False,
            picture=None,
        )
    )  # fmt: skip
    result = json.loads((tmp_path / "400-copy.json").read_bytes())
    runs = result["runs"]
    assert runs["build"]["exit"] == -9
    assert 200 <= runs["build"]["clips_after"] < 400
    assert runs["resume"]["summary"]["clips"] == {"ok": 400}
    # A clip whose line was written, and which was not yet in its place, is made again.
    assert runs["resume"]["summary"]["made"] <= 200 + 10
    assert runs["again"]["summary"]["made"] == 0
    assert not list(tmp_path.glob("world-*"))
