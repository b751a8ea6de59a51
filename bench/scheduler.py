"""A build of the full lists on many machines, simulated: how many array tasks, what failures and slow nodes cost, Ray.

usage: python bench/scheduler.py measure --videos DIR [--repeats N]
       python bench/scheduler.py simulate [--nodes N] [--workers N] [--tasks N,N] [--json FILE] [--picture FILE]
       python bench/scheduler.py draw --json FILE --picture FILE

measure   CPU seconds of each video in DIR as a clip under `sparse8`, with the look at what was written: what
          scheduler_workload.py takes the times of clips from
simulate  every clip of the plan as an event, for each number of tasks (0 stands for Ray) in four cases; the same
          seed, the same figures. What a task and a clip cost beside the making was measured with bench/many_clips.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler_simulation import Cluster, Costs, Found, Requests, Simulation
from scheduler_workload import ClipTimes, clip_seconds, node_speeds, plan_sizes, split
from shard_clips import find_videos, make_verified, trimmed_jobs

from k710.clips.media import EncodeConfig

RAY = 0
COSTS = Costs(start_s=46.0, commit_s=0.0012, pack_s=0.0033, claim_s=180.0, finish_s=105.0)
"""CPU time on a local disk. Measured here: a start with all the lists and 649,508 files, 36 s; a commit; packing a clip
of 569 kB. Computed: 10 s more for a ledger that is half full, and the finish, both from a build of 100,000 clips that
found all done. By the code: how long a claim lasts."""
STORE_COSTS = dataclasses.replace(COSTS, batch_s=0.08, pack_s=0.0062)
"""Where the build is written to an object store. Assumed: a clip and a line of the ledger are there after 40 ms each,
and a shard goes up at 200 MB/s."""
REQUESTS = Requests(source_reads=2, clip_writes=2, shard_writes=17)
"""Of such a build, by the code: the video is looked at and read; the clip and its ledger line are written; a shard of
400 MB has 12 parts, which are opened and closed, broken uploads are listed, the marker is written and the waiting clips
are removed at once. Ledger lines of clips that are done together share a request, so there are fewer."""
S3_READS_PER_S, S3_WRITES_PER_S = 5_500, 3_500
"""Reported by AWS: requests a second that a prefix of a bucket takes at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What befalls a build."""

    name: str
    """For people."""
    slow_part: float = 0.0
    """Part of the nodes that are slow; without any all are equal."""
    slow_speed: float = 0.5
    """How fast those are."""
    lost_every_s: float = float("inf")
    """Mean time between two losses of one node."""
    away_s: float = 300.0
    """Until it is there again."""
    to_store: bool = False
    """Whether videos and build lie in an object store, all under one prefix that takes what S3 says."""


CASES = (
    Case(name="all nodes equal"),
    Case(name="3 slow nodes", slow_part=0.05),
    Case(name="3 slow nodes, losses", slow_part=0.05, lost_every_s=2 * 3600),
    Case(name="3 slow nodes, one prefix of S3", slow_part=0.05, to_store=True),
)


def simulate(arguments: argparse.Namespace) -> None:
    """Print a table of all cases, and write it with the requests of each second."""
    sizes = plan_sizes(arguments.clips_per_shard, arguments.seed, arguments.manifest)
    times = dataclasses.replace(ClipTimes(), large_part=arguments.large_part)
    seconds = clip_seconds(sum(sizes), times, arguments.seed)
    result: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "clips": len(seconds),
        "shards": len(sizes),
        "nodes": arguments.nodes,
        "workers": arguments.workers,
        "mean_s": float(seconds.mean()),
        "longest_s": float(seconds.max()),
        "least_s": float(seconds.sum()) / arguments.nodes / arguments.workers,
        "costs": dataclasses.asdict(COSTS),
        "times": dataclasses.asdict(times),
        "runs": list(runs(split(seconds, sizes), arguments)),
    }
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")
    if arguments.picture:
        draw(result, arguments.picture)


def runs(leaves: Sequence[Sequence[float]], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What each number of tasks came to in each case."""
    for case in (case for case in CASES if not arguments.case or case.name in arguments.case):
        # Ray's workers hand over clips in a folder that all machines see.
        for tasks in (number for number in arguments.tasks if number != RAY or not case.to_store):
            began = time.perf_counter()
            found = Simulation(
                leaves,
                cluster_of(case, arguments.nodes, arguments.workers, arguments.seed),
                STORE_COSTS if case.to_store else COSTS,
                requests_of(case),
                num_tasks=None if tasks == RAY else tasks,
                seed=arguments.seed,
            ).run()
            figures = figures_of(found, arguments.nodes * arguments.workers)
            print(f"{case.name}, {tasks} tasks: {time.perf_counter() - began:.0f} s", file=sys.stderr)
            yield {"case": case.name, "tasks": tasks, **figures}


def cluster_of(case: Case, nodes: int, workers: int, seed: int) -> Cluster:
    """The machines of a case."""
    speeds = node_speeds(nodes, case.slow_part, case.slow_speed, seed) if case.slow_part else ()
    return Cluster(nodes=nodes, workers=workers, speeds=speeds, lost_every_s=case.lost_every_s, away_s=case.away_s)


def requests_of(case: Case) -> Requests:
    """What the store of a case is asked for, and takes."""
    if not case.to_store:
        return Requests()
    return dataclasses.replace(REQUESTS, most_reads_per_s=S3_READS_PER_S, most_writes_per_s=S3_WRITES_PER_S)


def figures_of(found: Found, workers: int) -> dict[str, Any]:
    """What counts of a simulated build."""
    assert set(found.done) == {1}, "a clip was not committed once"
    return {
        "makespan_s": found.makespan_s,
        "utilisation": found.useful_s / (workers * found.makespan_s),
        "held_h": found.held_s / 3600,
        "lost_s": found.lost_s,
        "losses": found.losses,
        "starts": found.starts,
        "refused": found.refused,
        "reads_per_s": max(found.reads_in, default=0),
        "writes_per_s": max(found.writes_in, default=0),
        "mean_writes_per_s": sum(found.writes_in) / found.makespan_s,
        "first_end_s": min(found.ended_s, default=0.0),
        "writes_in": found.writes_in,
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"{result['clips']:,} clips of {result['mean_s']:.2f} s (longest {result['longest_s']:.0f} s) in "
        f"{result['shards']} shards on {result['nodes']} nodes of {result['workers']} workers; "
        f"all work over all workers: {result['least_s'] / 60:.1f} min",
        "",
        "| case | tasks | time, min | use of the workers | core hours held | lost, core min | nodes lost | starts "
        "| reads/s at most | writes/s at most | refused |",
        "|---|" + "---:|" * 10,
    ]
    lines += [
        f"| {r['case']} | {r['tasks'] or 'Ray'} | {r['makespan_s'] / 60:.1f} | {100 * r['utilisation']:.0f} % "
        f"| {r['held_h']:.0f} | {r['lost_s'] / 60:.1f} | {r['losses']} | {r['starts']} | {r['reads_per_s']:,} "
        f"| {r['writes_per_s']:,} | {r['refused']:,} |"
        for r in result["runs"]
    ]
    return "\n".join(lines)


def draw(result: dict[str, Any], picture: Path) -> None:
    """Write the picture of a result."""
    # Only whoever draws needs a browser.
    from scheduler_picture import draw_runs

    draw_runs(result, picture)


def measure(arguments: argparse.Namespace) -> None:
    """Print what each video takes as a clip."""
    videos = find_videos(arguments.videos)
    with tempfile.TemporaryDirectory() as folder:
        jobs = trimmed_jobs(videos, len(videos) * arguments.repeats, Path(folder), EncodeConfig())
        made = [make_verified(job) for job in jobs]
    for number, video in enumerate(videos):
        own = made[number :: len(videos)]
        cpu_s = sorted(one.cpu_s for one in own)
        print(
            f"{video.name}: {statistics.median(cpu_s):.2f} CPU-s ({cpu_s[0]:.2f} to {cpu_s[-1]:.2f}), "
            f"{own[0].outcome.frames} frames, {own[0].outcome.size_bytes:,} bytes"
        )


def main() -> None:
    """Measure, simulate or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("--videos", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    one.add_argument("--repeats", type=int, default=5)
    one.set_defaults(run=measure)
    one = commands.add_parser("simulate")
    one.add_argument("--nodes", type=int, default=64)
    one.add_argument("--workers", type=int, default=16, help="clips that a node makes at a time")
    one.add_argument("--tasks", type=_numbers, default=[64, 128, 192, 256, 384, 640, 900, RAY], metavar="N,N")
    one.add_argument("--case", action="append", choices=[case.name for case in CASES], help="repeatable; default: all")
    one.add_argument("--clips-per-shard", type=int, default=1000)
    one.add_argument("--large-part", type=float, default=ClipTimes().large_part, help="part of the clips in 1080p")
    one.add_argument("--manifest", type=Path, metavar="FILE", help="manifest.parquet of a build, for its shards")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--json", type=Path, metavar="FILE")
    one.add_argument("--picture", type=Path, metavar="FILE")
    one.set_defaults(run=simulate)
    one = commands.add_parser("draw")
    one.add_argument("--json", type=Path, required=True, metavar="FILE")
    one.add_argument("--picture", type=Path, required=True, metavar="FILE")
    one.set_defaults(run=lambda a: draw(json.loads(a.json.read_bytes()), a.picture))
    arguments = parser.parse_args()
    arguments.run(arguments)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
