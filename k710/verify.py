"""Whether clips can be decoded: those of a build, of a folder of any layout, or in anybody's tars. Writes nothing."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from k710 import atomic
from k710.clips.outcomes import OK, STATUSES
from k710.clips.pieces import Batch, Checked, Piece, check, dead
from k710.clips.sources.file_names import SUFFIXES
from k710.clips.verify import MODES, Mode
from k710.errors import FeedError, K710Error, SourceError, UsageError
from k710.objects.copies import copy_small
from k710.objects.objects import Objects
from k710.objects.protocols import is_url
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.shards.index import LOCK_FILE
from k710.verify_build import BuildClips, read_build_clips
from k710.verify_store import strangers, verify_stored

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and the total."""

_BATCH = 8
"""Clips that a worker takes at once: enough for the way to it to cost nothing, few enough to end together."""
_COLUMNS = ("path", "key", "status", "reason", "frames", "duration_s", "width_px", "height_px", "codec", "sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyConfig:
    """What to look at, and how closely."""

    path: Path | str
    """A build, a folder with videos or tars, one video or one tar; a string: the URL of a build in an object store."""
    mode: Mode = "ends"
    """How much of each clip is decoded."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode."""
    out: Path | None = None
    """Where the CSV of all clips goes; None: nowhere."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifySummary:
    """What was found."""

    path: Path | str
    """What was looked at."""
    kind: str
    """``build``, ``folder`` or ``shards``."""
    mode: str
    """How much of each clip was decoded."""
    clips: int
    """Clips there should be: all that a build plans, all files and members elsewhere."""
    statuses: dict[str, int]
    """Clips that were looked at, per status."""
    without_bytes: int
    """Planned clips of a build that have no bytes, which its index says, too."""
    bad: list[Checked]
    """Every clip that is not ok, in order of path and key."""
    problems: list[str]
    """What is wrong besides: shards, markers and the index of a build, tars that cannot be read."""
    remarks: list[str]
    """What is strange, and harms no clip: files that no plan names, builds that were not entered."""
    black: list[str]
    """Clips that are black all through; none with ``ends``."""
    frozen: list[str]
    """Clips in which nothing moves; none with ``ends``."""
    clips_per_s: float
    """Speed."""
    out: Path | None
    """The CSV."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.bad and not self.problems


def verify(config: VerifyConfig, progress: Progress | None = None) -> VerifySummary:
    """Look at every clip of ``config.path``; a clip that is bad is a finding, not an error.

    Raises:
        UsageError: there is nothing at the path, or ``out`` cannot be written.
        SourceError: a folder has no clips at all, or cannot be listed.
        FeedError: the index of a build, or the one tar that was named, cannot be read.
    """
    if config.out is not None and (not config.out.parent.is_dir() or config.out.is_dir()):
        raise UsageError(f"{config.out}: cannot be written", hint="--out takes a file in a folder that is there")
    if config.out is not None:
        begins = ",".join(_COLUMNS).encode()
        atomic.require_replaceable(config.out, "--out", begins=begins, what="a report of k710 verify")
    begin = time.monotonic()
    if isinstance(config.path, str):
        target, found = _look_in_store(config.path, config, progress or _silent)
    else:
        target = _target(config.path)
        begin = time.monotonic()
        found = _check_all(target, config, progress or _silent)
    elapsed_s = time.monotonic() - begin
    found.sort(key=lambda c: (c.path, c.key))
    if config.out is not None:
        with atomic.writable(config.out.parent):
            atomic.write_bytes(config.out, _csv(found))
    counts = Counter(c.status for c in found)
    return VerifySummary(
        path=config.path,
        kind=target.kind,
        mode=config.mode,
        clips=len(found) + target.without_bytes,
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        without_bytes=target.without_bytes,
        bad=[c for c in found if c.status != OK],
        problems=sorted(target.problems),
        remarks=sorted(target.remarks),
        black=[_named(c) for c in found if "black" in c.notes],
        frozen=[_named(c) for c in found if "frozen" in c.notes],
        clips_per_s=round(len(found) / elapsed_s, 1) if elapsed_s else 0.0,
        out=config.out,
    )


def place(text: str) -> Path | str:
    """What ``text`` names: a path, or the URL of a build in an object store."""
    return text.rstrip("/") if is_url(text) else Path(text)


@dataclass(kw_only=True, slots=True)
class _Target:
    """What there is to look at; problems and remarks may grow while it is."""

    kind: str
    pieces: Iterable[Piece]
    total: int
    """Pieces, or those that are known before the tars are read."""
    without_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    build: BuildClips | None = None


def _check_all(target: _Target, config: VerifyConfig, progress: Progress) -> list[Checked]:
    found: list[Checked] = []
    seen = _Counted(target.pieces)
    lost: list[Piece] = []
    for batch, result in _run(_batches(seen, config.mode, _BATCH), config.workers):
        if isinstance(result, WorkerDied):
            lost += batch.pieces
            continue
        found += result
        progress("clips", len(found), max(target.total, seen.num))
    # One by one, to know which of a batch the worker died of.
    for batch, result in _run(_batches(lost, config.mode, 1), config.workers):
        found += [dead(batch.pieces[0], result.exit_code)] if isinstance(result, WorkerDied) else result
        progress("clips", len(found), max(target.total, seen.num))
    if target.build is not None:
        target.problems += target.build.check_shards(config.workers, progress)
    return found


def _look_in_store(url: str, config: VerifyConfig, progress: Progress) -> tuple[_Target, list[Checked]]:
    objects = Objects(url)
    with tempfile.TemporaryDirectory(prefix="k710-verify-") as name:
        names = copy_small(objects, Path(name))
        try:
            build = read_build_clips(Path(name))
        except K710Error as error:
            # The folder stands for what the user has named.
            error.message = error.message.replace(name, objects.root)
            raise
        found = verify_stored(build, url, config.mode, config.workers, progress)
        target = _build_target(build, strangers(build, names))
        target.problems += found.problems
    return target, found.clips


def _run(batches: Iterable[Batch], workers: int) -> Iterator[tuple[Batch, list[Checked] | WorkerDied]]:
    for done in EXECUTORS["local"](check, batches, workers=workers):
        yield from done


def _batches(pieces: Iterable[Piece], mode: Mode, size: int) -> Iterator[Batch]:
    waiting = iter(pieces)
    while batch := tuple(islice(waiting, size)):
        yield Batch(pieces=batch, mode=mode)


class _Counted:
    """Pieces on their way, counted."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = pieces
        self.num = 0

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            self.num += 1
            yield piece


def _target(path: Path) -> _Target:
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder", hint="give a build, a folder of videos, or shards")
        if (path / LOCK_FILE).is_file():
            return _build(path)
        if path.is_dir():
            return _folder(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", hint="make it readable") from error
    if path.suffix.lower() == ".tar":
        if not tarfile.is_tarfile(path):
            raise FeedError(f"{path}: not a tar that can be read", hint="compressed ones must be unpacked first")
        return _tars(path.parent, [path])
    return _Target(kind="folder", pieces=[Piece(file=str(path), name=str(path))], total=1)


def _build(path: Path) -> _Target:
    build = read_build_clips(path)
    return _build_target(build, build.strangers())


def _build_target(build: BuildClips, remarks: list[str]) -> _Target:
    return _Target(
        kind="build",
        pieces=build.pieces(),
        total=len(build.table),
        without_bytes=build.without_bytes,
        problems=build.problems,
        remarks=remarks,
        build=build,
    )


def _folder(folder: Path) -> _Target:
    walk = _Walk()
    walk.read(folder)
    if not walk.videos and not walk.tars:
        if walk.unlisted:
            raise SourceError(walk.unlisted[0], hint="make it readable")
        raise SourceError(
            f"{folder}: no videos and no .tar files in it", hint=f"videos end in {', '.join(sorted(SUFFIXES))}"
        )
    target = _tars(folder, walk.tars)
    names = ((path, os.path.relpath(path, folder)) for path in sorted(walk.videos))
    videos = (Piece(file=path, name=name) for path, name in names)
    tars = target.pieces
    target.kind = "folder" if walk.videos else "shards"
    target.pieces = (piece for group in (videos, tars) for piece in group)
    target.total = len(walk.videos)
    target.problems += walk.unlisted
    target.remarks += [f"{os.path.relpath(b, folder)}: a build, not entered; give it by itself" for b in walk.builds]
    return target


@dataclass(kw_only=True, slots=True)
class _Walk:
    """What lies under a folder; each real folder is entered once, so that loops of links end."""

    videos: list[str] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    builds: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    entered: set[tuple[int, int]] = field(default_factory=set)

    def read(self, folder: Path) -> None:
        """Take in all that is under ``folder``."""
        self._is_new(str(folder))
        for root, folders, names in os.walk(folder, onerror=self._note, followlinks=True):
            if LOCK_FILE in names:
                self.builds.append(root)
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if self._is_new(f"{root}/{name}"))
            # `._*` are AppleDouble files, which some published archives carry.
            for name in (n for n in names if not n.startswith("._")):
                suffix = PurePosixPath(name).suffix.lower()
                if suffix in SUFFIXES:
                    self.videos.append(f"{root}/{name}")
                elif suffix == ".tar":
                    self.tars.append(Path(root) / name)

    def _note(self, error: OSError) -> None:
        self.unlisted.append(f"{error.filename}: cannot be listed ({error.strerror})")

    def _is_new(self, folder: str) -> bool:
        try:
            facts = Path(folder).stat()
        except OSError:
            return False
        place = (facts.st_dev, facts.st_ino)
        is_new = place not in self.entered
        self.entered.add(place)
        return is_new


def _tars(folder: Path, tars: Sequence[Path]) -> _Target:
    target = _Target(kind="shards", pieces=(), total=0)
    target.pieces = (piece for tar in sorted(tars) for piece in _members(tar, folder, target.problems))
    return target


def _members(tar: Path, folder: Path, problems: list[str]) -> Iterator[Piece]:
    """The videos in a tar, keys as webdataset makes them; what is wrong with the tar itself goes to ``problems``."""
    name = os.path.relpath(tar, folder)
    seen: set[str] = set()
    num_videos = end = 0
    try:
        size_bytes = tar.stat().st_size
        with tarfile.open(tar, "r:", errors="replace") as members:
            for member in members:
                end = member.offset_data + member.size
                file = PurePosixPath(member.name)
                if not member.isfile() or file.suffix.lower() not in SUFFIXES or file.name.startswith("._"):
                    continue
                num_videos += 1
                # The key ends at the first dot of the name; two videos of one key are two fields of one sample.
                key = str(file.parent / file.name.partition(".")[0])
                problem = "the tar has two members of this name" if member.name in seen else ""
                seen.add(member.name)
                yield Piece(
                    file=str(tar),
                    name=name,
                    key=key,
                    shard=True,
                    offset=member.offset_data,
                    size_bytes=member.size,
                    problem=problem,
                )
        if end > size_bytes or size_bytes % 512:
            problems.append(f"{name}: cut off at byte {size_bytes:,}")
        elif not num_videos:
            problems.append(f"{name}: no videos in it")
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.append(f"{name}: no whole tar ({' '.join(str(error).split())})")


def _csv(found: Sequence[Checked]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_COLUMNS, "notes"))
    for row in found:
        writer.writerow((*(getattr(row, name) for name in _COLUMNS), ", ".join(row.notes)))
    # Names on a disk may be any bytes.
    return text.getvalue().encode(errors="backslashreplace")


def _named(row: Checked) -> str:
    return f"{row.path}: {row.key}" if row.key else row.path


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""
