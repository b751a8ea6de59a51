"""A resolved recipe as a TOML file that can be saved, changed and trained with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from uniformerv2.recipe_table import ResolvedRecipe


def recipe_text(recipe: ResolvedRecipe) -> str:
    """The text of a recipe file with the settings of ``recipe``, those that it leaves open as comments."""
    published = f"; values of the published {', '.join(recipe.published)}" if recipe.published else ""
    lines = [f"# {recipe.name} with all its settings{published}"]
    tables = {name: value for name, value in recipe.settings.items() if isinstance(value, Mapping)}
    lines += [f"{name} = {toml_value(value)}" for name, value in recipe.settings.items() if name not in tables]
    if "model" not in tables:
        lines += ["", "# The model is the checkpoint's."]
    for name, values in tables.items():
        lines += ["", f"[{name}]", *_table_lines(name, values, recipe)]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A string, number, truth value or list of them as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return _toml_float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise ValueError(f"not a value of a recipe: {value!r}")


def _table_lines(table: str, values: Mapping[str, Any], recipe: ResolvedRecipe) -> list[str]:
    left = recipe.of_weights if table == "model" else ()
    lines = [f"{name} = {toml_value(value)}" for name, value in values.items() if name not in left]
    lines += [f"# {s.partition('.')[2]}: the target's" for s in recipe.of_target if s.startswith(f"{table}.")]
    if left:
        # As comments: a file that names them refuses first weights that need other values.
        lines += ["# The first weights decide these where they say them; else:"]
        lines += [f"# {name} = {toml_value(values[name])}" for name in left]
    return lines


def _toml_float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"a recipe has finite numbers, got {value}")
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa
