"""Where recipes are: packaged files by name, the published runs that they stand for, and files of users."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710.config import read_toml
from k710.errors import UsageError
from k710.labels import TAXONOMIES

RECIPES = Path(__file__).resolve().parent / "recipes"
PUBLISHED = "published"
"""Table of a recipe file that is about the file, not about a run: target -> published run of these values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """A published run that a packaged recipe repeats."""

    run: str
    """Its name where it was published, such as ``k400+k710_b16_f8x224``."""
    target: str
    """Whose classes it learns: ``k400``, ``k600``, ``k700`` or ``k710``."""
    recipe: str
    """Packaged recipe of its values."""

    @property
    def name(self) -> str:
        """The run's name as a recipe name, without ``+``: ``k400_k710_b16_f8x224``."""
        return _plain(self.run)


def recipe_names() -> list[str]:
    """The packaged recipes, in order of name."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


@functools.cache
def published_runs() -> dict[str, PublishedRun]:
    """The published runs that the packaged recipes repeat, by their names as recipe names."""
    runs = [
        PublishedRun(run=run, target=target, recipe=recipe)
        for recipe in recipe_names()
        for target, run in read_toml(RECIPES / f"{recipe}.toml").get(PUBLISHED, {}).items()
    ]
    return {run.name: run for run in runs}


def published_run(name: str) -> PublishedRun | None:
    """The published run of a name, written with ``+`` or ``_``; None where ``name`` is none."""
    return published_runs().get(_plain(name))


def read_recipe(name: str) -> dict[str, Any]:
    """The values of a packaged recipe by name, or of a file by a path that ends in ``.toml``.

    The name of a published run is a name too, and says the target: its classes and views are filled in.

    Raises:
        UsageError: there is none of this name, or the file cannot be read.
    """
    if name.endswith(".toml"):
        return _without_published(_read_file(name))
    if name in recipe_names():
        return _without_published(read_toml(RECIPES / f"{name}.toml"))
    run = published_run(name)
    if run is None:
        known = ", ".join(recipe_names())
        hint = f"known: {known}; or the name of a published run (`k710 recipes list`), or a .toml file"
        raise UsageError(f"unknown recipe {name!r}", hint=hint)
    return _aimed(_without_published(read_toml(RECIPES / f"{run.recipe}.toml")), run)


def _read_file(name: str) -> dict[str, Any]:
    if not Path(name).exists():
        known = ", ".join(recipe_names())
        raise UsageError(f"{name}: no such recipe file", hint=f"give the path of a .toml file, or one of {known}")
    try:
        return read_toml(Path(name))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: cannot be read as a recipe: {error}") from error


def _aimed(values: Mapping[str, Any], run: PublishedRun) -> dict[str, Any]:
    """The values of a recipe with the classes and views of the run's target."""
    aimed = {**values, "about": f"{run.run}: {values['about']}"}
    if run.target in TAXONOMIES:
        aimed["model"] = {**values["model"], "num_classes": TAXONOMIES[run.target]}
        aimed["data"] = {**values["data"], "view": f"{run.target}-train"}
        aimed["validation"] = {**values["validation"], "view": f"{run.target}-val"}
    return aimed


def _without_published(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != PUBLISHED}


def _plain(name: str) -> str:
    return name.replace("+", "_")
