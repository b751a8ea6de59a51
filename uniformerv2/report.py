"""What an evaluation found, and all that is needed to get it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k710.config import to_mapping
from uniformerv2.training.lineage import UNKNOWN

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One scored clip; classes are indices of the model's taxonomy."""

    key: str
    """Clip key."""
    label: int
    """Its class."""
    predicted: int
    """The class with the highest mean probability."""
    rank: int
    """Place of its class among all, from 1."""
    any_of: bool
    """Whether the prediction is a class that some list gives the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """Top-1 of one class."""

    index: int
    """In the model's taxonomy."""
    name: str
    """The taxonomy's own name."""
    clips: int
    """Clips scored."""
    top1: float
    """Share that was right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """A score and all that is needed to get it again."""

    schema_version: int
    """Of this report."""
    view: str
    """Scored on."""
    taxonomy: str
    """Of the model's classifier."""
    top1: float
    """Share of the scored clips whose class comes first."""
    top5: float
    """Share whose class is among the first five."""
    any_of_top1: float | None
    """Top-1 against every class that some list gives a clip; only for views made of several releases."""
    chance: float
    """1 / classes present."""
    mean_class_top1: float
    """Top-1 averaged over classes."""
    clips_scored: int
    """Clips behind the numbers."""
    clips_listed: int
    """Clips of the view."""
    clips_without_bytes: int
    """Listed clips that the build does not have."""
    clips_without_class: int
    """Listed clips that no label is known of."""
    failed: tuple[tuple[str, str], ...]
    """Key and reason of each clip that could not be read."""
    lineage: str
    """What the weights have seen, in one sentence."""
    seen_videos: int | None
    """Videos of this view that the weights have seen; None: unknown."""
    classes: tuple[ClassScore, ...]
    """Classes present, in order of index."""
    predictions: tuple[Prediction, ...]
    """Every scored clip, in the order of the view."""
    test_clips: int
    """Test clips of each clip."""
    test_crops: int
    """Crops of each test clip."""
    settings: dict[str, Any]
    """What ``--set`` can change."""
    model: dict[str, Any]
    """Settings of the model."""
    checkpoint: str
    """File name of the weights."""
    checkpoint_sha256: str
    """Of that file."""
    trained_on: str
    """Data digest in the checkpoint; empty: not said."""
    view_digest: str
    """Clips and classes scored on."""
    data_digest: str
    """View, class table and encode arguments."""
    versions: dict[str, str]
    """Of the libraries that numbers depend on."""
    seconds: float
    """Wall time."""

    @property
    def seen_statement(self) -> str:
        """One sentence on how many of the view's videos the weights have seen."""
        if self.seen_videos is None:
            return f"{UNKNOWN}; {self.view} cannot be checked against it"
        return f"the weights have seen {self.seen_videos} videos of {self.view}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, one entry per field, with the sentence on what was seen."""
        plain: dict[str, Any] = to_mapping(self)
        return plain | {"seen_statement": self.seen_statement}


def class_scores(scored: Sequence[Prediction], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Top-1 of each class that is present, in order of index; ``names`` are all classes of the taxonomy."""
    by_class: dict[int, list[bool]] = {}
    for prediction in scored:
        by_class.setdefault(prediction.label, []).append(prediction.rank == 1)
    return tuple(
        ClassScore(index=label, name=names[label], clips=len(right), top1=sum(right) / len(right))
        for label, right in sorted(by_class.items())
    )
