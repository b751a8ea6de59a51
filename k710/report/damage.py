"""What each class loses between the rows of the lists and the clips of a training view, and which classes get thin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from k710.labels import LabelMap
from k710.lists.catalog import SPLIT_ORDER, Catalog
from k710.lists.dedupe import REASONS
from k710.lists.views import BuiltView

MIN_PER_CLASS = 50
"""Clips under which a class of a training view is named as thin."""


def view_damage(catalog: Catalog, view: BuiltView, labels: LabelMap) -> dict[str, Any]:
    """For each class of a view's source rows: the rows, the clips kept, and the rows lost by reason."""
    rows = np.concatenate([view.members, view.rows])
    reasons = np.concatenate([np.full(len(view.members), -1), view.reasons])
    return {"view": view.spec.name, "classes": _per_class(catalog, rows, reasons, REASONS, labels)}


def list_damage(catalog: Catalog, position: int, labels: LabelMap) -> dict[str, Any]:
    """The same for a training list as it came, if the videos of every held-out list left it."""
    listed = catalog.list_rows(position)
    rows = np.arange(listed.start, listed.stop)
    held_out = np.zeros(catalog.num_videos, dtype=bool)
    held_out[catalog.video[catalog.split_mask(SPLIT_ORDER[1:])]] = True
    reasons = np.where(held_out[catalog.clip_video[catalog.clip[rows]]], 0, -1)
    name = str(catalog.lists[position])
    return {"view": name, "classes": _per_class(catalog, rows, reasons, ("held_out",), labels)}


def thin_classes(damage: Iterable[Mapping[str, Any]], minimum: int) -> list[dict[str, Any]]:
    """The classes with fewer than ``minimum`` clips, by view and class; ``emptied`` where none is left."""
    return [
        {
            "view": view["view"],
            **{k: row[k] for k in ("index", "name", "rows", "clips")},
            "emptied": row["clips"] == 0,
        }
        for view in damage
        for row in view["classes"]
        if row["clips"] < minimum
    ]


def lost_for_good(row: Mapping[str, Any]) -> int:
    """Rows of a class that are lost with their bytes: a row of the very clip that was kept is not."""
    return sum(count for reason, count in row["lost"].items() if reason != "same_clip")


def _per_class(
    catalog: Catalog,
    rows: npt.NDArray[Any],
    reasons: npt.NDArray[Any],
    words: Sequence[str],
    labels: LabelMap,
) -> list[dict[str, Any]]:
    """One entry per class that a row has; ``reasons`` is -1 where a row was kept, else a position in ``words``."""
    canonical, label = catalog.canonical[rows].astype(np.int64), catalog.label[rows].astype(np.int64)
    # Names that the class table does not know stand behind its own classes.
    codes = np.where((canonical < 0) & (label >= 0), labels.num_classes + label, canonical)
    known = codes >= 0
    width, size = len(words) + 1, labels.num_classes + len(catalog.names)
    counts = np.bincount(codes[known] * width + reasons[known] + 1, minlength=size * width).reshape(size, width)
    names = [*labels.names, *catalog.names]
    return [
        {
            "index": int(code) if code < labels.num_classes else None,
            "name": names[code],
            "rows": int(counts[code].sum()),
            "clips": int(counts[code, 0]),
            "lost": {word: int(n) for word, n in zip(words, counts[code, 1:], strict=True) if n},
        }
        for code in np.flatnonzero(counts.any(axis=1))
    ]
