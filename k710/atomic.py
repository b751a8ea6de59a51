"""Files that are either whole or absent: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k710.errors import UsageError

_NOT_WRITABLE = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Hold the block to what can be written: a ``folder`` that cannot be, or no longer, is a ``UsageError``.

    Seen at once when the folder that is there, or that it would be made in, takes no files; else when a write fails.
    """
    try:
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(nearest))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))
        yield
    except OSError as error:
        # Others, such as a closed terminal, are not the folder's.
        if error.errno not in _NOT_WRITABLE:
            raise
        where = "" if error.filename in (None, str(folder)) else f": {error.filename}"
        raise UsageError(
            f"{folder}: cannot be written ({error.strerror}{where})",
            hint="make room or get the rights and run the same again, which goes on from here; or give another folder",
        ) from error


def require_replaceable(path: Path, flag: str, *, begins: bytes, what: str) -> None:
    """Refuse a ``path`` of a user's ``flag`` that is a folder, or a file that does not begin as ``what`` does.

    Raises:
        UsageError: it is: whoever mistypes a name must not lose a file for it.
    """
    if path.is_dir():
        raise UsageError(f"{flag} {path}: a folder", hint="give the name of a file")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), path.open("rb") as file:
        if (start := file.read(len(begins))) and start != begins:
            raise UsageError(
                f"{flag} {path}: exists and is not {what}", hint=f"give another {flag}, or remove the file"
            )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name, durably, when the block ends well.

    On an exception the temporary file is removed and an existing ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # Temporary files are private; what is published here is as readable as any other file of the user's.
        partial.chmod(0o666 & ~_umask())
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data``."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` in UTF-8, line ends as given."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` with ``value`` as indented JSON, keys sorted, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def sync_file(path: Path) -> None:
    """Wait until the bytes of ``path`` are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder ``path`` are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and needs no such call
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
