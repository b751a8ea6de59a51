"""The folder of a run: new, ours to go on with, or somebody's that must not be touched."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from k710 import atomic
from k710.config import differences, to_mapping
from k710.errors import UsageError
from k710.processes import only_writer
from uniformerv2.config import Recipe, depends_on_micro_batch
from uniformerv2.training import saves
from uniformerv2.training.checkpoint import CHECKPOINT_FILE, MODEL_FILE, lineage_path

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
LOG_TABLE = "log.csv"
BEST_MODEL_FILE = "model_best.safetensors"
"""Weights of the epoch with the best validation scores, or their average when that is better."""
EMA_MODEL_FILE = "model_ema.safetensors"
"""Running average of the weights at the end of the run."""
_GUARD_FILE = ".run-guard"
SCHEMA = "uniformerv2.run"
SCHEMA_VERSION = 1

_MAY_DIFFER = {
    "": ("about", "finetune_recipe"),
    # The batch and the window are compared with the state: another one is a restart at the next epoch.
    "data": ("workers", "global_batch", "window", "max_hole_fraction"),
    "optim": ("max_bad_steps",),
    "validation": ("view", "every_epochs"),
    "test": ("clips", "crops"),
    "runtime": (
        "device",
        "sharding",
        "threads",
        "recompute_layers",
        "recompute_every",
        "compile",
        "keep_features",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "restart_epoch",
    ),
}
"""Settings of a recipe with which a run may go on though they changed."""


def open_run(out: Path, settings: Mapping[str, Any], *, resume: bool, fresh: bool, guard: ExitStack) -> bool:
    """Make ``out`` the folder of the run with ``settings``, held until ``guard`` closes; True when it already was.

    Raises:
        UsageError: it holds another run or something else, it does not fit ``--resume`` or ``--fresh``, or another
            process trains there.
    """
    _require_fitting(out, settings, resume=resume, fresh=fresh)  # before a guard file is put anywhere
    try:
        guard.enter_context(only_writer(out / _GUARD_FILE, f"another process is training in {out}"))
        # Again, because another process may have finished a run here in between.
        exists = _require_fitting(out, settings, resume=resume, fresh=fresh)
        for leftover in _leftovers(out):
            leftover.unlink()
        document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "settings": settings}
        atomic.write_json(out / CONFIG_FILE, document)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error}", hint="give another --out") from error
    return exists


def run_files(out: Path) -> list[Path]:
    """Every file that a run keeps in ``out``, those that are not there yet too."""
    models = [out / name for name in (MODEL_FILE, BEST_MODEL_FILE, EMA_MODEL_FILE)]
    named = [out / name for name in (CONFIG_FILE, LOG_FILE, LOG_TABLE, CHECKPOINT_FILE)]
    return [*named, *models, *(lineage_path(model) for model in models), *saves.checkpoint_paths(out)]


def _require_fitting(out: Path, settings: Mapping[str, Any], *, resume: bool, fresh: bool) -> bool:
    """Whether ``out`` is the folder of this run already; otherwise it is empty but for what a killed run left."""
    if resume and fresh:
        raise UsageError("--resume and --fresh exclude each other")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, not a run folder")
    nobodys = {out / _GUARD_FILE, *_leftovers(out)}
    exists = out.is_dir() and any(path not in nobodys for path in out.iterdir())
    if not exists and resume:
        raise UsageError(f"{out}: no run to resume", hint="leave --resume out to start one")
    if exists and fresh:
        raise UsageError(f"{out}: --fresh needs an empty folder", hint="give another --out, or remove the folder")
    if exists:
        _require_same(out, settings)
    return exists


def _require_same(out: Path, settings: Mapping[str, Any]) -> None:
    try:
        document = json.loads((out / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        document = {}
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or "settings" not in document:
        raise UsageError(f"{out}: holds something that is not a run", hint="give another --out")
    if document.get("schema_version") != SCHEMA_VERSION:
        found = document.get("schema_version")
        raise UsageError(f"{out}: run of schema version {found}, this version reads {SCHEMA_VERSION}")
    changed = differences(_compared(document["settings"]), _compared(settings))
    if changed:
        raise UsageError(
            f"{out}: holds a run with other settings: {'; '.join(changed)}",
            hint="use the same settings to go on with it, or give another --out",
        )


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    compared = copy.deepcopy(dict(settings))
    compared["recipe"] = _filled(compared["recipe"])
    for table, names in _MAY_DIFFER.items():
        values = compared["recipe"].get(table, {}) if table else compared["recipe"]
        for name in names:
            values.pop(name, None)
    recipe = compared["recipe"]
    if not depends_on_micro_batch(recipe.get("model", {}), recipe["augment"]):
        recipe["data"].pop("micro_batch", None)
    return compared


def _filled(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe`` with the defaults of what it does not say: a run from before a setting existed is one without it."""
    filled = dict(recipe)
    for field in dataclasses.fields(Recipe):
        if field.default_factory is not dataclasses.MISSING:
            filled[field.name] = {**to_mapping(field.default_factory()), **filled.get(field.name, {})}
    return filled


def _leftovers(out: Path) -> set[Path]:
    """Temporary files of the names that a killed run leaves behind."""
    names = {path.name for path in run_files(out) if path.parent == out}
    return {path for name in names for path in out.glob(f".{name}.*.partial")} | saves.leftovers(out)
