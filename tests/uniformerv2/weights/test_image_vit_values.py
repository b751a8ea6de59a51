"""Entries whose values are no weights, by their type or by their number, are refused before they are touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import image_models as models
import pytest
import torch
from image_models import WIDTH
from test_image_vit_oracles import BASE, CASES, PLAIN
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2
from uniformerv2.weights.image_vit import load_image_vit

PLAIN_MODEL = dataclasses.replace(BASE, **PLAIN)

HUGE = [
    ("timm", "patch_embed.proj.weight", (10**6, 3, 1000, 1000)),
    ("timm", "patch_embed.proj.bias", (10**13,)),
    ("timm", "pos_embed", (1, 10**7, 10**6)),
    ("timm", "blocks.0.attn.qkv.weight", (10**7, 10**6)),
    ("clip", "visual.conv1.weight", (10**6, 3, 1000, 1000)),
    ("hf_clip", "encoder.layers.0.self_attn.k_proj.weight", (10**7, 10**6)),
    ("deit3", "blocks.0.gamma_1", (10**13,)),
    ("beit", "blocks.1.attn.relative_position_bias_table", (10**7, 10**6)),
]


@pytest.mark.parametrize(("kind", "name", "shape"), HUGE)
def test_few_values_repeated_to_a_huge_tensor_are_refused(kind: str, name: str, shape: tuple[int, ...]) -> None:
    case = {"timm": "timm", "clip": "whole CLIP", "hf_clip": "HF CLIP inside", "deit3": "DeiT III", "beit": "BEiT"}[
        kind
    ]
    source = CASES[case][1]().state
    state = source.get("model", source)
    key = next(key for key in state if key.endswith(name))
    alike = {key.replace("k_proj", part) for part in ("q_proj", "v_proj")}
    value = torch.zeros(1, dtype=torch.float16).expand(shape)
    # Siblings are of one shape: only then is one of them looked at.
    state |= {k: value for k in state if k == key or k in alike}
    model = UniFormerV2(dataclasses.replace(BASE, **CASES[case][2]))
    with pytest.raises(CheckpointError, match="repeats the few values that the file holds") as caught:
        load_image_vit(model, kind, source)
    assert caught.value.hint


def test_a_vector_of_one_repeated_value_is_a_weight() -> None:
    state = models.timm().state
    state["blocks.0.norm1.weight"] = torch.full((1,), 1.5).expand(WIDTH)
    model = UniFormerV2(PLAIN_MODEL)
    load_image_vit(model, "timm", state)
    assert torch.equal(model.state_dict()["transformer.resblocks.0.ln_1.weight"], torch.full((WIDTH,), 1.5))


def test_an_empty_weight_of_a_huge_shape_is_refused() -> None:
    state = {key: value for key, value in models.timm().state.items() if not key.endswith("attn.qkv.bias")}
    state["blocks.0.attn.qkv.weight"] = torch.zeros(10**15, 0)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.qkv\.weight"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "timm", state)


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def packed(value: Tensor) -> Tensor:
    """Two 4-bit floats in a byte."""
    return torch.zeros(value.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


NO_FLOATS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("complex64", lambda value: value.to(torch.complex64)),
    ("qint8", quantised),
    ("int8", lambda value: value.to(torch.int8)),
    ("float4_e2m1fn_x2", packed),
]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(("dtype", "change"), NO_FLOATS, ids=[row[0] for row in NO_FLOATS])
@pytest.mark.parametrize("key", ["blocks.0.attn.qkv.weight", "blocks.1.norm2.bias"])
def test_a_weight_that_is_not_of_float_numbers_is_named_with_its_dtype(
    key: str, dtype: str, change: Callable[[Tensor], Tensor]
) -> None:
    state = models.timm().state
    state[key] = change(state[key])
    with pytest.raises(CheckpointError, match=rf"{key} is of {dtype}, float numbers are needed") as caught:
        load_image_vit(UniFormerV2(PLAIN_MODEL), "timm", state)
    assert caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float4_e2m1fn_x2])
def test_a_relative_position_table_of_few_bits_is_read_or_refused(dtype: torch.dtype) -> None:
    source = CASES["BEiT"][1]().state
    key = "blocks.1.attn.relative_position_bias_table"
    shape = source["model"][key].shape
    source["model"][key] = torch.zeros(shape, dtype=torch.uint8).view(dtype)
    model = UniFormerV2(dataclasses.replace(BASE, **CASES["BEiT"][2]))
    if dtype == torch.float8_e4m3fn:
        load_image_vit(model, "beit", source)
    else:
        with pytest.raises(CheckpointError, match="is of float4_e2m1fn_x2"):
            load_image_vit(model, "beit", source)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("change", [row[1] for row in NO_FLOATS], ids=[row[0] for row in NO_FLOATS])
def test_what_is_not_taken_may_be_of_any_dtype(change: Callable[[Tensor], Tensor]) -> None:
    state = models.timm().state
    state["head.weight"] = change(state["head.weight"])
    report = load_image_vit(UniFormerV2(PLAIN_MODEL), "timm", state)
    assert ("head.weight", "another classifier or projection") in report.ignored


def test_tables_of_indices_are_left_out_as_such() -> None:
    state = models.timm().state | {"blocks.0.attn.relative_position_index": torch.arange(4)}
    report = load_image_vit(UniFormerV2(PLAIN_MODEL), "timm", state)
    assert ("blocks.0.attn.relative_position_index", "whole numbers, such as a table of indices, not a weight") in (
        report.ignored
    )
