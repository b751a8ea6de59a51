"""From planned clips and their files to committed outcomes: what is to be made, by whom, and what became of it."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path

from k710.clips.encodings import EncodeConfig
from k710.clips.ledger import Ledger, on_the_disk
from k710.clips.make import ClipJob, fingerprint, make_clip
from k710.clips.media import FFMPEG_VARIABLE, ffmpeg_build
from k710.clips.outcomes import CORRUPT, MISSING, OK, ClipOutcome
from k710.clips.sources.candidates import Candidate, Wanted
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


Files = Mapping[str, tuple[Candidate, ...]]
"""The files that each clip may be made of, by key, best first."""


def clips_to_make(
    wanted: Mapping[str, Wanted],
    files: Files,
    ledger: Ledger,
    packing: Packing,
    *,
    encode: EncodeConfig,
    scratch: Path,
    reopen: AbstractSet[str] = frozenset(),
) -> list[ClipJob]:
    """The clips that are still to be made, in order of leaf; those without any file get their outcome at once.

    A clip is made that was never tried, that failed on other files than those there are now, whose bytes are gone, or
    whose status is in ``reopen``.
    """
    # Once per leaf: looking at a leaf costs as much as it has clips.
    packed = {leaf for leaf in packing.leaves if packing.is_done(leaf)}
    todo = [
        key
        for key, own in files.items()
        if _status(ledger, key) in reopen or _is_open(key, own, ledger, packing, packed)
    ]
    ledger.add_all(
        [ClipOutcome(key=key, status=MISSING) for key in todo if not files[key] and _status(ledger, key) != MISSING]
    )
    return [
        ClipJob(segment=wanted[key].segment, candidates=files[key], target=scratch / f"{key}.mp4", encode=encode)
        for key in todo
        if files[key]
    ]


def make_clips(jobs: Sequence[ClipJob], ledger: Ledger, packing: Packing, crew: Crew) -> Iterator[list[ClipOutcome]]:
    """Make clips, and yield what became of them when it is on the disk, a few at a time.

    Raises:
        SourceError: the workers die one after the other.
    """
    todo: Sequence[ClipJob] = jobs
    deaths = 0
    work = functools.partial(on_the_disk, functools.partial(make_clip_with, crew.ffmpeg) if crew.ffmpeg else make_clip)
    with _scratch(crew):
        while todo:
            again: list[ClipJob] = []
            for batch in crew.run(work, todo, workers=crew.workers):
                crew.still_ours()
                found = [(job, _counted(_outcome(job, result, ledger), ledger)) for job, result in batch]
                _commit(found, ledger, packing)
                again += [_once_more(job) for job, outcome in found if _is_unfinished(outcome)]
                final = [outcome for _, outcome in found if not _is_unfinished(outcome)]
                deaths = 0 if final else deaths + len(found)
                if deaths > _MAX_DEATHS_IN_A_ROW * crew.workers:
                    raise SourceError(
                        f"{deaths} worker processes died one after the other (out of memory, or killed)",
                        hint="run the same command again: it goes on where it was; --workers 1 needs the least memory",
                    )
                yield final
            todo = again


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


def _status(ledger: Ledger, key: str) -> str:
    return ledger.outcomes[key].status if key in ledger.outcomes else ""


def _is_open(
    key: str, files: tuple[Candidate, ...], ledger: Ledger, packing: Packing, packed: AbstractSet[str]
) -> bool:
    outcome = ledger.outcomes.get(key)
    if outcome is None:
        return True
    if outcome.status != OK or outcome.path:
        return outcome.tried != fingerprint(files)
    return packing.clips[key]["leaf"] not in packed and not packing.has_bytes(key)


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
        tried=fingerprint(job.candidates) if died_before else "",
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


def _commit(found: Sequence[tuple[ClipJob, ClipOutcome]], ledger: Ledger, packing: Packing) -> None:
    """Put outcomes and bytes on the disk."""
    written = [(job, outcome) for job, outcome in found if outcome.status == OK and job.encode.encode != "none"]
    # The ledger first: a line without its file is made again, a file without its line would be one nobody vouches for.
    ledger.add_all([_in_place(job, outcome, packing.out) for job, outcome in found])
    for job, outcome in written:
        cached = packing.cached(outcome.key)
        cached.parent.mkdir(parents=True, exist_ok=True)
        # Its folder is not waited for: a name that a power cut takes away is a clip that is made again.
        job.target.replace(cached)
    for job, outcome in found:
        if outcome.status != OK:
            job.target.unlink(missing_ok=True)


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
