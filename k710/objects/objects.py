"""Objects under one URL that can be listed, written and removed, by any protocol that fsspec knows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from k710.errors import FeedError, SourceError, UsageError
from k710.store import Store

Answer = TypeVar("Answer")

_AT_ONCE = 16
"""Requests in flight when many objects are moved."""


class OvertakenError(SourceError):
    """An object is not, or no longer, what the write was meant for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An object in a listing."""

    size_bytes: int
    """Its size."""
    etag: str
    """Tells its content from others; empty: the store does not say."""


class Objects(Store):
    """The objects under one URL. Paths are relative to it; each request is tried again as in any store."""

    is_guarded = False
    """Whether a write can be made to depend on what is there, which claims need."""

    def listed(self, prefix: str = "") -> dict[str, Listed]:
        """All objects whose path begins with the folder ``prefix``, by path."""
        place = self.url(prefix) if prefix else self.root
        found: dict[str, dict[str, Any]]
        with self._reading(prefix, ""):
            try:
                found = self._ask(lambda files: files.find(place, detail=True))
            except FileNotFoundError as error:
                # A folder without objects is no error.
                hint = "check the name, or make the bucket first; `k710` makes none"
                raise FeedError(f"{self.root}: no such bucket", hint=hint) from error
            start = self._ask(lambda files: files._strip_protocol(self.root)).rstrip("/") + "/"
        objects = {
            str(path).removeprefix(start): Listed(
                size_bytes=int(facts.get("size") or 0), etag=str(facts.get("ETag", "")).strip('"')
            )
            for path, facts in found.items()
            if facts.get("type", "file") == "file"
        }
        return {path: facts for path, facts in objects.items() if path and not path.endswith("/")}

    def put(self, path: str, data: bytes) -> None:
        """Write an object, in place of one that is there."""
        with self._writing(path):
            self._ask(lambda files: files.pipe_file(self.url(path), data))

    def put_new(self, path: str, data: bytes) -> None:
        """Write an object where there should be none."""
        self.put(path, data)

    def put_files(self, files: Sequence[tuple[Path, str]]) -> None:
        """Write objects of local files, several at a time."""
        if files:
            local, remote = [str(file) for file, _ in files], [self.url(path) for _, path in files]
            with self._writing(files[0][1]):
                self._ask(lambda store: store.put(local, remote, batch_size=_AT_ONCE))

    def upload(self, file: Path, path: str) -> None:
        """Write a large object of a local file."""
        self.put_files([(file, path)])

    def get_files(self, files: Sequence[tuple[str, Path]]) -> None:
        """Copy objects into local files, several at a time; a break leaves files that are not whole."""
        for _, file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        if files:
            remote, local = [self.url(path) for path, _ in files], [str(file) for _, file in files]
            with self._reading(files[0][0], "run the same command again"):
                self._ask(lambda store: store.get(remote, local, batch_size=_AT_ONCE))

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""

        def remove(files: Any, url: str) -> None:
            if files.exists(url):
                files.rm_file(url)

        for path in paths:
            with self._writing(path):
                self._ask(lambda files, path=path: remove(files, self.url(path)))  # type: ignore[misc]

    def abort_uploads(self, prefix: str) -> None:
        """Give up what broken uploads to paths that begin with ``prefix`` have left; here: nothing to be given up."""

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        """Name the object and the reason when it cannot be written."""
        try:
            yield
        except OSError as error:
            raise FeedError(
                f"{self.url(path)}: cannot be written ({error.strerror or error})",
                hint="check the bucket and the rights to it; the same command goes on from here",
            ) from error

    def _ask(self, ask: Callable[[Any], Answer]) -> Answer:
        def at_once(files: Any) -> Answer:
            try:
                return ask(files)
            except Exception as error:
                # By name: the package is there only for those who need it. The next try would find no keys either.
                if type(error).__name__ != "NoCredentialsError":
                    raise
                raise UsageError(
                    f"{self.root}: no keys for this store",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                ) from error

        return super()._ask(at_once)

    def _connect(self) -> Any:
        super()._connect()
        # Listings that are remembered would hide what others write.
        options = {"use_listings_cache": False, "skip_instance_cache": True}
        return fsspec.core.url_to_fs(self.root, **options)[0]
