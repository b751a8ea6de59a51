"""Pre-train on a view of a build: ``k710 pretrain``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from k710.config import with_overrides
from k710.errors import CheckpointError, UsageError
from k710.labels import MERGED, TAXONOMIES, LabelMap, load_labels
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import Recipe, read_recipe, resolve_recipe, with_accumulation
from uniformerv2.data.reading import ReadingConfig
from uniformerv2.training.distributed import Ranks, on_ranks
from uniformerv2.training.feeds import stream_config
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.session import run
from uniformerv2.training.source import Source, file_sha256, new_model, read_source, start_model
from uniformerv2.training.task import RunSummary, Task
from uniformerv2.weights.files import read_weights
from uniformerv2.weights.image_kinds import KINDS
from uniformerv2.weights.image_vit import load_image_vit, source_settings
from uniformerv2.weights.load_report import LoadReport

INIT_KINDS = ("run", "official", *KINDS)
"""``run``: weights of ours; ``official``: a published UniFormerV2; the others: image transformers."""
SOURCE_SETTINGS = ("gelu", "norm_eps", "pre_norm")
"""Settings of a model that its initial weights decide, because they were trained with them."""
RUN_SETTINGS = ("heads", "global_layers", "fusion")
"""Those that a run of ours records too; of other weights only the user knows them."""

OnLoaded = Callable[[LoadReport], None]


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
    accumulate: str = "auto"
    """Micro-batches of a step on each process: ``auto`` for as many as the recipe's micro-batch makes, or a number."""
    stream: tuple[str, ...] = ()
    """Foreign WebDataset shards to train on instead of the build: paths or URLs, with ``{000..099}`` and ``*``."""
    stream_clips: int | None = None
    """How many of their clips make an epoch."""
    cache: Path | None = None
    """Local folder that keeps the clips of a build on an object store; None: every epoch reads them anew."""
    cache_gb: int = 100
    """The most that it takes, in GiB."""
    overrides: tuple[str, ...] = ()
    """``a.b=value`` changes to the recipe."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UsageError(f"--devices must be at least 1, got {self.devices}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """What a run starts from."""

    recipe: Recipe
    """With the settings that the initial weights decide."""
    model: UniFormerV2
    """With its initial weights."""
    lineage: Lineage
    """What they have seen."""
    init: dict[str, str]
    """What they are."""
    report: LoadReport | None = None
    """What became of the entries of an image transformer."""


def unreported(_: LoadReport) -> None:
    """Show nothing."""


def pretrain(
    config: PretrainConfig, *, on_progress: OnProgress = silent, on_loaded: OnLoaded = unreported
) -> RunSummary:
    """Train a K710 model to the end of its recipe, going on from where the run folder is.

    ``on_loaded`` is told what became of an image transformer's weights; with several devices it must be picklable.

    Raises:
        UsageError: wrong settings, or a folder that holds something else.
        AnswerIsNo: the train view shares videos with a protected list.
        FeedError: the build cannot be read, or too many clips fail.
        CheckpointError: weights or a checkpoint that do not fit.
        StoppedOnPurposeError: SIGTERM or SIGUSR1 came; the run is saved.
    """
    recipe = _recipe(config)
    work = functools.partial(_pretrain_on_rank, config, on_loaded)
    return on_ranks(work, devices=config.devices, device=recipe.runtime.device, on_progress=on_progress)


def _recipe(config: PretrainConfig) -> Recipe:
    return resolve_recipe(read_recipe(config.recipe), config.overrides, where=config.recipe)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """What is trained on."""

    index: ShardIndex | None
    """The build; None: foreign shards."""
    view: View | None
    """Its view; None: foreign shards."""
    labels: LabelMap
    """The class table."""
    target: str
    """Whose classes the model learns."""


def _data_of(config: PretrainConfig) -> _Data:
    recipe = _recipe(config)
    if config.stream or config.stream_clips is not None:
        labels = load_labels()
        return _Data(index=None, view=None, labels=labels, target=_target_by_number(recipe, labels))
    index = ShardIndex(config.data)
    view = index.view(recipe.data.view)
    return _Data(index=index, view=view, labels=index.labels, target=_target(recipe, view, index.labels))


def _target_by_number(recipe: Recipe, labels: LabelMap) -> str:
    sizes = {len(labels.rows_for(taxonomy)): taxonomy for taxonomy in TAXONOMIES} | {labels.num_classes: MERGED}
    if recipe.model.num_classes not in sizes:
        raise UsageError(
            f"model.num_classes must be one of {', '.join(map(str, sorted(sizes)))}, got {recipe.model.num_classes}",
            hint="labels of streamed shards are rows of k400, k600, k700 or of the merged classes",
        )
    return sizes[recipe.model.num_classes]


def _target(recipe: Recipe, view: View, labels: LabelMap) -> str:
    """Whose classes the model learns: the merged ones, or those of the view's own taxonomy, by their number."""
    sizes = {MERGED: labels.num_classes, view.taxonomy: len(labels.rows_for(view.taxonomy))}
    for target, size in sizes.items():
        if recipe.model.num_classes == size:
            return target
    own = "" if view.taxonomy == MERGED else f", or {sizes[view.taxonomy]} for the classes of {view.name}"
    raise UsageError(
        f"model.num_classes must be {labels.num_classes} to pre-train{own}, got {recipe.model.num_classes}",
        hint=f"--set model.num_classes={labels.num_classes}: the build's class table has as many",
    )


def _named_settings(config: PretrainConfig) -> frozenset[str]:
    """Settings of the model that the recipe or ``--set`` names, with whatever value."""
    return frozenset(with_overrides(read_recipe(config.recipe), config.overrides).get("model", {}))


def _pretrain_on_rank(config: PretrainConfig, on_loaded: OnLoaded, ranks: Ranks, on_progress: OnProgress) -> RunSummary:
    data = _data_of(config)
    labels, view, target = data.labels, data.view, data.target
    start = _start(_recipe(config), _named_settings(config), config.init, target, labels)
    if start.report is not None and ranks.rank == 0:
        on_loaded(start.report)
    recipe = with_accumulation(start.recipe, config.accumulate, ranks.world)
    task = Task(
        command="pretrain",
        target=target,
        releases=() if target == MERGED or view is None else (view.release,),
        recipe=recipe,
        model=start.model,
        lineage=start.lineage,
        init=start.init,
        index=data.index,
        view=view if recipe.optim.epochs else None,
        stream=stream_config(config.stream, config.stream_clips, recipe, target),
        labels=labels,
        out=config.out,
        resume=config.resume,
        fresh=config.fresh,
        reading=ReadingConfig(cache=config.cache, cache_bytes=config.cache_gb * 2**30),
        allow_leaks=config.allow_leaks,
    )
    return run(task, ranks, on_progress)


def _start(recipe: Recipe, named: frozenset[str], init: str | None, target: str, labels: LabelMap) -> _Start:
    """The model that a run starts from, and the recipe as its weights need it, which may not be what it ``named``."""
    if init is None:
        model = new_model(recipe.model, recipe.seed)
        return _Start(recipe=recipe, model=model, lineage=Lineage(), init={"kind": "random"})
    kind, sign, name = init.partition(":")
    if not sign or kind not in INIT_KINDS:
        raise UsageError(f"--init {init}: expected KIND:PATH", hint=f"kinds: {', '.join(INIT_KINDS)}")
    path = Path(name)
    if kind in KINDS:
        return _start_from_image(recipe, named, kind, path)
    source = read_source(path)
    if (source.classes is None) != (kind == "official"):
        raise CheckpointError(f"{path}: not weights of kind {kind!r}", hint=f"kinds: {', '.join(INIT_KINDS)}")
    recipe = _obeying(recipe, named, _settings_of(source), kind)
    model = start_model(recipe.model, source, target, recipe.head, labels, recipe.seed)
    return _Start(recipe=recipe, model=model, lineage=source.lineage, init={"kind": kind, "sha256": source.sha256})


def _start_from_image(recipe: Recipe, named: frozenset[str], kind: str, path: Path) -> _Start:
    """The start from an image transformer."""
    weights = read_weights(path)
    try:
        recipe = _obeying(recipe, named, source_settings(kind, weights), kind)
        model = new_model(recipe.model, recipe.seed)
        report = load_image_vit(model, kind, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error
    # Image models have seen no Kinetics list that is known of; lineage is about views.
    init = {"kind": kind, "sha256": file_sha256(path)}
    return _Start(recipe=recipe, model=model, lineage=Lineage(), init=init, report=report)


def _obeying(recipe: Recipe, named: frozenset[str], settings: Mapping[str, Any], kind: str) -> Recipe:
    """The recipe with the settings that its initial weights decide; one that ``named`` others is refused."""
    for name, needed in settings.items():
        asked = getattr(recipe.model, name)
        # The default counts as asked for where somebody wrote it down.
        if name in named and asked != needed:
            raise UsageError(
                f"model.{name} is {asked!r} in the recipe, the weights of kind {kind} need {needed!r}",
                hint=f"leave model.{name} out, or give --set 'model.{name}={json.dumps(needed)}'",
            )
    return replace(recipe, model=replace(recipe.model, **settings))


def _settings_of(source: Source) -> dict[str, Any]:
    """The settings that decide what the weights compute and that their shapes do not show."""
    names = (*SOURCE_SETTINGS, *RUN_SETTINGS) if source.model else SOURCE_SETTINGS
    # Published weights, and runs from before these settings, were trained with the defaults.
    defaults = {f.name: f.default for f in fields(UniFormerV2Config) if f.name in names}
    settings = {name: source.model.get(name, default) for name, default in defaults.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
