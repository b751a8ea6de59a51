"""Archives from CVDF's servers: a few on the disk at a time, the next one downloaded while one is read."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from k710 import atomic
from k710.clips.sources.cvdf.places import Place, Row, published_place, publishing, splits_of
from k710.clips.sources.cvdf.read_archives import Downloads
from k710.clips.sources.cvdf.shelf import Archive, Lost, Peak
from k710.config import PublishedFile, load_releases
from k710.errors import SourceError
from k710.fetch.asking import survey
from k710.fetch.client import Client, Patience, public
from k710.fetch.download import download
from k710.fetch.offered import list_file, offered_archives
from k710.fetch.outcomes import NO_ROOM, FetchError, Outcome
from k710.fetch.outcomes import Wanted as File
from k710.fetch.partial import Partial
from k710.fetch.record import Sources, held

_SURVEYED_AT_A_TIME = 8


class PublishedArchives:
    """The archives that path lists name, downloaded into a folder as ``k710 fetch videos`` does it."""

    name = "cvdf:"

    def __init__(
        self,
        folder: Path,
        *,
        in_flight: int,
        keep: bool,
        base_url: str | None,
        accept_changed: bool,
        patience: Patience,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            folder: for the archives.
            in_flight: archives on the disk at a time, those included that are on their way or whose clips are not all
                on the disk yet.
            keep: whether they stay when they are read.
            base_url: of a mirror.
            accept_changed: whether a file that is another one than at its first sight is taken.
            patience: how long servers are waited for.
        """
        self._folder, self._in_flight, self._keep = folder, in_flight, keep
        self._base_url, self._accept_changed, self._patience = base_url, accept_changed, patience
        self._lists: dict[tuple[str, str], list[Archive]] = {}
        self._lost: dict[tuple[str, str], Lost] = {}
        self._holders = 0
        self._hold = contextlib.ExitStack()
        self._line: _Line | None = None

    @property
    def lost(self) -> Sequence[Lost]:
        """Splits whose path list could not be had."""
        return tuple(self._lost.values())

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Keep other processes out of the folder for as long as the block lasts; blocks may be nested."""
        if not self._holders:
            self._hold.enter_context(held(self._folder))
            self._sources, self._ours = Sources(self._folder), Downloads(self._folder)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._hold.close()

    def archives(self, rows: Collection[Row]) -> Sequence[Archive]:
        """The archives that the path lists of these rows' releases and splits name; replacements first."""
        pairs = {row[:2] for row in rows}
        asked = [
            (name, split)
            for name in load_releases()
            for split in splits_of(name, "")
            if any(name in publishing(release) and split in splits_of(name, own) for release, own in pairs)
        ]
        missing = [pair for pair in asked if pair not in self._lists]
        if missing:
            with self.using():
                client = Client(self._patience)
                for pair in missing:
                    self._ask_for_list(client, *pair)
        found = [archive for pair in asked for archive in self._lists[pair]]
        return sorted(found, key=lambda archive: not archive.place.is_replacement)

    def version(self, archive: Archive) -> str:
        """Checksum of the file at its first sight."""
        seen = self._sources.of(archive.path)
        return seen.sha256 if seen is not None else ""

    def opened(
        self, archives: Sequence[Archive], is_needed: Callable[[Archive], bool]
    ) -> Iterator[tuple[Archive, str]]:
        """Each archive that is needed, downloaded before its turn comes.

        Raises:
            SourceError: the disk is full.
            UsageError: the folder cannot be written.
        """
        self._clear([archive for archive in archives if not is_needed(archive)], archives)
        client = Client(self._patience)
        line = _Line(archives, is_needed, lambda archive: self._download(client, archive), self._in_flight)
        self._line = line
        try:
            while (taken := line.next()) is not None:
                archive, outcome = taken
                if outcome.status == NO_ROOM:
                    # It may have been asked for while one was on the disk that has gone since.
                    outcome = self._download(client, archive)
                    if outcome.status == NO_ROOM:
                        raise _full(outcome)
                if not outcome.is_good:
                    line.leave(archive)
                    yield archive, outcome.line
                elif is_needed(archive):
                    yield archive, ""
                else:
                    self.done(archive)
        finally:
            client.stop()
            line.close()
            self._line = None

    def again(self, archive: Archive) -> bool:
        """Download a damaged archive once more, if it is this build's own; whether other bytes came."""
        if not self._is_ours(archive.path):
            return False
        before = self.version(archive)
        archive.path.unlink(missing_ok=True)
        self._sources.forget(archive.path)
        outcome = self._download(Client(self._patience), archive)
        return outcome.is_good and outcome.sha256 != before

    def remedy(self, archive: Archive) -> str:
        """What people can do about an archive that is damaged."""
        way = "" if self._is_ours(archive.path) else f"remove {archive.path} and "
        return f"{way}run the same command again, which downloads it; what could be read of it is taken"

    def done(self, archive: Archive) -> None:
        """Remove an archive that this build downloaded, and make room for the next."""
        if self._is_ours(archive.path):
            self._remove(archive.path)
        if self._line is not None:
            self._line.leave(archive)

    def peak(self, archives: Sequence[Archive]) -> Peak:
        """The largest archives that may be on the disk together; asks for the size of each that is not here."""
        absent = [archive for archive in archives if not archive.path.exists()]
        with self.using():
            said = survey(Client(self._patience), [self._url(a) for a in absent], _SURVEYED_AT_A_TIME)
        sizes = [None if isinstance(s, FetchError) else s.size_bytes for s in said]
        sizes += [archive.path.stat().st_size for archive in archives if archive.path.exists()]
        known = sorted((size for size in sizes if size is not None), reverse=True)
        # One whose last clips are being encoded is there while the next is read.
        at_a_time = len(known) if self._keep else max(2, self._in_flight)
        return Peak(archives=len(archives), size_bytes=sum(known[:at_a_time]), unknown=len(sizes) - len(known))

    def _ask_for_list(self, client: Client, release: str, split: str) -> None:
        """Learn the archives of a split, from its path list and of replacements."""
        files = [f for f in load_releases()[release].published if f.split == split and f.what != "annotations"]
        kind = File(url="", path=self._folder, is_archive=True, is_checked_inside=False, is_temporary=not self._keep)

        def text(file: PublishedFile) -> bytes | None:
            wanted = list_file(self._folder, release, file, self._base_url)
            with atomic.writable(self._folder):
                outcome = download(client, self._sources, wanted, accept_changed=self._accept_changed)
            if outcome.status == NO_ROOM:
                raise _full(outcome)
            if not outcome.is_good:
                self._lost[release, split] = Lost(place=Place(release=release, split=split), reason=outcome.line)
            # Of a list that is another one now, the first one stays; its archives are known.
            return wanted.path.read_bytes() if self._sources.of(wanted.path) and wanted.path.is_file() else None

        texts = {
            list_file(self._folder, release, f, self._base_url).url: text(f) for f in files if f.what == "path_list"
        }
        found = offered_archives([(release, f) for f in files], kind, texts.get, base_url=self._base_url)
        self._lists[release, split] = [
            Archive(
                name=self._sources.name(offered.wanted.path),
                identity=hashlib.sha256(public(offered.wanted.url).encode()).hexdigest(),
                place=published_place(release, split, offered.wanted.path.name, is_replacement=offered.is_replacement),
                path=offered.wanted.path,
                file=offered.wanted,
            )
            for offered in found
        ]

    def _download(self, client: Client, archive: Archive) -> Outcome:
        assert archive.file is not None
        with atomic.writable(self._folder):
            if not self._keep and not archive.path.exists():
                self._ours.put(archive.name)
            return download(client, self._sources, archive.file, accept_changed=self._accept_changed)

    def _is_ours(self, path: Path) -> bool:
        """Whether the file is one that this build has downloaded, to be removed."""
        if self._keep or self._sources.name(path) not in self._ours:
            return False
        seen = self._sources.of(path)
        if seen is None or not (seen.fetched and seen.temporary) or path.is_symlink():
            return False
        return path.is_file() and path.stat().st_size == seen.size_bytes

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._ours.forget(self._sources.name(path))

    def _clear(self, needless: Sequence[Archive], archives: Sequence[Archive]) -> None:
        """Remove what runs that were killed have downloaded and nothing is asked for of."""
        known = {archive.name for archive in archives}
        names = [archive.name for archive in needless] + [n for n in self._ours.names() if n not in known]
        for path in (self._folder / name for name in names):
            if self._is_ours(path):
                self._remove(path)
            elif not self._keep and self._sources.name(path) in self._ours and not path.exists():
                Partial(path, "").drop()
                self._ours.forget(self._sources.name(path))

    @staticmethod
    def _url(archive: Archive) -> str:
        assert archive.file is not None
        return archive.file.url


class _Line:
    """Archives in the order in which they are read, the first ones on their way or here."""

    def __init__(
        self,
        archives: Sequence[Archive],
        is_needed: Callable[[Archive], bool],
        get: Callable[[Archive], Outcome],
        in_flight: int,
    ) -> None:
        self._later = deque(archives)
        self._is_needed, self._get, self._in_flight = is_needed, get, in_flight
        self._coming: deque[tuple[Archive, Future[Outcome]]] = deque()
        self._here: set[str] = set()
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(max_workers=max(1, in_flight - 1), thread_name_prefix="cvdf")
        self._is_open = True

    def next(self) -> tuple[Archive, Outcome] | None:
        """The next archive, when its download has come to an end; None when there is none."""
        with self._lock:
            self._fill()
            if not self._coming:
                return None
            archive, future = self._coming.popleft()
        return archive, future.result()

    def leave(self, archive: Archive) -> None:
        """Make room: an archive has gone, or is of no use."""
        with self._lock:
            self._here.discard(archive.name)
            if self._is_open:
                self._fill(only_ahead=True)

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way; the client has been stopped."""
        with self._lock:
            self._is_open = False
            self._later.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, *, only_ahead: bool = False) -> None:
        while self._later and self._has_room(only_ahead=only_ahead):
            archive = self._later.popleft()
            if self._is_needed(archive):
                self._here.add(archive.name)
                self._coming.append((archive, self._pool.submit(self._get, archive)))

    def _has_room(self, *, only_ahead: bool) -> bool:
        # Whoever takes clips may wait for the next before it says that those it has are on the disk: one always comes.
        return len(self._here) < self._in_flight or (not only_ahead and not self._coming)


def _full(outcome: Outcome) -> SourceError:
    return SourceError(
        f"{outcome.name}: {outcome.reason}",
        hint="make room, name a folder on another disk, or fewer archives at a time; then the same command goes on",
    )
