"""The same global batch on any number of devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from runs import assert_close

from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.config import DataConfig, Recipe, with_accumulation
from uniformerv2.pretrain import PretrainConfig, pretrain

RECIPE = Recipe(about="", model=UniFormerV2Config(), data=DataConfig(global_batch=24, micro_batch=6))


def test_auto_leaves_the_recipe_as_it_is() -> None:
    assert with_accumulation(RECIPE, "auto", 2) == RECIPE


@pytest.mark.parametrize(("num", "world", "micro"), [("1", 1, 24), ("4", 1, 6), ("3", 2, 4), ("24", 1, 1)])
def test_a_number_decides_the_size_of_micro_batches(num: str, world: int, micro: int) -> None:
    data = with_accumulation(RECIPE, num, world).data
    assert (data.global_batch, data.micro_batch) == (24, micro)


def test_a_number_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"global_batch 24 does not divide into --accumulate 5 .* each of 2") as caught:
        with_accumulation(RECIPE, "5", 2)
    assert caught.value.hint == "numbers that do: 1, 2, 3, 4, 6, 12"
    with pytest.raises(UsageError, match="each of 7") as caught:
        with_accumulation(RECIPE, "1", 7)
    assert caught.value.hint == "change the number of devices"


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5", "²"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--accumulate must be auto or a number from 1 on"):
        with_accumulation(RECIPE, text, 1)


def test_a_run_takes_the_number(build: Path, recipe: str, tmp_path: Path) -> None:
    config = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "a", overrides=("optim.epochs=1",))
    pretrain(replace(config, accumulate="4"))
    by_recipe = replace(config, out=tmp_path / "b", overrides=("optim.epochs=1", "data.micro_batch=1"))
    pretrain(by_recipe)
    assert_close(config.out, by_recipe.out, atol=0)
