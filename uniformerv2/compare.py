"""Two evaluations of one view against each other, clip by clip: ``k710 compare``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from k710.config import differences, to_mapping
from k710.errors import InputError
from uniformerv2.report import EvaluationReport, Prediction, read_report

SCHEMA_VERSION = 1
RESAMPLES = 10_000
SEED = 0
CONFIDENCE = 0.95
_NUMBERS_DEPEND_ON = ("frame_order", "precision")


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two evaluations."""

    name: str
    """Of the file, or what the caller says."""
    checkpoint: str
    """Name of the weights file, or of its run folder."""
    checkpoint_sha256: str
    """Of the file."""
    view: str
    """Scored on."""
    test_clips: int
    """Test clips of each clip."""
    test_crops: int
    """Crops of each test clip."""
    clips_scored: int
    """Clips behind its own numbers."""
    seen: str
    """How many of the view's videos the weights have seen, in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A share of the common clips in both evaluations."""

    a: float
    """In the first."""
    b: float
    """In the second."""
    difference: float
    """``b`` less ``a``."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Common clips by who is right: the counts of McNemar's test."""

    both: int
    """Both are right."""
    only_a: int
    """Only the first is."""
    only_b: int
    """Only the second is."""
    neither: int
    """None is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """Top-1 of one class on the common clips."""

    index: int
    """In the taxonomy of both."""
    name: str
    """The taxonomy's own name."""
    clips: int
    """Common clips of the class."""
    a: int
    """Clips that the first has right."""
    b: int
    """Clips that the second has right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two evaluations on the clips that both have scored."""

    schema_version: int
    """Of this document."""
    a: Side
    """The first."""
    b: Side
    """The second."""
    taxonomy: str
    """Of both."""
    clips: int
    """Clips that both have scored: the numbers are of these alone."""
    top1: Change
    """Share whose class comes first."""
    top5: Change
    """Share whose class is among the first five."""
    agreement: Agreement
    """Who is right, by top-1."""
    classes: tuple[ClassChange, ...]
    """Classes whose top-1 differs, the largest change first."""
    only_a: tuple[str, ...]
    """Clips that only the first has scored."""
    only_b: tuple[str, ...]
    """Clips that only the second has scored."""
    warnings: tuple[str, ...]
    """What makes the two less comparable."""
    confidence: float = CONFIDENCE
    """Of the intervals."""
    resamples: int = RESAMPLES
    """Of the paired bootstrap."""
    seed: int = SEED
    """Of its generator."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, one entry per field."""
        plain: dict[str, Any] = to_mapping(self)
        return plain


def compare_files(a: Path, b: Path) -> Comparison:
    """The reports at ``a`` and ``b`` against each other.

    Raises:
        UsageError: a report cannot be read.
        InputError: one is damaged, or they cannot be compared: other taxonomies, other classes of a clip, or no common
            clip.
    """
    return compare(read_report(a), read_report(b), names=(str(a), str(b)))


def compare(a: EvaluationReport, b: EvaluationReport, *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """The two reports against each other, on the clips that both have scored.

    The interval is that of the paired bootstrap over clips. ``compare(b, a)`` mirrors it exactly.

    Raises:
        InputError: other taxonomies, other classes of a clip, or no common clip.
    """
    of_b = {p.key: p for p in b.predictions}
    pairs = [(p, of_b[p.key]) for p in a.predictions if p.key in of_b]
    of_a = {p.key for p in a.predictions}
    _require_comparable(a, b, pairs, names)
    return Comparison(
        schema_version=SCHEMA_VERSION,
        a=_side(a, names[0]),
        b=_side(b, names[1]),
        taxonomy=a.taxonomy,
        clips=len(pairs),
        top1=_change(pairs, lambda p: p.rank == 1),
        top5=_change(pairs, lambda p: p.rank <= 5),
        agreement=_agreement(pairs),
        classes=_classes(pairs, {c.index: c.name for c in a.classes}),
        only_a=tuple(p.key for p in a.predictions if p.key not in of_b),
        only_b=tuple(p.key for p in b.predictions if p.key not in of_a),
        warnings=_warnings(a, b),
    )


def bootstrap_interval(only_a: int, only_b: int, num_clips: int) -> tuple[float, float]:
    """Percentile interval of ``(only_b - only_a) / num_clips`` over resamples of the clips with replacement.

    What a clip adds to the difference is -1, 0 or 1, so that a resample of all clips is one draw of how many of each
    there are: the same distribution, without the clips.
    """
    few, many = sorted((only_a, only_b))
    shares = [few / num_clips, many / num_clips, (num_clips - few - many) / num_clips]
    counts = np.random.default_rng(SEED).multinomial(num_clips, shares, size=RESAMPLES)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = (float(q) for q in np.percentile((counts[:, 1] - counts[:, 0]) / num_clips, [tail, 100 - tail]))
    if only_a == only_b:  # no side is the larger: the interval must not depend on which was drawn first
        return 0.0 - (high - low) / 2, (high - low) / 2
    return (low, high) if only_b > only_a else (0.0 - high, 0.0 - low)


def _require_comparable(
    a: EvaluationReport,
    b: EvaluationReport,
    pairs: Sequence[tuple[Prediction, Prediction]],
    names: tuple[str, str],
) -> None:
    if a.taxonomy != b.taxonomy:
        raise InputError(
            f"{names[0]} is scored in the classes of {a.taxonomy}, {names[1]} in those of {b.taxonomy}",
            hint="compare two models of one taxonomy: `k710 finetune --epochs 0` carries a head over to a release",
        )
    if not pairs:
        raise InputError(
            f"{names[0]} (view {a.view}) and {names[1]} (view {b.view}) have no scored clip in common",
            hint="evaluate both on one view of one build",
        )
    classes_a, classes_b = ({c.index: c.name for c in side.classes} for side in (a, b))
    for one, other in pairs:
        label_a, label_b = classes_a.get(one.label), classes_b.get(other.label)
        if label_a is None or (one.label, label_a) != (other.label, label_b):
            raise InputError(
                f"clip {one.key} is {label_a!r} ({one.label}) in {names[0]} and {label_b!r} ({other.label}) in "
                f"{names[1]}",
                hint="evaluate both on one view of one build; `k710 diff` says how two builds differ",
            )


def _side(report: EvaluationReport, name: str) -> Side:
    return Side(
        name=name,
        checkpoint=report.checkpoint,
        checkpoint_sha256=report.checkpoint_sha256,
        view=report.view,
        test_clips=report.test_clips,
        test_crops=report.test_crops,
        clips_scored=report.clips_scored,
        seen=report.seen_statement,
    )


def _change(pairs: Sequence[tuple[Prediction, Prediction]], is_right: Callable[[Prediction], bool]) -> Change:
    right_a, right_b = (sum(is_right(pair[side]) for pair in pairs) for side in (0, 1))
    both = sum(is_right(one) and is_right(other) for one, other in pairs)
    low, high = bootstrap_interval(right_a - both, right_b - both, len(pairs))
    return Change(
        a=right_a / len(pairs),
        b=right_b / len(pairs),
        difference=(right_b - right_a) / len(pairs),
        low=low,
        high=high,
    )


def _agreement(pairs: Sequence[tuple[Prediction, Prediction]]) -> Agreement:
    right = [(one.rank == 1, other.rank == 1) for one, other in pairs]
    return Agreement(
        both=right.count((True, True)),
        only_a=right.count((True, False)),
        only_b=right.count((False, True)),
        neither=right.count((False, False)),
    )


def _classes(pairs: Sequence[tuple[Prediction, Prediction]], names: dict[int, str]) -> tuple[ClassChange, ...]:
    counts = {index: [0, 0, 0] for index in names}
    for one, other in pairs:
        own = counts[one.label]
        own[0] += 1
        own[1] += one.rank == 1
        own[2] += other.rank == 1
    changed = [
        ClassChange(index=index, name=names[index], clips=clips, a=a, b=b)
        for index, (clips, a, b) in counts.items()
        if a != b
    ]
    # By clips, not by shares: a class of one clip changes by all of it or by nothing.
    return tuple(sorted(changed, key=lambda c: (-abs(c.b - c.a), -abs(c.b - c.a) / c.clips, c.index)))


def _warnings(a: EvaluationReport, b: EvaluationReport) -> tuple[str, ...]:
    found = []
    if a.view != b.view:
        found.append(f"the views differ: {a.view} and {b.view}")
    elif a.view_digest != b.view_digest:
        found.append(f"view {a.view} has other clips or classes in one build than in the other")
    elif a.data_digest != b.data_digest:
        found.append("the clips were encoded in different ways")
    if (a.test_clips, a.test_crops) != (b.test_clips, b.test_crops):
        views_a, views_b = (f"{side.test_clips} x {side.test_crops}" for side in (a, b))
        found.append(f"the test views differ: {views_a} and {views_b} (clips x crops)")
    if a.frame_sampling != b.frame_sampling:
        found.append(f"the frames are chosen in different ways: {a.frame_sampling} and {b.frame_sampling}")
    settings_a, settings_b = ({n: side.settings.get(n) for n in _NUMBERS_DEPEND_ON} for side in (a, b))
    found += [f"the settings differ: {line}" for line in differences(settings_a, settings_b)]
    if a.checkpoint_sha256 == b.checkpoint_sha256:
        found.append("both are of the same weights")
    for side, report in (("A", a), ("B", b)):
        if report.seen_videos is None or report.seen_videos:
            found.append(f"{side}: {report.seen_statement}")
        if report.failed:
            found.append(f"{side}: {len(report.failed):,} clips could not be read")
    return tuple(found)
