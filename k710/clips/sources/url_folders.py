"""A local layout in an object store: the names of its files are listed once, and tell the same as on a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fsspec

from k710.clips.sources.candidates import Candidate, VideosAre, Wanted
from k710.clips.sources.file_names import SUFFIXES, FileNames, Folder
from k710.clips.sources.local import named_files
from k710.clips.sources.scan import BUILD_FILE, REPLACEMENT
from k710.clips.sources.url_origin import UrlOrigin
from k710.errors import SourceError

_VERSION = ("ETag", "etag", "LastModified", "mtime", "created")
"""What object stores call that by which versions of a file are told apart."""


class UrlFolders:
    """The video files below an address, each to be brought when it is its turn."""

    def __init__(self, root: str, videos_are: VideosAre = "auto") -> None:
        """List all files once.

        Raises:
            SourceError: they cannot be listed, or there is no video file among them.
        """
        self.names = (root,)
        self._videos_are: VideosAre = videos_are
        self._files = FileNames()
        self._stamps: dict[str, str] = {}
        for folder, names in _by_folder(root.rstrip("/"), self._stamps).items():
            below = folder.removeprefix(root.rstrip("/")).lower().split("/")
            replaces = any(part.startswith(REPLACEMENT) for part in below)
            self._files.add(Folder(path=folder, order=0, is_replacement=replaces), sorted(names))
        if not self._stamps:
            raise SourceError(f"--videos {root}: no video file there", hint="check the address, and the rights to list")

    def candidates(
        self, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]]
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the files to try, best first, as for folders on a disk."""
        found = named_files(self._files, wanted, rivals, self._videos_are)
        return [tuple(self._elsewhere(candidate) for candidate in own) for own in found]

    def _elsewhere(self, candidate: Candidate) -> Candidate:
        origin = UrlOrigin(url=candidate.path, name=candidate.name, stamp=self._stamps[candidate.path])
        return replace(candidate, path=candidate.name, origin=origin, kind="url")


def _by_folder(root: str, stamps: dict[str, str]) -> dict[str, list[str]]:
    """Names of video files by the address of their folder; ``stamps`` gets what tells the version of each."""
    try:
        files, path = fsspec.core.url_to_fs(root)
        # What an earlier listing of this process has seen may have changed.
        files.invalidate_cache()
        found: dict[str, dict[str, Any]] = files.find(path, detail=True)
    # Every protocol's package has a family of errors of its own, and no two have one in common.
    except Exception as error:
        raise SourceError(
            f"--videos {root}: cannot be listed ({error or type(error).__name__})",
            hint="check the address, and that the environment names who you are (AWS_* for s3)",
        ) from error
    start = path.rstrip("/") + "/"
    builds = [name.removesuffix(BUILD_FILE) for name in found if name.endswith(f"/{BUILD_FILE}")]
    folders: dict[str, list[str]] = {}
    for place, facts in found.items():
        folder, _, name = place.removeprefix(start).rpartition("/")
        # The cache of a build would pass for sources, and clips would be encoded twice over.
        if not _is_video(name) or place.startswith(tuple(builds)):
            continue
        address = f"{root}/{folder}" if folder else root
        folders.setdefault(address, []).append(name)
        version = next((str(facts[key]) for key in _VERSION if facts.get(key)), "")
        stamps[f"{address}/{name}"] = f"{facts.get('size')} {version}"
    return folders


def _is_video(name: str) -> bool:
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in SUFFIXES and not name.startswith("._")
