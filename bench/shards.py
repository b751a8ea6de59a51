"""What making and reading clips costs, beside what it would cost by other means, in one run.

usage: python bench/shards.py --videos DIR [--clips N] [--copied N] [--rounds N] [--workers N] [--json FILE]

Works on copies of the videos in DIR under different ids. Everything is run in turn (A B A B ...); medians:
  encode   make_clip through the build's executor, without and with verification, against bare ffmpeg processes with the
           very same arguments, as many at a time; and with one worker, which has one core or all of them
  one pass whole videos cut, scaled and encoded at once, against a trim with x264's defaults and a second encode
  copy     `--encode copy`, with the look at both ends of each clip: of videos of the size that copies of Kinetics have,
           and of all videos in DIR
  read     8 frames of clips of about 300, from sparse8 and from x264's default pictures at the same crf and preset:
           CPU time, bytes, luma PSNR against the frames without loss
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shard_clips import (
    Spent,
    commands_of,
    facts_of,
    find_videos,
    make_on_one_core,
    make_unverified,
    make_verified,
    run_bare,
    run_product,
    start_workers,
    trim_then_resize,
    trimmed_jobs,
    whole_jobs,
)
from shard_reading import DECODERS, PRODUCT, measure_reading

from k710.clips.media import EncodeConfig, ffmpeg_build

START, START_ONE = "start of the workers", "start of one worker"
ONE_WORKER, ONE_CORE = "one worker", "one worker on one core"
COPY, COPY_ALL = "copy", "copy of all"
COPIES_PX = 340
"""Largest short side of the copies of Kinetics that people have."""
MAX_OVER_BARE = 1.05
MIN_TWO_OVER_ONE = 1.85
MIN_ONE_PASS = 1.5
MIN_COPIED_PER_S = 60
MIN_READ_SPEEDUP = 2.5
MAX_BYTES_RATIO = 1.25
MAX_PSNR_LOSS_DB = 0.5


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured as Markdown tables, and write it as JSON."""
    videos, workers, rounds = find_videos(arguments.videos), arguments.workers, arguments.rounds
    result: dict[str, Any] = {"command": " ".join(sys.argv), "machine": machine(), "workers": workers, "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["encode"] = measure_encode(videos, arguments.clips, folder / "trimmed", workers, rounds)
        result["one_pass"] = measure_one_pass(videos, arguments.clips, folder, workers, rounds)
        result["copy"] = measure_copy(videos, arguments.copied, folder / "copied", workers, rounds)
        result["read"] = measure_reading(videos, folder / "read", arguments.reads)
    result["load_at_end"] = os.getloadavg()[0]
    result["marks"] = marks(result)
    print(tables(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def measure_encode(videos: Sequence[Path], num: int, folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Seconds for trimmed clips: ours without and with verification, bare processes, and ours with one worker."""
    jobs = trimmed_jobs(videos, num, folder, EncodeConfig())
    bare = [[command] for command in commands_of(jobs)]
    spent = interleaved(
        {
            "unverified": functools.partial(run_product, make_unverified, jobs, workers),
            "bare": functools.partial(run_bare, bare, workers),
            "verified": functools.partial(run_product, make_verified, jobs, workers),
            ONE_CORE: functools.partial(run_product, make_on_one_core, jobs, 1),
            ONE_WORKER: functools.partial(run_product, make_verified, jobs, 1),
            START: functools.partial(start_workers, workers),
            START_ONE: functools.partial(start_workers, 1),
        },
        rounds,
    )
    wall_s, cpu_s = spent["wall_s"], spent["cpu_s"]
    # A build starts its workers once, for any number of clips: what that takes stands in the table, not in the ratios.
    busy_s = {name: wall_s[name] - wall_s[START] for name in ("unverified", "verified")}
    busy_s |= {"bare": wall_s["bare"]} | {name: wall_s[name] - wall_s[START_ONE] for name in (ONE_WORKER, ONE_CORE)}
    return {
        "clips": num,
        **spent,
        "over_bare": busy_s["unverified"] / busy_s["bare"],
        "verification_share": 1 - busy_s["unverified"] / busy_s["verified"],
        # ffmpeg demuxes, decodes, filters and encodes in a thread each: one worker alone keeps more than one core busy.
        "cores_of_one_worker": cpu_s[ONE_WORKER] / busy_s[ONE_WORKER],
        "over_one_worker": busy_s[ONE_WORKER] / busy_s["verified"],
        "over_one_core": busy_s[ONE_CORE] / busy_s["verified"],
        "cpu_over_bare": cpu_s["unverified"] / cpu_s["bare"],
        "cpu_verification_share": 1 - cpu_s["unverified"] / cpu_s["verified"],
    }


def measure_one_pass(videos: Sequence[Path], num: int, folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Seconds for clips out of whole videos, in one pass and in the two of other tools."""
    jobs = whole_jobs(videos, num, folder / "whole", EncodeConfig())
    two_passes = trim_then_resize(jobs, folder / "two_passes")
    spent = interleaved(
        {
            "one pass": functools.partial(run_product, make_unverified, jobs, workers),
            "two passes": functools.partial(run_bare, two_passes, workers),
        },
        rounds,
    )
    speedup, cpu_speedup = (spent[kind]["two passes"] / spent[kind]["one pass"] for kind in ("wall_s", "cpu_s"))
    return {"clips": num, **spent, "speedup": speedup, "cpu_speedup": cpu_speedup}


def measure_copy(videos: Sequence[Path], num: int, folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Clips a second of ``--encode copy``, which looks at both ends of each, and CPU time by video."""
    usual = [video for video in videos if min(facts_of(video).width_px, facts_of(video).height_px) <= COPIES_PX]
    jobs = {
        name: trimmed_jobs(chosen, num, folder / name, EncodeConfig(encode="copy"))
        for name, chosen in ((COPY, usual), (COPY_ALL, videos))
    }
    runs = {name: functools.partial(run_product, make_verified, of_one, workers) for name, of_one in jobs.items()}
    spent = interleaved(runs, rounds)
    cpu_ms = {
        video.name: 1000 * statistics.median(make_verified(job).cpu_s for _ in range(2 * rounds + 1))
        for video, job in zip(videos, jobs[COPY_ALL], strict=False)
    }
    per_s = {name: num / wall_s for name, wall_s in spent["wall_s"].items()}
    return {"clips": num, **spent, "videos": [video.name for video in usual], "clips_per_s": per_s, "cpu_ms": cpu_ms}


def interleaved(runs: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, dict[str, float]]:
    """Median ``wall_s`` and ``cpu_s`` of each, run in turn."""
    done: dict[str, list[Spent]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            done[name].append(run())
            spent = done[name][-1]
            load = os.getloadavg()[0]
            print(f"{name}: {spent.wall_s:.2f} s, {spent.cpu_s:.2f} CPU-s, load {load:.1f}", file=sys.stderr)
    return {
        "wall_s": {name: statistics.median(spent.wall_s for spent in of_one) for name, of_one in done.items()},
        "cpu_s": {name: statistics.median(spent.cpu_s for spent in of_one) for name, of_one in done.items()},
    }


def machine() -> dict[str, Any]:
    """What this runs on."""
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "ffmpeg": ffmpeg_build(),
        "load_at_start": os.getloadavg()[0],
    }


def marks(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was asked for, what was seen, and whether that is enough."""
    encode, read, per_s = result["encode"], result["read"], result["copy"]["clips_per_s"]
    over_bare, one_pass = encode["over_bare"], result["one_pass"]["speedup"]
    found = {
        f"encoding at most {MAX_OVER_BARE:g}x of bare ffmpeg, once the workers run": (
            f"{over_bare:.3f}x",
            over_bare <= MAX_OVER_BARE,
        ),
        f"one pass at least {MIN_ONE_PASS:g}x faster than two": (f"{one_pass:.2f}x", one_pass >= MIN_ONE_PASS),
    }
    for name, field in ((ONE_WORKER, "over_one_worker"), (ONE_CORE, "over_one_core")):
        ratio = encode[field]
        mark = f"{result['workers']} workers at least {MIN_TWO_OVER_ONE:g}x {name}, once they run"
        found[mark] = (f"{ratio:.2f}x", ratio >= MIN_TWO_OVER_ONE)
    for name, rate in per_s.items():
        found[f"{name} at least {MIN_COPIED_PER_S} clips/s"] = (f"{rate:.0f} clips/s", rate >= MIN_COPIED_PER_S)
    speedup = read["speedup"][PRODUCT]
    name = f"8 frames at least {MIN_READ_SPEEDUP:g}x faster, by {PRODUCT}"
    found[name] = (f"{speedup:.2f}x", speedup >= MIN_READ_SPEEDUP)
    ratio, loss_db = read["bytes_ratio"], read["psnr_loss_db"]
    found[f"at most {MAX_BYTES_RATIO:g}x the bytes"] = (f"{ratio:.3f}x", ratio <= MAX_BYTES_RATIO)
    found[f"within {MAX_PSNR_LOSS_DB:g} dB"] = (f"{loss_db:+.2f} dB lost", abs(loss_db) <= MAX_PSNR_LOSS_DB)
    return {name: {"seen": seen, "met": bool(met)} for name, (seen, met) in found.items()}


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    of = result["machine"]
    lines = [
        f"`{result['command']}`: {of['cores']} cores, {of['system']}, {of['ffmpeg']};",
        f"{result['workers']} workers, medians of {result['rounds']} rounds, "
        f"load {of['load_at_start']:.1f} at the start, {result['load_at_end']:.1f} at the end",
        "",
        "| | clips | wall, s | clips/s | CPU, s |",
        "|---|---|---|---|---|",
    ]
    for part in ("encode", "one_pass", "copy"):
        lines += _spent(result[part])
    encode = result["encode"]
    lines += [
        "",
        "CPU-ms of a copy: " + ", ".join(f"{name} {ms:.0f}" for name, ms in result["copy"]["cpu_ms"].items()),
        f"share of verification: {100 * encode['verification_share']:.0f} % of the wall time of encoding, "
        f"{100 * encode['cpu_verification_share']:.0f} % of its CPU time",
        f"one worker keeps {encode['cores_of_one_worker']:.2f} cores busy: an ffmpeg demuxes, decodes, filters and "
        f"encodes in a thread each; {result['workers']} workers over one on one core: {encode['over_one_core']:.2f}x",
        f"by CPU time, which other load hardly changes: encoding {encode['cpu_over_bare']:.3f}x of bare ffmpeg, "
        f"one pass {result['one_pass']['cpu_speedup']:.2f}x faster than two",
        "",
        *_reading(result["read"]),
    ]
    lines += ["", "| mark | seen | |", "|---|---|---|"]
    lines += [f"| {n} | {m['seen']} | {'met' if m['met'] else 'missed'} |" for n, m in result["marks"].items()]
    return "\n".join(lines)


def _spent(part: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, wall_s in part["wall_s"].items():
        clips = ("", f"{wall_s:.2f}", "", "")
        if name not in (START, START_ONE):
            num = part["clips"]
            clips = (f"{num}", f"{wall_s:.2f}", f"{num / wall_s:.1f}", f"{part['cpu_s'][name]:.2f}")
        lines.append(f"| {name} | {' | '.join(clips)} |")
    return lines


def _reading(read: Mapping[str, Any]) -> list[str]:
    columns = ["video", "frames", "encoding", "kB", "PSNR, dB", *(f"{name}, CPU-ms" for name in DECODERS)]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for clip in read["clips"]:
        for encoding in ("sparse8", "default"):
            size, psnr_db = clip["bytes"][encoding] / 1000, clip["psnr_db"][encoding]
            spent = " | ".join(f"{clip['cpu_ms'][name][encoding]:.1f}" for name in DECODERS)
            lines.append(f"| {clip['video']} | {clip['frames']} | {encoding} | {size:.0f} | {psnr_db:.2f} | {spent} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    parser.add_argument("--clips", type=int, default=48, help="clips to encode")
    parser.add_argument("--copied", type=int, default=600, help="clips to copy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=21, help="rounds of reading")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
