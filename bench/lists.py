"""The list stages at full size: time and memory against a plain pandas version, growth with size, and stable shards.

usage: python bench/lists.py --annotations DIR [--rounds N] [--scales] [--one-less] [--json FILE]

Every run is a fresh process, interleaved (A B A B ...), medians of wall seconds and largest peak RSS:
  ours       python -m cli build --annotations DIR --out TMP --manifest-only --json
  baseline   python bench/lists_pandas.py DIR TMP, whose counts must be the same
  --scales   ours on a quarter of the videos, on DIR and on four copies of it: time per row
  --one-less ours without one K600 training video: planned shards that keep their clips
"""

from __future__ import annotations

import argparse
import base64
import csv
import functools
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd
from lists_pandas import count_row_pairs

ROOT = Path(__file__).resolve().parent.parent
MAX_WALL_S = 15.0
MAX_PEAK_BYTES = 1.5e9
MIN_SPEEDUP = 4.0
MAX_GROWTH = 1.3
NUM_COPIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One process, from start to exit."""

    wall_s: float
    """Seconds."""
    peak_bytes: int
    """Largest resident set."""
    stages_s: Mapping[str, float]
    """Seconds of each stage that the process named on stderr; empty when it named none."""
    stdout: str
    """What it printed."""


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured as Markdown tables, and write it as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = compare(arguments.annotations, arguments.rounds, Path(folder))
        if arguments.scales:
            result["scales"] = measure_scales(arguments.annotations, arguments.rounds, Path(folder))
        # Tables are read last: a new process's peak starts from the size of the one that started it.
        built, counted = Path(folder) / "ours", json.loads(result.pop("stdout"))
        result["counts"] = counted
        result["counts_differ"] = differing(read_counts(built), counted)
        if arguments.one_less:
            result["one_less"] = measure_one_less(arguments.annotations, built, Path(folder))
    result["marks"] = marks(result)
    print(tables(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def compare(annotations: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Both versions in turn; the output of the last round stays in ``folder``, as ``ours`` and ``baseline``."""
    runs = interleaved(
        {
            "ours": functools.partial(run_ours, annotations, folder / "ours"),
            "baseline": functools.partial(run_baseline, annotations, folder / "baseline"),
        },
        rounds,
    )
    stages = {name: [r.stages_s[name] for r in runs["ours"]] for name in runs["ours"][0].stages_s}
    return {
        "rounds": rounds,
        "wall_s": {name: _median_wall_s(of_one) for name, of_one in runs.items()},
        "peak_bytes": {name: max(r.peak_bytes for r in of_one) for name, of_one in runs.items()},
        "stages_s": {name: statistics.median(seconds) for name, seconds in stages.items()},
        "stdout": runs["baseline"][-1].stdout,
    }


def measure_scales(annotations: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Time of ours on a quarter of the videos, on all and on four copies of them."""
    inputs = {"0.25x": folder / "quarter", "1x": annotations, "4x": folder / "copies"}
    rewrite_lists(annotations, inputs["0.25x"], lambda video_id: [video_id] if in_quarter(video_id) else [])
    rewrite_lists(annotations, inputs["4x"], copies)
    runs = interleaved(
        {name: functools.partial(run_ours, path, folder / "scaled") for name, path in inputs.items()}, rounds
    )
    wall_s = {name: _median_wall_s(of_one) for name, of_one in runs.items()}
    num_rows = {name: int(json.loads(of_one[0].stdout)["rows"]) for name, of_one in runs.items()}
    per_row_s = {name: wall_s[name] / num_rows[name] for name in runs}
    return {
        "rows": num_rows,
        "wall_s": wall_s,
        "peak_bytes": {name: max(r.peak_bytes for r in of_one) for name, of_one in runs.items()},
        "per_row_s": per_row_s,
        "growth": per_row_s["4x"] / per_row_s["0.25x"],
    }


def measure_one_less(annotations: Path, built: Path, folder: Path) -> dict[str, Any]:
    """How many shards of the build in ``built`` keep their clips when one video leaves every list."""
    gone = one_video(pd.read_parquet(built / "manifest.parquet", columns=["id", "views", "leaf"]))
    rewrite_lists(annotations, folder / "less", lambda video_id: [video_id] if video_id != gone else [])
    run_ours(folder / "less", folder / "rebuilt")
    before, after = planned_shards(built), planned_shards(folder / "rebuilt")
    return {
        "removed": gone,
        "shards": len(before),
        "kept": sum(after.get(leaf) == keys for leaf, keys in before.items()),
    }


def one_video(manifest: pd.DataFrame) -> str:
    """The first video by id of ``k600-train`` whose clips all stand in one shard."""
    train = manifest[manifest["views"].map(lambda views: "k600-train" in views)]
    leaves = manifest[manifest["id"].isin(train["id"])].groupby("id")["leaf"].nunique()
    alone = sorted(leaves.index[leaves == 1])
    if not alone:
        sys.exit("--one-less needs a video in a K600 training list")
    return str(alone[0])


def planned_shards(built: Path) -> dict[str, list[str]]:
    """The sorted keys of each planned shard of a build."""
    manifest = pd.read_parquet(built / "manifest.parquet", columns=["key", "leaf"])
    return {str(leaf): sorted(keys) for leaf, keys in manifest.groupby("leaf")["key"]}


def run_ours(annotations: Path, out: Path) -> Run:
    """One ``k710 build --manifest-only`` into ``out``, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["-m", "cli", "build", "--annotations", str(annotations), "--out", str(out), "--manifest-only", "--json"]
    return run_process([sys.executable, *command])


def run_baseline(annotations: Path, out: Path) -> Run:
    """One run of the pandas version into ``out``, which is emptied first; it prints its counts."""
    shutil.rmtree(out, ignore_errors=True)
    return run_process([sys.executable, "bench/lists_pandas.py", str(annotations), str(out)])


def run_process(command: Sequence[str]) -> Run:
    """Run ``command`` in a process of its own, and measure that process alone."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"K710_STAGE_TIMES": "1"}, stdout=stdout, stderr=stderr
        )
        # Not getrusage: its figure for children is the largest of all that ever ran.
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        said = stderr.read()
        if process.returncode:
            sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{said}")
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return Run(wall_s=wall_s, peak_bytes=usage.ru_maxrss * unit, stages_s=read_stages(said), stdout=stdout.read())


def read_stages(stderr: str) -> dict[str, float]:
    """Seconds by stage, from the lines ``stage NAME SECONDS``."""
    stages: dict[str, float] = {}
    for line in stderr.splitlines():
        if line.startswith("stage "):
            name, _, seconds = line.removeprefix("stage ").rpartition(" ")
            stages[name] = stages.get(name, 0.0) + float(seconds)
    return stages


def interleaved(runs: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Every run of each, in turn."""
    done: dict[str, list[Run]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            done[name].append(run())
            print(f"{name}: {done[name][-1].wall_s:.1f} s", file=sys.stderr)
    return done


def read_counts(built: Path) -> dict[str, Any]:
    """The counts of a build, in the form of the baseline's; without row pairs when it has no ``leaks.parquet``."""
    audit = json.loads((built / "audit.json").read_bytes())
    inputs = json.loads((built / "k710.lock.json").read_bytes())["inputs"]
    views = {view["name"]: view for view in (json.loads(p.read_bytes()) for p in (built / "views").glob("*.json"))}
    excluded: dict[str, dict[str, int]] = {name: {} for name in views}
    table = pd.read_parquet(built / "excluded.parquet", columns=["view", "reason"])
    for view, reasons in table.groupby("view", observed=True)["reason"]:
        excluded[str(view)] = {str(reason): int(count) for reason, count in reasons.value_counts().items()}
    counts = {
        "rows": {name: item["rows"] for name, item in inputs.items()},
        "ids": {name: item["videos"] for name, item in inputs.items()},
        "shared_ids": {" ".join(pair["lists"]): pair["videos"] for pair in audit["shared_videos"]},
        "clips": {name: view["clips"] for name, view in views.items()},
        "excluded": excluded,
        "conflicts": {f"{p['label']} | {p['winner']}": p["rows"] for p in audit["conflicts"]["pairs"]},
        "shards": len({shard for view in views.values() for shard in view["shards"]}),
    }
    if (built / "leaks.parquet").exists():
        counts["row_pairs"] = read_row_pairs(built / "leaks.parquet")
    return counts


def read_row_pairs(path: Path) -> dict[str, dict[str, int]]:
    """Row pairs per pair of lists that share a video: all, overlapping, of different classes."""
    columns = ["a_release", "a_split", "b_release", "b_split", "overlap_s", "class_differs"]
    return count_row_pairs(pd.read_parquet(path, columns=columns))


def differing(ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """Names of the counts that both have and that are not equal."""
    return [name for name in ours if ours[name] != baseline[name]]


def rewrite_lists(source: Path, target: Path, ids_for: Callable[[str], Iterable[str]]) -> None:
    """Write every list of ``source`` to ``target``, each row once for each id that ``ids_for`` gives for its own."""
    for path in sorted(p for p in source.glob("*/*.csv*") if p.is_file()):
        written = target / path.relative_to(source)
        written.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path, "rt") as read, _opened(written, "wt") as write:
            _rewrite(read, write, ids_for)


def in_quarter(video_id: str) -> bool:
    """Whether a video is among the quarter that is kept."""
    return hashlib.sha256(video_id.encode()).digest()[0] < 64


def copies(video_id: str) -> Iterator[str]:
    """The id itself, then those of its copies: as many characters, of the same alphabet."""
    yield video_id
    for copy in range(1, NUM_COPIES):
        yield base64.urlsafe_b64encode(hashlib.sha256(f"{video_id}.{copy}".encode()).digest()).decode()[:11]


def marks(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was asked for, what was seen, and whether that is enough."""
    wall_s, peak_bytes = result["wall_s"], result["peak_bytes"]
    speedup = wall_s["baseline"] / wall_s["ours"]
    differ = ", ".join(result["counts_differ"])
    found = {
        f"wall below {MAX_WALL_S:g} s": (f"{wall_s['ours']:.1f} s", wall_s["ours"] < MAX_WALL_S),
        f"peak below {MAX_PEAK_BYTES / 1e9:g} GB": (
            f"{peak_bytes['ours'] / 1e9:.2f} GB",
            peak_bytes["ours"] < MAX_PEAK_BYTES,
        ),
        f"at least {MIN_SPEEDUP:g}x faster": (f"{speedup:.2f}x", speedup >= MIN_SPEEDUP),
        "counts equal": (f"differ: {differ}" if differ else "equal", not differ),
    }
    if "scales" in result:
        growth = result["scales"]["growth"]
        found[f"time per row at most {MAX_GROWTH:g}x"] = (f"{growth:.2f}x", growth <= MAX_GROWTH)
    if "one_less" in result:
        shards, kept = result["one_less"]["shards"], result["one_less"]["kept"]
        found["all shards but one keep their clips"] = (f"{kept} of {shards}", kept == shards - 1)
    return {name: {"seen": seen, "met": met} for name, (seen, met) in found.items()}


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    num_rows = sum(result["counts"]["rows"].values())
    lines = [f"{num_rows:,} rows, {result['rounds']} rounds", "", "| | wall, s | peak, GB |", "|---|---|---|"]
    for name, wall_s in result["wall_s"].items():
        lines.append(f"| {name} | {wall_s:.1f} | {result['peak_bytes'][name] / 1e9:.2f} |")
    if result["stages_s"]:
        lines += ["", "| stage | s |", "|---|---|"]
        lines += [f"| {name} | {seconds:.2f} |" for name, seconds in result["stages_s"].items()]
    if "scales" in result:
        scales = result["scales"]
        lines += ["", "| size | rows | wall, s | peak, GB | per row, µs |", "|---|---|---|---|---|"]
        for name, rows in scales["rows"].items():
            peak = scales["peak_bytes"][name] / 1e9
            per_row = scales["per_row_s"][name] * 1e6
            lines.append(f"| {name} | {rows:,} | {scales['wall_s'][name]:.1f} | {peak:.2f} | {per_row:.2f} |")
    lines += ["", "| mark | seen | |", "|---|---|---|"]
    lines += [f"| {n} | {m['seen']} | {'met' if m['met'] else 'missed'} |" for n, m in result["marks"].items()]
    return "\n".join(lines)


def _median_wall_s(runs: Sequence[Run]) -> float:
    return statistics.median(r.wall_s for r in runs)


def _opened(path: Path, mode: Literal["rt", "wt"]) -> TextIO:
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding=encoding, newline="")
    return path.open(mode, encoding=encoding, newline="")


def _rewrite(read: TextIO, write: TextIO, ids_for: Callable[[str], Iterable[str]]) -> None:
    rows, out = csv.reader(read), csv.writer(write, lineterminator="\n")
    header = next(rows)
    out.writerow(header)
    column = [name.strip() for name in header].index("youtube_id")
    for row in rows:
        if row:
            out.writerows([*row[:column], i, *row[column + 1 :]] for i in ids_for(row[column]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scales", action="store_true", help="also a quarter of the videos, and four copies of them")
    parser.add_argument("--one-less", action="store_true", help="also without one K600 training video")
    parser.add_argument("--json", type=Path, metavar="FILE")
    main(parser.parse_args())
