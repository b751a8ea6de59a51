"""What `bench/shards.py` gives the product to do: copies of real videos, and its own ways to make clips of them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from k710.clips import make, media
from k710.clips.make import ClipJob, make_clip
from k710.clips.media import EncodeConfig
from k710.clips.outcomes import OK, ClipOutcome, Unusable
from k710.clips.probing import VideoFacts, probe
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.local import SUFFIXES, LocalFolders
from k710.clips.verify import Decoded
from k710.segments import Segment
from k710.shards.executors.local import run_local

Command = list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What something took."""

    wall_s: float
    """Seconds."""
    cpu_s: float
    """CPU seconds of all processes, which other load hardly changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What became of a clip in a worker."""

    outcome: ClipOutcome
    """As ``make_clip`` gave it."""
    cpu_s: float
    """CPU seconds of the worker and of ffmpeg."""


_UNSEEN = Decoded(
    frames=sys.maxsize,
    duration_s=10,
    fps=30,
    width_px=2,
    height_px=2,
    codec="",
    black=False,
    frozen=False,
    complete=True,
)


def find_videos(folder: Path) -> list[Path]:
    """The videos in ``folder``, in order of name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def trimmed_jobs(videos: Sequence[Path], num: int, folder: Path, encode: EncodeConfig) -> list[ClipJob]:
    """``num`` jobs on as many copies of the videos in turn, named as trimmed clips of 10 s."""
    return _jobs(videos, [(0, 10)] * num, folder, encode, timed=True)


def whole_jobs(videos: Sequence[Path], num: int, folder: Path, encode: EncodeConfig) -> list[ClipJob]:
    """As many jobs on copies named as whole videos: all but the first and the last second of each is the clip."""
    ends_s = [max(2, int(facts_of(video).duration_s) - 1) for video in videos]
    return _jobs(videos, [(1, ends_s[n % len(videos)]) for n in range(num)], folder, encode, timed=False)


def make_verified(job: ClipJob) -> Made:
    """``make_clip``, with the CPU time that it took."""
    started_s = cpu_s()
    outcome = make_clip(job)
    return Made(outcome=outcome, cpu_s=cpu_s() - started_s)


def make_on_one_core(job: ClipJob) -> Made:
    """The same in a worker that has one core to itself, of which its ffmpeg would use more."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return make_verified(job)


def make_unverified(job: ClipJob) -> Made:
    """The same, except that nobody looks at what was written."""
    with mock.patch.object(make, "decode", return_value=_UNSEEN):
        return make_verified(job)


def run_product(function: Callable[[ClipJob], Made], jobs: Sequence[ClipJob], workers: int) -> Spent:
    """What the jobs take in the build's executor, wall time with the start of its workers; all must give clips."""
    started = time.perf_counter()
    made = [answer for _, answer in run_local(function, jobs, workers=workers)]
    wall_s = time.perf_counter() - started
    _check([one.outcome for one in made])
    return Spent(wall_s=wall_s, cpu_s=sum(one.cpu_s for one in made))


def start_workers(workers: int) -> Spent:
    """What the build's executor takes to start and to end, with nothing to do; without its workers' CPU time."""
    started = time.perf_counter()
    list(run_local(abs, range(workers), workers=workers))
    return Spent(wall_s=time.perf_counter() - started, cpu_s=0.0)


def commands_of(jobs: Sequence[ClipJob]) -> list[Command]:
    """The ffmpeg command that ``make_clip`` runs for each job, by running them."""
    commands: list[Command] = []
    run = media.run_ffmpeg

    def record(command: Command, timeout_s: float, target: Path, stdin: bytes | None = None) -> Unusable | None:
        commands.append(list(command))
        return run(command, timeout_s, target, stdin)

    with mock.patch.object(media, "run_ffmpeg", record):
        _check([make_clip(job) for job in jobs])
    assert len(commands) == len(jobs)
    return commands


def run_bare(chains: Sequence[Sequence[Command]], workers: int) -> Spent:
    """What the chains of commands take, as many at a time as there are workers, in their order."""

    def run(chain: Sequence[Command]) -> None:
        for command in chain:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

    started, started_s = time.perf_counter(), cpu_s()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, chains))
    return Spent(wall_s=time.perf_counter() - started, cpu_s=cpu_s() - started_s)


def cpu_s() -> float:
    """CPU seconds of this process and of the children that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(of_one.ru_utime + of_one.ru_stime for of_one in used)


def trim_then_resize(jobs: Sequence[ClipJob], folder: Path) -> list[list[Command]]:
    """What other tools do for each job: trim by encoding with x264's defaults, then encode again, smaller.

    One thread each, as ours. The second encode has the very arguments of ours, which are quicker than the defaults.
    """
    folder.mkdir(parents=True)
    chains = []
    for job in jobs:
        source, cut = Path(job.candidates[0].path), job.segment
        trimmed = folder / f"{cut.key}.mp4"
        trim = [media.ffmpeg_path(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-ss", f"{cut.start_s}"]
        trim += ["-i", f"file:{source}", "-t", f"{cut.duration_s}", "-c:v", "libx264", "-threads", "1", "-an"]
        chains.append([[*trim, f"file:{trimmed}"]])
    run_bare(chains, 1)
    resized = [
        ClipJob(
            segment=job.segment,
            candidates=LocalFolders([folder]).candidates([_wanted(job.segment)], {})[0],
            target=job.target,
            encode=job.encode,
        )
        for job in jobs
    ]
    return [[*chain, resize] for chain, resize in zip(chains, commands_of(resized), strict=True)]


def facts_of(video: Path) -> VideoFacts:
    """What a video holds; one that is unusable ends the bench."""
    facts = probe(video)
    if isinstance(facts, Unusable):
        sys.exit(f"{video}: {facts.status} {facts.detail}")
    return facts


def _jobs(
    videos: Sequence[Path], ranges: Sequence[tuple[int, int]], folder: Path, encode: EncodeConfig, *, timed: bool
) -> list[ClipJob]:
    (folder / "sources").mkdir(parents=True)
    (folder / "made").mkdir()
    segments = []
    for number, (start_s, end_s) in enumerate(ranges):
        video = videos[number % len(videos)]
        segments.append(Segment(id=f"copy{number:06d}_", start_s=start_s, end_s=end_s))
        name = segments[-1].key if timed else segments[-1].id
        shutil.copyfile(video, folder / "sources" / f"{name}{video.suffix}")
    folders = LocalFolders([folder / "sources"], "auto" if timed else "originals")
    candidates = folders.candidates([_wanted(segment) for segment in segments], {})
    return [
        ClipJob(segment=s, candidates=files, target=folder / "made" / f"{s.key}.mp4", encode=encode)
        for s, files in zip(segments, candidates, strict=True)
    ]


def _wanted(segment: Segment) -> Wanted:
    return Wanted(segment=segment, releases=frozenset({"k400"}))


def _check(outcomes: Sequence[ClipOutcome]) -> None:
    for outcome in outcomes:
        if outcome.status != OK:
            sys.exit(f"{outcome.key} from {outcome.source}: {outcome.status} {outcome.detail}")
