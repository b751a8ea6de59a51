"""Bytes by path and range, from a local folder or any fsspec URL."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from k710.errors import FeedError, UsageError


class Store:
    """The files under one root, read by relative path.

    A store may be pickled and used after a fork: it opens what it needs in the process that reads.
    """

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        self.root = text.removeprefix("file://").rstrip("/") or "/"
        self.is_local = "://" not in text or text.startswith("file://")

    def read_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        """``size_bytes`` bytes of ``path`` from ``offset``; fewer, or no such file, is a ``FeedError``."""
        with self._reading(path, "run `k710 build` again to restore it"):
            data = (
                self._local_range(path, offset, size_bytes)
                if self.is_local
                else self._remote_range(path, offset, size_bytes)
            )
        if len(data) != size_bytes:
            raise FeedError(f"{self.url(path)}: ends before byte {offset + size_bytes}", hint="run `k710 build` again")
        return data

    def read(self, path: str) -> bytes:
        """All bytes of ``path``; what cannot be read is a ``FeedError``."""
        with self._reading(path, "is this the folder that `k710 build --out` wrote?"):
            if self.is_local:
                return Path(self.root, path).read_bytes()
            return bytes(self._filesystem.cat_file(self.url(path)))

    def exists(self, path: str) -> bool:
        """Whether there is a file at ``path``."""
        with self._reading(path, ""):
            return Path(self.root, path).exists() if self.is_local else bool(self._filesystem.exists(self.url(path)))

    def url(self, path: str) -> str:
        """Full path or URL of ``path``; an absolute path in a local store is that of a file elsewhere."""
        return path if self.is_local and path.startswith("/") else f"{self.root}/{path}"

    @contextlib.contextmanager
    def _reading(self, path: str, hint: str) -> Iterator[None]:
        """Name the file and the reason when it cannot be read; ``hint`` is for one that is not there."""
        try:
            yield
        except FileNotFoundError as error:
            raise FeedError(f"{self.url(path)}: no such file", hint=hint) from error
        except OSError as error:
            raise FeedError(
                f"{self.url(path)}: cannot be read ({error.strerror or error})",
                hint="check the path and the rights to it",
            ) from error

    def _local_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        descriptor = os.open(self.url(path), os.O_RDONLY)
        try:
            return os.pread(descriptor, size_bytes, offset)
        finally:
            os.close(descriptor)

    def _remote_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        return bytes(self._filesystem.cat_file(self.url(path), start=offset, end=offset + size_bytes))

    @functools.cached_property
    def _filesystem(self) -> Any:
        try:
            return fsspec.core.url_to_fs(self.root)[0]
        except ImportError as error:
            raise UsageError(f"{self.root}: a package for this protocol is missing", hint=str(error)) from error
        except ValueError as error:
            raise UsageError(
                f"{self.root}: cannot be opened ({error})",
                hint="give a folder or a URL that fsspec knows, such as s3://bucket/folder; or install its package",
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "is_local": self.is_local}
