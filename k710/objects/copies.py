"""The small files of a build in an object store on this machine, for those who read no clips."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k710.errors import FeedError, K710Error, UsageError
from k710.objects.objects import Objects
from k710.objects.protocols import is_url
from k710.objects.small import is_small
from k710.shards.index import LOCK_FILE


@contextmanager
def readable_build(place: str) -> Iterator[Path]:
    """A folder with lock, tables, views, audit and markers of the build at ``place``: its own, or a copy for a while.

    Raises:
        FeedError: a URL at which there is no build.
    """
    if not is_url(place):
        yield Path(place)
        return
    objects = Objects(place)
    with tempfile.TemporaryDirectory(prefix="k710-") as name:
        folder = Path(name)
        copy_small(objects, folder)
        try:
            yield folder
        except K710Error as error:
            # The folder stands for what the user has named.
            error.message = error.message.replace(name, objects.root)
            raise


def folder_of_build(place: str, command: str) -> Path:
    """The folder ``place``, for a ``command`` that needs one.

    Raises:
        UsageError: it is a URL.
    """
    if is_url(place):
        raise UsageError(
            f"{place}: `k710 {command}` needs the build in a folder of this machine",
            hint="copy all its objects, for instance by `aws s3 sync`: the copy is a build like any other",
        )
    return Path(place)


def copy_small(objects: Objects, folder: Path) -> list[str]:
    """Copy the small files of a build; returns the names of all objects.

    Raises:
        FeedError: there is no build.
    """
    there = objects.listed()
    if LOCK_FILE not in there:
        raise FeedError(f"{objects.root}: no build of k710 (it has no {LOCK_FILE})", hint="check the URL")
    objects.get_files([(path, folder / path) for path in there if is_small(path)])
    return sorted(there)
