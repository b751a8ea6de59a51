"""A trained model as one file for other programs: ``k710 export model``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from k710 import atomic
from k710.config import from_mapping, with_overrides
from k710.errors import UsageError
from k710.labels import LabelMap, load_labels
from uniformerv2.config import HeadSettings
from uniformerv2.formats import BATCHES, FORMATS, Facts, require_onnx
from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.training.classes import ClassTable, taxonomy_of
from uniformerv2.training.source import (
    Source,
    find_weights,
    model_config,
    new_model,
    num_head_rows,
    read_source,
    require_not_of,
    source_classes,
    source_model,
)
from uniformerv2.weights.official import SUFFIXES as OFFICIAL_SUFFIXES


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    """What ``--set`` can change of an export."""

    recipe: str = ""
    """Recipe whose model the weights are of, for a checkpoint that does not say."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """``head.class_order`` names the rows of a checkpoint without a class table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """One ``k710 export model``."""

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
        # Only ONNX has files beside it.
        beside = [self.out.with_name(f"{self.out.name}.data")] if self.out.suffix == ".onnx" else []
        taken = [path for path in (self.out, *beside) if path.exists()]
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
    input_known: bool
    """How the clips of this model are made is known: their colours, normalisation, frames and size."""
    input_shape: tuple[int, ...]
    """Channels, frames, height and width of a clip."""


def export(config: ExportConfig) -> ExportSummary:
    """Write the model of a run or a checkpoint in another program's format, after a comparison with the model itself.

    Raises:
        UsageError: a file that exists or cannot be written, or onnx is not installed.
        CheckpointError: weights that cannot be read, or that do not say what they are.
        AnswerIsNo: what was written computed something else.
    """
    settings = _settings(config)
    format_name, write = FORMATS[config.out.suffix]
    if config.out.suffix == ".onnx":
        require_onnx()
    with atomic.writable(config.out.parent):
        pass  # fail before the model is read and traced rather than after it
    file = find_weights(config.source)
    require_not_of(file, config.out)
    source = read_source(file)
    official = config.out.suffix in OFFICIAL_SUFFIXES
    classes = None if official else _classes(source, settings.head.class_order, load_labels())
    model = _model(source, settings.recipe)
    facts = Facts(
        classes=classes.names if classes else (),
        taxonomy=classes.taxonomy if classes else "",
        # All published Kinetics models take the clips that ours take; heads for other data sets may not.
        input_known=bool(source.config) or bool(taxonomy_of(model.config.num_classes)),
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
        input_known=facts.input_known,
        input_shape=(3, model.config.num_frames, *model.config.frame_size),
    )


def _settings(config: ExportConfig) -> ExportSettings:
    settings = from_mapping(ExportSettings, with_overrides({}, config.overrides), where="--set")
    if settings.head.class_order and config.out.suffix in OFFICIAL_SUFFIXES:
        raise UsageError(f"head.class_order: {config.out.suffix} has no room for classes", hint="leave it out")
    return settings


def _classes(source: Source, class_order: str, labels: LabelMap) -> ClassTable | None:
    """The class of each row; None for a head of none of our taxonomies about which nobody says anything."""
    if source.classes is None and not class_order and not taxonomy_of(num_head_rows(source.state)):
        return None
    return source_classes(source, class_order, labels)


def _model(source: Source, recipe: str) -> UniFormerV2:
    config = model_config(source_model(source, recipe), num_classes=num_head_rows(source.state))
    model = new_model(config, seed=0)
    model.load_official(source.state)
    return model
