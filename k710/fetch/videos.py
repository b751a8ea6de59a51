"""`k710 fetch videos`: the archives that CVDF publishes, and on request the clips out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from k710 import atomic
from k710.config import PublishedFile, Release
from k710.errors import SourceError, UsageError
from k710.fetch.asking import nearest, survey
from k710.fetch.batch import OnProgress, fetch_all
from k710.fetch.client import Client, Patience, public
from k710.fetch.extract import Extracted, ExtractedArchives, extract
from k710.fetch.offered import Archive, list_file, offered_archives
from k710.fetch.outcomes import DAMAGED, UNCHANGED, FetchError, Outcome, Wanted
from k710.fetch.partial import require_room
from k710.fetch.published import chosen_releases, published_videos
from k710.fetch.record import Sources, held

SPLITS = ("train", "val", "test")
TERMS = (
    "The videos belong to those who uploaded them to YouTube, under YouTube's terms; the annotations are DeepMind's, "
    "under CC BY 4.0. Whether and for what you may use the videos is yours to clear."
)
"""Said before videos are fetched."""

_MAX_LIST_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchVideosConfig:
    """Which archives to fetch."""

    releases: tuple[str, ...]
    """Names of releases."""
    out: Path
    """Folder for the archives."""
    splits: tuple[str, ...] = SPLITS
    """Of which splits; replacements of broken videos come with those of their split."""
    base_url: str | None = None
    """Address of a mirror, in place of scheme and host of every URL, also of those in path lists."""
    dry_run: bool = False
    """Whether only the path lists are read, and sizes asked for; nothing is written."""
    max_archives: int | None = None
    """The most archives of each path list, its first ones; None: all."""
    parallel: int = 4
    """Downloads at a time."""
    extract: Path | None = None
    """Folder for the clips; None: the archives are kept as they are."""
    keep_archives: bool = False
    """Whether archives that were downloaded to be unpacked stay."""
    accept_changed: bool = False
    """Whether an archive that is another one than at its first sight is taken."""
    patience: Patience = field(default_factory=Patience)
    """How long servers are waited for."""

    def __post_init__(self) -> None:
        if self.parallel < 1 or (self.max_archives is not None and self.max_archives < 1):
            raise UsageError(f"parallel and max_archives must be at least 1, got {self.parallel}, {self.max_archives}")
        if not self.splits:
            raise UsageError("no split is named", hint=f"known: {', '.join(SPLITS)}")
        if self.keep_archives and self.extract is None:
            raise UsageError("keep_archives is for extract; without it archives stay anyway")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideosSummary:
    """What came of a fetch of videos, or would come of it."""

    out: Path
    """Folder that was fetched into."""
    lists: tuple[Outcome, ...]
    """The path lists; none in a dry run."""
    archives: tuple[Outcome, ...]
    """The archives; none in a dry run."""
    extracted: dict[str, Extracted] = field(default_factory=dict)
    """What came out of each archive, now or in an earlier run."""
    planned: tuple[tuple[str, str, int | None], ...] = ()
    """In a dry run: URL of each archive, a status (empty: it is there), and its size in bytes if the server says it."""

    @property
    def files(self) -> tuple[Outcome, ...]:
        """Path lists and archives."""
        return (*self.lists, *self.archives)


def fetch_videos(config: FetchVideosConfig, on_progress: OnProgress = lambda _: None) -> VideosSummary:
    """Fetch archives of videos, or see that those that are there are still what the publisher has.

    Raises:
        UsageError: a release or split is unknown or not offered, or a folder cannot be written.
        InputError: a path list or a record cannot be read.
        SourceError: the disk has no room for what is to come.
    """
    releases = chosen_releases(config.releases)
    offered = [(release, file) for release in releases for file in published_videos(release, config.splits)]
    client = Client(config.patience)
    if config.dry_run:
        return _planned(config, client, offered)
    with held(config.out):
        sources = Sources(config.out)
        lists = fetch_all(
            client,
            sources,
            [_list_file(config, release, file) for release, file in offered if file.what == "path_list"],
            parallel=config.parallel,
            accept_changed=config.accept_changed,
        )
        texts = {outcome.url: config.out / outcome.name for outcome in lists if outcome.is_good}

        def text(url: str) -> bytes | None:
            path = texts.get(public(url))
            return None if path is None else path.read_bytes()

        archives = _archives(config, offered, text)
        return _fetch(config, client, sources, tuple(lists), archives, on_progress)


def _fetch(
    config: FetchVideosConfig,
    client: Client,
    sources: Sources,
    lists: tuple[Outcome, ...],
    archives: Sequence[Archive],
    on_progress: OnProgress,
) -> VideosSummary:
    """Download the archives, and unpack each right after its download."""
    clips = None if config.extract is None else _Clips(config, config.extract, sources, client.check)
    by_path = {archive.wanted.path: archive for archive in archives}
    earlier = [clips.earlier(archive) for archive in archives] if clips else []
    left = [a for a, outcome in zip(archives, earlier, strict=True) if outcome is None] if clips else archives

    def finish(wanted: Wanted, outcome: Outcome) -> Outcome:
        return outcome if clips is None or not outcome.is_good else clips.unpack(by_path[wanted.path], outcome)

    outcomes = fetch_all(
        client,
        sources,
        [archive.wanted for archive in left],
        parallel=config.parallel,
        accept_changed=config.accept_changed,
        on_progress=on_progress,
        finish=finish,
        require=clips.require_room if clips else None,
    )
    by_name = {outcome.name: outcome for outcome in (*filter(None, earlier), *outcomes)}
    return VideosSummary(
        out=config.out,
        lists=lists,
        archives=tuple(by_name[sources.name(archive.wanted.path)] for archive in archives),
        extracted=clips.of(archives) if clips else {},
    )


class _Clips:
    """Unpacks archives, and removes those that were downloaded for that."""

    def __init__(self, config: FetchVideosConfig, folder: Path, sources: Sources, check: Callable[[], None]) -> None:
        self._config, self._folder, self._sources, self._check = config, folder, sources, check
        self._record = ExtractedArchives(folder)

    def earlier(self, archive: Archive) -> Outcome | None:
        """That an archive was unpacked by an earlier run and is gone; None when it is to be looked at."""
        name = self._sources.name(archive.wanted.path)
        known, seen = self._record.of(name), self._sources.of(archive.wanted.path)
        if known is None or seen is None or known.sha256 != seen.sha256:
            return None
        self._remove(archive)
        if archive.wanted.path.exists():
            return None
        return Outcome(
            name=name, url=public(archive.wanted.url), status=UNCHANGED, reason="unpacked before", sha256=seen.sha256
        )

    def unpack(self, archive: Archive, outcome: Outcome) -> Outcome:
        """``outcome``, after the clips of the archive are in their folder."""
        path = archive.wanted.path
        known = self._record.of(outcome.name)
        if known is None or known.sha256 != outcome.sha256:
            try:
                with atomic.writable(self._folder):
                    extracted = extract(path, self._folder / archive.folder, outcome.sha256, check=self._check)
            except SourceError as error:
                if self._is_ours(archive):
                    path.unlink(missing_ok=True)
                    self._sources.forget(path)
                return replace(outcome, status=DAMAGED, reason=error.message.removeprefix(f"{path}: "))
            self._record.put(outcome.name, extracted)
        self._remove(archive)
        return outcome

    def of(self, archives: Sequence[Archive]) -> dict[str, Extracted]:
        """What came out of each of these archives."""
        names = [self._sources.name(archive.wanted.path) for archive in archives]
        return {name: found for name in names if (found := self._record.of(name)) is not None}

    def require_room(self, sizes: Sequence[int]) -> None:
        """Raise a ``FetchError`` when there is no room for archives of these sizes and for their clips."""
        at_a_time = len(sizes) if self._config.keep_archives else self._config.parallel
        # Clips do not get smaller by packing, so they take what their archives take.
        archives, clips = sum(sorted(sizes)[-at_a_time:]), sum(sizes)
        disks = nearest(self._sources.folder), nearest(self._folder)
        if disks[0].stat().st_dev == disks[1].stat().st_dev:
            require_room(disks[1], archives + clips)
        else:
            require_room(disks[0], archives)
            require_room(disks[1], clips)

    def _remove(self, archive: Archive) -> None:
        """Remove an archive whose clips are all there; only one that was downloaded for that, never a user's."""
        if not self._config.keep_archives and self._is_ours(archive):
            archive.wanted.path.unlink(missing_ok=True)

    def _is_ours(self, archive: Archive) -> bool:
        seen = self._sources.of(archive.wanted.path)
        return seen is not None and seen.temporary


def _planned(
    config: FetchVideosConfig, client: Client, offered: Sequence[tuple[Release, PublishedFile]]
) -> VideosSummary:
    """What there is to fetch, with sizes; nothing is written."""
    broken: list[Outcome] = []

    def text(url: str) -> bytes | None:
        try:
            return client.trying(lambda: _small(client, url), url)
        except FetchError as error:
            name = PurePosixPath(urlsplit(url).path).name
            broken.append(Outcome(name=name, url=public(url), status=error.status, reason=error.message))
            return None

    archives = _archives(config, offered, text)
    said = survey(client, [archive.wanted.url for archive in archives], config.parallel)
    return VideosSummary(
        out=config.out,
        lists=tuple(broken),
        archives=(),
        planned=tuple(
            (
                public(archive.wanted.url),
                *((answer.status, None) if isinstance(answer, FetchError) else ("", answer.size_bytes)),
            )
            for archive, answer in zip(archives, said, strict=True)
        ),
    )


def _small(client: Client, url: str) -> bytes:
    with client.get(url) as reply:
        parts, size = [], 0
        for data in reply.chunks():
            size += len(data)
            if size > _MAX_LIST_BYTES:
                raise UsageError(f"{public(url)}: too large for a list of archives", hint="is --base-url right?")
            parts.append(data)
        return b"".join(parts)


def _list_file(config: FetchVideosConfig, release: Release, file: PublishedFile) -> Wanted:
    return list_file(config.out, release.name, file, config.base_url)


def _archives(
    config: FetchVideosConfig,
    offered: Sequence[tuple[Release, PublishedFile]],
    text: Callable[[str], bytes | None],
) -> list[Archive]:
    """The archives that the path lists name, and those of replacements."""
    # What is unpacked is read to its end anyway.
    kind = Wanted(
        url="",
        path=config.out,
        is_archive=True,
        is_checked_inside=config.extract is None,
        is_temporary=config.extract is not None and not config.keep_archives,
    )
    named = [(release.name, file) for release, file in offered]
    return offered_archives(named, kind, text, base_url=config.base_url, max_archives=config.max_archives)
