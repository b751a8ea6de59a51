"""The folder of an export: what an earlier export left in it goes, what is not ours is never touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from k710 import atomic
from k710.errors import UsageError

EXPORT_FILE = "export.json"
SCHEMA = "k710.export/1"
_DEPTH = 2
"""Folders in which the list of a view may lie: that of the export, and one for its release."""


class ExportFolder:
    """The files of one export, written one by one and known by name."""

    def __init__(self, root: Path, name: str) -> None:
        """Take the folder ``root`` for an export of the format ``name``.

        Raises:
            UsageError: it holds something else.
        """
        self.root = root
        """The folder."""
        self._name = name
        self._before = _files_of(root, name)
        self._files: dict[str, None] = {}

    def begin(self) -> None:
        """Make the folder known as ours before anything is in it, so that a run after a kill goes on."""
        with atomic.writable(self.root):
            atomic.write_json(self.root / EXPORT_FILE, self._facts({}, finished=False))

    def text(self, name: str, text: str) -> None:
        """Write the file ``name``; what is no unicode, as names of folders may be, is escaped."""
        self.data(name, text.encode(errors="backslashreplace"))

    def data(self, name: str, data: bytes) -> None:
        """Write the file ``name``."""
        with atomic.writable(self.root):
            atomic.write_bytes(self.path(name), data)

    def path(self, name: str) -> Path:
        """Where the file ``name`` belongs, for those who write it themselves."""
        self._files[name] = None
        return self.root / name

    def link(self, name: str, target: Path, holder: Path) -> None:
        """Make ``name`` a symbolic link to ``target``: relative when the export lies in ``holder``, as the target does.

        A build that holds its exports can then be moved with them.
        """
        path, end = self.path(name), target.resolve()
        inside = path.parent.resolve().is_relative_to(holder.resolve())
        wanted = os.path.relpath(end, path.parent.resolve()) if inside else str(end)
        with atomic.writable(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() and os.readlink(path) == wanted:  # noqa: PTH115 - the text of the link itself
                return
            path.unlink(missing_ok=True)
            path.symlink_to(wanted)

    def holds(self, name: str) -> bool:
        """Whether this export wrote the file ``name``."""
        return name in self._files

    def finish(self, facts: dict[str, Any]) -> None:
        """Remove what an export before left and this one has not, and write ``export.json``."""
        stale = [name for name in self._before if name not in self._files]
        with atomic.writable(self.root):
            for name in stale:
                (self.root / name).unlink(missing_ok=True)
                _remove_empty(self.root, (self.root / name).parent)
            atomic.write_json(self.root / EXPORT_FILE, self._facts(facts, finished=True))

    def _facts(self, facts: dict[str, Any], *, finished: bool) -> dict[str, Any]:
        files = sorted({*self._files} if finished else {*self._before, *self._files})
        return {**facts, "schema": SCHEMA, "format": self._name, "finished": finished, "files": files}


def order_beside(path: Path) -> tuple[str, str] | None:
    """The order that numbers the classes of a list, and the digest of its class table, when an export wrote the list.

    None: no ``export.json`` beside it, or in the folder above, names the list with an order.
    """
    path = path.resolve()
    for root in list(path.parents)[:_DEPTH]:
        try:
            facts = json.loads((root / EXPORT_FILE).read_bytes())
            views = [view for view in facts["views"].values() if view["file"] == path.relative_to(root).as_posix()]
            if facts["schema"] == SCHEMA and views:
                return (views[0]["order"], facts["class_table"]) if views[0]["order"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Of no use, or somebody else's file of this name: the list stands for itself.
            continue
    return None


def _files_of(root: Path, name: str) -> list[str]:
    """The files that an earlier export left in ``root``."""
    if root.is_dir() and not any(root.iterdir()):
        return []
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: is a file", hint="--out takes a folder")
    try:
        facts = json.loads((root / EXPORT_FILE).read_bytes())
        files = [str(file) for file in facts["files"]]
        found = facts["schema"], facts["format"]
    except FileNotFoundError as error:
        if not root.exists():
            return []
        raise UsageError(f"{root}: not empty, and no export", hint="--out takes a new folder") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{root}: not an export ({error})", hint="--out takes a new folder") from error
    if found != (SCHEMA, name):
        raise UsageError(f"{root}: holds an export for {found[1]} ({found[0]})", hint="--out takes another folder")
    # A file may have been edited by hand into one that names others' files.
    return [file for file in files if not Path(file).is_absolute() and ".." not in Path(file).parts]


def _remove_empty(root: Path, folder: Path) -> None:
    """Remove ``folder`` and the ones above it up to ``root`` while they are empty."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
