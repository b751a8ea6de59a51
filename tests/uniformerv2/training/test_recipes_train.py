"""Every packaged recipe trains: two steps on the small build at reduced width, then one evaluation."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from k710.errors import UsageError
from uniformerv2.config import read_recipe, recipe_names, resolve_recipe
from uniformerv2.evaluate import EvaluateConfig, evaluate
from uniformerv2.finetune import FinetuneConfig, finetune
from uniformerv2.models.uniformerv2_config import BACKBONE_NAMES
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.recipe_files import published_runs
from uniformerv2.training.task import RunSummary

TARGET = "k400"
"""Target of recipes that serve several; the small build has its views."""
NO_STEP = ("optim.epochs=0", "optim.warmup_epochs=0")
QUICK = ("k710_b16", "l14_336_frozen_from_k710")
"""Recipes that are tried in every test run; the others with the slow tests."""


def tried(name: str) -> str:
    """The name under which a recipe is tried: one that serves several targets by its run for ``TARGET``."""
    runs = [run.name for run in published_runs().values() if run.recipe == name and run.target == TARGET]
    return runs[0] if runs else name


def reduced(name: str) -> tuple[str, ...]:
    """Settings that make a recipe small, and nothing else of it another."""
    model = read_recipe(name).get("model", {})
    recipe = resolve_recipe(read_recipe(name), (), where=name)
    sizes = [
        f"model.image_size={2 * recipe.model.patch_size}",
        "model.width=16",
        "model.heads=2",
        "model.layers=2",
        f"model.global_layers={[0, 1] if recipe.model.global_layers else []}",
    ]
    return (
        *(sizes if model else ()),
        "data.global_batch=6",
        "data.micro_batch=3",
        "data.workers=0",
        "data.max_hole_fraction=0.2",
        "optim.epochs=1",
        f"optim.warmup_epochs={min(recipe.optim.warmup_epochs, 0.5)}",
        f"runtime.recompute_layers={min(recipe.runtime.recompute_layers, 2)}",
        "runtime.device=cpu",
        "runtime.threads=1",
    )


def train(name: str, build: Path, folder: Path, *settings: str) -> RunSummary:
    """The run of a recipe in ``folder``, from random weights or from a run of the recipe that it fine-tunes from."""
    settings, data = (*reduced(tried(name)), *settings), str(build)
    if not name.endswith(("_from_k710", "_finetune")):
        return pretrain(PretrainConfig(recipe=tried(name), data=data, out=folder / "run", overrides=settings))
    source = start(name, build, folder)
    return finetune(
        FinetuneConfig(
            target=TARGET, recipe=tried(name), source=source, data=data, out=folder / "run", overrides=settings
        )
    )


def start(name: str, build: Path, folder: Path) -> Path:
    """A run without a step of the recipe whose model ``name`` fine-tunes."""
    size = re.sub(r"_f[0-9]+", "", name.removesuffix("_from_k710"))
    recipe, out = "tiny_cpu" if name == "tiny_cpu_finetune" else f"k710_{size}", folder / "start"
    pretrain(PretrainConfig(recipe=recipe, data=str(build), out=out, overrides=(*reduced(recipe), *NO_STEP)))
    return out


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in recipe_names()]
)
def test_a_recipe_takes_two_steps_and_an_evaluation(build: Path, tmp_path: Path, name: str) -> None:
    summary = train(name, build, tmp_path)
    assert (summary.steps, summary.epochs) == (2, 1)
    assert summary.loss is not None
    assert math.isfinite(summary.loss)
    view = "k710-val" if summary.target == "k710" else f"{TARGET}-val"
    assert summary.view == view.replace("val", "train")

    test = resolve_recipe(read_recipe(name), (), where=name).test
    report = evaluate(
        EvaluateConfig(
            view=view,
            source=summary.out,
            data=str(build),
            clips=test.clips,
            crops=test.crops,
            overrides=("workers=0", "device=cpu"),
        )
    )
    assert (report.clips_scored, report.test_clips, report.test_crops) == (6, test.clips, test.crops)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_two_steps_change_all_but_a_frozen_backbone(build: Path, tmp_path: Path, name: str) -> None:
    before = load_file(train(name, build, tmp_path / "without", *NO_STEP).model)
    after = load_file(train(name, build, tmp_path / "with").model)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    backbone = {key for key in after if key.startswith(BACKBONE_NAMES)}
    assert "transformer.proj.2.weight" in changed
    assert bool(changed & backbone) == ("frozen" not in name)
    if "frozen" not in name:
        assert "transformer.resblocks.0.attn.in_proj_weight" in changed


def test_a_recipe_from_clip_makes_a_model_of_the_releases_own_classes(build: Path, tmp_path: Path) -> None:
    settings = (*reduced("k400_b16_f8x224"), *NO_STEP)
    summary = pretrain(
        PretrainConfig(recipe="k400_b16_f8x224", data=str(build), out=tmp_path / "run", overrides=settings)
    )
    assert summary.target == "k400"
    assert len(load_file(summary.model)["transformer.proj.2.bias"]) == 400
    report = evaluate(
        EvaluateConfig(
            view="k400-val",
            source=summary.out,
            data=str(build),
            clips=1,
            crops=1,
            overrides=("workers=0", "device=cpu"),
        )
    )
    assert report.taxonomy == "k400"


@pytest.mark.parametrize(
    ("recipe", "settings", "view"),
    [
        ("b16_from_k710", (), "k400-val"),
        ("b16_from_k710", ("validation.view=",), ""),
        ("k400_k710_b16_f8x224", (), "k400-val"),
    ],
)
def test_fine_tuning_scores_the_targets_val_view_unless_another_is_named(
    build: Path, tmp_path: Path, recipe: str, settings: tuple[str, ...], view: str
) -> None:
    config = FinetuneConfig(
        target=TARGET,
        recipe=recipe,
        source=start("b16_from_k710", build, tmp_path),
        data=str(build),
        out=tmp_path / "run",
        overrides=(*reduced("k400_k710_b16_f8x224"), *settings),
    )
    document = json.loads((finetune(config).out / "config.json").read_text())
    assert document["settings"]["recipe"]["validation"]["view"] == view


def test_the_name_of_a_run_for_another_target_is_refused(build: Path, tmp_path: Path) -> None:
    source = start("b16_from_k710", build, tmp_path)
    config = FinetuneConfig(target="k400", recipe="k600_k710_b16_f8x224", source=source, data=str(build), out=tmp_path)
    with pytest.raises(UsageError, match="a run for k600, and --target is k400") as caught:
        finetune(config)
    assert "--recipe b16_from_k710" in caught.value.hint
