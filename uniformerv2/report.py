"""What an evaluation found, and all that is needed to get it again. Axes: N clips, K classes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.config import from_mapping, to_mapping
from k710.errors import InputError, UsageError
from k710.tables import named_schema

SCHEMA_VERSION = 2
CONFUSIONS = 20
"""Pairs of classes that a report names."""
_DAMAGED = "the report is damaged; run `k710 evaluate` again"

CLASSES_KEY = b"k710.classes"
"""Metadata of a table of scores: the names of the classes in order of index, as JSON."""

SCORES = named_schema(
    "scores",
    1,
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),  # in the model's taxonomy, as are the scores
        pa.field("predicted", pa.int16(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),  # mean probability of every class
    ],
)
"""Every scored clip, in the order of the view."""

CONFUSION = named_schema(
    "confusion",
    1,
    [
        pa.field("label", pa.int16(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("predicted", pa.int16(), nullable=False),
        pa.field("predicted_name", pa.string(), nullable=False),
        pa.field("clips", pa.int64(), nullable=False),
    ],
)
"""Every cell of the confusion matrix that is not 0, the right ones too, in order of label and prediction."""


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
    """How one class does."""

    index: int
    """In the model's taxonomy."""
    name: str
    """The taxonomy's own name."""
    clips: int
    """Clips scored."""
    top1: float
    """Share that was right."""
    top5: float
    """Share whose class was among the first five."""
    predicted: int
    """Scored clips, of whatever class, that were taken for this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Clips of one class that were taken for another."""

    label: int
    """Their class, in the model's taxonomy."""
    label_name: str
    """Its name."""
    predicted: int
    """The class that was predicted."""
    predicted_name: str
    """Its name."""
    clips: int
    """How many."""


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
    seen_at_least: int
    """Videos of this view that are in the weights' lineage, whether or not that is all they have seen."""
    classes: tuple[ClassScore, ...]
    """Classes present, in order of index."""
    confusions: tuple[Confusion, ...]
    """The pairs of classes that were confused most often."""
    predictions: tuple[Prediction, ...]
    """Every scored clip, in the order of the view."""
    test_clips: int
    """Test clips of each clip."""
    test_crops: int
    """Crops of each test clip."""
    test_views_from: str
    """What set the test clips and crops."""
    frame_sampling: str
    """How the frames of a test clip are chosen: as in the training of the weights."""
    settings: dict[str, Any]
    """What ``--set`` can change."""
    model: dict[str, Any]
    """Settings of the model."""
    checkpoint: str
    """Name of the weights file, or of the run folder that it was found in."""
    checkpoint_sha256: str
    """Of the file."""
    trained_on: str
    """Data digest in the checkpoint; empty: not said."""
    view_digest: str
    """Clips and classes scored on."""
    data_digest: str
    """View, class table and encode arguments."""
    versions: dict[str, str]
    """Of the libraries that numbers depend on."""
    seconds: float
    """Wall time of the call that ended it."""

    @property
    def seen_statement(self) -> str:
        """One sentence on how many of the view's videos the weights have seen."""
        if self.seen_videos is not None:
            return f"the weights have seen {self.seen_videos} videos of {self.view}"
        known = f"; those that are known are {self.seen_at_least}" if self.seen_at_least else ""
        return f"lineage unknown: how many videos of {self.view} the weights have seen cannot be said{known}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, one entry per field, with the sentence on what was seen."""
        plain: dict[str, Any] = to_mapping(self)
        return plain | {"seen_statement": self.seen_statement}


def is_report(document: object) -> bool:
    """Whether ``document`` is the content of a report, of this version or another."""
    known = {"schema_version", "view", "taxonomy", "top1", "clips_scored", "predictions", "checkpoint_sha256"}
    return isinstance(document, dict) and document.keys() >= known


def read_report(path: Path) -> EvaluationReport:
    """The report at ``path``.

    Raises:
        UsageError: there is none.
        InputError: it is damaged, or of another version.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror or error})", hint="give a file that `k710 evaluate --out` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a report of `k710 evaluate` (not JSON)") from error
    if not is_report(document):
        raise InputError(f"{path}: not a report of `k710 evaluate`", hint="its --out writes one")
    if document["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"{path}: report version {document['schema_version']}, this version reads {SCHEMA_VERSION}",
            hint="run `k710 evaluate` again",
        )
    predictions = _predictions(document["predictions"], str(path))
    plain = {name: value for name, value in document.items() if name != "seen_statement"}
    try:
        report = from_mapping(EvaluationReport, plain | {"predictions": []}, where=str(path))
    except UsageError as error:
        raise InputError(error.message, hint=_DAMAGED) from error
    return dataclasses.replace(report, predictions=predictions)


def _predictions(plain: Any, where: str) -> tuple[Prediction, ...]:
    """The predictions of a report, of which there are too many for ``from_mapping``."""
    kinds = {"key": str, "label": int, "predicted": int, "rank": int, "any_of": bool}
    for number, one in enumerate(plain if isinstance(plain, list) else [plain]):
        if not isinstance(one, dict) or {name: type(value) for name, value in one.items()} != kinds:
            raise InputError(f"{where}: predictions[{number}] is not a prediction", hint=_DAMAGED)
    return tuple(Prediction(**one) for one in plain)


def class_scores(scored: Sequence[Prediction], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Scores of each class that is present, in order of index; ``names`` are all classes of the taxonomy."""
    ranks: dict[int, list[int]] = {}
    for prediction in scored:
        ranks.setdefault(prediction.label, []).append(prediction.rank)
    predicted = Counter(prediction.predicted for prediction in scored)
    return tuple(
        ClassScore(
            index=label,
            name=names[label],
            clips=len(own),
            top1=sum(rank == 1 for rank in own) / len(own),
            top5=sum(rank <= 5 for rank in own) / len(own),
            predicted=predicted[label],
        )
        for label, own in sorted(ranks.items())
    )


def top_confusions(scored: Sequence[Prediction], names: Sequence[str], limit: int) -> tuple[Confusion, ...]:
    """The ``limit`` pairs of different classes with the most clips; of equal ones those of lower indices."""
    counts = Counter((p.label, p.predicted) for p in scored if p.label != p.predicted)
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    return tuple(
        Confusion(
            label=label, label_name=names[label], predicted=predicted, predicted_name=names[predicted], clips=clips
        )
        for (label, predicted), clips in most
    )


def confusion_table(scored: Sequence[Prediction], names: Sequence[str]) -> pa.Table:
    """The confusion matrix as ``CONFUSION``."""
    counts = sorted(Counter((p.label, p.predicted) for p in scored).items())
    return pa.table(
        {
            "label": [label for (label, _), _ in counts],
            "label_name": [names[label] for (label, _), _ in counts],
            "predicted": [predicted for (_, predicted), _ in counts],
            "predicted_name": [names[predicted] for (_, predicted), _ in counts],
            "clips": [clips for _, clips in counts],
        },
        schema=CONFUSION,
    )


def scores_table(scored: Sequence[Prediction], scores_NK: npt.NDArray[np.float32], names: Sequence[str]) -> pa.Table:
    """The probabilities of every class for each of ``scored``, as ``SCORES`` with the classes' names as metadata."""
    return pa.table(
        {
            "key": [p.key for p in scored],
            "label": [p.label for p in scored],
            "predicted": [p.predicted for p in scored],
            "scores": scores_column(scores_NK),
        },
        schema=SCORES.with_metadata({**(SCORES.metadata or {}), CLASSES_KEY: json.dumps(list(names)).encode()}),
    )


def scores_column(scores_NK: npt.NDArray[np.float32]) -> pa.Array[Any]:
    """A column with a list of probabilities for each clip."""
    starts = np.arange(len(scores_NK) + 1, dtype=np.int32) * scores_NK.shape[1]
    return pa.ListArray.from_arrays(pa.array(starts), pa.array(scores_NK.reshape(-1)))
