"""Every setting of every published Kinetics run, against the recipe that repeats it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from k710.labels import NUM_CLASSES, TAXONOMIES
from uniformerv2.config import Recipe, read_recipe, recipe_names, resolve_recipe
from uniformerv2.recipe_files import published_run, published_runs

OTHER_DATA = ("ssv1_", "ssv2_", "mit_", "anet_", "hacs_")
"""Beginnings of the names of published runs on other data sets, which no recipe repeats."""
RUNS = sorted(published_runs())


@functools.cache
def recipe_of(name: str) -> Recipe:
    return resolve_recipe(read_recipe(name), (), where=name)


@pytest.fixture(scope="module")
def theirs(shared: Path) -> dict[str, dict[str, Any]]:
    """The settings of each published Kinetics run, as it was started."""
    found: dict[str, dict[str, Any]] = json.loads((shared / "spec/uniformerv2_runs.json").read_text())
    return {run: settings for run, settings in found.items() if not run.startswith(OTHER_DATA)}


SAME: dict[str, Callable[[Recipe], Any]] = {
    "AUG.AA_TYPE": lambda r: r.augment.randaugment,
    "AUG.ENABLE": lambda r: bool(r.augment.randaugment),
    "AUG.NUM_SAMPLE": lambda r: r.data.repeats,
    "AUG.RE_PROB": lambda r: r.augment.erase,
    "DATA.NUM_FRAMES": lambda r: r.model.num_frames,
    "DATA.RANDOM_FLIP": lambda r: r.augment.flip == 0.5,
    "DATA.TEST_CROP_SIZE": lambda r: r.size_px,
    "DATA.TRAIN_CROP_SIZE": lambda r: r.size_px,
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": lambda r: list(r.augment.aspect),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": lambda r: list(r.augment.area),
    "MODEL.CHECKPOINT_NUM": lambda r: [r.runtime.recompute_layers],
    "MODEL.LOSS_FUNC": lambda r: "soft" if _soft_labels(r) else "cross_entropy",
    "MODEL.NUM_CLASSES": lambda r: r.model.num_classes,
    "MODEL.USE_CHECKPOINT": lambda r: r.runtime.recompute_layers > 0,
    "RNG_SEED": lambda r: r.seed,
    "SOLVER.BASE_LR": lambda r: r.optim.base_lr,
    "SOLVER.COSINE_END_LR": lambda r: r.optim.end_lr,
    "SOLVER.MAX_EPOCH": lambda r: r.optim.epochs,
    "SOLVER.WARMUP_EPOCHS": lambda r: r.optim.warmup_epochs,
    "SOLVER.WARMUP_START_LR": lambda r: r.optim.warmup_start_lr,
    "SOLVER.WEIGHT_DECAY": lambda r: r.optim.weight_decay,
    "TRAIN.DATASET": lambda r: f"kinetics_{r.data.sampling}",
    "TRAIN.EVAL_PERIOD": lambda r: r.validation.every_epochs,
    "UNIFORMERV2.BACKBONE": lambda r: f"uniformerv2_{_shape(r)}",
    "UNIFORMERV2.BACKBONE_DROP_PATH_RATE": lambda r: r.model.drop_path_backbone,
    "UNIFORMERV2.CLS_DROPOUT": lambda r: r.model.dropout,
    "UNIFORMERV2.DROP_PATH_RATE": lambda r: r.model.drop_path_global,
    "UNIFORMERV2.FROZEN": lambda r: r.model.frozen_backbone,
    "UNIFORMERV2.MLP_DROPOUT": lambda r: [r.model.dropout] * len(r.model.global_layers),
    "UNIFORMERV2.MLP_FACTOR": lambda r: r.model.mlp_factor,
    "UNIFORMERV2.NO_LMHRA": lambda r: r.model.local_blocks == 0,
    "UNIFORMERV2.N_DIM": lambda r: r.model.width,
    "UNIFORMERV2.N_HEAD": lambda r: r.model.heads,
    "UNIFORMERV2.N_LAYERS": lambda r: len(r.model.global_layers),
    "UNIFORMERV2.RETURN_LIST": lambda r: list(r.model.global_layers),
    "UNIFORMERV2.TEMPORAL_DOWNSAMPLE": lambda r: r.model.temporal_downsample,
}
"""Settings that a recipe has too: the published value, from the recipe."""

UNSAID = {"UNIFORMERV2.FROZEN": False, "DATA.RANDOM_FLIP": True}
"""What the published code takes where a run says nothing."""

ALWAYS = {
    "DATA.INPUT_CHANNEL_NUM": ([3], "frames are RGB"),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (False, "the learning rate is never scaled with the machines"),
    "SOLVER.COSINE_AFTER_WARMUP": (True, "the only schedule: linear warm-up, then a cosine"),
    "SOLVER.LR_POLICY": ("cosine", "the only schedule"),
    "SOLVER.OPTIMIZING_METHOD": ("adamw", "the only optimiser"),
    "SOLVER.ZERO_WD_1D_PARAM": (True, "vectors never decay"),
    "TEST.ADD_SOFTMAX": (True, "scores of test views are always added after the softmax"),
    "TEST.DATASET": ("kinetics_sparse", "test views are always sampled sparsely"),
    "TEST.TEST_BEST": (True, "the best epoch's checkpoint is kept, and tested by naming it"),
}
"""Settings that are no choice here: the one value, and why."""

MEANINGLESS = {
    "AUG.COLOR_JITTER": "listed in the published settings, read by nothing",
    "AUG.RE_COUNT": "of random erasing, which is off",
    "AUG.RE_MODE": "of random erasing, which is off",
    "AUG.RE_SPLIT": "of random erasing, which is off",
    "DATA.DECODING_BACKEND": "the decoder is chosen by what decodes exactly, not by a recipe",
    "DATA.PATH_LABEL_SEPARATOR": "of text lists; clips are found through the index",
    "DATA.SAMPLING_RATE": "of dense sampling, which no Kinetics run uses",
    "DATA.TRAIN_JITTER_SCALES": "unused while the relative scales are set",
    "DATA.USE_OFFSET_SAMPLING": "of dense sampling, which no Kinetics run uses",
    "MODEL.DROPOUT_RATE": "listed in the published settings; this model reads CLS_DROPOUT and MLP_DROPOUT",
    "SOLVER.MOMENTUM": "of SGD; AdamW has betas",
    "TEST.BATCH_SIZE": "of the machine that tests; it changes no score",
}
"""Settings that a recipe cannot have, and why."""

ELSEWHERE = {
    "AUG.INTERPOLATION": "test_randaugment_is_the_fast_one_and_the_published_one_by_a_setting",
    "NUM_GPUS": "test_the_batch_is_that_of_all_nodes_together",
    "NUM_SHARDS": "test_the_batch_is_that_of_all_nodes_together",
    "TRAIN.BATCH_SIZE": "test_the_batch_is_that_of_all_nodes_together",
    "TEST.NUM_ENSEMBLE_VIEWS": "test_test_views_are_the_scripts_or_where_they_differ_the_zoos",
    "TEST.NUM_SPATIAL_CROPS": "test_test_views_are_the_scripts_or_where_they_differ_the_zoos",
    "UNIFORMERV2.DELETE_SPECIAL_HEAD": "test_the_head_is_kept_where_the_published_k400_runs_drop_it",
    "UNIFORMERV2.PRETRAIN": "test_a_run_from_k710_has_the_model_of_the_run_that_it_starts_from",
}
"""Settings with a test of their own."""


def _shape(recipe: Recipe) -> str:
    name = {(768, 12, 16): "b16", (1024, 24, 14): "l14"}[
        (recipe.model.width, recipe.model.layers, recipe.model.patch_size)
    ]
    return name if recipe.size_px == 224 else f"{name}_{recipe.size_px}"


def _soft_labels(recipe: Recipe) -> bool:
    return bool(recipe.optim.label_smoothing or recipe.augment.mixup or recipe.augment.cutmix)


def unaccounted(settings: Mapping[str, Any]) -> set[str]:
    """Settings of a published run that no table and no test speaks of."""
    return set(settings) - {*SAME, *ALWAYS, *MEANINGLESS, *ELSEWHERE}


def test_every_published_kinetics_run_has_a_recipe(theirs: dict[str, dict[str, Any]]) -> None:
    assert {run.run for run in published_runs().values()} == set(theirs)
    assert len(theirs) == 34


@pytest.mark.parametrize("name", RUNS)
def test_no_setting_of_a_published_run_is_passed_over(theirs: dict[str, dict[str, Any]], name: str) -> None:
    settings = theirs[published_runs()[name].run]
    assert unaccounted(settings) == set()
    assert unaccounted({**settings, "SOLVER.NEW": 1}) == {"SOLVER.NEW"}


def test_every_setting_is_in_one_table_and_in_some_run(theirs: dict[str, dict[str, Any]]) -> None:
    tables = [key for table in (SAME, ALWAYS, MEANINGLESS, ELSEWHERE) for key in table]
    assert len(tables) == len(set(tables))
    assert set(tables) - {key for settings in theirs.values() for key in settings} == {"DATA.RANDOM_FLIP"}
    assert {name for name in ELSEWHERE.values() if name not in globals()} == set()


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_has_the_values_of_the_published_run(theirs: dict[str, dict[str, Any]], name: str) -> None:
    run, ours = published_runs()[name], recipe_of(name)
    settings = {**UNSAID, **theirs[run.run]}
    assert {key: value(ours) for key, value in SAME.items()} == {key: settings[key] for key in SAME}
    assert {key: settings[key] for key in ALWAYS} == {key: value for key, (value, _) in ALWAYS.items()}


@pytest.mark.parametrize("name", RUNS)
def test_randaugment_is_the_fast_one_and_the_published_one_by_a_setting(
    theirs: dict[str, dict[str, Any]], name: str
) -> None:
    assert theirs[published_runs()[name].run]["AUG.INTERPOLATION"] == "bicubic"  # which the fast one is not
    assert recipe_of(name).augment.randaugment_mode == "fast"
    published = resolve_recipe(read_recipe(name), ["augment.randaugment_mode=published"], where=name)
    assert dataclasses.replace(published.augment, randaugment_mode="fast") == recipe_of(name).augment
    assert (published.augment.brightness, published.augment.contrast) == (0, 0)


@pytest.mark.parametrize("name", RUNS)
def test_the_batch_is_that_of_all_nodes_together(theirs: dict[str, dict[str, Any]], name: str) -> None:
    settings, data = theirs[published_runs()[name].run], recipe_of(name).data
    assert data.global_batch == settings["TRAIN.BATCH_SIZE"] * settings["NUM_SHARDS"]
    assert data.micro_batch == settings["TRAIN.BATCH_SIZE"] // settings["NUM_GPUS"]
    assert data.global_batch % (data.micro_batch * settings["NUM_GPUS"] * settings["NUM_SHARDS"]) == 0


ZOO_VIEWS = {
    "l14_f32_from_k710": ((4, 3), (2, 3)),
    "l14_336_f32_from_k710": ((4, 3), (2, 3)),
    "l14_336_f64_from_k710": ((4, 3), (2, 3)),
    "l14_336_frozen_f32_from_k710": ((3, 1), (4, 3)),
}
"""Test clips and crops of the published script, and those with which the zoo's figures were made, where they differ."""


@pytest.mark.parametrize("name", RUNS)
def test_test_views_are_the_scripts_or_where_they_differ_the_zoos(theirs: dict[str, dict[str, Any]], name: str) -> None:
    settings, test = theirs[published_runs()[name].run], recipe_of(name).test
    script = (settings["TEST.NUM_ENSEMBLE_VIEWS"], settings["TEST.NUM_SPATIAL_CROPS"])
    assert ZOO_VIEWS.get(published_runs()[name].recipe, (script, script)) == (script, (test.clips, test.crops))


@pytest.mark.parametrize("name", RUNS)
def test_the_head_is_kept_where_the_published_k400_runs_drop_it(theirs: dict[str, dict[str, Any]], name: str) -> None:
    settings = theirs[published_runs()[name].run]
    dropped = settings.get("UNIFORMERV2.DELETE_SPECIAL_HEAD", False)
    assert dropped == name.startswith("k400_k710")
    assert recipe_of(name).head.init == "by_name"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_k710_has_the_model_of_the_run_that_it_starts_from(
    theirs: dict[str, dict[str, Any]], name: str
) -> None:
    run = published_runs()[name]
    file = theirs[run.run].get("UNIFORMERV2.PRETRAIN", "")
    assert bool(file) == run.recipe.endswith("_from_k710")
    if file:
        start = published_run(Path(file).stem.replace("_uniformerv2", "").replace("_8x", "_f8x"))
        assert start is not None
        assert start.target == "k710"
        same = {"num_frames": 8, "num_classes": NUM_CLASSES}
        assert dataclasses.replace(recipe_of(name).model, **same) == recipe_of(start.name).model


@pytest.mark.parametrize("name", RUNS)
def test_the_name_of_a_published_run_says_classes_and_views(name: str) -> None:
    run, recipe = published_runs()[name], recipe_of(name)
    assert run.name.removeprefix("frozen_").startswith(run.target)
    assert recipe.model.num_classes == TAXONOMIES.get(run.target, NUM_CLASSES)
    assert (recipe.data.view, recipe.validation.view) == (f"{run.target}-train", f"{run.target}-val")


COMMON = {
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "clip_norm": 20.0,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "ema_decay": 0.0,
    "warmup_start_lr": 1e-6,
    "end_lr": 1e-6,
}
"""What all published runs share, among it what their settings do not say."""
WHOLE = {  # frames, size, learning rate, warm-up, epochs, batch, layers computed again, test clips, crops
    "k710_b16_f8x224": (8, 224, 1e-5, 5, 55, 256, 0, 4, 3),
    "k710_l14_f8x224": (8, 224, 1e-5, 5, 40, 512, 0, 4, 3),
    "k710_l14_f8x336": (8, 336, 5e-6, 5, 40, 256, 0, 4, 3),
    "frozen_k710_l14_f8x336": (8, 336, 8e-4, 0, 50, 512, 0, 3, 1),
    "{}_b16_f8x224": (8, 224, 1e-5, 5, 55, 256, 0, 4, 3),
    "frozen_{}_l14_f8x336": (8, 336, 8e-4, 0, 50, 512, 0, 3, 1),
    "{}_k710_b16_f8x224": (8, 224, 2e-6, 1, 5, 256, 0, 4, 3),
    "{}_k710_l14_f8x224": (8, 224, 1.5e-6, 1, 5, 256, 0, 4, 3),
    "{}_k710_l14_f16x224": (16, 224, 1.5e-6, 1, 5, 256, 0, 4, 3),
    "{}_k710_l14_f32x224": (32, 224, 1.5e-6, 1, 5, 128, 0, 2, 3),
    "{}_k710_l14_f32x336": (32, 336, 1.5e-6, 1, 5, 128, 24, 2, 3),
    "{}_k710_l14_f64x336": (64, 336, 1.5e-6, 1, 5, 128, 24, 2, 3),
    "frozen_{}_k710_l14_f8x336": (8, 336, 5e-5, 1, 5, 512, 0, 3, 1),
    "frozen_{}_k710_l14_f32x336": (32, 336, 5e-5, 1, 5, 256, 0, 4, 3),
}
"""The published table of runs; the zoo's test views. ``{}`` is each of the three releases."""


@pytest.mark.parametrize(
    ("name", "row"),
    {form.format(target): row for form, row in WHOLE.items() for target in TAXONOMIES}.items(),
)
def test_a_recipe_is_its_row_of_the_published_table(name: str, row: tuple[float, ...]) -> None:
    recipe = recipe_of(name)
    optim, test = recipe.optim, recipe.test
    assert (recipe.model.num_frames, recipe.size_px, optim.base_lr, optim.warmup_epochs, optim.epochs) == row[:5]
    assert (recipe.data.global_batch, recipe.runtime.recompute_layers, test.clips, test.crops) == row[5:]
    assert {key: getattr(optim, key) for key in COMMON} == COMMON
    assert recipe.runtime.precision == "bf16"


def test_the_published_table_has_every_run() -> None:
    assert {form.format(target) for form in WHOLE for target in TAXONOMIES} == set(RUNS)


def test_the_documented_table_is_the_recipes() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
    lines = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {row[0]: row[1:] for row in lines if len(row) == 8 and row[0] in recipe_names()}
    assert set(rows) == {run.recipe for run in published_runs().values()}
    for recipe, (runs, start, given, lr, epochs, batch, views) in ((name, rows[name]) for name in rows):
        assert {runs.format(target) for target in TAXONOMIES} == {
            run.name for run in published_runs().values() if run.recipe == recipe
        }
        ours = recipe_of(recipe)
        assert start in ("CLIP", *recipe_names())
        assert given == f"{ours.model.num_frames} x {ours.size_px}"
        assert float(lr) == ours.optim.base_lr
        assert epochs == f"{ours.optim.warmup_epochs:g}, {ours.optim.epochs}"
        assert (int(batch), views) == (ours.data.global_batch, f"{ours.test.clips} x {ours.test.crops}")
