"""Views: named lists over the pool of clips, and for each source row that is not in one, why.

The law: for each view, every row of its source lists is in the view, or excluded from it exactly once with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from k710.config import Release
from k710.errors import UsageError
from k710.lists.dedupe import excluded, losers, winners
from k710.lists.leakage import first_holders, in_lists

MERGED = "k710"
MERGED_SPLITS = ("train", "val", "test")
Leaks = Literal["drop-train", "drop-eval", "report"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What happens to videos that stand in a training list and in a held-out one."""

    protect: tuple[str, ...] = ("val", "test")
    """Kinds of held-out lists whose videos leave ``k710-train``; holdout counts as test."""
    leaks: Leaks = "drop-train"
    """Which side gives way: ``drop-train``, ``drop-eval`` (``k710-val`` loses them), or nobody (``report``)."""

    def __post_init__(self) -> None:
        for word in self.protect:
            if word not in ("val", "test"):
                raise ValueError(f"protect must be val, test, both or none, got {word!r}")
        # One spelling, or the same policy in another order would count as another build.
        object.__setattr__(self, "protect", tuple(word for word in ("val", "test") if word in self.protect))

    @property
    def protected_splits(self) -> tuple[str, ...]:
        """The splits that ``protect`` stands for."""
        return tuple(s for s in ("val", "test", "holdout") if ("test" if s == "holdout" else s) in self.protect)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltView:
    """A view and its rest."""

    spec: ViewSpec
    """Which view."""
    members: pd.DataFrame
    """Catalog rows that are in it, one per clip."""
    excluded: pd.DataFrame
    """Source rows that are not, each with one reason."""


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


def build_views(catalog: pd.DataFrame, specs: Sequence[ViewSpec], policy: Policy) -> list[BuiltView]:
    """Each view by the rules of its kind."""
    merged = _Merged(catalog, policy)
    return [merged.view(spec) if spec.release == MERGED else _release_view(catalog, spec) for spec in specs]


class _Merged:
    """The ``k710-*`` views, each of which may depend on another."""

    def __init__(self, catalog: pd.DataFrame, policy: Policy) -> None:
        self._catalog = catalog
        self._policy = policy
        self._built: dict[str, BuiltView] = {}

    def view(self, spec: ViewSpec) -> BuiltView:
        if spec.split not in self._built:
            make = {"train": self._train, "val": self._val, "test": self._test}[spec.split]
            self._built[spec.split] = make(spec)
        return self._built[spec.split]

    def _other(self, split: str) -> pd.DataFrame:
        return self.view(ViewSpec(release=MERGED, split=split, taxonomy=MERGED)).members

    def _train(self, spec: ViewSpec) -> BuiltView:
        rows = self._catalog[self._catalog["split"] == "train"]
        drop = self._policy.leaks == "drop-train"
        protected = self._catalog["split"].isin(self._policy.protected_splits if drop else ())
        return _one_clip_per_video(spec, rows, first_holders(self._catalog[protected]), "held_out")

    def _val(self, spec: ViewSpec) -> BuiltView:
        rows = self._catalog[self._catalog["split"] == "val"]
        seen = self._other("train") if self._policy.leaks == "drop-eval" else rows.iloc[:0]
        return _one_clip_per_video(spec, rows, seen.set_index("video"), "in_train")

    def _test(self, spec: ViewSpec) -> BuiltView:
        rows = self._catalog[self._catalog["split"].isin(["test", "holdout"])]
        in_val = self._catalog["video"].isin(self._other("val")["video"]) & (self._catalog["split"] == "val")
        return _one_clip_per_video(spec, rows, first_holders(self._catalog[in_val]), "held_out")


def _one_clip_per_video(spec: ViewSpec, rows: pd.DataFrame, holders: pd.DataFrame, reason: str) -> BuiltView:
    held, left = _split_off(rows, holders, reason)
    kept = winners(left, "video")
    return BuiltView(spec=spec, members=kept, excluded=pd.concat([held, losers(left, kept, "video")]))


def _release_view(catalog: pd.DataFrame, spec: ViewSpec) -> BuiltView:
    rows = in_lists(catalog, [(spec.release, spec.split)])
    own = [(spec.release, s) for s in ("val", "test", "holdout")] if spec.split == "train" else []
    held, left = _split_off(rows, first_holders(in_lists(catalog, own)), "held_out")
    kept = winners(left, "clip")
    return BuiltView(spec=spec, members=kept, excluded=pd.concat([held, losers(left, kept, "clip")]))


def _split_off(rows: pd.DataFrame, holders: pd.DataFrame, reason: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    away = rows["video"].isin(holders.index)
    gone = rows[away]
    return excluded(gone, reason, holders.loc[gone["video"]]), rows[~away]


def _possible(releases: Sequence[Release], lists: Sequence[tuple[str, str]]) -> list[ViewSpec]:
    splits = {split for _, split in lists}
    merged = [s for s in MERGED_SPLITS if s in splits or (s == "test" and "holdout" in splits)]
    taxonomies = {r.name: r.taxonomy for r in releases}
    return [
        *(ViewSpec(release=MERGED, split=s, taxonomy=MERGED) for s in merged),
        *(ViewSpec(release=r, split=s, taxonomy=taxonomies[r]) for r, s in lists),
    ]
