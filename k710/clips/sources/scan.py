"""One pass over folders of videos: every video file's name, read from the listings alone.

Symbolic links are followed. Each real folder is read once, under its own name where it has one below the folder given;
so loops end, and a folder that two ``--videos`` reach counts for the first.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k710.clips.sources.file_names import SUFFIXES, FileNames, Folder
from k710.errors import UsageError

BUILD_FILE = "k710.lock.json"
"""Lies in a folder that is a build."""
REPLACEMENT = "replacement"
"""How the name of a folder begins that holds replacements of broken files."""
_DEAD_LINK = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


@dataclass(kw_only=True, slots=True)
class _Listing:
    """What a folder holds, names only."""

    videos: list[str] = field(default_factory=list)
    linked_videos: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)


def scan(roots: Sequence[Path]) -> FileNames:
    """The video files in ``roots``, which are in order of preference.

    Raises:
        UsageError: a folder is missing, or it or one in it cannot be listed.
    """
    names = FileNames()
    seen: set[tuple[int, int]] = set()
    linked: set[str] = set()
    for order, root in enumerate(roots):
        if not root.is_dir():
            raise UsageError(
                f"{root}: no such folder", hint="--videos takes a folder of video files, and may be repeated"
            )
        _walk(str(root), order, names, seen, linked)
    names.count_once(linked)
    return names


def _walk(root: str, order: int, names: FileNames, seen: set[tuple[int, int]], linked: set[str]) -> None:
    """Read the folders below ``root`` that are not in ``seen``; ``linked`` gets the videos with a linked file."""
    # Links last: what is below the root goes by its own name, whatever the order of names.
    later = [(root, False)]
    while later:
        pending = [heapq.heappop(later)]
        while pending:
            path, replaces = pending.pop()
            listing = _listing(path) if _is_new(path, seen) else None
            if listing is None:
                continue
            folder = Folder(path=path, order=order, is_replacement=replaces)
            if listing.videos:
                names.add(folder, listing.videos)
            if listing.linked_videos:
                linked.update(names.add(folder, listing.linked_videos))
            pending += [_inside(path, name, replaces) for name in sorted(listing.folders, reverse=True)]
            for link in (_inside(path, name, replaces) for name in listing.linked_folders):
                if not _leads_up(link[0], root):
                    heapq.heappush(later, link)


def _inside(path: str, name: str, replaces: bool) -> tuple[str, bool]:
    return f"{path}/{name}", replaces or name.lower().startswith(REPLACEMENT)


def _listing(path: str) -> _Listing | None:
    """What is in the folder ``path``; None where it is a build."""
    listing = _Listing()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name == BUILD_FILE:
                    # A build among the videos: its cache would pass for sources, and clips would be encoded twice over.
                    return None
                _sort_in(entry, listing)
    except OSError as error:
        raise UsageError(
            f"{error.filename or path}: cannot be listed ({error.strerror})",
            hint="make it readable, or give --videos the folders beside it",
        ) from error
    return listing


def _sort_in(entry: os.DirEntry[str], listing: _Listing) -> None:
    if entry.is_file(follow_symlinks=False):
        if _is_video(entry.name):
            listing.videos.append(entry.name)
    elif entry.is_dir(follow_symlinks=False):
        listing.folders.append(entry.name)
    elif entry.is_symlink():
        # Nothing else is taken: to open a named pipe would wait for ever.
        mode = _target_mode(entry)
        if stat.S_ISDIR(mode):
            listing.linked_folders.append(entry.name)
        elif stat.S_ISREG(mode) and _is_video(entry.name):
            listing.linked_videos.append(entry.name)


def _is_video(name: str) -> bool:
    dot = name.rfind(".")
    # `._*` are AppleDouble files, which some published archives carry.
    return dot > 0 and name[dot:].lower() in SUFFIXES and not name.startswith("._")


def _target_mode(entry: os.DirEntry[str]) -> int:
    """Kind of file that a link leads to; a video whose link is dead counts as a file, and fails when it is opened."""
    try:
        return entry.stat().st_mode
    except OSError as error:
        if _is_video(entry.name):
            return stat.S_IFREG
        if error.errno in _DEAD_LINK:
            return 0
        raise


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    try:
        facts = os.stat(path)  # noqa: PTH116 - names are text here, for speed
    except OSError:
        # Its listing says why.
        return True
    identity = (facts.st_dev, facts.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _leads_up(link: str, root: str) -> bool:
    """Whether a link leads to a folder that it, or the root, stands in: what is new there is not the user's choice."""
    target = os.path.realpath(link)
    above = (os.path.realpath(os.path.dirname(link)), os.path.realpath(root))  # noqa: PTH120 - as above
    return any(os.path.commonpath((target, folder)) == target for folder in above)
