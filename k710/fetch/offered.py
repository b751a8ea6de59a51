"""The archives of videos that path lists name, and where each goes in a folder of archives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from k710.config import PublishedFile
from k710.fetch.outcomes import Wanted
from k710.fetch.published import archive_name, archive_stem, mirrored, read_path_list

REPLACEMENT = "replacement"
"""Folder of the archives whose videos stand in for broken ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """An archive of videos, published."""

    wanted: Wanted
    """Where it is, and where it goes."""
    release: str
    """Whose."""
    split: str
    """Of which split."""
    folder: str
    """Where its clips go, below the folder for clips."""
    is_replacement: bool = False
    """Whether its videos stand in for broken ones."""


def list_file(out: Path, release: str, file: PublishedFile, base_url: str | None) -> Wanted:
    """A path list, and where it goes in the folder of archives ``out``."""
    path = out / release / file.split / PurePosixPath(urlsplit(file.url).path).name
    return Wanted(url=mirrored(file.url, base_url), path=path, sha256=file.sha256)


def offered_archives(
    offered: Sequence[tuple[str, PublishedFile]],
    kind: Wanted,
    text: Callable[[str], bytes | None],
    *,
    base_url: str | None,
    max_archives: int | None = None,
) -> list[Archive]:
    """The archives that path lists name, and those of replacements, in the order of ``offered``.

    Args:
        offered: for each file its release.
        kind: how archives are fetched, all but their URL; its path is the folder that they go into.
        text: the bytes of the path list at a URL; None where it could not be had.
        base_url: of a mirror.
        max_archives: the most of each path list, its first ones; None: all.

    Raises:
        InputError: a path list is none.
    """
    found: list[Archive] = []
    for release, file in offered:
        url = mirrored(file.url, base_url)
        if file.what == "replacement":
            found.append(_archive(kind, release, file.split, url, is_replacement=True))
            continue
        data = text(url)
        if data is not None:
            where = f"{release}/{file.split}/{PurePosixPath(urlsplit(file.url).path).name}"
            urls = read_path_list(data, where, url, base_url)[:max_archives]
            found += [_archive(kind, release, file.split, each, is_replacement=False) for each in urls]
    return found


def _archive(kind: Wanted, release: str, split: str, url: str, *, is_replacement: bool) -> Archive:
    name, folder = archive_name(url), REPLACEMENT if is_replacement else split
    return Archive(
        wanted=replace(kind, url=url, path=kind.path / release / folder / name),
        release=release,
        split=split,
        folder=f"{release}/{folder}/{archive_stem(name)}",
        is_replacement=is_replacement,
    )
