"""Score a model on a view of a build: ``k710 evaluate``. Axes: B clips, V test views of a clip, K classes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from k710 import atomic
from k710.config import from_mapping, to_mapping, with_overrides
from k710.errors import FeedError, UsageError
from k710.labels import LabelMap
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import HeadSettings
from uniformerv2.data.feed import ClipBytes, Hole, TestClips, running, test_loader
from uniformerv2.data.sampling import FrameOrder
from uniformerv2.report import SCHEMA_VERSION, EvaluationReport, Prediction, class_scores
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.distributed import pick_device
from uniformerv2.training.engine import cpu_threads
from uniformerv2.training.metrics import OnProgress, Progress, silent
from uniformerv2.training.session import target_labels
from uniformerv2.training.source import (
    Source,
    find_weights,
    model_config,
    new_model,
    read_source,
    require_not_of,
    source_classes,
    source_model,
)
from uniformerv2.weights.remap import HEAD_KEYS, select_rows

_REPORT_FIELDS = {"schema_version", "view", "taxonomy", "top1", "clips_scored", "predictions", "checkpoint_sha256"}
"""By these a file is known to be one of our reports, of this version or another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateSettings:
    """What ``--set`` can change of an evaluation."""

    frame_order: FrameOrder = "source"
    """Order of each test clip's frames; ``shuffled`` and ``reversed`` show whether the model looks at time."""
    test_views_per_batch: int = 32
    """Test views in one forward pass."""
    workers: int = 2
    """Decoding processes; 0: decode in this one."""
    threads: int = 0
    """Torch threads of this process; 0 leaves torch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA when there is one."""
    max_hole_fraction: float = 0.05
    """Share of the view's clips that may fail at read time before the evaluation stops."""
    recipe: str = ""
    """Recipe whose model the weights are of, for a checkpoint that does not say."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """``head.class_order`` names the rows of a checkpoint without a class table."""

    def __post_init__(self) -> None:
        if self.test_views_per_batch < 1 or self.workers < 0 or self.threads < 0:
            raise ValueError("test_views_per_batch must be at least 1, workers and threads at least 0")
        if not 0 <= self.max_hole_fraction <= 1:
            raise ValueError(f"max_hole_fraction must be between 0 and 1, got {self.max_hole_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """One ``k710 evaluate``."""

    view: str
    """View to score on."""
    source: Path = Path("runs/pretrain")
    """Run folder or weights file."""
    data: str = "./k710-data"
    """Build that has the view: a folder or an fsspec URL."""
    clips: int = 4
    """Test clips of each clip, along time."""
    crops: int = 3
    """Crops of each test clip: 1 or 3."""
    out: Path | None = None
    """Where the report goes as JSON; None: nowhere."""
    overrides: tuple[str, ...] = ()
    """``a.b=value`` changes to ``EvaluateSettings``."""

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise UsageError(f"--clips must be at least 1, got {self.clips}")
        if self.crops not in (1, 3):
            raise UsageError(f"--crops must be 1 or 3, got {self.crops}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Exam:
    config: EvaluateConfig
    settings: EvaluateSettings
    labels: LabelMap
    source: Source
    classes: ClassTable
    index: ShardIndex
    view: View
    targets: npt.NDArray[np.int64]


def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = silent) -> EvaluationReport:
    """Score the model on every clip of the view that has bytes and a class, and write the report when asked.

    Raises:
        UsageError: a view without classes, or with classes that the model lacks; frames that are not square; a report
            in the place of something else.
        CheckpointError: weights that cannot be read, or whose class order is unknown.
        FeedError: the build cannot be read, or too many clips fail.
    """
    began = time.perf_counter()
    if config.out is not None:
        _require_free(config.out, find_weights(config.source))
    exam = _exam(config)
    if config.out is not None:
        _require_writable(config.out)
    with cpu_threads(exam.settings.threads):
        scored, failed = _predict(exam, _model(exam), on_progress)
    report = _report(exam, scored, failed, time.perf_counter() - began)
    if config.out is not None:
        atomic.write_json(config.out, report.to_json())
    return report


def _require_free(path: Path, weights: Path) -> None:
    """Refuse to put the report where anything but an older report is, or where a run keeps its files."""
    require_not_of(weights, path)
    if os.path.lexists(path) and not path.is_dir() and not _is_report(path):
        raise UsageError(f"--out {path}: exists and is not a report", hint="give another --out, or remove the file")


def _is_report(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as handle:
            # Weights of gigabytes are not read to see that they are no JSON.
            document = json.loads(b"{" + handle.read()) if handle.read(1) == b"{" else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys() >= _REPORT_FIELDS


def _require_writable(path: Path) -> None:
    """Fail before the scoring, which may take hours, rather than after it."""
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error}") from error


def _exam(config: EvaluateConfig) -> _Exam:
    settings = from_mapping(EvaluateSettings, with_overrides({}, config.overrides), where="--set")
    source, index = read_source(config.source), ShardIndex(config.data)
    labels = index.labels
    view = index.view(config.view)
    if not (view.classes >= 0).any():
        raise UsageError(f"view {view.name} has no classes: it can be predicted, not scored")
    classes = source_classes(source, settings.head.class_order, labels)
    return _Exam(
        config=config,
        settings=settings,
        labels=labels,
        source=source,
        classes=classes,
        index=index,
        view=view,
        targets=target_labels(view, classes.taxonomy, labels),
    )


def _model(exam: _Exam) -> UniFormerV2:
    """The model with its head rows in the order of its taxonomy, in evaluation mode, on its device."""
    source = exam.source
    model = new_model(_square_config(source, exam.settings.recipe, len(exam.classes.names)), seed=0)
    row_of = exam.classes.canonical_rows(exam.labels)
    rows = [row_of[c] for c in exam.labels.rows_for(exam.classes.taxonomy)]
    head = select_rows(source.state[HEAD_KEYS[0]], source.state[HEAD_KEYS[1]], rows)
    model.load_official({**source.state, **dict(zip(HEAD_KEYS, head, strict=True))})
    return model.to(pick_device(exam.settings.device, cpu_hint="--set device=cpu")).eval()


def _square_config(source: Source, recipe: str, num_classes: int) -> UniFormerV2Config:
    """The configuration of the weights, by the file or by ``recipe``; test crops are cut square."""
    config = model_config(source_model(source, recipe), num_classes=num_classes)
    height, width = config.frame_size
    if height != width:
        raise UsageError(
            f"evaluation takes square frames, got model.image_size {config.image_size}",
            hint="name a recipe whose model.image_size is one number",
        )
    return config


def _predict(exam: _Exam, model: UniFormerV2, on_progress: OnProgress) -> tuple[list[Prediction], list[Hole]]:
    config, settings, view = exam.config, exam.settings, exam.view
    positions = [int(p) for p in np.flatnonzero((view.offsets >= 0) & (exam.targets >= 0))]
    clips = TestClips(
        clips=ClipBytes(exam.index.store, view),
        keys=view.keys,
        num_frames=model.config.num_frames,
        size_px=model.config.frame_size[0],
        num_clips=config.clips,
        num_crops=config.crops,
        frame_order=settings.frame_order,
    )
    per_batch = max(1, settings.test_views_per_batch // (config.clips * config.crops))
    scored: list[Prediction] = []
    failed: list[Hole] = []
    loader = test_loader(clips, positions, clips_per_batch=per_batch, workers=settings.workers)
    with running(loader) as batches:
        for made in batches:
            failed += [m for m in made if isinstance(m, Hole)]
            _require_few_holes(failed, len(positions), settings.max_hole_fraction)
            live = [m for m in made if not isinstance(m, Hole)]
            scores = _scores(model, live, settings.test_views_per_batch)
            scored += [_prediction(exam, position, scores_K) for position, scores_K in scores]
            on_progress(Progress(stage="evaluate", step=len(scored) + len(failed), total_steps=len(positions)))
    return scored, failed


@torch.inference_mode()
def _scores(model: UniFormerV2, live: Sequence[tuple[int, Tensor]], views_per_batch: int) -> list[tuple[int, Tensor]]:
    """Mean softmax over the test views of each clip, [K], in fp32 as in the published test."""
    if not live:
        return []
    device = next(model.parameters()).device
    views = torch.cat([views_VCTHW for _, views_VCTHW in live])
    parts = [model(part.to(device)).float().softmax(dim=1).cpu() for part in torch.split(views, views_per_batch)]
    mean_BK = torch.cat(parts).view(len(live), -1, parts[0].shape[1]).mean(dim=1)
    return list(zip((position for position, _ in live), mean_BK, strict=True))


def _prediction(exam: _Exam, position: int, scores_K: Tensor) -> Prediction:
    view, label = exam.view, int(exam.targets[position])
    # A stable sort, so that equal scores rank by class index everywhere.
    order = [int(k) for k in scores_K.argsort(descending=True, stable=True)]
    own = {exam.labels.index_in(exam.classes.taxonomy, c) for c in view.all_classes[position]}
    return Prediction(
        key=view.keys[position],
        label=label,
        predicted=order[0],
        rank=order.index(label) + 1,
        any_of=order[0] in own | {label},
    )


def _require_few_holes(failed: Sequence[Hole], num_clips: int, allowed: float) -> None:
    if len(failed) > allowed * num_clips:
        raise FeedError(
            f"{len(failed)} of {num_clips} clips could not be read, more than {allowed:.0%}; "
            f"the last, at position {failed[-1].position}: {failed[-1].reason}",
            hint=f"{failed[-1].repair}; --set max_hole_fraction=0.5 sets the limit",
        )


def _report(exam: _Exam, scored: Sequence[Prediction], failed: Sequence[Hole], seconds: float) -> EvaluationReport:
    config, source, view = exam.config, exam.source, exam.view
    if not scored:
        raise FeedError(f"view {view.name} has no clip with bytes and a class", hint="`k710 build` with --videos")
    classes = class_scores(scored, exam.labels.taxonomy_names(exam.classes.taxonomy))
    count = len(scored)
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
        seen_videos=source.lineage.count_in(view.id_hashes) if source.lineage.known else None,
        classes=classes,
        predictions=tuple(scored),
        test_clips=config.clips,
        test_crops=config.crops,
        settings=to_mapping(exam.settings),
        model=dict(source.model),
        checkpoint=config.source.name,
        checkpoint_sha256=source.sha256,
        trained_on=source.data_digest,
        view_digest=view.digest,
        data_digest=view.data_digest,
        versions={name: importlib.metadata.version(name) for name in ("torch", "av", "numpy")},
        seconds=seconds,
    )
