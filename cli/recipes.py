"""`k710 recipes list|show|diff`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson
from .rows import print_rows

if TYPE_CHECKING:
    from uniformerv2.recipe_table import RecipeFacts

COLUMNS = ("name", "model", "input", "epochs", "batch", "lr", "published", "about")
NAME_HELP = "A packaged recipe, a published run, or a TOML file."


def make_recipes_app() -> typer.Typer:
    """The commands under `k710 recipes`."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show and compare training recipes.")
    for name, command in (("list", list_all), ("show", show), ("diff", diff)):
        app.command(name=name)(command)
    return app


def list_all(as_json: AsJson = False) -> None:
    """List the packaged recipes and the published runs that each one repeats."""
    from k710.config import to_mapping
    from uniformerv2.recipe_table import list_recipes

    found = list_recipes()
    if as_json:
        typer.echo(json.dumps(to_mapping(found), indent=1))
    elif sys.stdout.isatty():
        typer.echo("\n".join(map(_lines, found)))
    else:
        print_rows(COLUMNS, [_row(facts) for facts in found])


def show(name: Annotated[str, typer.Argument(metavar="NAME", help=NAME_HELP)], as_json: AsJson = False) -> None:
    """Print a recipe with all its settings as TOML, to be saved and trained with."""
    from k710.config import to_mapping
    from uniformerv2.recipe_table import show_recipe
    from uniformerv2.recipe_text import recipe_text

    found = show_recipe(name)
    typer.echo(json.dumps(to_mapping(found), indent=1) if as_json else recipe_text(found), nl=as_json)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=NAME_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help=NAME_HELP)],
    as_json: AsJson = False,
) -> None:
    """Compare two recipes: the settings in which they differ, side by side."""
    from k710.config import to_mapping
    from uniformerv2.recipe_table import compare_recipes

    found = compare_recipes(a, b)
    if as_json:
        typer.echo(json.dumps(to_mapping(found), indent=1))
    elif found:
        print_rows(("setting", a, b), [(d.setting, _cell(d.a), _cell(d.b)) for d in found])
    else:
        typer.echo("the same settings")


def _row(facts: RecipeFacts) -> tuple[object, ...]:
    given = f"{facts.num_frames}x{facts.size_px}" if facts.num_frames else "the run's"
    model, published = facts.model or "the run's", ", ".join(facts.published) or "-"
    lr = f"{facts.base_lr:g}"
    return (facts.name, model, given, facts.epochs, facts.global_batch, lr, published, facts.about)


def _lines(facts: RecipeFacts) -> str:
    """A recipe for a terminal, where one row of all this would be broken to pieces."""
    name, model, given, epochs, batch, lr, published, about = _row(facts)
    figures = f"{name:30}{model:12}{given:10}{epochs} epochs, batch {batch}, lr {lr}"
    return "\n  ".join([figures, str(about), *([f"published: {published}"] if facts.published else [])])


def _cell(value: Any) -> str:
    return "left open" if value is None else json.dumps(value)
