"""One training run as a value: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710.config import to_mapping
from k710.labels import LabelMap
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2
from uniformerv2.config import Recipe
from uniformerv2.data.reading import ReadingConfig
from uniformerv2.data.streaming import StreamConfig
from uniformerv2.training.lineage import Lineage, Overlap


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One training run, with everything read but the run folder."""

    command: str
    """``pretrain`` or ``finetune``."""
    target: str
    """Taxonomy of the classifier."""
    releases: tuple[str, ...]
    """Releases whose held-out lists the run must not have seen; all protected ones for ``k710``."""
    recipe: Recipe
    """All settings."""
    model: UniFormerV2
    """With its initial weights."""
    lineage: Lineage
    """Of the initial weights."""
    init: Mapping[str, str]
    """What the initial weights are: ``kind``, and ``sha256`` of the file."""
    index: ShardIndex | None
    """The build; None only when nothing is trained."""
    view: View | None
    """What is trained on; None when nothing is."""
    stream: StreamConfig | None = None
    """Foreign shards to train on instead of a view."""
    labels: LabelMap
    """The class table."""
    out: Path
    """Run folder."""
    resume: bool
    """The run must exist."""
    fresh: bool
    """The folder must be empty."""
    reading: ReadingConfig
    """How clips are read from an object store."""
    allow_leaks: bool
    """Go on when the weights have seen, or will see, held-out videos of the target."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, as plain values without paths."""
        return {
            "command": self.command,
            "target": self.target,
            "init": dict(self.init),
            "recipe": to_mapping(self.recipe),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a training command did."""

    command: str
    """``pretrain`` or ``finetune``."""
    target: str
    """Taxonomy of the classifier."""
    out: Path
    """Run folder."""
    model: Path
    """Final weights."""
    view: str | None
    """View trained on; None: nothing was trained."""
    data_digest: str
    """Of that view."""
    epochs: int
    """Epochs of the run."""
    steps: int
    """Optimiser steps of the run."""
    clips_per_epoch: int
    """Clips with bytes and a class."""
    clips_taken_out: int
    """Planned clips without."""
    holes: int
    """Clips that failed at read time, summed over the epochs of the run."""
    loss: float | None
    """Of the last line of the run's log, the mean over its steps; None: no line, or no live sample in them."""
    window: int
    """Blocks of clips shuffled together; 0: the whole view."""
    seconds: float
    """Wall time of this call."""
    resumed_at_step: int | None
    """Step from which this call went on; None: it began the run."""
    already_done: bool
    """The run had finished before this call."""
    overlaps: tuple[Overlap, ...]
    """Videos in the lineage that a held-out list of the build has; those of the target's own lists are leaks."""
    leaks_allowed: bool
    """There are leaks, and ``--allow-leaks`` was given."""
    lineage: str
    """What the weights have seen, in one sentence."""
    not_checked: tuple[str, ...] = ()
    """Lists that the build was not given, as ``k700:train``: no leak into or out of them can be seen."""
    leaks_checked: bool = True
    """Whether there was a build to compare the lineage with."""
    said: tuple[str, ...] = ()
    """What was wrong with saved files or scores and was got over, a sentence each."""
