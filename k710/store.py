"""Bytes by path and range, from a local folder or any fsspec URL."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec

from k710.errors import FeedError, K710Error, UsageError

Answer = TypeVar("Answer")

WAITS_S = (0.25, 1.0, 4.0)
"""Between the tries of a request to an object store; the tries that its package makes by itself come on top."""

_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, K710Error)
"""What the next try would say again."""


class Readable(Protocol):
    """What is read from its start to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """The next ``size`` bytes, fewer at the end; -1: all that is left."""
        ...


class Store:
    """The files under one root, read by relative path.

    A store may be pickled and used after a fork: it opens what it needs in the process that reads. One that keeps
    files open is for one thread.
    """

    def __init__(self, root: str | Path, *, open_files: int = 0) -> None:
        """The store at ``root``, a folder or URL, which keeps up to ``open_files`` local files open between reads."""
        text = str(root)
        self.root = text.removeprefix("file://").rstrip("/") or "/"
        self.is_local = "://" not in text or text.startswith("file://")
        self._open_files = open_files
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._connected: tuple[int, Any] | None = None

    def read_range(self, path: str, offset: int, size_bytes: int) -> bytes:
        """``size_bytes`` bytes of ``path`` from ``offset``; fewer, or no such file, is a ``FeedError``."""
        url = self.url(path)
        with self._reading(path, "run `k710 build` again to restore it"):
            if self.is_local:
                data = self._local_range(url, offset, size_bytes)
            else:
                data = self._ask(lambda files: files.cat_file(url, start=offset, end=offset + size_bytes))
        if len(data) != size_bytes:
            raise FeedError(f"{url}: ends before byte {offset + size_bytes}", hint="run `k710 build` again")
        return data

    def read(self, path: str) -> bytes:
        """All bytes of ``path``; what cannot be read is a ``FeedError``."""
        with self._reading(path, "is this the folder that `k710 build --out` wrote?"):
            if self.is_local:
                return Path(self.root, path).read_bytes()
            return bytes(self._ask(lambda files: files.cat_file(self.url(path))))

    def exists(self, path: str) -> bool:
        """Whether there is a file at ``path``."""
        with self._reading(path, ""):
            if self.is_local:
                return Path(self.root, path).exists()
            return bool(self._ask(lambda files: files.exists(self.url(path))))

    def size_bytes(self, path: str) -> int | None:
        """Bytes of the file at ``path``, which is not read; None: the object store does not say."""
        with self._reading(path, "run `k710 build` again to restore it"):
            if self.is_local:
                return Path(self.root, path).stat().st_size
            size = self._ask(lambda files: files.info(self.url(path))).get("size")
            return None if size is None else int(size)

    def glob(self, pattern: str) -> list[str]:
        """Paths that ``pattern`` fits, in order; ``*`` stays within a name."""
        with self._reading(pattern, ""):
            if self.is_local:
                return sorted(str(path.relative_to(self.root)) for path in Path(self.root).glob(pattern))
            found: list[str] = self._ask(lambda files: files.glob(self.url(pattern)))
            start = self._ask(lambda files: files._strip_protocol(self.root)).rstrip("/") + "/"
            return sorted(str(path).removeprefix(start) for path in found)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """``path`` as a stream from its start; what cannot be opened, or read inside the block, is a ``FeedError``."""
        with self._reading(path, "check the name"):
            if self.is_local:
                with Path(self.root, path).open("rb") as stream:
                    yield stream
            else:
                with self._ask(lambda files: files.open(self.url(path), "rb")) as stream:
                    yield _Patient(stream, self._ask)

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
        if not self._open_files:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                return os.pread(descriptor, size_bytes, offset)
            finally:
                os.close(descriptor)
        try:
            return os.pread(self._descriptor(path), size_bytes, offset)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # On a network disk a file that was replaced must be opened anew.
            os.close(self._descriptors.pop(path))
            return os.pread(self._descriptor(path), size_bytes, offset)

    def _descriptor(self, path: str) -> int:
        if path not in self._descriptors:
            opened = os.open(path, os.O_RDONLY)
            if len(self._descriptors) >= self._open_files:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[path] = opened
        self._descriptors.move_to_end(path)
        return self._descriptors[path]

    def _ask(self, ask: Callable[[Any], Answer]) -> Answer:
        """What the object store answers, asked again after a while when it does not."""
        for wait_s in (*WAITS_S, None):
            try:
                return ask(self._filesystem())
            except _FINAL:
                raise
            # Every protocol's package has a family of errors of its own, and no two have one in common.
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EINVAL:  # a range that is not in the file
                    raise
                if wait_s is None:
                    raise OSError(f"{error or type(error).__name__}, {len(WAITS_S) + 1} tries") from error
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _filesystem(self) -> Any:
        """Of this process: a connection, and the thread that serves it, do not survive a fork."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), self._connect())
        return self._connected[1]

    def _connect(self) -> Any:
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
        return {"root": self.root, "is_local": self.is_local, "open_files": self._open_files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root, self.is_local, self._open_files = state["root"], state["is_local"], state["open_files"]
        self._descriptors, self._connected = OrderedDict(), None

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            with contextlib.suppress(OSError):
                os.close(descriptor)


class _Patient:
    """A stream from an object store that asks again for what does not come."""

    def __init__(self, stream: Any, ask: Callable[[Callable[[Any], bytes]], bytes]) -> None:
        self._stream, self._ask = stream, ask

    def read(self, size: int = -1) -> bytes:
        return self._ask(lambda _: self._stream.read(size))
