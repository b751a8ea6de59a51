"""A trained model as one file for other programs: ``k710 export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, with_overrides
from k710.errors import CheckpointError, UsageError
from k710.labels import NUM_CLASSES, TAXONOMIES, LabelMap, load_labels
from uniformerv2.config import read_recipe
from uniformerv2.formats import (
    BATCHES,
    FORMATS,
    Facts,
    export_official,
    export_onnx,
    export_program,
    export_pt2,
    require_onnx,
)
from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.source import Source, find_weights, model_config, new_model, read_source, source_classes
from uniformerv2.weights.official import SUFFIXES as OFFICIAL_SUFFIXES
from uniformerv2.weights.remap import HEAD_KEYS

__all__ = [
    "ExportConfig",
    "ExportSettings",
    "ExportSummary",
    "HeadSettings",
    "export",
    "export_official",
    "export_onnx",
    "export_program",
    "export_pt2",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """The classifier of a checkpoint."""

    class_order: str = ""
    """Rows of a checkpoint without a class table: ``canonical``, ``uniformerv2``, or a CSV with a ``name`` column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    """What ``--set`` can change of an export."""

    recipe: str = ""
    """Recipe whose model the weights are of, for a checkpoint that does not say."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """``head.class_order`` names the rows of a checkpoint without a class table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """One ``k710 export``."""

    out: Path
    """File to write; its suffix decides the format."""
    source: Path = Path("runs/pretrain")
    """Run folder or weights file."""
    force: bool = False
    """Replace ``out`` when it exists."""
    overrides: tuple[str, ...] = ()
    """``a.b=value`` changes to ``ExportSettings``."""

    def __post_init__(self) -> None:
        if self.out.suffix not in FORMATS:
            raise UsageError(f"--out {self.out}: the suffix says the format: {', '.join(FORMATS)}")
        if self.out.is_dir():
            raise UsageError(f"--out {self.out}: is a folder", hint="give the name of a file")
        taken = [p for p in (self.out, self.out.with_name(f"{self.out.name}.data")) if p.exists()]
        if taken and not self.force:
            raise UsageError(f"{taken[0]}: exists", hint="give another --out, or replace it with --force")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """What an export wrote."""

    out: Path
    """The file."""
    format: str
    """Name of its format."""
    size_bytes: int
    """Of the file, and of the one beside it."""
    external_data: Path | None
    """File beside an ONNX file that holds its weights, when they are too many for one; the two belong together."""
    largest_difference: float
    """Of logits from the model itself, on random clips."""
    batch_sizes: tuple[int, ...]
    """Sizes of the batches that were compared."""
    source: Path
    """Weights file that was read."""
    source_sha256: str
    """Of that file."""
    taxonomy: str
    """Of the classes; empty: unknown."""
    num_classes: int
    """Rows of the logits."""
    class_names: bool
    """The file says which class each row is."""
    input_shape: tuple[int, ...]
    """Channels, frames, height and width of a clip."""


def export(config: ExportConfig) -> ExportSummary:
    """Write the model of a run or a checkpoint in another program's format, after a comparison with the model itself.

    Raises:
        UsageError: a file that exists or cannot be written, or onnx is not installed.
        CheckpointError: weights that cannot be read, or that do not say what they are.
        AnswerIsNo: what was written computed something else.
    """
    settings = from_mapping(ExportSettings, with_overrides({}, config.overrides), where="--set")
    format_name, write = FORMATS[config.out.suffix]
    if config.out.suffix == ".onnx":
        require_onnx()
    with atomic.writable(config.out.parent):
        pass  # fail before the model is read and traced rather than after it
    file = find_weights(config.source)
    if config.out.exists() and config.out.samefile(file):
        raise UsageError(f"--out {config.out}: is the file to be exported", hint="give another --out")
    source = read_source(file)
    official = config.out.suffix in OFFICIAL_SUFFIXES
    classes = None if official else _classes(source, settings.head.class_order, load_labels())
    model = _model(source, settings.recipe)
    facts = Facts(
        classes=classes.names if classes else (),
        taxonomy=classes.taxonomy if classes else "",
        source_sha256=source.sha256,
        data_digest=source.data_digest,
    )
    written = write(model, config.out, facts)
    return ExportSummary(
        out=config.out,
        format=format_name,
        size_bytes=written.size_bytes,
        external_data=written.external_data,
        largest_difference=written.difference,
        batch_sizes=BATCHES,
        source=file,
        source_sha256=source.sha256,
        taxonomy=facts.taxonomy,
        num_classes=model.config.num_classes,
        class_names=bool(facts.classes),
        input_shape=(3, model.config.num_frames, *model.config.frame_size),
    )


def _classes(source: Source, class_order: str, labels: LabelMap) -> ClassTable | None:
    """The class of each row; None for a head of none of our taxonomies about which nobody says anything."""
    if source.classes is None and not class_order and not source.class_order:
        num_rows = len(source.state[HEAD_KEYS[1]]) if HEAD_KEYS[1] in source.state else 0
        if num_rows in (NUM_CLASSES, *TAXONOMIES.values()):
            raise CheckpointError(
                "the checkpoint does not say which class each row of its head is",
                hint="name the order: --set head.class_order=canonical, =uniformerv2 (published by OpenGVLab) or "
                "=FILE.csv with a `name` column in row order",
            )
        return None
    return source_classes(source, class_order, labels)


def _model(source: Source, recipe: str) -> UniFormerV2:
    values = source.model or (read_recipe(recipe).get("model", {}) if recipe else {})
    if not values:
        raise CheckpointError(
            "the checkpoint does not say what model it is of", hint="name its recipe: --set recipe=k710_b16"
        )
    rows = {"num_classes": len(source.state[HEAD_KEYS[1]])} if HEAD_KEYS[1] in source.state else {}
    model = new_model(model_config(values, **rows), seed=0)
    model.load_official(source.state)
    return model
