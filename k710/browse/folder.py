"""The folder of a gallery: known by a file in it, taken only when it is empty or ours, held while it is written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from k710 import atomic
from k710.errors import UsageError
from k710.outside import require_outside_builds
from k710.processes import only_writer

GALLERY_FOLDER = "browse"
"""Where the gallery of a build is, unless another place is named."""
GUARD_FILE = ".browse-guard"
"""Held by the run that writes to a gallery."""
_MARK = "gallery.json"
_SCHEMA = "k710.gallery/1"
_PAGE = re.compile(
    r"(conflicts/|views/[^/]+/)?index\.html|views/[^/]+/class-[^/]+\.html|statuses/[^/]+\.html"
    r"|(conflicts|near-duplicates)/page-[0-9]+\.html"
)
_SHEET = re.compile(r"sheets/[0-9a-f]{2}/[0-9a-f]{64}\.(jpg|txt)")
_PARTIAL = re.compile(
    r"\.(gallery\.json|index\.html)\.[^/]+\.partial"
    r"|((views|sheets)/[^/]+|statuses|conflicts|near-duplicates)/\.[^/]+\.partial"
)
_PARTIALS = (".*.partial", "*/.*.partial", "views/*/.*.partial", "sheets/*/.*.partial")
_FOLDERS = ("views", "statuses", "conflicts", "near-duplicates", "sheets")
_GENERATOR = b'<meta name="generator" content="k710">'
_HEAD_BYTES = 256


def require_place(out: Path, build: Path | None) -> None:
    """Refuse a folder for a gallery that belongs to a build, but for ``browse`` in ``build``.

    Raises:
        UsageError: it does, or that is a link, which a takedown would have to follow.
    """
    own = None if build is None else build / GALLERY_FOLDER
    if own is None or out.resolve() != own.resolve():
        require_outside_builds(out, "--out")
    elif own.is_symlink():
        raise UsageError(f"{own}: is a link", hint="remove the link, or give a folder elsewhere by --out")


@contextlib.contextmanager
def held_gallery(out: Path) -> Iterator[None]:
    """Make ``out`` the folder of a gallery and hold it; half-written files are cleared away, however the block ends.

    Raises:
        UsageError: it holds something else, cannot be written, or another run holds it.
    """
    with atomic.writable(out):
        _require_ours(out)
        with _held(out, f"another k710 browse is writing to {out}", "wait for it, or give another --out"):
            claim(out)
            try:
                yield
            finally:
                clear_partials(out)


def claim(out: Path) -> None:
    """Mark ``out`` as the folder of a gallery.

    Raises:
        UsageError: it holds something else.
    """
    _require_ours(out)
    # Before anything else: whatever a kill leaves behind is then known as a gallery.
    atomic.write_json(out / _MARK, {"schema": _SCHEMA})


def require_marked(out: Path) -> None:
    """Refuse to go on in a folder that has been removed meanwhile: what is written there would be nobody's.

    Raises:
        UsageError: it is no gallery any more.
    """
    if not _is_marked(out):
        raise UsageError(f"{out}: the gallery has been removed meanwhile", hint="run the same command again")


def clear_partials(out: Path) -> None:
    """Remove what a run that was stopped was writing."""
    for pattern in _PARTIALS:
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def gallery_kept_away(build: Path) -> Iterator[None]:
    """Keep every `k710 browse` from writing to the gallery of a build.

    Raises:
        UsageError: one is at work there.
    """
    out = build / GALLERY_FOLDER
    # What is somebody else's stays as it is: no gallery can be made there either.
    if not (_is_gallery(out) or _takes_gallery(out)):
        yield
        return
    with _held(out, f"k710 browse is writing to {out}, or serves it", "end it, or wait for it, and run the same again"):
        try:
            yield
        finally:
            _drop_empty(out)


def remove_gallery(build: Path) -> bool:
    """Remove the gallery in the folder of a build, with every picture in it; whether there was one.

    To be called with the gallery kept away from others, the end of which removes the folder.
    """
    out = build / GALLERY_FOLDER
    if not _is_gallery(out):
        return False
    # The mark goes last, so that what a kill leaves behind is found by the next try.
    for path in sorted((p for p in out.iterdir() if p.name != GUARD_FILE), key=lambda path: path.name == _MARK):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return True


def _drop_empty(out: Path) -> None:
    """Remove a folder that holds nothing but the guard, and a link that led to it."""
    if not out.is_dir() or any(path.name != GUARD_FILE for path in out.iterdir()):
        return
    (out / GUARD_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody begins a new one, or it is a disk of its own
        out.resolve().rmdir()
    if out.is_symlink():
        out.unlink()


@contextlib.contextmanager
def _held(out: Path, refusal: str, hint: str) -> Iterator[None]:
    guard = out / GUARD_FILE
    out.mkdir(parents=True, exist_ok=True)
    guard.touch()
    before = _inode(guard)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_writer(guard, refusal))
        except UsageError as error:
            raise UsageError(refusal, hint=hint) from error
        # Whoever removes a gallery removes the guard that it holds: one that was opened before holds nothing then.
        if before is None or _inode(guard) != before:
            raise UsageError(refusal, hint=hint)
        yield


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _require_ours(out: Path) -> None:
    if not out.is_dir():
        return
    if not _is_marked(out) and not _only_ours(out):
        raise UsageError(f"{out}: holds files and is no gallery", hint="give another --out, or an empty folder")
    for path in sorted(out.iterdir()):
        if path.is_symlink():
            raise UsageError(f"{path}: is a link", hint="a gallery holds none: remove it, or give another --out")


def _is_gallery(out: Path) -> bool:
    """Whether ``out`` is marked, or holds files of galleries alone, as one does whose mark was lost."""
    if not out.is_dir():
        return False
    return _is_marked(out) or (any(p.name != GUARD_FILE for p in out.iterdir()) and _only_ours(out))


def _takes_gallery(out: Path) -> bool:
    """Whether a gallery of the build that ``out`` is in could be begun there."""
    return not out.is_symlink() and (_only_ours(out) if out.is_dir() else not out.exists())


def _is_marked(out: Path) -> bool:
    try:
        return bool(json.loads((out / _MARK).read_bytes())["schema"] == _SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _only_ours(out: Path) -> bool:
    """Whether all that a folder holds is of the kinds that galleries have; an empty one holds nothing else."""
    for folder, folders, names in os.walk(out):
        inside = Path(folder).relative_to(out)
        if inside == Path() and not set(folders) <= set(_FOLDERS):
            return False
        if not all(_is_ours(out, (inside / name).as_posix()) for name in names):
            return False
        if any(Path(folder, name).is_symlink() for name in folders):
            return False
    return True


def _is_ours(out: Path, path: str) -> bool:
    if (out / path).is_symlink():
        return False
    if _PAGE.fullmatch(path):
        with (out / path).open("rb") as page:
            return _GENERATOR in page.read(_HEAD_BYTES)
    return path == GUARD_FILE or bool(_SHEET.fullmatch(path) or _PARTIAL.fullmatch(path))
