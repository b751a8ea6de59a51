"""Recipes to look at: the packaged ones side by side, one with all its settings, two against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k710.config import to_mapping
from uniformerv2.config import Recipe, resolve_recipe
from uniformerv2.models.uniformerv2_config import UniFormerV2Config
from uniformerv2.recipe_files import published_run, published_runs, read_recipe, recipe_names

_OF_THE_TARGET = ("data.view", "model.num_classes", "validation.view")
_LETTERS = {(768, 12): "B", (1024, 24): "L"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeFacts:
    """A packaged recipe in one row."""

    name: str
    """Name of its file."""
    about: str
    """What it trains."""
    model: str
    """Size and patch, such as ``B/16``; empty where the model is the checkpoint's."""
    num_frames: int | None
    """Frames that the model takes; None where the model is the checkpoint's."""
    size_px: int | None
    """Side of a frame; None where the model is the checkpoint's."""
    epochs: int
    """Passes over the view."""
    global_batch: int
    """Clips of one optimiser step."""
    base_lr: float
    """Learning rate after warm-up."""
    published: tuple[str, ...]
    """Published runs that it repeats, by names that every command takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedRecipe:
    """A recipe with every setting that it decides."""

    name: str
    """As it was asked for."""
    published: tuple[str, ...]
    """Published runs that it repeats: all of its recipe, or the one asked for."""
    settings: dict[str, Any]
    """Plain values in the tables of a recipe file."""
    of_target: tuple[str, ...]
    """Settings that it leaves to the target of the training, as ``table.setting``."""
    of_weights: tuple[str, ...]
    """Settings of the model that the first weights decide where they say other than the value in ``settings``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingDifference:
    """A setting in which two recipes differ."""

    setting: str
    """As ``table.setting``."""
    a: Any
    """Value in the first; None: left to the target or the checkpoint."""
    b: Any
    """Value in the second."""


def list_recipes() -> tuple[RecipeFacts, ...]:
    """A row for each packaged recipe, in order of name."""
    return tuple(_facts(name) for name in recipe_names())


def show_recipe(name: str) -> ResolvedRecipe:
    """The settings of a packaged recipe, a published run or a file, defaults filled in.

    Raises:
        UsageError: there is none of this name, or a value is refused.
    """
    values = read_recipe(name)
    settings: dict[str, Any] = to_mapping(_resolved(values, name))
    named = values.get("model", {})
    if not named:
        del settings["model"]
    of_target = tuple(s for s in _OF_THE_TARGET if _leaves_target_open(values) and not _named(values, s))
    for setting in of_target:
        table, _, key = setting.partition(".")
        settings.get(table, {}).pop(key, None)
    return ResolvedRecipe(
        name=name,
        published=_published(name),
        settings=settings,
        of_target=of_target,
        of_weights=tuple(key for key in settings.get("model", {}) if key not in named),
    )


def compare_recipes(a: str, b: str) -> tuple[SettingDifference, ...]:
    """The settings in which two recipes differ, in the order of a recipe file; ``about`` is no setting.

    Raises:
        UsageError: there is none of this name, or a value is refused.
    """
    flat_a, flat_b = _flat(show_recipe(a).settings), _flat(show_recipe(b).settings)
    return tuple(
        SettingDifference(setting=setting, a=flat_a.get(setting), b=flat_b.get(setting))
        for setting in _flat(to_mapping(_resolved({"about": ""}, "")))
        if setting != "about" and flat_a.get(setting) != flat_b.get(setting)
    )


def _facts(name: str) -> RecipeFacts:
    values = read_recipe(name)
    recipe, has_model = _resolved(values, name), bool(values.get("model"))
    return RecipeFacts(
        name=name,
        about=recipe.about,
        model=_size(recipe.model) if has_model else "",
        num_frames=recipe.model.num_frames if has_model else None,
        size_px=recipe.size_px if has_model else None,
        epochs=recipe.optim.epochs,
        global_batch=recipe.data.global_batch,
        base_lr=recipe.optim.base_lr,
        published=_published(name),
    )


def _resolved(values: Mapping[str, Any], name: str) -> Recipe:
    return resolve_recipe(values, (), where=name)


def _published(name: str) -> tuple[str, ...]:
    run = published_run(name)
    return (run.name,) if run else tuple(r.name for r in published_runs().values() if r.recipe == name)


def _size(model: UniFormerV2Config) -> str:
    letter = _LETTERS.get((model.width, model.layers), f"{model.width}x{model.layers}")
    return f"{letter}/{model.patch_size}{' frozen' if model.frozen_backbone else ''}"


def _leaves_target_open(values: Mapping[str, Any]) -> bool:
    """Whether a recipe serves several targets: a file that names neither classes nor view is for fine-tuning."""
    return not _named(values, "model.num_classes") and not _named(values, "data.view")


def _named(values: Mapping[str, Any], setting: str) -> bool:
    table, _, key = setting.partition(".")
    return key in values.get(table, {})


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {before + name: value}
    return flat
