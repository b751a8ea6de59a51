"""The settings of a training run, and the recipes that fill them: default < recipe file < ``--set a.b=value``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from k710.config import from_mapping, with_overrides
from k710.errors import UsageError
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.models.uniformerv2_config import UniFormerV2Config
from uniformerv2.recipe_files import read_recipe, recipe_names

__all__ = [
    "DataConfig",
    "HeadConfig",
    "HeadSettings",
    "OptimConfig",
    "Recipe",
    "RuntimeConfig",
    "TestConfig",
    "ValidationConfig",
    "depends_on_micro_batch",
    "read_recipe",
    "recipe_names",
    "require_finite",
    "resolve_recipe",
    "with_accumulation",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What is fed, and in which portions."""

    view: str = "k710-train"
    """View to train on; fine-tuning takes the target's own unless ``--train-view`` names one."""
    global_batch: int = 256
    """Clips of one optimiser step, over all processes. With another one, change the learning rate too."""
    micro_batch: int = 32
    """Clips of one forward pass; what memory allows."""
    repeats: int = 1
    """Augmentations of each decoded clip; the effective batch is this many times larger."""
    window: int = -1
    """Blocks of 1,000 clips shuffled together; 0: the whole view; -1: 0 on a local disk, 64 on an object store."""
    workers: int = 8
    """Decoding processes per rank; 0: decode in the training process."""
    decoder: Literal["pyav", "torchcodec"] = "pyav"
    """Library that decodes: ``pyav``, which reads only what the wanted frames need, or ``torchcodec`` with an FFmpeg of
    the system; refused where it gives other pixels."""
    sampling: Literal["sparse", "dense"] = "sparse"
    """``sparse``: one frame from each equal part of the clip, as published; ``dense``: neighbours at ``stride``."""
    stride: int = 4
    """Distance of neighbouring frames under ``dense`` sampling, in frames of the clip."""
    max_hole_fraction: float = 0.05
    """Share of an epoch's clips that may fail at read time before the run stops."""
    feature_views: int = 0
    """Draws of frames, crop and augmentation that a clip has in the whole run: epoch e takes draw e mod this, and what
    a frozen backbone makes of each is computed once; 0: every epoch draws anew, as published."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "global_batch", "micro_batch", "repeats", "stride")
        _at_least(self, 0, "feature_views", "workers")
        _at_least(self, -1, "window")
        if not 0 <= self.max_hole_fraction <= 1:
            raise ValueError(f"max_hole_fraction must be between 0 and 1, got {self.max_hole_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW and its schedule; defaults are what all published runs share."""

    epochs: int = 55
    """Passes over the view; 0 writes the initial weights."""
    base_lr: float = 1e-5
    """Learning rate after warm-up; it is not scaled with the batch."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up."""
    warmup_start_lr: float = 1e-6
    """Learning rate at the first step of the warm-up."""
    end_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: float = 0.05
    """On parameters with two or more dimensions; none on norms, biases and other vectors."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the running square."""
    clip_norm: float = 20.0
    """Largest norm of the whole gradient."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the layer after it; 1: the same for all, as published."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    ema_decay: float = 0.0
    """Decay per step of a running average of the weights, which is saved and validated beside them; 0: none."""
    max_bad_steps: int = 10
    """Steps in a row whose loss or gradient is not finite that are skipped before the run stops."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "epochs", "warmup_epochs", "weight_decay", "base_lr", "warmup_start_lr", "end_lr")
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs {self.epochs}, got {self.warmup_epochs}")
        _at_least(self, 0, "max_bad_steps")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("clip_norm", "eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Where the classifier's rows come from."""

    init: Literal["by_name", "random"] = "by_name"
    """``by_name`` gathers the row of each class from the checkpoint; ``random`` starts a new classifier."""
    class_order: str = ""
    """Rows of a checkpoint that does not say: ``canonical``, ``uniformerv2``, ``mmaction2``, or a CSV with ``name``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSettings:
    """The classifier of a checkpoint that is used as it is."""

    class_order: str = ""
    """Rows of a checkpoint that does not say: ``canonical``, ``uniformerv2``, ``mmaction2``, or a CSV with ``name``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """The machine; all but ``precision`` may differ when a run goes on: only the last digits can depend on them."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA when there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass, under autocast; weights, gradients and optimiser stay fp32. ``auto``: ``bf16`` on an
    accelerator, ``fp32`` on a CPU; ``fp16`` scales the loss."""
    sharding: Literal["none", "fsdp"] = "none"
    """``fsdp`` splits weights, gradients and optimiser over the ranks; ``none`` keeps all of them on each."""
    threads: int = 0
    """Torch threads of each training process; 0 leaves torch's choice. On a CPU shared with workers 1 is fastest."""
    recompute_layers: int = 0
    """First layers of the backbone whose activations are computed again in the backward pass, to save memory."""
    recompute_every: int = 1
    """Of those, only every so many: 2 recomputes every second one."""
    keep_features: bool = True
    """Keep the features of ``data.feature_views`` in the run folder; else each epoch computes them, to the same bit."""
    compile: bool = False
    """Compile every block before the first step: minutes once, then faster on a GPU."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one is written at each epoch's end too."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, beside the best one."""
    log_every: int = 10
    """Steps between lines of ``log.jsonl``."""
    restart_epoch: bool = False
    """Go on at the next epoch when the data or the global batch differ from the checkpoint's."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "threads", "recompute_layers")
        _at_least(self, 1, "recompute_every", "checkpoint_every", "keep_checkpoints", "log_every")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Scoring during training, one centre crop of one test clip each, as published; the best epoch is kept."""

    view: str = ""
    """View to score on; empty: none."""
    every_epochs: int = 1
    """Epochs between two scorings; the last epoch is always scored."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "every_epochs")


@dataclass(frozen=True, kw_only=True, slots=True)
class TestConfig:
    """The test views with which the published figures of such a model were made."""

    __test__ = False  # the name begins as pytest's do
    clips: int = 4
    """Test clips along time."""
    crops: int = 3
    """Crops of each test clip: 1 or 3."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "clips")
        if self.crops not in (1, 3):
            raise ValueError(f"crops must be 1 or 3, got {self.crops}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One training run, whole: everything but paths and policies."""

    about: str
    """One line: what this trains, and where its values are from."""
    model: UniFormerV2Config
    """The model; fine-tuning takes what a recipe leaves out from the checkpoint."""
    finetune_recipe: str = ""
    """Recipe that fine-tuning takes for a model trained with this one, when none is named."""
    seed: int = 6666
    """Of initial weights, order, augmentation and dropout."""
    data: DataConfig = field(default_factory=DataConfig)
    """The feed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Training-time changes to pictures."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The classifier."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Scoring during training."""
    test: TestConfig = field(default_factory=TestConfig)
    """Scoring afterwards."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    """The machine."""

    def __post_init__(self) -> None:
        height, width = self.model.frame_size
        if height != width:
            raise ValueError(f"training takes square frames, got model.image_size {self.model.image_size}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
        self._check_feature_views()

    @property
    def size_px(self) -> int:
        """Side of the crop that the model takes."""
        return self.model.frame_size[0]

    def _check_feature_views(self) -> None:
        """What is kept must be all that decides the features: no weight that trains, no mask, no other clip."""
        if not self.data.feature_views:
            return
        needed = {
            "model.frozen_backbone": (self.model.frozen_backbone, True),
            "model.drop_path_backbone": (self.model.drop_path_backbone, 0.0),
            "augment.mixup": (self.augment.mixup, 0.0),
            "augment.cutmix": (self.augment.cutmix, 0.0),
            "runtime.sharding": (self.runtime.sharding, "none"),
        }
        for name, (value, wanted) in needed.items():
            if value != wanted:
                shown, given = (str(v).lower() if isinstance(v, bool) else v for v in (wanted, value))
                raise ValueError(f"data.feature_views {self.data.feature_views} needs {name} = {shown}, got {given}")


def resolve_recipe(
    values: Mapping[str, Any], overrides: Sequence[str], *, model: Mapping[str, Any] | None = None, where: str
) -> Recipe:
    """The recipe of ``values`` with ``--set`` applied; ``model`` fills what its model table leaves out."""
    merged = with_overrides(dict(values), overrides)
    table = merged.get("model", {})
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}.model: expected a group of settings, got {table!r}")
    merged["model"] = {**(model or {}), **table}
    require_finite(merged, where)
    return from_mapping(Recipe, merged, where=where)


def with_accumulation(recipe: Recipe, accumulate: str, world: int) -> Recipe:
    """The recipe for ``world`` processes: ``auto`` is the recipe's own micro-batch, so that fewer devices take more
    of them; a number is that of micro-batches a step on each process, of whatever size keeps the global batch.

    Raises:
        UsageError: neither, or the global batch does not divide.
    """
    if accumulate == "auto":
        return recipe
    if not accumulate.isascii() or not accumulate.isdigit() or int(accumulate) < 1:
        raise UsageError(f"--accumulate must be auto or a number from 1 on, got {accumulate!r}")
    total, num = recipe.data.global_batch, int(accumulate)
    micro, rest = divmod(total, num * world)
    if rest or not micro:
        fitting = [n for n in range(1, total // world + 1) if total % (n * world) == 0]
        known = f"numbers that do: {', '.join(map(str, fitting))}" if fitting else "change the number of devices"
        raise UsageError(
            f"data.global_batch {total} does not divide into --accumulate {num} micro-batches on each of {world} "
            "process(es)",
            hint=known,
        )
    return replace(recipe, data=replace(recipe.data, micro_batch=micro))


def depends_on_micro_batch(model: Mapping[str, Any], augment: Mapping[str, Any]) -> bool:
    """Whether more than last digits depends on ``data.micro_batch``: batch statistics do, and so do mixed samples."""
    return bool(model.get("local_blocks") or augment.get("mixup") or augment.get("cutmix"))


def require_finite(value: Any, where: str) -> None:
    """Raise a ``UsageError`` that names the first setting in ``value`` that is ``nan`` or infinite."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            require_finite(inner, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            require_finite(inner, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where} must be a finite number, got {value}")


def _at_least(config: object, smallest: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < smallest:
            raise ValueError(f"{name} must be at least {smallest}, got {getattr(config, name)}")
