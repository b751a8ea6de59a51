"""Which row is kept of several that compete, which held-out row speaks for a video, and why the others gave way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from k710.lists.catalog import SPLIT_ORDER, Catalog, Codes, Ints, Mask, first_of_each

REASONS = (
    "bad_row",
    "not_selected",
    "held_out",
    "in_train",
    "near_duplicate",
    "label_conflict",
    "same_clip",
    "other_segment",
)
"""Why a row is not in a view; the first that applies is given."""


@dataclass(kw_only=True, slots=True)
class LeftOut:
    """The rows that a view does not take, each with its reason and the row that decided, as they are found."""

    parts: list[tuple[Ints, npt.NDArray[np.int8], Ints]] = field(default_factory=list)
    """Rows, their reasons, and the rows that decided (-1: none)."""

    def keep(self, rows: Ints, mask: Mask, reason: str) -> Ints:
        """The rows where ``mask`` holds; the others are left out for ``reason``."""
        gone = rows[~mask]
        self._add(gone, REASONS.index(reason), np.full(len(gone), -1, dtype=np.int64))
        return rows[mask]

    def unless(self, rows: Ints, by: Ints, reason: str) -> Ints:
        """The rows for which ``by`` is -1; the others are left out because of the row it names."""
        self._add(rows[by >= 0], REASONS.index(reason), by[by >= 0])
        return rows[by < 0]

    def losers(self, rows: Ints, best: Ints, clip: Codes) -> LeftOut:
        """Itself with each row that is not its unit's ``best``.

        ``same_clip``: the winner's very clip, so only a label is set aside; ``other_segment``: another part of its
        video.
        """
        lost, won = rows[best != rows], best[best != rows]
        same = clip[lost] == clip[won]
        self._add(lost, np.where(same, REASONS.index("same_clip"), REASONS.index("other_segment")), won)
        return self

    def without(self, undrawn: Ints) -> LeftOut:
        """A copy in which winners that were not drawn, and the rows that lost to them, are not selected."""
        if not len(undrawn):
            return self
        reason = REASONS.index("not_selected")
        parts = []
        for rows, reasons, by in self.parts:
            lost = np.isin(reasons, [REASONS.index("same_clip"), REASONS.index("other_segment")]) & np.isin(by, undrawn)
            parts.append((rows, np.where(lost, reason, reasons).astype(np.int8), np.where(lost, -1, by)))
        copy = LeftOut(parts=parts)
        copy.keep(undrawn, np.zeros(len(undrawn), dtype=bool), "not_selected")
        return copy

    def sorted(self) -> tuple[Ints, npt.NDArray[np.int8], Ints]:
        """All rows in order, their reasons, and the rows that decided."""
        rows, reasons, by = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.argsort(rows)
        return rows[order], reasons[order], by[order]

    def _add(self, rows: Ints, reason: int | npt.NDArray[np.int64], by: Ints) -> None:
        self.parts.append((rows, np.broadcast_to(np.asarray(reason, dtype=np.int8), rows.shape), by))


def preference(catalog: Catalog, ranking: Mapping[str, int]) -> Ints:
    """Per row a number by which the rows of one video compete; the smallest wins.

    The release that comes first in ``ranking``, then the smallest (start, end), then the class name by code point.
    """
    places = np.array([ranking[name.release] for name in catalog.lists], dtype=np.int64)
    splits = np.array([SPLIT_ORDER.index(name.split) for name in catalog.lists], dtype=np.int64)
    # Clips of one video are numbered by (start, end), class names by code point.
    times = places[catalog.list_code] << 31 | catalog.clip
    return (times << 18 | (catalog.label + 1)) << 2 | splits[catalog.list_code]


def winners(rows: Ints, unit: Codes, preference: Ints) -> Ints:
    """For each of ``rows`` the row that wins its unit (a video or a clip)."""
    group = unit[rows]
    first = first_of_each(group, preference[rows], int(group.max(initial=-1)) + 1)
    return rows[first[group]]


def first_holders(catalog: Catalog, lists: Sequence[bool]) -> Ints:
    """For each video the row of the given lists that is named as holding it out; -1: none.

    The first by val < test < holdout, then release order, then (start, end), then class name.
    """
    chosen = [i for i, wanted in enumerate(lists) if wanted]
    chosen.sort(key=lambda i: (SPLIT_ORDER.index(catalog.lists[i].split), catalog.ages[i]))
    holder = np.full(catalog.num_videos, -1, dtype=np.int64)
    # From the last to the first, so that the first is written last; rows of one list stand in the order wanted.
    for position in reversed(chosen):
        where = catalog.list_rows(position)
        rows = np.arange(where.start, where.stop)[::-1]
        holder[catalog.clip_video[catalog.clip[rows]]] = rows
    return holder


def in_conflict(unit: Codes, canonical: npt.NDArray[np.int16]) -> Mask:
    """Per row: whether the rows of its unit are of more than one class; rows without a class do not count."""
    size = int(unit.max(initial=-1)) + 1
    low, high = np.full(size, np.iinfo(np.int16).max, dtype=np.int16), np.full(size, -1, dtype=np.int16)
    known = canonical >= 0
    np.minimum.at(low, unit[known], canonical[known])
    np.maximum.at(high, unit[known], canonical[known])
    different: Mask = (high > low)[unit]
    return different
