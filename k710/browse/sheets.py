"""Contact sheets on the disk: each is drawn once, under a name that its bytes and settings decide."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from k710 import atomic
from k710.browse.contact_sheets import FORM, SheetSettings, Undrawable, draw_sheet
from k710.browse.folder import require_marked
from k710.browse.pool import Bytes
from k710.errors import FeedError
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.store import Store

FOLDER = "sheets"
_MOST_BYTES = 1 << 30
"""Of one clip; a build takes none that is larger."""
_FILE = re.compile(r"[0-9a-f]{64}\.(jpg|txt)")
_LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """What there is to show of a clip: a picture, or why there is none."""

    path: str = ""
    """File of the picture, relative to the gallery; empty: none."""
    width_px: int = 0
    """Its width."""
    height_px: int = 0
    """Its height."""
    reason: str = ""
    """Why there is no picture, one line."""
    is_final: bool = True
    """Whether it would be the same another time; a store that does not answer may answer later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A sheet to draw."""

    name: str
    """Name of the sheet."""
    where: Bytes
    """The clip."""


class Sheets:
    """The sheets of one gallery."""

    def __init__(self, gallery: Path, store: Store, settings: SheetSettings) -> None:
        self._gallery, self._store, self._settings = gallery, store, settings
        self._form = json.dumps([FORM, asdict(settings)], sort_keys=True)
        self._passing: dict[str, Sheet] = {}

    def name(self, where: Bytes) -> str:
        """The name of a clip's sheet: 64 hex digits."""
        identity = where.sha256 or self._in_place(where)
        return hashlib.sha256(f"{self._form}\n{identity}".encode()).hexdigest()

    def shown(self, name: str) -> Sheet | None:
        """What there is of the sheet ``name``; None: it is still to be drawn."""
        if name in self._passing:
            return self._passing[name]
        path = _path(name, "jpg")
        try:
            with Image.open(self._gallery / path) as picture:
                return Sheet(path=path, width_px=picture.width, height_px=picture.height)
        except OSError:
            # Absent, or damaged since: in both cases it is drawn.
            pass
        try:
            return Sheet(reason=(self._gallery / _path(name, "txt")).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def there(self) -> dict[str, Path]:
        """Every file of a sheet, or of the reason for none, by the name of the sheet."""
        files = (self._gallery / FOLDER).glob("*/*")
        # An empty one is what a machine that lost its power may leave.
        return {path.stem: path for path in files if _FILE.fullmatch(path.name) and path.stat().st_size}

    def draw(self, tasks: Iterable[Task], *, workers: int) -> Iterator[str]:
        """Draw sheets; the name of each when it can be shown, in order of completion."""
        work = functools.partial(_draw, self._gallery, self._store, self._settings)
        for batch in EXECUTORS["local"](work, tasks, workers=workers):
            for task, sheet in batch:
                if isinstance(sheet, WorkerDied):
                    reason = f"the process that decoded it died (exit code {sheet.exit_code})"
                    self._passing[task.name] = Sheet(reason=reason, is_final=False)
                elif not sheet.is_final:
                    self._passing[task.name] = sheet
                yield task.name

    def sweep(self, needed: frozenset[str] | set[str]) -> int:
        """Remove what is not the sheet of a clip in ``needed``; how many files went."""
        removed = 0
        for path in sorted((self._gallery / FOLDER).glob("*/*")):
            if not (_FILE.fullmatch(path.name) and path.stem in needed):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _in_place(self, where: Bytes) -> str:
        """What stands for the bytes of a file that is indexed where it is, and that nobody knows the checksum of."""
        changed = 0
        if self._store.is_local:
            try:
                changed = Path(self._store.url(where.file)).stat().st_mtime_ns
            except OSError:
                changed = -1
        return json.dumps([where.file, where.offset, where.size_bytes, changed])


def _path(name: str, suffix: str) -> str:
    return f"{FOLDER}/{name[:2]}/{name}.{suffix}"


def _draw(gallery: Path, store: Store, settings: SheetSettings, task: Task) -> Sheet:
    """Draw one sheet and store it, or the reason for none where that is final; for a worker."""
    where = task.where
    if where.size_bytes > _MOST_BYTES:
        return Sheet(reason=f"{where.size_bytes:,} bytes are too many for a clip", is_final=False)
    try:
        video = store.read_range(where.file, where.offset, where.size_bytes)
    except FeedError as error:
        return Sheet(reason=_line(error.message), is_final=False)
    if where.sha256 and hashlib.sha256(video).hexdigest() != where.sha256:
        return Sheet(reason="its bytes are not those that the index was written for (sha256)", is_final=False)
    try:
        drawn = draw_sheet(video, settings)
        require_marked(gallery)
        atomic.write_bytes(gallery / _path(task.name, "jpg"), drawn)
    except Undrawable as error:
        if error.is_passing:
            return Sheet(reason=_line(str(error)), is_final=False)
        atomic.write_text(gallery / _path(task.name, "txt"), _line(str(error)))
    return Sheet()


def _line(reason: str) -> str:
    return f"cannot be shown: {' '.join(reason.split())}"[:_LONGEST_REASON]
