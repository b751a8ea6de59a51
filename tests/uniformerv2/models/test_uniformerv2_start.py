"""A new model: values as published, switches on the sites where the published code has them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from small_models import LOCAL, TINY, clips
from torch import Tensor, nn

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.models.blocks import GlobalUniBlock, LocalUniBlock
from uniformerv2.models.layers import LayerNorm
from uniformerv2.models.stochastic import Dropout

WIDE = dataclasses.replace(LOCAL, width=128, heads=2)
ZERO = (
    "temporal_cls_token",
    "balance",
    "in_proj_bias",
    "out_proj.bias",
    ".pos_embed.3.weight",
    ".pos_embed.3.bias",
    "ln_1.bias",
    "ln_2.bias",
    "ln_3.bias",
    "ln_pre.bias",
    "proj.0.bias",
    "pos_embed.0.bias",
)
"""Ends of the names of what starts at zero everywhere; global blocks and position encodings have more."""


@pytest.mark.parametrize("name", [name for name, _ in UniFormerV2(WIDE).named_parameters()])
def test_every_parameter_starts_as_published(name: str) -> None:
    torch.manual_seed(0)
    value = dict(UniFormerV2(WIDE).named_parameters())[name].detach()
    expected = _expected(name, value)
    if isinstance(expected, float):
        assert torch.equal(value, torch.full_like(value, expected))
        return
    kind, size = expected
    assert kind == "normal" or value.abs().max() <= size
    if value.numel() < 80:  # too few to tell a distribution by
        return
    assert kind == "normal" or value.abs().max() > 0.9 * size
    assert value.std().item() == pytest.approx(size / math.sqrt(3) if kind == "uniform" else size, rel=0.15)


def _expected(name: str, value: Tensor) -> float | tuple[str, float]:
    """The constant, or the distribution with its bound (uniform) or standard deviation (normal)."""
    if name.startswith("transformer.dec.") and name.endswith(("out_proj.weight", "c_proj.weight", "c_proj.bias")):
        return 0.0
    if name.endswith(ZERO) or (name.startswith("transformer.dpe.") and name.endswith("bias")):
        return 0.0
    if value.ndim == 1 and ("ln_" in name or name.endswith(("proj.0.weight", "pos_embed.0.weight"))):
        return 1.0
    if name in ("class_embedding", "positional_embedding"):
        return "normal", WIDE.width**-0.5
    if name.endswith("in_proj_weight") or (name.startswith("transformer.dec.") and name.endswith("c_fc.weight")):
        return "uniform", math.sqrt(6 / sum(value.shape))  # Xavier
    # Torch's default for linear layers and convolutions, weight and bias, from the number of inputs.
    return "uniform", 1 / math.sqrt(_fan_in(name))


def _fan_in(name: str) -> int:
    module = UniFormerV2(WIDE).get_submodule(name.rpartition(".")[0])
    assert isinstance(module, nn.Linear | nn.Conv3d)
    return module.weight[0].numel()


@pytest.mark.parametrize("mode", ["sample", "official"])
def test_drop_path_masks_the_axes_of_its_mode_at_growing_rates(mode: str) -> None:
    model = UniFormerV2(dataclasses.replace(LOCAL, drop_path_mode=mode)).transformer
    for i, layer in enumerate(model.resblocks):
        assert isinstance(layer, LocalUniBlock)
        drops = (layer.drop_local1, layer.drop_attn, layer.drop_local2, layer.drop_mlp)
        over = ["sample", "token", "sample", "token"] if mode == "official" else ["sample"] * 4
        assert [drop.over for drop in drops] == over
        assert all(drop.rate == pytest.approx(0.2 * i / 2) for drop in drops)
    for j, block in enumerate(model.dec):
        assert isinstance(block, GlobalUniBlock)
        over = ["batch", "batch"] if mode == "official" else ["sample", "sample"]
        assert [block.drop_attn.over, block.drop_mlp.over] == over
        assert block.drop_attn.rate == block.drop_mlp.rate == pytest.approx(0.4 * j)


def test_dropout_is_in_the_mlps_of_global_blocks_and_before_the_head() -> None:
    sites = {name: m.rate for name, m in UniFormerV2(TINY).named_modules() if isinstance(m, Dropout)}
    assert sites == {f"transformer.{name}": 0.5 for name in ("dec.0.mlp.dropout", "dec.1.mlp.dropout", "proj.1")}


@pytest.mark.parametrize("config", [TINY, LOCAL], ids=["kinetics", "local"])
def test_at_the_start_class_tokens_are_those_of_the_image_model(config: UniFormerV2Config) -> None:
    video = UniFormerV2(config).eval()
    image = UniFormerV2(dataclasses.replace(config, local_blocks=0, global_layers=())).eval()
    image.load_state_dict({key: video.state_dict()[key] for key in image.state_dict()})
    torch.testing.assert_close(_class_tokens(video), _class_tokens(image), rtol=0, atol=1e-6)


def test_norms_of_the_backbone_are_computed_in_fp32() -> None:
    norm = LayerNorm(64)
    nn.init.normal_(norm.weight)
    x = (1000 + torch.randn(8, 64)).bfloat16()
    expected = nn.functional.layer_norm(x.float(), (64,), norm.weight, norm.bias).bfloat16()
    assert torch.equal(norm(x), expected)
    assert norm.double()(x.double()).dtype == torch.float64


def _class_tokens(model: UniFormerV2) -> Tensor:
    """[B, T, C], after the last layer."""
    x_BTLC = model.embed(clips(model.config, 2))
    for layer in model.transformer.resblocks:
        x_BTLC = layer(x_BTLC)
    return x_BTLC[:, :, 0]
