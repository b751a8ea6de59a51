"""From jobs to committed outcomes: who makes the clips, and what became of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path

from k710.clips.ledger import Ledger, on_the_disk
from k710.clips.make import ClipJob, make_clip, tried_for
from k710.clips.media import FFMPEG_VARIABLE, ffmpeg_build
from k710.clips.outcomes import CORRUPT, MISSING, OK, ClipOutcome
from k710.errors import SourceError
from k710.shards.executors import RunBatches
from k710.shards.executors.local import WorkerDied
from k710.shards.packing import Packing

DIED = "its worker died"
"""Reason of a clip that is tried once more, by this run or the next."""
DIED_TWICE = "its worker died twice"
"""Reason of a clip that is not."""

_MAX_DEATHS_IN_A_ROW = 10
"""More deaths than this, per worker, without a clip in between are the machine's doing and not that of the clips."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """Who makes the clips, and where."""

    run: RunBatches
    """The executor."""
    workers: int
    """How many clips are made at a time."""
    scratch: Path
    """New folder for encodes in progress; no two runs share one."""
    leftovers: str
    """Names, as a pattern, of such folders that only dead runs can have left."""
    still_ours: Callable[[], None]
    """Called before anything is committed; raises when another run has taken over."""
    ffmpeg: str = ""
    """The build of ffmpeg that workers elsewhere must have too; empty: they are on this machine."""


def make_clips(
    jobs: Iterable[ClipJob], ledger: Ledger, packing: Packing, crew: Crew, stays: AbstractSet[str] = frozenset()
) -> Iterator[list[ClipOutcome]]:
    """Make clips, and yield what became of them when it is on the disk, a few at a time.

    Args:
        jobs: taken a few ahead of the workers, when the folder for encodes in progress is there.
        ledger: gets the outcomes.
        packing: has the place for the clips.
        crew: who makes them.
        stays: keys of clips that are there, to be made anew: what fails of these is told, and not recorded.

    Raises:
        SourceError: the workers die one after the other.
    """
    deaths = 0
    work = functools.partial(on_the_disk, functools.partial(make_clip_with, crew.ffmpeg) if crew.ffmpeg else make_clip)
    with _scratch(crew):
        # No worker, and no cluster, is started for nothing.
        todo = _unless_empty(jobs)
        while todo is not None:
            again: list[ClipJob] = []
            for batch in crew.run(work, todo, workers=crew.workers):
                crew.still_ours()
                found = [(job, _counted(_outcome(job, result, ledger), ledger)) for job, result in batch]
                _commit(found, ledger, packing, stays)
                once_more = {o.key for _, o in found if _is_unfinished(o) and o.key not in stays}
                again += [_once_more(job) for job, outcome in found if outcome.key in once_more]
                final = [outcome for _, outcome in found if outcome.key not in once_more]
                deaths = 0 if final else deaths + len(found)
                if deaths > _MAX_DEATHS_IN_A_ROW * crew.workers:
                    raise SourceError(
                        f"{deaths} worker processes died one after the other (out of memory, or killed)",
                        hint="run the same command again: it goes on where it was; --workers 1 needs the least memory",
                    )
                yield final
            todo = _unless_empty(again)


def _unless_empty(jobs: Iterable[ClipJob]) -> Iterable[ClipJob] | None:
    rest = iter(jobs)
    first = next(rest, None)
    return None if first is None else itertools.chain([first], rest)


def make_clip_with(ffmpeg: str, job: ClipJob) -> ClipOutcome:
    """Make a clip, where ffmpeg is the one that the others use: another would give other bytes.

    Raises:
        SourceError: it is another one.
    """
    if _ffmpeg_here() != ffmpeg:
        raise SourceError(
            f"{socket.gethostname()} has another ffmpeg ({_ffmpeg_here()}) than this build ({ffmpeg})",
            hint=f"install the same on every machine, or name it by {FFMPEG_VARIABLE}",
        )
    return make_clip(job)


@functools.lru_cache(maxsize=1)
def _ffmpeg_here() -> str:
    return ffmpeg_build()


def _outcome(job: ClipJob, result: ClipOutcome | WorkerDied, ledger: Ledger) -> ClipOutcome:
    """What became of a job; a first death leaves the clip open, for ``tried`` is then no digest of any files."""
    if isinstance(result, ClipOutcome):
        return result
    before = ledger.outcomes.get(job.segment.key)
    died_before = before is not None and _is_unfinished(before)
    return ClipOutcome(
        key=job.segment.key,
        status=CORRUPT,
        detail=DIED_TWICE if died_before else DIED,
        source=job.candidates[0].name,
        kind=job.candidates[0].kind,
        tried=tried_for(job) if died_before else "",
    )


def _is_unfinished(outcome: ClipOutcome) -> bool:
    return outcome.detail == DIED and not outcome.tried


def _counted(outcome: ClipOutcome, ledger: Ledger) -> ClipOutcome:
    """The outcome with the attempts of earlier runs counted in."""
    before = ledger.outcomes.get(outcome.key)
    if before is None or before.status == MISSING:
        return outcome
    return dataclasses.replace(outcome, attempts=before.attempts + 1)


def _once_more(job: ClipJob) -> ClipJob:
    # Another name: what the dead worker had started may still be writing.
    return dataclasses.replace(job, target=job.target.with_name(f"{job.segment.key}.again.mp4"))


def _commit(
    found: Sequence[tuple[ClipJob, ClipOutcome]], ledger: Ledger, packing: Packing, stays: AbstractSet[str]
) -> None:
    """Put outcomes and bytes on the disk."""
    told = [(job, outcome) for job, outcome in found if outcome.status == OK or outcome.key not in stays]
    written = [(job, outcome) for job, outcome in found if outcome.status == OK and job.encode.encode != "none"]
    # The ledger first: a line without its file is made again, a file without its line would be one nobody vouches for.
    ledger.add_all([_in_place(job, outcome, packing.out) for job, outcome in told])
    for job, outcome in written:
        cached = packing.cached(outcome.key)
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Its folder is not waited for: a name that a power cut takes away is a clip that is made again.
        job.target.replace(cached)
    packing.shelf.commit([outcome for _, outcome in told])
    for job, outcome in found:
        if outcome.status != OK:
            job.target.unlink(missing_ok=True)
        if not _is_unfinished(outcome):
            for candidate in (own for own in job.candidates if own.is_ours):
                Path(candidate.path).unlink(missing_ok=True)


def _in_place(job: ClipJob, outcome: ClipOutcome, out: Path) -> ClipOutcome:
    """The outcome with the path by which a reader of the build finds a file that stays where it is."""
    if outcome.status != OK or job.encode.encode != "none":
        return outcome
    path = outcome.path or outcome.source
    seen = path if Path(path).is_absolute() else _from(out, path)
    return dataclasses.replace(outcome, path=seen, source=Path(path).name)


def _from(out: Path, path: str) -> str:
    """``path`` as seen from the build: the two can then be moved together."""
    folder, name = os.path.split(path)
    return os.path.join(_relative(folder, str(out)), name)  # noqa: PTH118 - a Path would take dots away


@functools.lru_cache(maxsize=4096)
def _relative(folder: str, out: str) -> str:
    # Without links: the system follows `..` from where a link leads to.
    return os.path.relpath(os.path.realpath(folder), os.path.realpath(out))


@contextmanager
def _scratch(crew: Crew) -> Iterator[None]:
    """The folder for encodes in progress, which goes when they end; those that killed runs left are removed."""
    cache = crew.scratch.parent
    for old in cache.glob(crew.leftovers):
        shutil.rmtree(old, ignore_errors=True)
    while not crew.scratch.exists():
        with suppress(FileNotFoundError):  # another task has just removed the empty cache
            crew.scratch.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(crew.scratch, ignore_errors=True)
        with suppress(OSError):  # clips wait in it
            cache.rmdir()
