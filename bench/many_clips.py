"""Whether memory and the cost of a clip stay as they are while a build grows: real builds of many tiny clips.

usage: python bench/many_clips.py --folder DIR [--sizes N,N] [--encode copy] [--kill-at PART] [--workers N] [--drawn N]
       python bench/many_clips.py --folder DIR --picture FILE

For every size, lists of three releases that plan that many clips, and a file of 32 x 32 pixels and 10 frames for each
(hard links to a few that differ), go through `python -m cli build`. Each second, or each --every, the processes of the
build are looked at in /proc: memory, CPU time, and the lines of the ledger: clips whose outcome is on the disk.
Per size:
  build     from nothing; with --kill-at 0.5 it is killed (SIGKILL, all of its processes) at half of the clips
  resume    the same command after that
  again     the same command once everything is there

DIR gets `SIZE-ENCODE.csv` and `SIZE-ENCODE.json` of each size; --picture draws all that lie there. What is built is
removed unless --keep is given. CPU time is little moved by what else the machine does, wall time is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from many_clips_world import write_world
from process_tree import Used, look_at

ROOT = Path(__file__).resolve().parent.parent
NUM_WINDOWS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a build was like at a moment."""

    run: str
    """Which run of the build: ``build``, ``resume`` or ``again``."""
    wall_s: float
    """Since that run began."""
    clips: int
    """Clips with an outcome on the disk, those of earlier runs too."""
    main_bytes: int
    """Memory of the process that writes the build, without pages of files."""
    workers_bytes: int
    """The same of all its workers."""
    main_cpu_s: float
    """CPU time of the process that writes the build."""
    workers_cpu_s: float
    """CPU time of all its workers and what they started."""
    load: float
    """Load of the machine."""


def main(arguments: argparse.Namespace) -> None:
    """Build each size, and write and print what was seen."""
    for num in arguments.sizes:
        result = measure(num, arguments)
        path = arguments.folder / f"{num}-{arguments.encode}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(table(result), flush=True)
    if arguments.picture:
        # A build must not wait for a drawing library, nor need one.
        from many_clips_picture import draw

        draw(sorted(arguments.folder.glob("*-*.json"), key=lambda p: int(p.stem.split("-")[0])), arguments.picture)


def measure(num: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs of one size."""
    folder = arguments.folder / f"world-{num}-{arguments.encode}"
    shutil.rmtree(folder, ignore_errors=True)
    write_world(folder, num, arguments.drawn)
    out = folder / "built"
    command = [sys.executable, "-m", "cli", "build", "--annotations", str(folder / "annotations")]
    command += ["--videos", str(folder / "videos"), "--out", str(out), "--encode", arguments.encode]
    command += ["--workers", str(arguments.workers), "--json"]
    samples: list[Sample] = []
    runs: dict[str, Any] = {}
    kill_at = round(num * arguments.kill_at) if arguments.kill_at else None
    with (arguments.folder / f"{num}-{arguments.encode}.csv").open("w", newline="", buffering=1) as handle:
        rows = csv.DictWriter(handle, fieldnames=list(Sample.__dataclass_fields__))
        rows.writeheader()

        def see(sample: Sample) -> None:
            samples.append(sample)
            rows.writerow(asdict(sample))

        for name, kill in (("build", kill_at), *((("resume", None),) if kill_at else ()), ("again", None)):
            runs[name] = run(name, command, out, arguments.every, kill, see)
            print(f"{num} {name}: {json.dumps(runs[name])}", flush=True)
    sizes = [path.stat().st_size for path in out.rglob("*.tar")]
    facts = {
        "clips": num,
        "encode": arguments.encode,
        "workers": arguments.workers,
        "cores": len(os.sched_getaffinity(0)),
        "shards": len(sizes),
        "shard_bytes": sum(sizes),
        "ledger_bytes": (out / "ledger.jsonl").stat().st_size,
    }
    if not arguments.keep:
        shutil.rmtree(folder)
    return facts | {"runs": runs, "windows": windows([s for s in samples if s.run != "again"], num)}


def run(
    name: str, command: Sequence[str], out: Path, every_s: float, kill_at: int | None, seen: Callable[[Sample], None]
) -> dict[str, Any]:
    """Run the build, looking at it now and then; what it took, and what it said."""
    counter = LineCounter(out / "ledger.jsonl")
    began_with, first_s, started = counter.count(), None, time.monotonic()
    said_path = out.parent / f"{name}.stderr"
    with said_path.open("wb") as said, (out.parent / f"{name}.json").open("wb") as told:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "K710_STAGE_TIMES": "1"},
            stdout=told,
            stderr=said,
            start_new_session=True,
        )
        last = Used()
        peak = {"main_bytes": 0, "workers_bytes": 0}
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            wall_s = time.monotonic() - started
            last = (look_at(process.pid) or last).after(last)
            clips = counter.count()
            first_s = wall_s if first_s is None and clips > began_with else first_s
            sample = Sample(run=name, wall_s=round(wall_s, 2), clips=clips, load=os.getloadavg()[0], **last.columns())
            seen(sample)
            peak = {column: max(value, getattr(sample, column)) for column, value in peak.items()}
            if kill_at is not None and clips >= kill_at:
                os.killpg(process.pid, signal.SIGKILL)
                kill_at = None
            time.sleep(every_s)
        process.returncode = os.waitstatus_to_exitcode(status)
    stderr = said_path.read_text()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{stderr}")
    text = (out.parent / f"{name}.json").read_text()
    return {
        "wall_s": round(time.monotonic() - started, 2),
        "to_first_clip_s": first_s and round(first_s, 2),
        "clips_before": began_with,
        "clips_after": counter.count(),
        "main_cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "workers_cpu_s": round(last.workers_cpu_s, 2),
        **peak,
        "exit": process.returncode,
        "stages": [line for line in stderr.splitlines() if line.startswith("stage ")],
        "summary": _summary(text),
    }


class LineCounter:
    """Lines of a file that grows, each byte read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._lines = path, 0, 0

    def count(self) -> int:
        """Whole lines by now."""
        if self._path.exists():
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                data = handle.read()
            self._offset += len(data)
            self._lines += data.count(b"\n")
        return self._lines


def windows(samples: Sequence[Sample], num: int) -> list[dict[str, float]]:
    """What a clip cost, by tenths of the build; within one run each, so the start of none is in it."""
    found = []
    for number in range(NUM_WINDOWS):
        low, high = num * number / NUM_WINDOWS, num * (number + 1) / NUM_WINDOWS
        for name in ("build", "resume"):
            inside = [s for s in samples if s.run == name and low < s.clips <= high and s.workers_bytes]
            if len(inside) < 2 or inside[-1].clips - inside[0].clips < (high - low) / 4:
                continue
            # After the last clip comes the index, which is no clip's cost.
            first, last = inside[0], next(s for s in inside if s.clips == inside[-1].clips)
            clips = last.clips - first.clips
            found.append(
                {
                    "clips": last.clips,
                    "wall_ms": 1000 * (last.wall_s - first.wall_s) / clips,
                    "main_cpu_ms": 1000 * (last.main_cpu_s - first.main_cpu_s) / clips,
                    "workers_cpu_ms": 1000 * (last.workers_cpu_s - first.workers_cpu_s) / clips,
                    "main_mb": max(s.main_bytes for s in inside) / 1e6,
                    "workers_mb": max(s.workers_bytes for s in inside) / 1e6,
                    "load": sum(s.load for s in inside) / len(inside),
                }
            )
    return found


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['clips']:,} clips, `--encode {result['encode']}`, {result['workers']} workers, "
        f"{result['cores']} cores, {result['shards']} shards of {result['shard_bytes'] / 1e6:.0f} MB",
        "",
        "| run | clips | wall, s | to the first clip, s | CPU of the writer, s | CPU of workers, s | writer, MB "
        "| workers, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of in result["runs"].items():
        lines.append(
            f"| {name} | {of['clips_after'] - of['clips_before']:,} | {of['wall_s']:.0f} "
            f"| {of['to_first_clip_s'] or '-'} | {of['main_cpu_s']:.1f} | {of['workers_cpu_s']:.1f} "
            f"| {of['main_bytes'] / 1e6:.0f} | {of['workers_bytes'] / 1e6:.0f} |"
        )
    lines += [
        "",
        "| clips done | wall | writer, CPU | workers, CPU | writer, MB | workers, MB | load |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {w['clips']:,} | {w['wall_ms']:.2f} ms | {w['main_cpu_ms']:.2f} ms | {w['workers_cpu_ms']:.2f} ms "
        f"| {w['main_mb']:.0f} | {w['workers_mb']:.0f} | {w['load']:.1f} |"
        for w in result["windows"]
    ]
    return "\n".join(lines) + "\n"


def _summary(text: str) -> dict[str, Any]:
    """The counts that a build told; nothing where it was killed."""
    told = json.loads(text) if text.strip() else {}
    return {name: told[name] for name in ("clips", "tried", "made", "size_bytes", "shards", "rows") if name in told}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[], metavar="N,N")
    parser.add_argument("--encode", default="copy")
    parser.add_argument("--kill-at", type=float, default=0.0, metavar="PART", help="part of the clips; 0: not at all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drawn", type=int, default=32, help="files that differ; the others are links to these")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two looks")
    parser.add_argument("--keep", action="store_true", help="leave what was built in DIR")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    main(arguments)
