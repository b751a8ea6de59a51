"""Verifying a build in an object store: shard by shard, each copied to this machine, looked at whole, and removed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from k710.clips.pieces import Batch, Checked, Piece, check, dead
from k710.clips.verify import Mode
from k710.errors import FeedError
from k710.objects.objects import Objects
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.shelf import CACHE_FOLDER
from k710.shards.write import marker_path
from k710.verify_build import BuildClips, ShardPlan, check_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredShard:
    """What a worker looks at in one go."""

    url: str
    """Of the build."""
    plan: ShardPlan | None
    """The shard; None: only some of its clips, and no more of it is copied than they take."""
    pieces: tuple[Piece, ...]
    """The clips of the shard, with the path that it is copied to."""
    mode: Mode
    """How much of each is decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundInStore:
    """What was found."""

    clips: list[Checked]
    """Every clip that should have bytes."""
    problems: list[str]
    """What is wrong with shards."""


def verify_stored(
    build: BuildClips, url: str, mode: Mode, workers: int, progress: Callable[[str, int, int], None]
) -> FoundInStore:
    """Look at every clip and shard of a build whose small files lie in ``build.folder``; one copied shard a worker."""
    found = FoundInStore(clips=[], problems=[])
    total = len(build.table)
    lost: list[StoredShard] = []
    for task, answer in _run(_shards(build, url, mode), workers):
        if isinstance(answer, WorkerDied):
            lost.append(task)
            continue
        found.clips.extend(answer.clips)
        found.problems.extend(answer.problems)
        progress("clips", len(found.clips), total)
    found.problems.extend(f"{task.plan.name}: who read it died" for task in lost if task.plan is not None)
    # One by one, to know which of a shard the worker died of.
    alone = (dataclasses.replace(task, plan=None, pieces=(piece,)) for task in lost for piece in task.pieces)
    for task, answer in _run(alone, workers):
        is_dead = isinstance(answer, WorkerDied)
        found.clips.extend([dead(task.pieces[0], answer.exit_code)] if is_dead else answer.clips)  # type: ignore[union-attr]
        progress("clips", len(found.clips), total)
    return found


def check_stored(task: StoredShard) -> FoundInStore:
    """Copy what a task needs, look at it, and remove it."""
    objects = _objects(task.url)
    file, name = Path(task.pieces[0].file), task.pieces[0].name
    try:
        if task.plan is None:
            _copy_parts(objects, task.pieces, file)
        else:
            objects.get_files([(name, file)])
    except FeedError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        file.unlink(missing_ok=True)
    try:
        problems = [] if task.plan is None else check_shard(task.plan)
        return FoundInStore(clips=check(Batch(pieces=task.pieces, mode=task.mode)), problems=problems)
    finally:
        file.unlink(missing_ok=True)


def strangers(build: BuildClips, names: list[str]) -> list[str]:
    """Those of the objects' names that lie among the shards and in the cache, and that no plan names."""
    known = {name for shard in build.shards for name in (shard.name, str(marker_path(Path(shard.name))))}
    own = (name for name in names if name.startswith((f"{SHARDS_FOLDER}/", f"{CACHE_FOLDER}/")))
    return [f"{name}: no plan names it" for name in own if name not in known]


@functools.lru_cache(maxsize=1)
def _objects(url: str) -> Objects:
    """One for all tasks of a process, for its connections."""
    return Objects(url)


def _run(tasks: Iterator[StoredShard], workers: int) -> Iterator[tuple[StoredShard, FoundInStore | WorkerDied]]:
    for done in EXECUTORS["local"](check_stored, tasks, workers=workers):
        yield from done


def _shards(build: BuildClips, url: str, mode: Mode) -> Iterator[StoredShard]:
    plans = {plan.name: plan for plan in build.shards}
    # The index is in order of leaf, so the clips of a shard stand together.
    for name, pieces in itertools.groupby(build.pieces(), key=lambda piece: piece.name):
        yield StoredShard(url=url, plan=plans.get(name), pieces=tuple(pieces), mode=mode)


def _copy_parts(objects: Objects, pieces: tuple[Piece, ...], file: Path) -> None:
    """A file as long as the shard, in which only the clips of ``pieces`` and what lies beside them are filled in."""
    name = pieces[0].name
    size_bytes = objects.size_bytes(name) or 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sparse:
        sparse.truncate(size_bytes)
        for piece in pieces:
            parts = [(piece.offset, piece.size_bytes or 0), *((s.offset, s.size_bytes) for s in piece.small)]
            for offset, wanted in parts:
                sparse.seek(offset)
                left = max(0, min(wanted, size_bytes - offset))
                sparse.write(objects.read_range(name, offset, left) if left else b"")
