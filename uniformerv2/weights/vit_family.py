"""Plain image transformers under our names: DINO, DINOv2, MAE, BEiT, DeiT III and timm's, each in its own format.

They descend from one code and share most names (``blocks.0.attn.qkv``); what differs is folded into weights that we
have: layer scales into the layers before them, a missing bias as zeros. Axes: C width, L positions.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2.weights.image_source import SCALED_LAYERS, ImageSource
from uniformerv2.weights.positions import POSITIONS

_LAYER = "transformer.resblocks."
_TOP = {"patch_embed.proj.weight": "conv1.weight", "norm_pre.weight": "ln_pre.weight", "norm_pre.bias": "ln_pre.bias"}
_LAYER_NAMES = {
    f"{theirs}{kind}": f"{ours}{kind}"
    for theirs, ours in {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }.items()
    for kind in (".weight", ".bias")
} | {"attn.qkv.bias": "attn.in_proj_bias"}
# DINOv2 for several machines cuts the layers into chunks and counts both; the layer's number is the second.
_KEY = re.compile(r"blocks\.(?:\d+\.)?(\d+)\.(.+)")
_SCALE = re.compile(r"gamma_(?P<old>[12])|ls(?P<new>[12])\.gamma")
_RELATIVE = "relative_position_bias_table"
_UNUSED = {
    "norm.": "the class token goes to the head without a last norm",
    "fc_norm.": "the class token goes to the head without a last norm",
    "head.": "another classifier or projection",
    "pre_logits.": "another classifier or projection",
    "mask_token": "stands for patches that were hidden in pre-training",
    "decoder_": "the decoder of the pre-training",
    "lm_head.": "the head of the pre-training",
    "cls_pt_layers.": "layers for the pre-training only",
}


def read_vit(source: ImageSource) -> None:
    """Explain the entries of a plain image transformer.

    Raises:
        CheckpointError: something in it has no exact place in our backbone.
    """
    for name in list(source.entries):
        match = _KEY.fullmatch(name)
        unused = next((reason for beginning, reason in _UNUSED.items() if name.startswith(beginning)), None)
        if unused is not None:
            source.ignore(name, unused)
        elif name in _TOP:
            source.rename(name, _TOP[name])
        elif match and match[2] in _LAYER_NAMES:
            source.rename(name, f"{_LAYER}{match[1]}.{_LAYER_NAMES[match[2]]}")
    _read_tokens(source)
    _read_projections(source)
    _read_relative_positions(source)
    scales = {}
    for name in source.entries:
        match = _KEY.fullmatch(name)
        if match and (scale := _SCALE.fullmatch(match[2])):
            scales[name] = f"{_LAYER}{match[1]}.{SCALED_LAYERS[scale['old'] or scale['new']]}"
    source.scale_layers(scales)


def has_class_row(source: ImageSource) -> bool:
    """Whether the position table, if there is one, has a row for the class token: one row more than a square."""
    table = source.entries.get("pos_embed")
    rows = table.shape[-2] if table is not None and table.ndim > 1 else 0
    return rows == 0 or math.isqrt(rows) ** 2 != rows


def _read_tokens(source: ImageSource) -> None:
    """Class token, positions and the bias of patches, which their rows of the position table take."""
    if "cls_token" in source.entries:
        source.rename("cls_token", "class_embedding")
        source.tensors["class_embedding"] = _without_ones(source, "cls_token", "class_embedding", 1)
    if "pos_embed" in source.entries and not has_class_row(source):
        # Where the positions are added before the class token is put in front, its own position is zero.
        source.tensors[POSITIONS] = source.fold("pos_embed", "positions of the patches, with a zero row for the class")
        table_LC = _without_ones(source, "pos_embed", POSITIONS, 2)
        source.tensors[POSITIONS] = torch.cat([table_LC.new_zeros(1, table_LC.shape[1]), table_LC])
    elif "pos_embed" in source.entries:
        source.rename("pos_embed", POSITIONS)
        source.tensors[POSITIONS] = _without_ones(source, "pos_embed", POSITIONS, 2)
    if "patch_embed.proj.bias" in source.entries:
        source.patch_bias_C = source.fold("patch_embed.proj.bias", "added to the positions of the patches")


def _read_projections(source: ImageSource) -> None:
    """Query, key and value: one weight for all three, and a bias for all, for query and value, or none."""
    weights = [name for name in source.entries if name.endswith(".attn.qkv.weight")]
    # A bias in some layers only is a damaged file: there the missing ones must not become zeros.
    has_bias = any(key.endswith("in_proj_bias") for key in source.tensors) or any(
        name.endswith(("attn.q_bias", "attn.v_bias")) for name in source.entries
    )
    for name in weights:
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        key = f"{_LAYER}{match[1]}.attn.in_proj_"
        if has_bias:
            source.rename(name, f"{key}weight")
            _stack_bias(source, name.removesuffix("qkv.weight"), f"{key}bias")
        else:
            weight = source.fold(name, "query, key and value without a bias, which is zero here")
            source.fill(f"{key}weight", weight, name)
            source.fill(f"{key}bias", weight.new_zeros(weight.shape[0]), name)


def _stack_bias(source: ImageSource, attention: str, key: str) -> None:
    """The biases of query and value with a zero one of the key between them, as BEiT defines it."""
    names = (f"{attention}q_bias", f"{attention}v_bias")
    if all(name in source.entries for name in names):
        bias_q, bias_v = source.fold_alike(names, "bias of query and of value, with a zero one of the key")
        source.fill(key, torch.cat([bias_q, torch.zeros_like(bias_q), bias_v]), names[0])


def _read_relative_positions(source: ImageSource) -> None:
    """Leave out relative positions that add one number to every score of a head; the softmax cancels that."""
    tables = [name for name in source.entries if name.endswith(_RELATIVE)]
    for name in tables:
        table = source.floats(name)
        if table.ndim != 2 or not bool((table == table[:1]).all()):
            raise CheckpointError(
                f"{source.key_of(name)} says how far patches are from each other, which our attention does not see",
                hint="BEiT fits only where this bias is the same at every distance; MAE or DINOv2 fit as they are",
            )
        source.ignore(name, "a bias that is the same at every distance, which the softmax cancels")
    source.lacks_positions = POSITIONS not in source.tensors


def _without_ones(source: ImageSource, name: str, key: str, ndim: int) -> Tensor:
    """Our tensor ``key`` without the leading axes of length 1 that it has in the file."""
    tensor = source.tensors[key]
    if tensor.ndim < ndim or any(length != 1 for length in tensor.shape[: tensor.ndim - ndim]):
        expected = "one token" if ndim == 1 else "one table"
        raise CheckpointError(
            f"{source.key_of(name)} is {tuple(tensor.shape)}, expected {expected}", hint="give an unchanged checkpoint"
        )
    return tensor.flatten(0, tensor.ndim - ndim)
