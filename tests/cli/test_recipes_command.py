"""`k710 recipes` as a user runs it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[int, str, str]]


def test_list_has_a_line_for_each_recipe_with_its_published_runs(k710: Run) -> None:
    code, out, err = k710("recipes", "list")
    assert (code, err) == (0, "")
    lines = {line.split("\t")[0]: line.split("\t") for line in out.splitlines()}
    assert lines["name"] == ["name", "model", "input", "epochs", "batch", "lr", "published", "about"]
    assert lines["k710_l14"][1:7] == ["L/14", "8x224", "40", "512", "1e-05", "k710_l14_f8x224"]
    assert lines["tiny_cpu_finetune"][1:3] == ["the run's", "the run's"]
    assert lines["l14_f32_from_k710"][6].startswith("k400_k710_l14_f32x224, k600_")


def test_list_as_json_has_the_same_recipes(k710: Run) -> None:
    _, text, _ = k710("recipes", "list")
    code, out, _ = k710("recipes", "list", "--json")
    assert code == 0
    assert [r["name"] for r in json.loads(out)] == [line.split("\t")[0] for line in text.splitlines()[1:]]


def test_a_shown_recipe_can_be_saved_and_read_as_a_recipe(k710: Run, tmp_path: Path) -> None:
    code, out, err = k710("recipes", "show", "k400_k710_l14_f32x224")
    assert (code, err) == (0, "")
    values = tomllib.loads(out)
    assert (values["model"]["num_classes"], values["data"]["view"]) == (400, "k400-train")
    (tmp_path / "mine.toml").write_text(out)
    assert k710("recipes", "diff", "k400+k710_l14_f32x224", tmp_path / "mine.toml") == (0, "the same settings\n", "")


def test_show_as_json_names_what_is_left_open(k710: Run) -> None:
    code, out, _ = k710("recipes", "show", "b16_from_k710", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["of_target"] == ["data.view", "model.num_classes", "validation.view"]
    assert found["settings"]["optim"]["base_lr"] == 2e-6
    assert found["published"] == ["k400_k710_b16_f8x224", "k600_k710_b16_f8x224", "k700_k710_b16_f8x224"]


def test_diff_sets_the_values_side_by_side(k710: Run) -> None:
    code, out, _ = k710("recipes", "diff", "k710_b16", "k710_l14")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "setting\tk710_b16\tk710_l14"
    assert "optim.epochs\t55\t40" in lines
    assert 'finetune_recipe\t"b16_from_k710"\t"l14_from_k710"' in lines
    code, out, _ = k710("recipes", "diff", "k710_b16", "b16_from_k710", "--json")
    assert {"setting": "model.num_classes", "a": 710, "b": None} in json.loads(out)


def test_an_unknown_recipe_is_refused_with_those_there_are(k710: Run) -> None:
    for arguments in (("show", "k710_b32"), ("diff", "k710_b16", "k710_b32")):
        code, out, err = k710("recipes", *arguments)
        assert (code, out) == (2, "")
        assert "unknown recipe 'k710_b32'" in err
        assert "b16_from_k710" in err
