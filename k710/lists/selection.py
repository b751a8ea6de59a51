"""Which rows a build takes: by licence, class and video, and the draw of a few clips per class for a trial."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.config import load_releases
from k710.errors import InputError, UsageError
from k710.labels import LabelMap
from k710.lists.catalog import Catalog, Ints, Mask
from k710.lists.policy import Selection
from k710.segments import is_youtube_id
from k710.tables import compute, picked


def selected(catalog: Catalog, selection: Selection) -> Mask:
    """Per row: whether ``selection`` takes it, ``per_class`` apart."""
    taken = np.ones(len(catalog), dtype=bool)
    if selection.only_cc:
        taken &= catalog.is_cc == 1
    if selection.classes:
        taken &= np.isin(catalog.canonical, selection.classes)
    if selection.exclude_classes:
        taken &= ~np.isin(catalog.canonical, selection.exclude_classes)
    if selection.exclude_ids:
        taken &= ~named(catalog, selection.exclude_ids)[catalog.video]
    if selection.forgotten:
        hashes = np.array(selection.forgotten, dtype=np.uint64)
        taken &= ~np.isin(catalog.video_hashes(), hashes)[catalog.video]
    return taken


def named(catalog: Catalog, ids: Sequence[str]) -> Mask:
    """Per video: whether it is one of ``ids``."""
    found: Mask = compute.is_in(catalog.ids, value_set=pa.array(ids, pa.string())).to_numpy(zero_copy_only=False)
    return found


def drawn(catalog: Catalog, rows: Ints, selection: Selection) -> Mask:
    """Per row of ``rows``: whether it is among the ``per_class`` of its class that come first.

    The order is a hash of seed and video, so a larger draw holds every smaller one of the same seed, and a row more or
    less changes one clip. Rows without a class count as one class.
    """
    if selection.per_class is None:
        return np.ones(len(rows), dtype=bool)
    ids = picked(catalog.ids, catalog.video[rows]).to_pylist()
    lots = _lots([str(i) for i in ids], selection.seed)
    classes = catalog.canonical[rows]
    order = np.lexsort((rows, lots, classes))
    ordered = classes[order]
    place = np.arange(len(rows)) - np.searchsorted(ordered, ordered, side="left")
    taken = np.empty(len(rows), dtype=bool)
    taken[order] = place < selection.per_class
    return taken


def classes_named(words: Sequence[str], labels: LabelMap, flag: str) -> tuple[int, ...]:
    """The canonical classes of names in any release's words; ``@FILE`` stands for the names in a file, one a line.

    Raises:
        UsageError: a name that no class has, or that two classes have in different releases; the hint tells them apart.
        InputError: the file cannot be read.
    """
    if not words:
        raise UsageError(f"{flag}: no class named", hint="class names, comma-separated, or @FILE")
    names = [name for word in words for name in (_lines(Path(word[1:]), flag) if word.startswith("@") else [word])]
    if not names:
        raise UsageError(f"{flag}: {', '.join(words)} names no class", hint="one name a line")
    return tuple(sorted({_class_named(name, labels, flag) for name in names}))


def read_ids(path: Path, flag: str) -> tuple[str, ...]:
    """The ids in a file, one a line; blank lines and those that begin with ``#`` are none.

    Raises:
        InputError: the file cannot be read, or a line is more than an id.
    """
    ids = _lines(path, flag)
    all_youtube = all(release.id_kind == "youtube" for release in load_releases().values())
    for number, text in enumerate(ids, start=1):
        if any(c.isspace() or c in ",;" for c in text):
            raise InputError(f"{flag} {path}: id {number} ({text!r}) is more than one word", hint="one id a line")
        if all_youtube and not is_youtube_id(text):
            raise InputError(
                f"{flag} {path}: id {number} ({text!r}) is not a YouTube id",
                hint="11 characters of A-Za-z0-9_-, without file endings or addresses",
            )
    return tuple(ids)


def _lines(path: Path, flag: str) -> list[str]:
    try:
        # Opened, a pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{flag} {path}: not a file", hint="a text file, one entry a line")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{flag} {path}: cannot be read ({said})", hint="a text file, one entry a line") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _class_named(name: str, labels: LabelMap, flag: str) -> int:
    by_name = {row.name: row.index for row in labels.rows}
    taxonomy, sign, own = name.partition(":")
    if sign and taxonomy in ("k710", *labels.taxonomies):
        found = {by_name.get(own) if taxonomy == "k710" else labels.canonical(taxonomy, own)}
    else:
        found = {by_name[name]} if name in by_name else {labels.canonical(t, name) for t in labels.taxonomies}
    known = sorted(c for c in found if c is not None)
    if len(known) == 1:
        return known[0]
    if known:
        meant = ", ".join(f"{t}:{name}" for t in labels.taxonomies if labels.canonical(t, name) is not None)
        raise UsageError(f"{flag}: {name!r} is not the same class in every release", hint=f"say which: {meant}")
    near = list(dict.fromkeys(n for t in labels.taxonomies for n in labels.nearest(t, name)))[:5]
    raise UsageError(f"{flag}: no class is called {name!r}", hint=f"nearest: {', '.join(near)}" if near else "")


def _lots(ids: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    return np.array(
        [int.from_bytes(hashlib.sha256(f"{seed}:{i}".encode()).digest()[:8], "big") for i in ids], dtype=np.uint64
    )
