"""Lists by the kind of their ids: YouTube's and others are never equal, so some parts cannot be found in some lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from k710.audits.sources import GivenList
from k710.lists.catalog import ListName
from k710.lists.dialects.ids import youtube_mask

_OTHER = " (other ids)"
"""What the title of a list is followed by for its ids that are not YouTube's, where it has both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListPart:
    """The rows of one list whose ids are of one kind."""

    place: int
    """Of its list among those given."""
    name: ListName
    """The list's name; where it has both kinds, that of its opaque ids says so."""
    rows: pa.Table
    """``LIST_ROWS``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unchecked:
    """What could not be found in any list of the other side, in words."""

    lists: list[str]
    """Training lists of which that is true of half of the rows or more; all held-out lists, where it is of all."""
    parts: list[str]
    """Smaller parts, and single held-out lists."""
    nothing_compared: bool
    """Whether no row of any training list could be compared."""


def parts_of(lists: Sequence[GivenList]) -> list[ListPart]:
    """Each list as one part or two, under names that are not given twice: the second of one name is ``name#2``."""
    taken: set[str] = set()
    parts = []
    for place, given in enumerate(lists):
        mask = youtube_mask(given.rows["id"].combine_chunks())
        kinds = {"youtube": mask, "opaque": ~mask}
        # A list without a row is a list all the same.
        kinds = {kind: own for kind, own in kinds.items() if own.any()} or {"youtube": mask}
        number, names = 1, _names(given, list(kinds), 1)
        while taken & set(map(str, names)):
            number += 1
            names = _names(given, list(kinds), number)
        taken |= {str(n) for n in names}
        for name, own in zip(names, kinds.values(), strict=True):
            parts.append(ListPart(place=place, name=name, rows=given.rows.filter(pa.array(own))))
    return parts


def unchecked(parts: Sequence[ListPart]) -> Unchecked:
    """The parts of which no list of the other side has ids of the same kind."""
    kinds = {held: {p.name.id_kind for p in parts if p.name.is_held_out == held} for held in (False, True)}
    whole: dict[bool, list[str]] = {False: [], True: []}
    small: list[str] = []
    num_lists = {False: 0, True: 0}
    for place in dict.fromkeys(part.place for part in parts):
        own = [part for part in parts if part.place == place]
        held = own[0].name.is_held_out
        num_lists[held] += 1
        total = sum(part.rows.num_rows for part in own)
        apart = sum(p.rows.num_rows for p in own if p.name.id_kind not in kinds[not held])
        if apart:
            # A few names that look like ids by chance do not make a list one that was checked.
            (whole[held] if apart * 2 >= total else small).append(_said(own[0].name, apart, total))
    if len(whole[True]) < num_lists[True]:
        small += whole[True]
        whole[True] = []
    training = [p for p in parts if not p.name.is_held_out and p.rows.num_rows]
    return Unchecked(
        lists=whole[False] or whole[True],
        parts=small,
        nothing_compared=bool(training) and all(p.name.id_kind not in kinds[True] for p in training),
    )


def _names(given: GivenList, kinds: Sequence[str], number: int) -> list[ListName]:
    title = given.title if number == 1 else f"{given.title}#{number}"
    return [
        ListName(release=f"{title}{_OTHER}" if i else title, split=given.split, id_kind=kind)
        for i, kind in enumerate(kinds)
    ]


def _said(name: ListName, apart: int, total: int) -> str:
    side = "training" if name.is_held_out else "held-out"
    if apart == total:
        return f"{name} (no {side} list has ids of its kind)"
    return f"{apart:,} of {total:,} rows of {name} (no {side} list has ids of their kind)"
