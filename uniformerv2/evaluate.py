"""Score a model on a view of a build: ``k710 evaluate``. Axes: N clips, K classes."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from k710.config import from_mapping, to_mapping, with_overrides
from k710.errors import CheckpointError, FeedError, UsageError
from uniformerv2.data.feed import Hole
from uniformerv2.exam import EvaluateSettings, Exam, read_exam, versions
from uniformerv2.partial_scores import PartialScores
from uniformerv2.report import CONFUSIONS, SCHEMA_VERSION, EvaluationReport, Prediction, class_scores, top_confusions
from uniformerv2.report_files import ReportFiles
from uniformerv2.scores import (
    ScoredBatch,
    Scoring,
    ScoringStoppedError,
    none_scored,
    ranks_of_class,
    scored_in_turns,
)
from uniformerv2.training.distributed import Ranks, on_ranks, pick_device
from uniformerv2.training.engine import cpu_threads
from uniformerv2.training.metrics import OnProgress, Progress, silent
from uniformerv2.training.source import find_weights
from uniformerv2.training.stopping import StopFlag, stop_flag


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """One ``k710 evaluate``."""

    view: str
    """View to score on."""
    source: Path = Path("runs/pretrain")
    """Run folder or weights file."""
    data: str = "./k710-data"
    """Build that has the view: a folder or an fsspec URL."""
    clips: int | None = None
    """Test clips of each clip, along time; None: what the recipe of the weights says."""
    crops: int | None = None
    """Crops of each test clip, 1 or 3; None: what the recipe of the weights says."""
    out: Path | None = None
    """Where the report goes as JSON; None: nowhere."""
    scores: Path | None = None
    """Where the probabilities of every class go as Parquet; None: nowhere."""
    confusion: Path | None = None
    """Where the confusion matrix goes as Parquet; None: nowhere."""
    devices: int = 1
    """Processes on this machine, one device each; torchrun sets its own number."""
    overrides: tuple[str, ...] = ()
    """``a.b=value`` changes to ``EvaluateSettings``."""

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise UsageError(f"--clips must be at least 1, got {self.clips}")
        if self.crops not in (None, 1, 3):
            raise UsageError(f"--crops must be 1 or 3, got {self.crops}")
        if self.devices < 1:
            raise UsageError(f"--devices must be at least 1, got {self.devices}")

    @property
    def files(self) -> ReportFiles:
        """What is written."""
        return ReportFiles(out=self.out, scores=self.scores, confusion=self.confusion)

    @property
    def settings(self) -> EvaluateSettings:
        """The settings with the overrides applied."""
        return from_mapping(EvaluateSettings, with_overrides({}, self.overrides), where="--set")


def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = silent) -> EvaluationReport:
    """Score the model on every clip of the view that has bytes and a class, and write what was asked for.

    The report is the same to the bit, but for its seconds, on any number of devices of one kind, and when it goes on
    from what a call with the same arguments had scored before it was ended.

    Raises:
        UsageError: a view without classes, or with classes that the model lacks; frames that are not square; a file
            in the place of something else.
        CheckpointError: weights that cannot be read, whose class order is unknown, or that give no finite scores.
        FeedError: the build cannot be read, or too many clips fail.
        StoppedOnPurposeError: SIGTERM or SIGUSR1 came; what was scored is kept.
    """
    settings, files = config.settings, config.files
    files.require_free(find_weights(config.source))
    for rank in range(config.devices):
        pick_device(settings.device, rank, cpu_hint="--set device=cpu")
    work = functools.partial(_evaluate_on_rank, config)
    return on_ranks(work, devices=config.devices, device=settings.device, on_progress=on_progress)


def _evaluate_on_rank(config: EvaluateConfig, ranks: Ranks, on_progress: OnProgress) -> EvaluationReport:
    began = time.perf_counter()
    files = config.files
    exam = read_exam(config.source, config.data, config.view, config.settings, clips=config.clips, crops=config.crops)
    ranks.from_first(files.require_writable)
    with cpu_threads(exam.settings.threads), stop_flag() as stop:
        scored = _score(exam, files.partial, ranks, stop, on_progress)

    def finish() -> EvaluationReport:
        predictions, scores_NK = _predictions(exam, scored)
        report = _report(exam, config.source.name, predictions, _holes(scored), time.perf_counter() - began)
        files.write(report, scores_NK, exam.names)
        scored.remove()
        return report

    return ranks.from_first(finish)


def _score(exam: Exam, folder: Path | None, ranks: Ranks, stop: StopFlag, on_progress: OnProgress) -> PartialScores:
    """All batches of the view, of all ranks on rank 0; those that an earlier call kept are not scored again."""
    model, positions = exam.model().to(ranks.device), exam.positions
    kept = PartialScores(folder, exam.digest(ranks.device.type), every_s=exam.settings.save_every_s)
    total = len(positions)

    def say(text: str) -> None:
        on_progress(Progress(stage="evaluate", step=0, total_steps=total, said=(text,)))

    scoring = Scoring(
        clips=exam.test_views(model),
        positions=positions,
        views_per_batch=exam.settings.test_views_per_batch,
        workers=exam.settings.workers,
        ranks=ranks,
        precision=exam.settings.precision,
        done=ranks.from_first(lambda: kept.read(say)),
        stop=stop,
    )
    before = done = sum(len(scoring.positions_of(number)) for number in scoring.done)
    if before:
        say(f"goes on: {before:,} of {total:,} clips were scored before")
    holes: list[Hole] = []
    began = time.perf_counter()
    try:
        for turn in scored_in_turns(model, scoring):
            _require_finite(exam, turn)
            if ranks.rank == 0:
                kept.add(turn)
            holes += [hole for batch in turn for hole in batch.holes]
            _require_few_holes(holes, total, exam.settings.max_hole_fraction)
            done += sum(len(scoring.positions_of(batch.number)) for batch in turn)
            speed = (done - before) / max(time.perf_counter() - began, 1e-9)
            on_progress(Progress(stage="evaluate", step=done, total_steps=total, clips_per_s=speed, holes=len(holes)))
    except ScoringStoppedError:
        where = f"; what was scored is kept in {folder}" if folder else "; nothing is kept without a file to write"
        stop.leave(f"after {done:,} of {total:,} clips{where}")
    finally:
        kept.save()
    return kept


def _require_finite(exam: Exam, batches: Sequence[ScoredBatch]) -> None:
    """Refuse scores that are no numbers before they are kept: they are an error, not a low score."""
    for batch in batches:
        finite_N = np.isfinite(batch.scores_NK).all(axis=1)
        if not finite_N.all():
            raise CheckpointError(
                f"the model's scores of clip {exam.view.keys[batch.positions[int(finite_N.argmin())]]} are not finite",
                hint="use other weights" if exam.settings.precision == "fp32" else "score with --set precision=fp32",
            )


def _require_few_holes(failed: Sequence[Hole], num_clips: int, allowed: float) -> None:
    if len(failed) > allowed * num_clips:
        raise FeedError(
            f"{len(failed)} of {num_clips} clips could not be read, more than {allowed:.0%}; "
            f"the last, {failed[-1].place}: {failed[-1].reason}",
            hint=f"{failed[-1].repair}; --set max_hole_fraction=0.5 sets the limit",
        )


def _holes(scored: PartialScores) -> list[Hole]:
    """Clips that could not be read, in the order of the view."""
    return [hole for _, batch in sorted(scored.batches.items()) for hole in batch.holes]


def _predictions(exam: Exam, scored: PartialScores) -> tuple[list[Prediction], npt.NDArray[np.float32]]:
    """What was predicted for each clip, in the order of the view, and the probabilities behind it."""
    batches = [batch for _, batch in sorted(scored.batches.items()) if batch.positions]
    if not batches:
        raise none_scored(exam.view, _holes(scored))
    _require_finite(exam, batches)  # also those that an earlier call kept
    positions = [position for batch in batches for position in batch.positions]
    scores_NK = np.concatenate([batch.scores_NK for batch in batches])
    labels_N = exam.targets[positions]
    places_N, predicted_N = ranks_of_class(scores_NK, labels_N), scores_NK.argmax(axis=1)
    predictions = [
        _prediction(exam, position, int(labels_N[row]), int(predicted_N[row]), int(places_N[row]))
        for row, position in enumerate(positions)
    ]
    return predictions, scores_NK


def _prediction(exam: Exam, position: int, label: int, predicted: int, rank: int) -> Prediction:
    own = {exam.labels.index_in(exam.classes.taxonomy, c) for c in exam.view.all_classes[position]}
    return Prediction(
        key=exam.view.keys[position],
        label=label,
        predicted=predicted,
        rank=rank,
        any_of=predicted in own | {label},
    )


def _report(
    exam: Exam, checkpoint: str, scored: Sequence[Prediction], failed: Sequence[Hole], seconds: float
) -> EvaluationReport:
    source, view = exam.source, exam.view
    classes, count = class_scores(scored, exam.names), len(scored)
    seen = source.lineage.count_in(view.id_hashes)
    return EvaluationReport(
        schema_version=SCHEMA_VERSION,
        view=view.name,
        taxonomy=exam.classes.taxonomy,
        top1=sum(p.rank == 1 for p in scored) / count,
        top5=sum(p.rank <= 5 for p in scored) / count,
        any_of_top1=sum(p.any_of for p in scored) / count if view.release == "k710" else None,
        chance=1 / len(classes),
        mean_class_top1=sum(c.top1 for c in classes) / len(classes),
        clips_scored=count,
        clips_listed=len(view),
        clips_without_bytes=int((view.offsets < 0).sum()),
        clips_without_class=int((exam.targets < 0).sum()),
        failed=tuple((view.keys[h.position], h.reason) for h in failed),
        lineage=source.lineage.statement,
        seen_videos=seen if source.lineage.known else None,
        seen_at_least=seen,
        classes=classes,
        confusions=top_confusions(scored, exam.names, CONFUSIONS),
        predictions=tuple(scored),
        test_clips=exam.test.clips,
        test_crops=exam.test.crops,
        test_views_from=exam.test_from,
        frame_sampling=exam.frame_sampling,
        settings=to_mapping(exam.settings),
        model=dict(source.model),
        checkpoint=checkpoint,
        checkpoint_sha256=source.sha256,
        trained_on=source.data_digest,
        view_digest=view.digest,
        data_digest=view.data_digest,
        versions=versions(),
        seconds=seconds,
    )
