"""Every kind of image transformer gives the same tokens of every frame after conversion as in its own model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import image_models as models
import pytest
import torch
import torch.nn.functional as F
from image_models import HEADS, LAYERS, PATCH, SIZE, WIDTH, ImageModel
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.image_kinds import KINDS
from uniformerv2.weights.image_vit import load_image_vit, source_settings

BASE = UniFormerV2Config(
    image_size=SIZE,
    patch_size=PATCH,
    width=WIDTH,
    layers=LAYERS,
    heads=HEADS,
    num_frames=3,
    num_classes=5,
    global_layers=(1,),
)
QUICK = {"gelu": "quick", "norm_eps": 1e-5, "pre_norm": True}
EXACT = {"gelu": "exact", "norm_eps": 1e-5, "pre_norm": True}
BARE = EXACT | {"pre_norm": False}
PLAIN = {"gelu": "exact", "norm_eps": 1e-6, "pre_norm": False}

CASES: dict[str, tuple[str, Callable[[], ImageModel], dict[str, Any]]] = {
    "whole CLIP": ("clip", models.openai_clip, QUICK),
    "bare CLIP": ("clip", lambda: models.openai_clip(""), QUICK),
    "open_clip": ("open_clip", lambda: models.open_clip(quick=False), EXACT),
    "open_clip layer scale": ("open_clip", lambda: models.open_clip(quick=False, layer_scale=True), EXACT),
    "open_clip no ln_pre": (
        "open_clip",
        lambda: models.open_clip(quick=False, pre_norm=False),
        BARE,
    ),
    "open_clip quick": ("open_clip_quickgelu", lambda: models.open_clip(quick=True), QUICK),
    "HF CLIP": ("hf_clip", lambda: models.hf_clip(quick=True), QUICK),
    "HF CLIP inside": ("hf_clip", lambda: models.hf_clip(quick=True, prefix="vision_model.", whole=True), QUICK),
    "HF CLIP exact": ("hf_clip_gelu", lambda: models.hf_clip(quick=False, prefix="vision_model."), EXACT),
    "DINO": ("dino", models.dino, PLAIN),
    "DINOv2": ("dinov2", models.dinov2, PLAIN),
    "DINOv2 chunked": ("dinov2", lambda: models.dinov2(chunked=True), PLAIN),
    "MAE": ("mae", models.mae, PLAIN),
    "BEiT": ("beit", models.beit, PLAIN),
    "BEiT no positions": ("beit", lambda: models.beit(positions="none"), PLAIN),
    "BEiT shared bias": ("beit", lambda: models.beit(shared=True), PLAIN),
    "DeiT III": ("deit3", models.deit3, PLAIN),
    "timm": ("timm", models.timm, PLAIN),
    "timm layer scale": ("timm", lambda: models.timm(kind="scaled"), PLAIN),
    "timm no qkv bias": ("timm", lambda: models.timm(kind="without_bias"), PLAIN),
    "timm CLIP": ("timm", lambda: models.timm(kind="clip"), EXACT),
    "timm quick CLIP": ("timm_quickgelu", lambda: models.timm(kind="quick"), QUICK),
}
every_case = pytest.mark.parametrize("case", CASES)


def loaded(kind: str, source: ImageModel, **changes: Any) -> UniFormerV2:
    config = dataclasses.replace(BASE, **source_settings(kind, source.state), **changes)
    model = UniFormerV2(config).eval()
    load_image_vit(model, kind, source.state)
    return model


@torch.no_grad()
def tokens_of(model: UniFormerV2, clip_BCTHW: Tensor) -> Tensor:
    x_BTLC = model.embed(clip_BCTHW)
    for layer in model.transformer.resblocks:
        x_BTLC = layer(x_BTLC)
    return x_BTLC


def clip_of_noise() -> Tensor:
    return torch.randn(2, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


def tokens_of_frames(source: ImageModel, clip_BCTHW: Tensor) -> Tensor:
    frames = clip_BCTHW.transpose(1, 2)
    return source.tokens(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


@every_case
def test_every_frame_has_the_tokens_of_the_image_model(case: str) -> None:
    kind, make, _ = CASES[case]
    source, clip = make(), clip_of_noise()
    expected = tokens_of_frames(source, clip)
    assert 0.3 < float(expected.std()) < 10
    torch.testing.assert_close(tokens_of(loaded(kind, source), clip), expected, atol=1e-5, rtol=1e-5)


@every_case
def test_another_activation_or_epsilon_would_be_noticed(case: str) -> None:
    kind, make, settings = CASES[case]
    source, clip = make(), clip_of_noise()
    expected, right = tokens_of_frames(source, clip), loaded(kind, source)
    others = {"gelu": "exact" if settings["gelu"] == "quick" else "quick", "norm_eps": 1.1e-5 - settings["norm_eps"]}
    for name, value in others.items():
        wrong = UniFormerV2(dataclasses.replace(right.config, **{name: value})).eval()
        wrong.load_state_dict(right.state_dict())
        assert float((tokens_of(wrong, clip) - expected).abs().max()) > 1e-3, name


@every_case
def test_every_weight_of_the_backbone_counts(case: str) -> None:
    kind, make, _ = CASES[case]
    source, clip = make(), clip_of_noise()
    model = loaded(kind, source)
    expected = tokens_of(model, clip)
    names = ("embedding", "conv1", "ln_pre", "resblocks")
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            kept = parameter.detach().clone()
            parameter.data = parameter.data + 0.05 * torch.randn(parameter.shape)
            assert not torch.allclose(tokens_of(model, clip), expected, atol=1e-4, rtol=1e-4), name
            parameter.data = kept


@every_case
def test_the_source_decides_the_settings(case: str) -> None:
    kind, make, settings = CASES[case]
    assert source_settings(kind, make().state) == settings


def test_every_kind_has_a_case() -> None:
    assert {kind for kind, _, _ in CASES.values()} == KINDS.keys()


@every_case
def test_a_model_of_other_settings_is_refused(case: str) -> None:
    kind, make, settings = CASES[case]
    model = UniFormerV2(dataclasses.replace(BASE, **{**settings, "gelu": "tanh"}))
    with pytest.raises(CheckpointError, match=f"need a model with gelu='{settings['gelu']}', not 'tanh'") as caught:
        load_image_vit(model, kind, make().state)
    assert "source_settings(kind, state_dict)" in caught.value.hint


def test_a_bias_of_patches_and_a_missing_class_row_survive_another_grid() -> None:
    source = models.deit3()
    model = loaded("deit3", source, image_size=2 * SIZE)
    bias, table = (source.state["model"][name] for name in ("patch_embed.proj.bias", "pos_embed"))
    positions = model.positional_embedding.detach()
    assert positions.shape == (1 + 64, WIDTH)
    assert not positions[0].any()
    table_1CHW = table.view(1, 4, 4, WIDTH).permute(0, 3, 1, 2)
    wanted_1CHW = F.interpolate(table_1CHW, size=(8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(positions[1:], wanted_1CHW[0].flatten(1).T + bias)
