"""Views: named lists over the pool of clips, and for each source row that is not in one, why.

The law: for each view, every row of its source lists is in the view, or excluded from it exactly once with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k710.config import Release
from k710.errors import UsageError
from k710.lists.catalog import SPLIT_ORDER, Catalog, Ints, ListName, Mask
from k710.lists.dedupe import LeftOut, first_holders, in_conflict, preference, winners
from k710.lists.policy import Policy
from k710.lists.selection import drawn, named, selected

MERGED = "k710"
MERGED_SPLITS = ("train", "val", "test")
HELD_OUT_SPLITS = SPLIT_ORDER[1:]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSpec:
    """Which list over the pool a view is."""

    release: str
    """``k710`` for a merged view, else the release."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    taxonomy: str
    """Whose classes its clips have."""

    @property
    def name(self) -> str:
        """``k710-train``, ``k400-val``, ..."""
        return f"{self.release}-{self.split}"

    @property
    def is_merged(self) -> bool:
        """Whether it draws on every release."""
        return self.release == MERGED

    def draws_on(self, release: str, split: str) -> bool:
        """Whether a list is one of the view's sources."""
        if not self.is_merged:
            return (release, split) == (self.release, self.split)
        return split == self.split or (self.split, split) == ("test", "holdout")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltView:
    """A view and its rest, as rows of the catalog."""

    spec: ViewSpec
    """Which view."""
    members: Ints
    """The rows that are in it, one per clip, ascending."""
    rows: Ints
    """The rows of its source lists that are not, ascending."""
    reasons: npt.NDArray[np.int8]
    """Per row that is not: position of its reason in ``dedupe.REASONS``."""
    by: Ints
    """Per row that is not: the row that holds it out or that won; -1: none."""

    def class_differs(self, catalog: Catalog) -> Mask:
        """Per row that is not in the view: whether its class is known and not that of the row that decided."""
        mine, theirs = catalog.canonical[self.rows], catalog.canonical[self.by]
        differs: Mask = (self.by >= 0) & (mine != theirs) & (mine >= 0) & (theirs >= 0)
        return differs


def choose_views(words: Sequence[str], releases: Sequence[Release], lists: Sequence[tuple[str, str]]) -> list[ViewSpec]:
    """The views that the words of ``--views`` name, in order of name; ``default`` is train and val of everything.

    Raises:
        UsageError: a word names no view that these lists can give; the hint lists those they can.
    """
    possible = {spec.name: spec for spec in _possible(releases, lists)}
    default = [name for name, spec in possible.items() if spec.split in ("train", "val")]
    chosen: set[str] = set()
    for word in words:
        if word != "default" and word not in possible:
            raise UsageError(f"unknown view {word!r}", hint=f"these lists can give default, {', '.join(possible)}")
        chosen.update(default if word == "default" else [word])
    if not chosen:
        raise UsageError("no views to build", hint=f"--views default, or some of {', '.join(possible)}")
    return [possible[name] for name in sorted(chosen)]


def build_views(catalog: Catalog, specs: Sequence[ViewSpec], policy: Policy) -> list[BuiltView]:
    """Each view by the rules of its kind."""
    views = _Views(catalog, policy)
    return [views.built(spec) for spec in specs]


class _Views:
    """The views of one catalog; the merged ones depend on each other."""

    def __init__(self, catalog: Catalog, policy: Policy) -> None:
        self._catalog = catalog
        self._policy = policy
        self._video = catalog.video
        self._selected = selected(catalog, policy.selection)
        # A row without times holds its video out, and is no clip.
        self._clips = catalog.timed
        self._preference = preference(catalog, policy.ranking(_releases(catalog.lists)))
        self._kept: dict[str, tuple[Ints, LeftOut]] = {}

    def built(self, spec: ViewSpec) -> BuiltView:
        """One view; of each class only as many clips as the selection draws."""
        kept, left = self._one_per_unit(spec)
        taken = drawn(self._catalog, kept, self._policy.selection)
        rows, reasons, by = left.without(kept[~taken]).sorted()
        return BuiltView(spec=spec, members=kept[taken], rows=rows, reasons=reasons, by=by)

    def _one_per_unit(self, spec: ViewSpec) -> tuple[Ints, LeftOut]:
        """The rows that are kept, ascending, and the rest, before any draw."""
        if spec.name not in self._kept:
            left = LeftOut()
            sources = np.array([spec.draws_on(n.release, n.split) for n in self._catalog.lists], dtype=bool)
            rows = np.flatnonzero(sources[self._catalog.list_code] & self._clips)
            rows = left.keep(rows, self._selected[rows], "not_selected")
            for reason, holders in self._holders(spec):
                rows = left.unless(rows, holders[self._video[rows]], reason)
            rows = left.keep(rows, ~self._looks_like_another(spec)[self._video[rows]], "near_duplicate")
            unit = self._video if spec.is_merged and self._policy.unit == "video" else self._catalog.clip
            if spec.is_merged and self._policy.conflicts == "drop":
                rows = left.keep(rows, ~in_conflict(unit[rows], self._catalog.canonical[rows]), "label_conflict")
            best = winners(rows, unit, self._preference)
            self._kept[spec.name] = rows[best == rows], left.losers(rows, best, self._catalog.clip)
        return self._kept[spec.name]

    def _holders(self, spec: ViewSpec) -> list[tuple[str, Ints]]:
        """The reasons for which a video may leave the view, and for each the row per video that is named; -1: stays."""
        lists = self._catalog.lists
        if not spec.is_merged:
            own = [n.release == spec.release and n.is_held_out and spec.split == "train" for n in lists]
            return [("held_out", first_holders(self._catalog, own))]
        if spec.split == "train":
            drop = self._policy.protected_splits if self._policy.leaks == "drop-train" else ()
            return [("held_out", first_holders(self._catalog, [n.split in drop for n in lists]))]
        if spec.split == "val":
            return [("in_train", self._rows_of("train"))] if self._policy.leaks == "drop-eval" else []
        in_val = self._rows_of("val") >= 0
        held = first_holders(self._catalog, [n.split == "val" for n in lists])
        return [("held_out", np.where(in_val, held, -1))]

    def _looks_like_another(self, spec: ViewSpec) -> Mask:
        """Per video: whether it leaves the view because its clips look like those of others."""
        selection = self._policy.selection
        is_train = spec.split == "train"
        return named(self._catalog, selection.near_duplicates if is_train else selection.near_duplicates_held_out)

    def _rows_of(self, split: str) -> Ints:
        """For each video the first of its rows that is kept in a merged view; -1: none."""
        kept, _ = self._one_per_unit(ViewSpec(release=MERGED, split=split, taxonomy=MERGED))
        rows = np.full(self._catalog.num_videos, -1, dtype=np.int64)
        rows[self._video[kept[::-1]]] = kept[::-1]
        return rows


def _releases(lists: Sequence[ListName]) -> list[str]:
    return list(dict.fromkeys(name.release for name in lists))


def _possible(releases: Sequence[Release], lists: Sequence[tuple[str, str]]) -> list[ViewSpec]:
    splits = {split for _, split in lists}
    merged = [s for s in MERGED_SPLITS if s in splits or (s == "test" and "holdout" in splits)]
    taxonomies = {r.name: r.taxonomy for r in releases}
    return [
        *(ViewSpec(release=MERGED, split=s, taxonomy=MERGED) for s in merged),
        *(ViewSpec(release=r, split=s, taxonomy=taxonomies[r]) for r, s in lists),
    ]
