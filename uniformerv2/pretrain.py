"""Pre-train on a view of a build: ``k710 pretrain``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from k710.errors import CheckpointError, UsageError
from k710.labels import LabelMap, load_labels
from k710.shards.index import ShardIndex
from uniformerv2 import UniFormerV2
from uniformerv2.config import Recipe, read_recipe, resolve_recipe
from uniformerv2.training.distributed import Ranks, on_ranks
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.session import run
from uniformerv2.training.source import file_sha256, new_model, read_source, start_model
from uniformerv2.training.task import RunSummary, Task
from uniformerv2.weights.image_vit import load_clip
from uniformerv2.weights.published import read_weights

TARGET = "k710"
INIT_KINDS = ("run", "official", "clip")
"""``run``: weights of ours; ``official``: a published UniFormerV2; ``clip``: OpenAI CLIP's image transformer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """One ``k710 pretrain``: paths and policies; everything else is in the recipe."""

    recipe: str
    """Name of a packaged recipe, or a path that ends in ``.toml``."""
    data: str = "./k710-data"
    """Build to train on: a folder or an fsspec URL."""
    out: Path = Path("runs/pretrain")
    """Run folder."""
    init: str | None = None
    """Initial weights as ``KIND:PATH``; None: random ones."""
    resume: bool = False
    """The run must exist."""
    fresh: bool = False
    """The folder must be empty."""
    allow_leaks: bool = False
    """Go on when the train view shares videos with a protected list."""
    devices: int = 1
    """Processes on this machine, one device each; torchrun sets its own number."""
    overrides: tuple[str, ...] = ()
    """``a.b=value`` changes to the recipe."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UsageError(f"--devices must be at least 1, got {self.devices}")


def pretrain(config: PretrainConfig, *, on_progress: OnProgress = silent) -> RunSummary:
    """Train a K710 model to the end of its recipe, going on from where the run folder is.

    Raises:
        UsageError: wrong settings, or a folder that holds something else.
        AnswerIsNo: the train view shares videos with a protected list.
        FeedError: the build cannot be read, or too many clips fail.
        CheckpointError: weights or a checkpoint that do not fit.
        StoppedOnPurposeError: SIGTERM came; the run is saved.
    """
    recipe = _recipe(config)
    work = functools.partial(_pretrain_on_rank, config)
    return on_ranks(work, devices=config.devices, device=recipe.runtime.device, on_progress=on_progress)


def _recipe(config: PretrainConfig) -> Recipe:
    recipe = resolve_recipe(read_recipe(config.recipe), config.overrides, where=config.recipe)
    num_classes = len(load_labels().rows)
    if recipe.model.num_classes != num_classes:
        raise UsageError(f"model.num_classes must be {num_classes} to pre-train, got {recipe.model.num_classes}")
    return recipe


def _pretrain_on_rank(config: PretrainConfig, ranks: Ranks, on_progress: OnProgress) -> RunSummary:
    recipe, labels = _recipe(config), load_labels()
    index = ShardIndex(config.data)
    model, lineage, init = _start(recipe, config.init, labels)
    task = Task(
        command="pretrain",
        target=TARGET,
        releases=(),
        recipe=recipe,
        model=model,
        lineage=lineage,
        init=init,
        index=index,
        view=index.view(recipe.data.view) if recipe.optim.epochs else None,
        labels=labels,
        out=config.out,
        resume=config.resume,
        fresh=config.fresh,
        allow_leaks=config.allow_leaks,
    )
    return run(task, ranks, on_progress)


def _start(recipe: Recipe, init: str | None, labels: LabelMap) -> tuple[UniFormerV2, Lineage, dict[str, str]]:
    """The model, what its weights have seen, and what they are."""
    if init is None:
        return new_model(recipe.model, recipe.seed), Lineage(), {"kind": "random"}
    kind, sign, name = init.partition(":")
    if not sign or kind not in INIT_KINDS:
        raise UsageError(f"--init {init}: expected KIND:PATH", hint=f"kinds: {', '.join(INIT_KINDS)}")
    path = Path(name)
    if kind == "clip":
        model = new_model(recipe.model, recipe.seed)
        load_clip(model, read_weights(path))
        # CLIP has seen no Kinetics list that is known of; lineage is about views.
        return model, Lineage(), {"kind": kind, "sha256": file_sha256(path)}
    source = read_source(path)
    if (source.classes is None) != (kind == "official"):
        raise CheckpointError(f"{path}: not weights of kind {kind!r}", hint=f"kinds: {', '.join(INIT_KINDS)}")
    model = start_model(recipe.model, source, TARGET, recipe.head, labels, recipe.seed)
    return model, source.lineage, {"kind": kind, "sha256": source.sha256}
