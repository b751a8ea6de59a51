"""Too little memory names what to lower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.config import DataConfig, Recipe
from uniformerv2.training.memory import enough_memory, peak_memory_bytes

RECIPE = Recipe(about="", model=UniFormerV2Config(), data=DataConfig(global_batch=256, micro_batch=32))


@pytest.mark.parametrize(
    "lack",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_names_the_batch_and_half_of_it(lack: Exception) -> None:
    with pytest.raises(UsageError) as caught, enough_memory(RECIPE, accumulation=4, world=2):
        raise lack
    assert "32 clips of 8 frames in one pass" in caught.value.message
    assert "data.global_batch 256 = data.micro_batch 32 x 4 micro-batches x 2 process(es)" in caught.value.message
    assert "--accumulate 8, which is data.micro_batch=16" in caught.value.hint
    assert "the last checkpoint stands" in caught.value.hint


def test_only_what_helps_is_named() -> None:
    one = replace(RECIPE, data=replace(RECIPE.data, micro_batch=1))
    with pytest.raises(UsageError) as caught, enough_memory(one, accumulation=128, world=2):
        raise MemoryError
    assert caught.value.hint == (
        "to go on with this run: --set runtime.recompute_layers=12; the last checkpoint stands"
    )
    recomputed = replace(one, runtime=replace(one.runtime, recompute_layers=12))
    with pytest.raises(UsageError) as caught, enough_memory(recomputed, accumulation=128, world=2):
        raise MemoryError
    assert caught.value.hint == "take a device with more memory; the last checkpoint stands"


def test_any_other_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory(RECIPE, accumulation=4, world=2):
        raise RuntimeError("shapes differ")


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(UsageError, match="out of memory"), enough_memory(RECIPE, accumulation=4, world=2):
        torch.empty(2**46)


def test_memory_is_counted_in_bytes() -> None:
    assert 2**25 < peak_memory_bytes(torch.device("cpu")) < 2**40
