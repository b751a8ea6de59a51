"""`k710 fetch annotations`: published lists into the folder layout that a build reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from k710.config import PublishedFile, Release
from k710.errors import SourceError, UsageError
from k710.fetch.batch import OnProgress, fetch_all
from k710.fetch.client import Client, Patience
from k710.fetch.outcomes import Outcome, Wanted
from k710.fetch.published import chosen_releases, mirrored, published_lists
from k710.fetch.record import SOURCES_FILE, Sources, held
from k710.lists.annotations import find_lists


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchAnnotationsConfig:
    """Which lists to fetch."""

    releases: tuple[str, ...]
    """Names of releases."""
    out: Path
    """Folder for them, one folder or archive a release, as ``k710 build --annotations`` takes it."""
    publisher: str | None = None
    """``cvdf`` or ``deepmind``; None: for each release the first that has its lists."""
    base_url: str | None = None
    """Address of a mirror, in place of scheme and host of every URL."""
    parallel: int = 4
    """Downloads at a time."""
    accept_changed: bool = False
    """Whether a file that is another one than at its first sight is taken."""
    patience: Patience = field(default_factory=Patience)
    """How long servers are waited for."""

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise UsageError(f"parallel must be at least 1, got {self.parallel}")
        if self.publisher not in (None, "cvdf", "deepmind"):
            raise UsageError(f"publisher must be cvdf or deepmind, got {self.publisher}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSummary:
    """What came of a fetch."""

    out: Path
    """Folder that was fetched into."""
    files: tuple[Outcome, ...]
    """Every file, in the order of the releases."""
    lists: tuple[str, ...] = ()
    """Lists that a build finds in the folder, as ``release:split``; empty when a file is missing."""

    @property
    def failed(self) -> list[Outcome]:
        """The files that are not there."""
        return [outcome for outcome in self.files if not outcome.is_good]


def fetch_annotations(config: FetchAnnotationsConfig, on_progress: OnProgress = lambda _: None) -> FetchSummary:
    """Fetch lists, or see that those that are there are still what the publisher has.

    Raises:
        UsageError: a release is unknown or not offered, or the folder cannot be written.
        InputError: the record of the folder cannot be read, or the folder has two files for one list.
    """
    releases = chosen_releases(config.releases)
    wanted = [
        _wanted(file, release, config) for release in releases for file in published_lists(release, config.publisher)
    ]
    with held(config.out):
        outcomes = fetch_all(
            Client(config.patience),
            Sources(config.out),
            wanted,
            parallel=config.parallel,
            accept_changed=config.accept_changed,
            on_progress=on_progress,
        )
    summary = FetchSummary(out=config.out, files=tuple(outcomes))
    if summary.failed:
        return summary
    lists = find_lists(config.out)
    return FetchSummary(out=config.out, files=summary.files, lists=tuple(file.name for file in lists))


def require_all(out: Path, files: Sequence[Outcome]) -> None:
    """Raise a ``SourceError`` when a file is not there."""
    failed = [outcome for outcome in files if not outcome.is_good]
    if failed:
        raise SourceError(
            f"{len(failed):,} of {len(files):,} files are not there, the first is {failed[0].line}",
            hint=f"those that are there stay; {out / SOURCES_FILE} says where each is from",
        )


def _wanted(file: PublishedFile, release: Release, config: FetchAnnotationsConfig) -> Wanted:
    """A list goes by its split into the release's folder; an archive of lists keeps its name, by which it is known."""
    name = PurePosixPath(urlsplit(file.url).path).name
    place = f"{release.name}/{file.split}{PurePosixPath(name).suffix}" if file.split else name
    return Wanted(
        url=mirrored(file.url, config.base_url),
        path=config.out / place,
        is_archive=not file.split,
        sha256=file.sha256,
    )
