"""Packaged recipes, and how settings are resolved."""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from k710.config import to_mapping
from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.config import Recipe, read_recipe, recipe_names, resolve_recipe

B16 = UniFormerV2Config.variant("b16", classes=710)


def recipe_of(name: str, *overrides: str) -> Recipe:
    values = read_recipe(name)
    tiny = read_recipe("tiny_cpu")["model"]
    return resolve_recipe(values, overrides, model=tiny if "model" not in values else None, where=name)


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_is_complete_and_valid(name: str) -> None:
    recipe = recipe_of(name)
    assert recipe.about
    assert recipe.finetune_recipe in ("", *recipe_names())


PUBLISHED = {
    "k710_b16": ["k710_b16_f8x224"],
    "k710_l14": ["k710_l14_f8x224"],
    "k710_l14_336": ["k710_l14_f8x336"],
    "k710_l14_336_frozen": ["frozen_k710_l14_f8x336"],
} | {
    name: [run.format(release) for release in ("k400", "k600", "k700")]
    for name, run in (
        ("b16_from_k710", "{}+k710_b16_f8x224"),
        ("l14_from_k710", "{}+k710_l14_f8x224"),
        ("l14_f16_from_k710", "{}+k710_l14_f16x224"),
        ("l14_f32_from_k710", "{}+k710_l14_f32x224"),
        ("l14_336_f32_from_k710", "{}+k710_l14_f32x336"),
        ("l14_336_f64_from_k710", "{}+k710_l14_f64x336"),
        ("l14_336_frozen_from_k710", "frozen_{}+k710_l14_f8x336"),
    )
}
"""The published runs that each packaged recipe repeats."""


ABLATIONS: dict[str, dict[str, Any]] = {
    "k710_b16_local": {"global_layers": (), "local_blocks": 2},
    "k710_b16_both": {"local_blocks": 2},
    "k710_b16_none": {"global_layers": ()},
    "k710_b16_parallel": {"fusion": "parallel"},
    "k710_b16_hierarchical_kv": {"fusion": "hierarchical_kv"},
    "k710_b16_hierarchical_q": {"fusion": "hierarchical_q"},
}
"""What each ablation changes in the model of ``k710_b16``, which is the paper's choice: global blocks, in sequence."""


def test_every_packaged_recipe_is_a_published_run_an_ablation_or_tiny() -> None:
    assert set(recipe_names()) == {*PUBLISHED, *ABLATIONS, "tiny_cpu", "tiny_cpu_finetune"}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_it_names_and_nothing_else(name: str) -> None:
    changed, original = recipe_of(name), recipe_of("k710_b16")
    assert changed.model == dataclasses.replace(original.model, **ABLATIONS[name])
    same = {"about": "", "finetune_recipe": "", "model": original.model}
    assert dataclasses.replace(changed, **same) == dataclasses.replace(original, **same)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_can_be_fine_tuned(name: str) -> None:
    """With the recipe that it names, or with the one that its file says to use."""
    pretrained = recipe_of(name)
    settings = [] if pretrained.finetune_recipe else ["model.global_layers=[]"]
    values = read_recipe(pretrained.finetune_recipe or "b16_from_k710")
    model = resolve_recipe(values, settings, model=to_mapping(pretrained.model), where=name).model
    assert dataclasses.replace(model, num_classes=710) == pretrained.model


@pytest.mark.parametrize(("name", "run"), [(name, run) for name, runs in PUBLISHED.items() for run in runs])
def test_published_recipes_have_the_values_of_the_published_runs(shared: Path, name: str, run: str) -> None:
    theirs: dict[str, Any] = json.loads((shared / "spec/uniformerv2_runs.json").read_text())[run]
    ours = recipe_of(name)
    assert _published_names(ours) == {key: theirs.get(key, _UNSAID[key]) for key in _published_names(ours)}
    # What we do not have must be off there, but for RandAugment, which the recipes say is missing.
    assert theirs["AUG.RE_PROB"] == 0
    assert theirs["AUG.AA_TYPE"] == "rand-m7-n4-mstd0.5-inc1"
    assert not theirs["SOLVER.BASE_LR_SCALE_NUM_SHARDS"]
    assert theirs["SOLVER.COSINE_AFTER_WARMUP"]
    assert theirs["MODEL.LOSS_FUNC"] == "cross_entropy"


_UNSAID = collections.defaultdict(lambda: None, {"UNIFORMERV2.FROZEN": False, "DATA.RANDOM_FLIP": True})
"""What the official code takes where a run says nothing."""


def _published_names(recipe: Recipe) -> dict[str, Any]:
    """A recipe under the names and in the units of the published configurations."""
    model, data, optim, augment = recipe.model, recipe.data, recipe.optim, recipe.augment
    return {
        "AUG.NUM_SAMPLE": data.repeats,
        "DATA.NUM_FRAMES": model.num_frames,
        "DATA.RANDOM_FLIP": augment.flip == 0.5,
        "DATA.TEST_CROP_SIZE": recipe.size_px,
        "DATA.TRAIN_CROP_SIZE": recipe.size_px,
        "DATA.TRAIN_JITTER_ASPECT_RELATIVE": list(augment.aspect),
        "DATA.TRAIN_JITTER_SCALES_RELATIVE": list(augment.area),
        "MODEL.CHECKPOINT_NUM": [recipe.runtime.recompute_layers],
        "MODEL.USE_CHECKPOINT": recipe.runtime.recompute_layers > 0,
        "NUM_GPUS": 8,
        "NUM_SHARDS": data.global_batch // (8 * data.micro_batch),
        "RNG_SEED": recipe.seed,
        "SOLVER.BASE_LR": optim.base_lr,
        "SOLVER.COSINE_END_LR": optim.end_lr,
        "SOLVER.LR_POLICY": "cosine",
        "SOLVER.MAX_EPOCH": optim.epochs,
        "SOLVER.OPTIMIZING_METHOD": "adamw",
        "SOLVER.WARMUP_EPOCHS": optim.warmup_epochs,
        "SOLVER.WARMUP_START_LR": optim.warmup_start_lr,
        "SOLVER.WEIGHT_DECAY": optim.weight_decay,
        "SOLVER.ZERO_WD_1D_PARAM": True,
        "TRAIN.BATCH_SIZE": 8 * data.micro_batch,
        "UNIFORMERV2.BACKBONE_DROP_PATH_RATE": model.drop_path_backbone,
        "UNIFORMERV2.CLS_DROPOUT": model.dropout,
        "UNIFORMERV2.DROP_PATH_RATE": model.drop_path_global,
        "UNIFORMERV2.FROZEN": model.frozen_backbone,
        "UNIFORMERV2.MLP_DROPOUT": [model.dropout] * len(model.global_layers),
        "UNIFORMERV2.MLP_FACTOR": model.mlp_factor,
        "UNIFORMERV2.NO_LMHRA": model.local_blocks == 0,
        "UNIFORMERV2.N_DIM": model.width,
        "UNIFORMERV2.N_HEAD": model.heads,
        "UNIFORMERV2.N_LAYERS": len(model.global_layers),
        "UNIFORMERV2.RETURN_LIST": list(model.global_layers),
        "UNIFORMERV2.TEMPORAL_DOWNSAMPLE": model.temporal_downsample,
    }


def test_published_architectures_are_the_variants() -> None:
    assert recipe_of("k710_b16").model == B16
    assert recipe_of("k710_l14").model == UniFormerV2Config.variant("l14", classes=710)
    assert recipe_of("k710_l14_336").model == UniFormerV2Config.variant("l14_336", classes=710)


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'k710_b32'") as caught:
        read_recipe("k710_b32")
    assert "b16_from_k710, k710_b16, k710_b16_both" in caught.value.hint


def test_set_changes_one_value_and_names_unknown_ones() -> None:
    assert recipe_of("tiny_cpu", "optim.base_lr=1e-4").optim.base_lr == 1e-4
    with pytest.raises(UsageError, match="unknown setting 'lr'"):
        recipe_of("tiny_cpu", "optim.lr=1e-4")
    with pytest.raises(UsageError, match="micro_batch must be at least 1, got 0"):
        recipe_of("tiny_cpu", "data.micro_batch=0")


def test_a_missing_recipe_file_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe file") as caught:
        read_recipe(str(tmp_path / "none.toml"))
    assert "tiny_cpu" in caught.value.hint
