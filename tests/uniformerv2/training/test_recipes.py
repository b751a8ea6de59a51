"""Packaged recipes, and how settings are resolved."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.config import to_mapping
from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.config import Recipe, RuntimeConfig, read_recipe, recipe_names, resolve_recipe
from uniformerv2.recipe_files import published_run, published_runs
from uniformerv2.recipe_table import compare_recipes, list_recipes, show_recipe
from uniformerv2.recipe_text import recipe_text, toml_value

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


ABLATIONS: dict[str, dict[str, Any]] = {
    "k710_b16_local": {"global_layers": (), "local_blocks": 2},
    "k710_b16_both": {"local_blocks": 2},
    "k710_b16_none": {"global_layers": ()},
    "k710_b16_parallel": {"fusion": "parallel"},
    "k710_b16_hierarchical_kv": {"fusion": "hierarchical_kv"},
    "k710_b16_hierarchical_q": {"fusion": "hierarchical_q"},
}
"""What each ablation changes in the model of ``k710_b16``, which is the paper's choice: global blocks, in sequence."""


OWN = {"tiny_cpu", "tiny_cpu_finetune", "kept_b16_frozen_from_clip"}
"""Recipes for what no published run did."""


def test_every_packaged_recipe_is_a_published_run_an_ablation_or_our_own() -> None:
    published = {run.recipe for run in published_runs().values()}
    assert set(recipe_names()) == {*published, *ABLATIONS, *OWN}
    assert len(published) + len(ABLATIONS) + len(OWN) == len(recipe_names())


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


def test_a_published_run_is_a_recipe_under_its_own_name_too() -> None:
    run = published_run("k400+k710_l14_f32x224")
    assert run is not None
    assert (run.name, run.target, run.recipe) == ("k400_k710_l14_f32x224", "k400", "l14_f32_from_k710")
    assert read_recipe("k400+k710_l14_f32x224") == read_recipe("k400_k710_l14_f32x224")
    assert published_run("l14_f32_from_k710") is None
    assert published_run("k400_k710_l14_f128x224") is None


def test_two_published_runs_of_one_recipe_differ_in_the_target_alone() -> None:
    changed = [d.setting for d in compare_recipes("k400_k710_b16_f8x224", "k700_k710_b16_f8x224")]
    assert changed == ["model.num_classes", "data.view", "validation.view"]


def test_no_two_recipes_have_the_same_name_or_the_same_values() -> None:
    assert not set(published_runs()) & set(recipe_names())
    settings = [{**to_mapping(recipe_of(name)), "about": "", "finetune_recipe": ""} for name in recipe_names()]
    assert all(one != other for i, one in enumerate(settings) for other in settings[:i])


LEFT_TO_DEFAULTS = {
    "data": {"window", "stride", "decoder", "max_hole_fraction", "feature_views"},
    "augment": {"brightness", "contrast"}
    | {"erase_area", "erase_aspect", "erase_mode", "mix_probability", "mix_switch"},
    "optim": {"max_bad_steps"},
    "head": {"class_order"},
    "runtime": {field.name for field in dataclasses.fields(RuntimeConfig)} - {"precision"},
    "model": {"dw_reduction", "fusion", "gelu", "norm_eps", "pre_norm", "drop_path_mode"},
}
"""Settings that no published run has, that are the machine's, or that the first weights decide."""
OF_THE_RUN = {"local_blocks", "temporal_downsample", "mlp_factor"}
"""Settings of the model that a recipe for fine-tuning leaves to the checkpoint."""


@pytest.mark.parametrize("name", published_runs())
def test_a_recipe_writes_down_every_setting_that_a_published_run_has(name: str) -> None:
    values, tunes = read_recipe(name), published_runs()[name].recipe.endswith("_from_k710")
    # A new classifier has no rows to gather, so only fine-tuning says where they come from.
    open_ones = {"model": OF_THE_RUN, "head": set()} if tunes else {"model": set(), "head": {"init"}}
    for table, settings in to_mapping(recipe_of(name)).items():
        if isinstance(settings, dict):
            expected = set(settings) - LEFT_TO_DEFAULTS.get(table, set()) - open_ones.get(table, set())
            assert set(values.get(table, {})) - LEFT_TO_DEFAULTS.get(table, set()) == expected, table


@pytest.mark.parametrize("name", [*recipe_names(), *published_runs()])
def test_a_shown_recipe_is_a_recipe_file_of_the_same_values(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(recipe_text(show_recipe(name)), encoding="utf-8")
    assert recipe_of(str(path)) == recipe_of(name)
    assert compare_recipes(name, str(path)) == ()
    # What the first weights decide is not named, so that they still may.
    model = read_recipe(name).get("model", {})
    assert set(read_recipe(str(path)).get("model", {})) == set(model)


def test_a_shown_recipe_has_every_setting_or_says_who_decides_it() -> None:
    whole = to_mapping(recipe_of("k710_b16"))
    for name in ("k710_b16", "k400_b16_f8x224"):
        assert show_recipe(name).settings.keys() == whole.keys()
        assert show_recipe(name).of_target == ()
        assert set(show_recipe(name).of_weights) == LEFT_TO_DEFAULTS["model"]
    shared_by_three = show_recipe("b16_from_k710")
    assert shared_by_three.of_target == ("data.view", "model.num_classes", "validation.view")
    assert "num_classes" not in shared_by_three.settings["model"]
    text = recipe_text(shared_by_three)
    assert "\n# num_classes: the target's\n" in text
    assert "\n# local_blocks = 0\n" in text
    assert "[model]" not in recipe_text(show_recipe("tiny_cpu_finetune"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5e-6, "1.5e-6"),
        (1e22, "1e22"),
        (0.05, "0.05"),
        (20.0, "20.0"),
        (True, "true"),
        ((0.9, 0.999), "[0.9, 0.999]"),
        ([], "[]"),
        ('a "b" \\ \n\x7f\u00e9', '"a \\"b\\" \\\\ \\n\\u007f\u00e9"'),
    ],
)
def test_values_are_written_as_toml(value: Any, text: str) -> None:
    assert toml_value(value) == text
    assert tomllib.loads(f"a = {text}")["a"] == (list(value) if isinstance(value, tuple) else value)


@given(st.one_of(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False, allow_infinity=False)))
def test_any_text_and_number_survives_the_file(value: str | float) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}")["a"] == value


@pytest.mark.parametrize("value", [None, float("inf"), {"a": 1}])
def test_what_no_recipe_has_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not a value of a recipe|finite"):
        toml_value(value)


def test_the_list_has_a_row_for_every_recipe() -> None:
    rows = {facts.name: facts for facts in list_recipes()}
    assert list(rows) == recipe_names()
    frozen = rows["l14_336_frozen_f32_from_k710"]
    assert (frozen.model, frozen.num_frames, frozen.size_px) == ("L/14 frozen", 32, 336)
    assert (frozen.epochs, frozen.global_batch, frozen.base_lr) == (5, 256, 5e-5)
    assert frozen.published[0] == "frozen_k400_k710_l14_f32x336"
    assert rows["tiny_cpu_finetune"].num_frames is None
    assert rows["tiny_cpu"].published == ()


def test_a_comparison_names_each_side_and_what_is_left_open() -> None:
    found = {d.setting: (d.a, d.b) for d in compare_recipes("k710_l14", "l14_f16_from_k710")}
    assert found["model.num_frames"] == (8, 16)
    assert found["optim.base_lr"] == (1e-5, 1.5e-6)
    assert found["model.num_classes"] == (710, None)
    assert "model.width" not in found
    assert "about" not in found
