"""Fine-tune a K710 model to one release: ``k710 finetune``."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710.config import to_mapping, with_overrides
from k710.errors import FeedError, UsageError
from k710.labels import TAXONOMIES, load_labels
from k710.shards.index import LOCK_FILE, ShardIndex, View
from k710.store import Store
from uniformerv2.config import OptimConfig, Recipe, ValidationConfig, read_recipe, resolve_recipe, with_accumulation
from uniformerv2.data.reading import ReadingConfig
from uniformerv2.recipe_files import published_run
from uniformerv2.training.distributed import Ranks, on_ranks
from uniformerv2.training.feeds import stream_config
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.session import run
from uniformerv2.training.source import model_config, read_settings, read_source, start_model
from uniformerv2.training.task import RunSummary, Task

_MAY_CHANGE = frozenset(
    {
        "image_size",
        "num_frames",
        "num_classes",
        "frozen_backbone",
        "dropout",
        "drop_path_backbone",
        "drop_path_global",
        "drop_path_mode",
    }
)
"""Model settings that fine-tuning chooses. The others decide which weights there are and what they compute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """One ``k710 finetune``: paths and policies; everything else is in the recipe."""

    target: str
    """Taxonomy of the new classifier: ``k400``, ``k600`` or ``k700``."""
    source: Path = Path("runs/pretrain")
    """Run folder or weights file to start from."""
    data: str = "./k710-data"
    """Build to train on: a folder or an fsspec URL."""
    out: Path | None = None
    """Run folder; None: ``runs/finetune-{target}``."""
    recipe: str | None = None
    """Packaged recipe or ``.toml`` path; None: the one that the checkpoint's recipe names."""
    epochs: int | None = None
    """Epochs, instead of the recipe's; 0 writes the model with the target's classifier at once."""
    train_view: str | None = None
    """View to train on; None: the train view of the only release with the target's taxonomy."""
    resume: bool = False
    """The run must exist."""
    fresh: bool = False
    """The folder must be empty."""
    allow_leaks: bool = False
    """Go on when held-out videos of the target have been, or will be, seen."""
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
        if self.target not in TAXONOMIES:
            raise UsageError(f"--target must be one of {', '.join(TAXONOMIES)}, got {self.target!r}")
        if self.devices < 1:
            raise UsageError(f"--devices must be at least 1, got {self.devices}")
        if self.epochs is not None and self.epochs < 0:
            raise UsageError(f"--epochs must be at least 0, got {self.epochs}")

    @property
    def folder(self) -> Path:
        """Run folder."""
        return self.out if self.out is not None else Path("runs") / f"finetune-{self.target}"


def finetune(config: FinetuneConfig, *, on_progress: OnProgress = silent) -> RunSummary:
    """Train a model of the target's classes from a K710 one, its classifier's rows gathered by class name.

    Raises:
        UsageError: wrong settings, among them those that change what the source's weights compute; a folder that holds
            something else; or no single train view.
        AnswerIsNo: the weights have seen, or the train view has, held-out videos of the target.
        CheckpointError: weights that do not fit, or whose class order is unknown.
    """
    device = _recipe(config, read_settings(config.source)).runtime.device
    work = functools.partial(_finetune_on_rank, config)
    return on_ranks(work, devices=config.devices, device=device, on_progress=on_progress)


def _finetune_on_rank(config: FinetuneConfig, ranks: Ranks, on_progress: OnProgress) -> RunSummary:
    source = read_source(config.source)
    recipe = with_accumulation(_recipe(config, source.config), config.accumulate, ranks.world)
    stream = stream_config(config.stream, config.stream_clips, recipe, config.target)
    index = None if stream is not None else _index(config, needed=recipe.optim.epochs > 0)
    labels = load_labels() if index is None else index.labels
    releases = _releases(index, config.target) if index is not None else ()
    view = None
    if index is not None and recipe.optim.epochs:
        view = index.view(config.train_view or _only_train_view(index, config.target, releases))
        recipe = dataclasses.replace(
            recipe,
            data=dataclasses.replace(recipe.data, view=view.name),
            validation=_validation(config, source.config, recipe.validation, index, view),
        )
        releases = (view.release,) if view.release in releases else releases
    task = Task(
        command="finetune",
        target=config.target,
        releases=releases,
        recipe=recipe,
        model=start_model(recipe.model, source, config.target, recipe.head, labels, recipe.seed),
        lineage=source.lineage,
        init={"kind": "weights", "sha256": source.sha256},
        index=index,
        view=view,
        stream=stream,
        labels=labels,
        out=config.folder,
        resume=config.resume,
        fresh=config.fresh,
        reading=ReadingConfig(cache=config.cache, cache_bytes=config.cache_gb * 2**30),
        allow_leaks=config.allow_leaks,
    )
    return run(task, ranks, on_progress)


def _validation(
    config: FinetuneConfig, made_with: Mapping[str, Any], given: ValidationConfig, index: ShardIndex, view: View
) -> ValidationConfig:
    """As ``given``; where neither the recipe nor ``--set`` names a view, the val view beside the train view."""
    named = with_overrides(read_recipe(_recipe_name(config, made_with)), config.overrides).get("validation", {})
    own = f"{view.release}-val"
    return given if "view" in named or own not in index.view_names else dataclasses.replace(given, view=own)


def _recipe_name(config: FinetuneConfig, made_with: Mapping[str, Any]) -> str:
    name = config.recipe or made_with.get("recipe", {}).get("finetune_recipe", "")
    if not name:
        raise UsageError("the checkpoint names no recipe to fine-tune with", hint="give one with --recipe")
    run = published_run(name)
    if run is not None and run.target != config.target:
        raise UsageError(
            f"--recipe {name}: a run for {run.target}, and --target is {config.target}",
            hint=f"--recipe {run.recipe} has the same values for every target",
        )
    return str(name)


def _recipe(config: FinetuneConfig, made_with: Mapping[str, Any]) -> Recipe:
    theirs, name = made_with.get("recipe", {}), _recipe_name(config, made_with)
    values: dict[str, Any] = read_recipe(name)
    overrides = list(config.overrides)
    if any(setting.partition("=")[0].strip() == "model.num_classes" for setting in overrides):
        number = TAXONOMIES[config.target]
        raise UsageError(
            f"model.num_classes cannot be set: the classifier has the {number} classes of {config.target}",
            hint="leave it out, or give another --target",
        )
    if config.epochs is not None:
        overrides.append(f"optim.epochs={config.epochs}")
        _require_room_to_warm_up(config.epochs, with_overrides(values, overrides).get("optim", {}))
    if config.epochs == 0:
        overrides.append("optim.warmup_epochs=0")
    # Applied last: the classifier is the target's, whatever the recipe was written for.
    overrides.append(f"model.num_classes={TAXONOMIES[config.target]}")
    made_as = theirs.get("model", {})
    if made_as:
        _require_same_model(name, with_overrides(values, overrides).get("model", {}), overrides, made_as)
    return resolve_recipe(values, overrides, model=made_as, where=name)


def _require_room_to_warm_up(epochs: int, optim: Mapping[str, Any]) -> None:
    warmup = optim.get("warmup_epochs", OptimConfig().warmup_epochs) if isinstance(optim, Mapping) else 0
    if isinstance(warmup, int | float) and 0 < epochs <= warmup:
        raise UsageError(
            f"--epochs {epochs}: the learning rate would still warm up, for {warmup:g} epochs",
            hint=f"shorten that too: --set optim.warmup_epochs={epochs / 5:g}",
        )


def _require_same_model(recipe: str, asked: Any, overrides: Sequence[str], made_as: Mapping[str, Any]) -> None:
    """Refuse model settings with which the weights would be other weights, or compute something else, than before."""
    if not isinstance(asked, Mapping):
        return  # refused, with its name, where the recipe is resolved
    theirs = to_mapping(model_config(made_as))
    fixed = [name for name in asked if name in theirs and name not in _MAY_CHANGE]
    changed = [name for name in fixed if to_mapping(asked[name]) != theirs[name]]
    if not changed:
        return
    given = {setting.partition("=")[0] for setting in overrides}
    said_by = {name: "--set" if given & {"model", f"model.{name}"} else f"recipe {recipe}" for name in changed}
    both = [f"model.{n} is {_shown(asked[n])} in {said_by[n]} and {_shown(theirs[n])} in the run" for n in changed]
    settings = [shlex.quote(f"model.{name}={_shown(theirs[name])}") for name in changed]
    other = "leave yours out" if set(said_by.values()) == {"--set"} else "another --recipe"
    raise UsageError(
        f"the weights would not compute what they were trained to: {'; '.join(both)}",
        hint=f"give {' '.join(f'--set {setting}' for setting in settings)}, or {other}",
    )


def _shown(value: Any) -> str:
    """A setting as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def _index(config: FinetuneConfig, *, needed: bool) -> ShardIndex | None:
    if not needed and not Store(config.data).exists(LOCK_FILE):
        return None
    try:
        return ShardIndex(config.data)
    except FeedError:
        if needed:
            raise
        return None


def _releases(index: ShardIndex, target: str) -> tuple[str, ...]:
    return tuple(release for release, taxonomy in index.lock["releases"].items() if taxonomy == target)


def _only_train_view(index: ShardIndex, target: str, releases: tuple[str, ...]) -> str:
    views = [name for release in releases if (name := f"{release}-train") in index.view_names]
    if len(views) != 1:
        found = f"{len(views)} train views of {target}: {', '.join(views)}" if views else f"no train view of {target}"
        raise UsageError(
            f"{index.store.root} has {found}", hint=f"name one with --train-view: {', '.join(index.view_names)}"
        )
    return views[0]
