"""The folder of a gallery: known by a file in it, taken only when it is empty or ours, removed whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from k710 import atomic
from k710.errors import UsageError

GALLERY_FOLDER = "browse"
"""Where the gallery of a build is, unless another place is named."""
GUARD_FILE = ".browse-guard"
"""Held by the run that writes to a gallery."""
_MARK = "gallery.json"
_SCHEMA = "k710.gallery/1"


def claim(out: Path) -> None:
    """Make ``out`` the folder of a gallery.

    Raises:
        UsageError: it holds something else.
    """
    if out.is_dir() and not _is_gallery(out) and any(map(_is_strange, out.iterdir())):
        raise UsageError(f"{out}: holds files and is no gallery", hint="give another --out, or an empty folder")
    # Before anything else: whatever a kill leaves behind is then known as a gallery.
    atomic.write_json(out / _MARK, {"schema": _SCHEMA})


def remove_gallery(build: Path) -> bool:
    """Remove the gallery in the folder of a build, with every picture in it; whether there was one."""
    out = build / GALLERY_FOLDER
    if not _is_gallery(out):
        return False
    # The mark goes last, so that what a kill leaves behind is found by the next try.
    for path in sorted(out.iterdir(), key=lambda path: path.name == _MARK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    out.rmdir()
    return True


def _is_strange(path: Path) -> bool:
    """Whether a file in a folder without a mark is not what a run leaves that was killed before it had made one."""
    return path.name != GUARD_FILE and not path.match(f".{_MARK}.*.partial")


def _is_gallery(out: Path) -> bool:
    try:
        return bool(json.loads((out / _MARK).read_bytes())["schema"] == _SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False
