"""Clips out of CVDF's archives, each archive read once, its members straight to files for the clips that want them."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k710 import atomic
from k710.clips.sources.candidates import Candidate, VideosAre, Wanted
from k710.clips.sources.cvdf.downloads import PublishedArchives
from k710.clips.sources.cvdf.member_files import written
from k710.clips.sources.cvdf.own_archives import OwnArchives
from k710.clips.sources.cvdf.places import Places, Row
from k710.clips.sources.cvdf.read_archives import ReadArchive, ReadArchives
from k710.clips.sources.cvdf.shelf import Archive, Lost, Peak, Shelf
from k710.clips.sources.cvdf.wanted_members import Match, WantedMembers
from k710.errors import SourceError, UsageError
from k710.fetch.archives import Limits, Skipped, read_members
from k710.fetch.client import Patience

READ, DAMAGED, NOT_HAD, UNFINISHED = "read", "damaged", "not_had", "unfinished"
"""What came of an archive: read to its end; read up to where it is damaged; not downloaded; left when clips stopped
being taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CvdfConfig:
    """Which archives to read, and where downloads go."""

    work: Path
    """Folder on this machine for the record of what was read, and for downloads; it outlives the run."""
    folder: Path | None = None
    """Folder of archives that the user has; None: they are downloaded."""
    in_flight: int = 3
    """Downloaded archives on the disk at a time: one that is read, others on their way or waiting for their last
    clips."""
    keep_archives: bool = False
    """Whether downloaded archives stay."""
    base_url: str | None = None
    """Address of a mirror, in place of scheme and host of every URL."""
    accept_changed: bool = False
    """Whether a file that is another one than at its first sight is taken."""
    videos_are: VideosAre = "auto"
    """What members without times in their names are."""
    limits: Limits = field(default_factory=Limits)
    """Where an archive stops being one of videos."""
    patience: Patience = field(default_factory=Patience)
    """How long servers are waited for."""

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise UsageError(f"archives in flight must be at least 1, got {self.in_flight}")
        if self.folder is not None and (self.keep_archives or self.base_url is not None):
            raise UsageError("keep_archives and base_url are for downloads; archives of your own always stay")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveReport:
    """What came of one archive in this run."""

    name: str
    """Which."""
    status: str
    """``READ``, ``DAMAGED``, ``NOT_HAD`` or ``UNFINISHED``."""
    reason: str = ""
    """What is wrong, and what to do."""
    offered: int = 0
    """Files that were written for clips."""
    unwanted: int = 0
    """Videos that no clip asks for; they were not written."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Members that were passed over, by the reason."""


@dataclass(kw_only=True, slots=True)
class _Reading:
    """An archive that is being read, or whose clips are waited for."""

    archive: Archive
    members: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    waiting: set[str] = field(default_factory=set)
    offered: int = 0
    unwanted: int = 0
    status: str = UNFINISHED
    reason: str = ""
    is_at_end: bool = False

    def begin(self) -> None:
        """Read from the start; clips that were offered before are waited for as before."""
        self.members.clear()
        self.skipped.clear()
        self.unwanted = 0

    def report(self) -> ArchiveReport:
        """What came of it so far."""
        return ArchiveReport(
            name=self.archive.name,
            status=self.status,
            reason=self.reason,
            offered=self.offered,
            unwanted=self.unwanted,
            skipped=dict(sorted(self.skipped.items())),
        )


class CvdfArchives:
    """A source that is read as a whole: archives, in an order of their own."""

    def __init__(
        self,
        config: CvdfConfig,
        *,
        rivals: Mapping[str, Sequence[Wanted]],
        rows: Mapping[str, Collection[Row]] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Find the archives of a user's folder; servers are asked later.

        Args:
            config: which archives.
            rivals: for each video with several segments in any list, wanted here or not, all of them.
            rows: for each clip's key its annotation rows, to tell which archives may hold it; None: by release alone.
            say: told what people should read.

        Raises:
            UsageError: the folder is missing, cannot be listed or has no archive.
            InputError: the record of what was read cannot be read.
        """
        self._config, self._rivals, self._rows, self._say = config, rivals, rows or {}, say
        self._shelf: Shelf = OwnArchives(config.folder) if config.folder is not None else _published(config)
        self._record = ReadArchives(config.work)
        self._lock = threading.RLock()
        self._readings: dict[str, _Reading] = {}
        self._waiting_for: dict[str, list[_Reading]] = {}
        self._looked_for: WantedMembers | None = None
        self._lost: list[Lost] = []

    @property
    def names(self) -> tuple[str, ...]:
        """What people call it."""
        return (self._shelf.name,)

    def identities(self, wanted: Sequence[Wanted]) -> list[str]:
        """For each clip a digest of the archives that may hold it; empty where there is none.

        Raises:
            InputError: a path list is none.
        """
        rows = [self._rows_of(item) for item in wanted]
        archives = self._shelf.archives({row for own in rows for row in own})
        places = Places([archive.place for archive in archives])
        digests: dict[tuple[int, ...], str] = {(): ""}

        def digest(own: tuple[Row, ...]) -> str:
            holding = places.holding(own)
            if holding not in digests:
                text = "\n".join(f"{archives[n].name}\0{archives[n].identity}" for n in holding)
                digests[holding] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            reasons = [lost.reason for lost in self._shelf.lost if any(map(lost.place.may_hold, own))]
            # What was not found then is looked for when the list can be had.
            return f"{digests[holding]}?" if reasons else digests[holding]

        by_rows = {own: digest(own) for own in set(rows)}
        return [by_rows[own] for own in rows]

    def offers(self, wanted: Mapping[str, Wanted], folder: Path) -> Iterator[tuple[str, Candidate]]:
        """Files for clips as they come by, each written to ``folder``: the clip's key, and the file.

        A clip is offered once, and again when its file was ``unusable`` and another comes by. Nothing is read further
        ahead than the caller takes.

        Args:
            wanted: the clips that still need a file, by key; one that is taken out meanwhile is no longer looked for.
            folder: for the files.

        Raises:
            SourceError: the disk is full.
            UsageError: a folder cannot be written.
        """
        looked_for = WantedMembers(wanted, self._rows_of, self._rivals)
        with self._shelf.using():
            archives = self._shelf.archives(looked_for.all_rows())
            with self._lock:
                self._looked_for = looked_for
                self._lost = list(self._shelf.lost)
            for lost in self._lost:
                self._tell(lost.reason)
            for archive, failure in self._shelf.opened(archives, self._needed_by(looked_for)):
                if failure:
                    self._lose(archive, NOT_HAD, failure)
                else:
                    yield from self._clips_of(archive, wanted, looked_for, folder)
            self._say_skipped()

    def settled(self, keys: Collection[str]) -> None:
        """Take note that these clips have come to an outcome that is on the disk; others than offered ones too."""
        with self._lock:
            for key in keys:
                for reading in self._waiting_for.pop(key, ()):
                    reading.waiting.discard(key)
                    self._finish(reading)

    def unusable(self, keys: Collection[str]) -> None:
        """Take note that the files offered for these clips gave none: another archive may offer another."""
        if self._looked_for is not None:
            for key in keys:
                self._looked_for.lost(key)

    def may_come(self, keys: Collection[str]) -> dict[str, str]:
        """When all has been offered: those of the clips that may lie in what could not be read, and why."""
        looked_for = self._looked_for
        found: dict[str, str] = {}
        if looked_for is None:
            return found
        by_rows: dict[tuple[Row, ...], str] = {}
        # Replacements are for few clips: they are the likely place of none.
        by_likelihood = sorted(self._lost, key=lambda lost: lost.place.is_replacement)
        for key in keys:
            rows = looked_for.rows(key)
            if rows not in by_rows:
                reasons = (lost.reason for lost in by_likelihood if any(map(lost.place.may_hold, rows)))
                by_rows[rows] = next(reasons, "")
            if by_rows[rows] and looked_for.is_left(key):
                found[key] = by_rows[rows]
        return found

    def peak(self, wanted: Sequence[Wanted]) -> Peak:
        """How much of the disk archives may take at a time if these clips are looked for; asks for their sizes."""
        looked_for = WantedMembers({item.segment.key: item for item in wanted}, self._rows_of, self._rivals)
        with self._shelf.using():
            archives = self._shelf.archives(looked_for.all_rows())
            return self._shelf.peak(list(filter(self._needed_by(looked_for), archives)))

    def room(self, wanted: Sequence[Wanted]) -> str:
        """``peak`` in a sentence, for people."""
        return f"{self._shelf.name} {self.peak(wanted).line()}"

    def reports(self) -> tuple[ArchiveReport, ...]:
        """What came of each archive that was looked at, in order."""
        return tuple(reading.report() for reading in self._readings.values())

    def _clips_of(
        self, archive: Archive, wanted: Mapping[str, Wanted], looked_for: WantedMembers, folder: Path
    ) -> Iterator[tuple[str, Candidate]]:
        """What an archive offers; one of ours that is damaged is downloaded and read once more."""
        reading = _Reading(archive=archive)
        with self._lock:
            self._readings[archive.name] = reading
        for is_second in (False, True):
            reading.begin()
            try:
                yield from self._read(reading, wanted, looked_for, folder)
                reading.status = READ
            except SourceError as error:
                if not is_second and self._shelf.again(archive):
                    self._tell(f"{error.message}; downloaded once more")
                    continue
                self._lose(archive, DAMAGED, f"{error.message}; {self._shelf.remedy(archive)}")
            with self._lock:
                reading.is_at_end = True
                self._finish(reading)
            return

    def _read(
        self, reading: _Reading, wanted: Mapping[str, Wanted], looked_for: WantedMembers, folder: Path
    ) -> Iterator[tuple[str, Candidate]]:
        def skip(member: Skipped) -> None:
            reading.skipped[member.reason] += 1

        archive = reading.archive
        for member in read_members(archive.path, limits=self._config.limits, on_skip=skip):
            reading.members.append(member.name)
            matches = [match for match in looked_for.matches(member.name, archive.place) if match.key in wanted]
            if not matches:
                reading.unwanted += 1
                continue
            for match, path in zip(matches, written(member, folder, len(matches)), strict=True):
                candidate = self._candidate(match, path, looked_for, archive)
                with self._lock:
                    looked_for.took(match.key)
                    reading.offered += 1
                    reading.waiting.add(match.key)
                    self._waiting_for.setdefault(match.key, []).append(reading)
                yield match.key, candidate

    def _candidate(self, match: Match, path: Path, looked_for: WantedMembers, archive: Archive) -> Candidate:
        return Candidate(
            path=str(path),
            timed=match.timed,
            may_be_trimmed=match.timed or looked_for.has_claim(match.key, archive.place),
            videos_are="auto" if match.timed else self._config.videos_are,
            kind="cvdf",
            is_ours=True,
        )

    def _finish(self, reading: _Reading) -> None:
        """Let go of an archive when it is read and all clips from it are on the disk."""
        if not reading.is_at_end or reading.waiting:
            return
        # Once only: clips that were given up are settled later than others that another archive then offered.
        reading.is_at_end = False
        archive = reading.archive
        with atomic.writable(self._config.work):
            if reading.status == READ:
                self._record.put(
                    ReadArchive(
                        name=archive.name,
                        version=self._shelf.version(archive),
                        members=tuple(reading.members),
                        skipped=dict(reading.skipped),
                    )
                )
            self._shelf.done(archive)

    def _needed_by(self, looked_for: WantedMembers) -> Callable[[Archive], bool]:
        def is_needed(archive: Archive) -> bool:
            known = self._record.of(archive.name, self._shelf.version(archive))
            if known is None:
                return looked_for.may_be_in(archive.place)
            return looked_for.are_among(known.members, archive.place)

        return is_needed

    def _rows_of(self, item: Wanted) -> tuple[Row, ...]:
        rows = self._rows.get(item.segment.key)
        return tuple(rows) if rows else tuple((release, "", "") for release in sorted(item.releases))

    def _lose(self, archive: Archive, status: str, reason: str) -> None:
        with self._lock:
            reading = self._readings.setdefault(archive.name, _Reading(archive=archive))
            reading.status, reading.reason = status, reason
            self._lost.append(Lost(place=archive.place, reason=reason))
        self._tell(reason)

    def _tell(self, text: str) -> None:
        # A file's name need not be text.
        self._say(text.encode(errors="replace").decode())

    def _say_skipped(self) -> None:
        """One line over all archives of this run; ``reports`` has them one by one."""
        total: Counter[str] = Counter()
        for reading in self._readings.values():
            total.update(reading.skipped)
        if total:
            said = ", ".join(f"{count:,} x {reason}" for reason, count in total.most_common())
            self._tell(f"{self._shelf.name} passed over in archives: {said}")


def _published(config: CvdfConfig) -> PublishedArchives:
    return PublishedArchives(
        config.work,
        in_flight=config.in_flight,
        keep=config.keep_archives,
        base_url=config.base_url,
        accept_changed=config.accept_changed,
        patience=config.patience,
    )
