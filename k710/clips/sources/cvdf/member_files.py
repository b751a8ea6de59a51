"""One member of an archive as files in a folder, one for each clip that it serves."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from k710 import atomic
from k710.errors import SourceError
from k710.fetch.archives import Member

_CHUNK = 1 << 20


def written(member: Member, folder: Path, count: int) -> list[Path]:
    """``count`` files of the member's name with its bytes, whole; whoever gets one removes it.

    Raises:
        SourceError: the archive is damaged here; no file is left.
        UsageError: ``folder`` cannot be written.
    """
    with atomic.writable(folder):
        first = _free(folder, member.name)
        try:
            with first.open("xb") as stream:
                while data := member.stream.read(_CHUNK):
                    stream.write(data)
                size_bytes = stream.tell()
            if size_bytes != member.size_bytes:
                raise SourceError(f"{member.path}: {size_bytes:,} of {member.size_bytes:,} bytes in the archive")
        except BaseException:
            first.unlink(missing_ok=True)
            raise
        return [first, *(_copy(first, _free(folder, member.name)) for _ in range(1, count))]


def _free(folder: Path, name: str) -> Path:
    """A path in ``folder`` that is not taken: a second file of a name gets a folder of its own."""
    path = folder / name
    return path if not os.path.lexists(path) else Path(tempfile.mkdtemp(prefix="again-", dir=folder), name)


def _copy(file: Path, path: Path) -> Path:
    try:
        path.hardlink_to(file)
    except OSError:
        # Some disks have no links.
        shutil.copyfile(file, path)
    return path
