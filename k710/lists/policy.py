"""What a build does with videos that several lists name, and which rows it takes at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from k710.errors import UsageError

Leaks = Literal["drop-train", "drop-eval", "report"]
Unit = Literal["video", "segment"]
Conflicts = Literal["keep", "drop"]


NEAR_DUPLICATES = ("near_duplicates", "near_duplicates_held_out")
"""The videos of a selection that look like others: those that leave training views, and held-out ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which rows are wanted; a held-out row that is not still protects its video."""

    only_cc: bool = False
    """Whether only rows that their list marks as Creative Commons are taken."""
    classes: tuple[int, ...] = ()
    """Canonical classes to take; empty: all."""
    exclude_classes: tuple[int, ...] = ()
    """Canonical classes to leave out."""
    exclude_ids: tuple[str, ...] = ()
    """Videos to leave out of every view."""
    forgotten: tuple[int, ...] = ()
    """Hashes of videos that `k710 forget` took out of the build for good."""
    near_duplicates: tuple[str, ...] = ()
    """Videos to leave out of training views, since their clips look like those of others."""
    near_duplicates_held_out: tuple[str, ...] = ()
    """Videos to leave out of held-out views for the same reason."""
    per_class: int | None = None
    """Most clips of one class in each view, for trials; None: all."""
    seed: int = 0
    """Which clips ``per_class`` draws."""

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {self.per_class}")
        # Sets, written one way, or the same wish in another order would count as another build.
        for name in ("classes", "exclude_classes", "exclude_ids", "forgotten", *NEAR_DUPLICATES):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What happens to videos that stand in several lists."""

    protect: tuple[str, ...] = ("val", "test")
    """Kinds of held-out lists whose videos leave ``k710-train``; holdout counts as test."""
    leaks: Leaks = "drop-train"
    """Which side gives way: ``drop-train``, ``drop-eval`` (``k710-val`` loses them), or nobody (``report``)."""
    unit: Unit = "video"
    """What the merged views have one clip of: a ``video``, or a ``segment`` of one."""
    prefer: tuple[str, ...] = ("newest",)
    """Whose clip is kept: ``newest`` or ``oldest`` release first, or releases by name and then the newest."""
    conflicts: Conflicts = "keep"
    """Whether the merged views ``drop`` a unit that its rows put into different classes."""
    selection: Selection = field(default_factory=Selection)
    """Which rows are taken at all."""

    def __post_init__(self) -> None:
        for word in self.protect:
            if word not in ("val", "test"):
                raise ValueError(f"protect must be val, test, both or none, got {word!r}")
        if not self.prefer or len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer must be newest, oldest, or releases, each once, got {','.join(self.prefer)!r}")
        if len(self.prefer) > 1 and {"newest", "oldest"} & set(self.prefer):
            raise ValueError(f"prefer must be one word or releases by name, got {','.join(self.prefer)!r}")
        # One spelling, or the same policy in another order would count as another build.
        object.__setattr__(self, "protect", tuple(word for word in ("val", "test") if word in self.protect))

    @property
    def protected_splits(self) -> tuple[str, ...]:
        """The splits that ``protect`` stands for."""
        return tuple(s for s in ("val", "test", "holdout") if ("test" if s == "holdout" else s) in self.protect)

    def ranking(self, releases: Sequence[str]) -> dict[str, int]:
        """The place of each of ``releases`` (given oldest first) when clips of one video compete; 0 wins.

        Raises:
            UsageError: ``prefer`` names a release that is not among them.
        """
        order = list(releases) if self.prefer == ("oldest",) else list(reversed(releases))
        if self.prefer not in (("oldest",), ("newest",)):
            for name in self.prefer:
                if name not in releases:
                    raise UsageError(
                        f"--prefer names {name!r}, which is not among the releases of this build",
                        hint=f"newest, oldest, or some of {','.join(releases)}",
                    )
            order = [*self.prefer, *(name for name in order if name not in self.prefer)]
        return {name: place for place, name in enumerate(order)}
