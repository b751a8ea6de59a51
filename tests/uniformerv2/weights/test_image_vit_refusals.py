"""What has no exact place in the backbone is refused with its reason, and what is of another kind with its name."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import image_models as models
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_models import WIDTH, ImageModel
from test_image_vit_oracles import BASE, CASES, PLAIN, QUICK

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2
from uniformerv2.weights.image_kinds import KINDS
from uniformerv2.weights.image_vit import load_image_vit, source_settings

Change = Callable[[dict[str, Any]], object]
PLAIN_MODEL = dataclasses.replace(BASE, **PLAIN)
QUICK_MODEL = dataclasses.replace(BASE, **QUICK)

EXTRAS = [
    ("dinov2", "register_tokens", "register tokens beside the patches"),
    ("timm", "reg_token", "register tokens beside the patches"),
    ("timm", "dist_token", "a distillation token"),
    ("timm", "head_dist.weight", "a distillation token"),
    ("dinov2", "blocks.0.mlp.w12.weight", r"gated MLPs \(SwiGLU\)"),
    ("timm", "blocks.0.mlp.fc1_g.weight", r"gated MLPs \(SwiGLU\)"),
    ("timm", "blocks.1.attn.q_norm.weight", "norms of query and key"),
    ("timm", "blocks.1.attn.k_norm.weight", "norms of query and key"),
    ("timm", "blocks.0.attn.norm.weight", "norms inside attention or MLP"),
    ("timm", "blocks.0.mlp.norm.weight", "norms inside attention or MLP"),
    ("timm", "blocks.0.attn.q_proj.weight", "rotary positions"),
    ("timm", "rope.freqs", "rotary positions"),
    ("timm", "attn_pool.latent", "attention that pools the patches"),
    ("timm", "patch_embed.norm.weight", "more than one convolution"),
    ("open_clip", "attn_pool.query", "attention that pools the patches"),
    ("open_clip", "transformer.resblocks.0.attn.ln_q.weight", "norms of query and key"),
]


def vit(change: Change) -> ImageModel:
    source = models.timm()
    change(source.state)
    return source


@pytest.mark.parametrize(("kind", "name", "reason"), EXTRAS)
def test_what_the_backbone_does_not_compute_is_refused(kind: str, name: str, reason: str) -> None:
    make = {"dinov2": models.dinov2, "timm": models.timm, "open_clip": lambda: models.openai_clip("")}[kind]
    state = make().state | {name: torch.zeros(4)}
    with pytest.raises(CheckpointError, match=f"the image transformer has {reason}.*{name}") as caught:
        source_settings(kind, state)
    assert caught.value.hint


def test_a_timm_model_inside_open_clip_is_refused_with_the_way_out() -> None:
    state = {f"visual.trunk.{name}": value for name, value in models.timm().state.items()} | {"logit_scale": 1.0}
    state["logit_scale"] = torch.ones(())
    with pytest.raises(CheckpointError, match="a timm model inside open_clip") as caught:
        source_settings("open_clip", state)
    assert "timm:PATH" in caught.value.hint


def test_a_resnet_is_refused() -> None:
    state = {"visual.conv1.weight": torch.zeros(4, 3, 3, 3), "visual.layer1.0.conv1.weight": torch.zeros(4)}
    with pytest.raises(CheckpointError, match="it is a ResNet"):
        source_settings("clip", state)


def test_a_model_without_class_token_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no class token"):
        source_settings("timm", vit(lambda state: state.pop("cls_token")).state)


def test_a_model_without_position_table_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no position table"):
        source_settings("timm", vit(lambda state: state.pop("pos_embed")).state)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("positions", ["absolute", "none"])
def test_relative_positions_that_say_something_are_refused(positions: str, shared: bool) -> None:
    source = models.beit(positions=positions, constant=False, shared=shared)
    with pytest.raises(CheckpointError, match=r"relative_position_bias_table says how far patches are from each other"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "beit", source.state)


def test_relative_positions_may_not_differ_for_the_class_token_either() -> None:
    source = models.beit()
    source.state["model"]["blocks.1.attn.relative_position_bias_table"][-1] += 1
    with pytest.raises(CheckpointError, match="says how far"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "beit", source.state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("kind", "key"), [("timm", "blocks.1.mlp.fc2.weight"), ("clip", "visual.ln_pre.bias")])
def test_values_that_are_not_finite_are_named(kind: str, key: str, value: float) -> None:
    state = CASES["timm" if kind == "timm" else "whole CLIP"][1]().state
    state[key].view(-1)[3] = value
    model = UniFormerV2(PLAIN_MODEL if kind == "timm" else QUICK_MODEL)
    with pytest.raises(CheckpointError, match=f"{key} has values that are not finite"):
        load_image_vit(model, kind, state)


def test_what_is_not_taken_need_not_be_finite() -> None:
    state = models.timm().state
    state["head.weight"][:] = float("nan")
    model = UniFormerV2(PLAIN_MODEL)
    assert "head.weight" in dict(load_image_vit(model, "timm", state).ignored)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


CHANGES: list[tuple[str, Change, str]] = [
    ("a missing layer norm", lambda s: s.pop("blocks.1.norm2.bias"), r"1 missing: \S+1.ln_2.bias"),
    ("a foreign entry", lambda s: s.update({"blocks.0.foo": torch.ones(4)}), r"unexpected: 'blocks.0.foo'"),
    ("a key of ours", lambda s: s.update({"class_embedding": torch.ones(4)}), "unexpected: 'class_embedding'"),
    ("a bias in some layers", lambda s: s.pop("blocks.1.attn.qkv.bias"), r"1 missing: \S+1.attn.in_proj_bias"),
    (
        "half a bias",
        lambda s: s.update({"blocks.1.attn.v_bias": torch.ones(WIDTH)}),
        "unexpected: 'blocks.1.attn.v_bias'",
    ),
    ("wide MLPs", lambda s: s.update({"blocks.0.mlp.fc1.weight": torch.ones(8, WIDTH)}), "mlp.c_fc.weight is"),
    ("two class tokens", lambda s: s.update({"cls_token": torch.ones(1, 2, WIDTH)}), "cls_token is .* one token"),
    (
        "flat patches",
        lambda s: s.update({"patch_embed.proj.weight": torch.ones(WIDTH, 192)}),
        "is .*, not one of square",
    ),
    ("grey pictures", lambda s: s.update({"patch_embed.proj.weight": torch.ones(WIDTH, 1, 8, 8)}), "not one of square"),
    ("a narrow bias", lambda s: s.update({"patch_embed.proj.bias": torch.ones(3)}), r"bias of the patch .* is \(3,\)"),
    ("a narrow table", lambda s: s.update({"pos_embed": torch.ones(1, 17, 8)}), "is .*8"),
    ("no square", lambda s: s.update({"pos_embed": torch.ones(1, 13, WIDTH)}), "12 rows beside the class row"),
    ("no number", lambda s: s.update({"blocks.0.norm1.bias": "zero"}), "'blocks.0.norm1.bias' is a str, not a tensor"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_changed_checkpoint_is_refused_and_leaves_the_model_alone(change: Change, message: str) -> None:
    model = UniFormerV2(PLAIN_MODEL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_image_vit(model, "timm", vit(change).state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("lost", ["positional_embedding", "ln_pre.bias", "transformer.resblocks.1.ln_1.bias"])
def test_the_cure_for_a_lost_entry_is_another_copy_whichever_it_is(lost: str) -> None:
    state = models.openai_clip("").state
    del state[lost]
    with pytest.raises(CheckpointError, match=f"1 missing: {lost}") as caught:
        load_image_vit(UniFormerV2(QUICK_MODEL), "clip", state)
    assert caught.value.hint == "entries were lost or added after it was saved: use an unchanged checkpoint"


def test_a_layer_scale_of_another_width_is_refused() -> None:
    source = models.deit3()
    source.state["model"]["blocks.0.gamma_1"] = torch.ones(1)
    with pytest.raises(CheckpointError, match=r"blocks.0.gamma_1 is \(1,\), the layer is \(32, 32\)"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "deit3", source.state)


@pytest.mark.parametrize(("kind", "lost"), [("dinov2", "blocks.1.ls2.gamma"), ("open_clip", "ls_1.gamma")])
def test_a_lost_layer_scale_does_not_pass_for_none(kind: str, lost: str) -> None:
    source = models.dinov2() if kind == "dinov2" else models.open_clip(quick=False, layer_scale=True)
    state = source.state.get("state_dict", source.state)
    del state[next(key for key in state if key.endswith(lost))]
    model = UniFormerV2(dataclasses.replace(BASE, **source_settings(kind, state)))
    with pytest.raises(CheckpointError, match=r"has layer scales, but not one for transformer\.resblocks"):
        load_image_vit(model, kind, state)


def test_two_entries_for_one_key_are_refused() -> None:
    state = models.timm().state
    state["blocks.0.1.norm1.bias"] = state["blocks.1.norm1.bias"]
    with pytest.raises(CheckpointError, match=r"a second entry for transformer\.resblocks\.1\.ln_1\.bias"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "timm", state)


def test_two_biases_of_queries_are_refused() -> None:
    source = models.beit()
    source.state["model"]["blocks.0.attn.qkv.bias"] = torch.ones(3 * WIDTH)
    with pytest.raises(CheckpointError, match="q_bias: a second entry for"):
        load_image_vit(UniFormerV2(PLAIN_MODEL), "beit", source.state)


def test_queries_and_keys_of_other_shapes_are_refused() -> None:
    state = models.hf_clip(quick=True).state
    state["encoder.layers.0.self_attn.k_proj.weight"] = torch.ones(8, WIDTH)
    with pytest.raises(CheckpointError, match=r"have the shapes \(8, 32\) and \(32, 32\)"):
        load_image_vit(UniFormerV2(QUICK_MODEL), "hf_clip", state)


def test_a_lost_key_projection_is_missed() -> None:
    state = models.hf_clip(quick=True).state
    del state["encoder.layers.0.self_attn.k_proj.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: \S+0.attn.in_proj_weight; 2 unexpected: 'encoder"):
        load_image_vit(UniFormerV2(QUICK_MODEL), "hf_clip", state)


def test_an_entry_beside_the_image_transformer_needs_a_reason_too() -> None:
    state = models.openai_clip().state | {"adapter.weight": torch.ones(3)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: 'adapter\.weight'"):
        load_image_vit(UniFormerV2(QUICK_MODEL), "clip", state)


LIKE = {
    "whole CLIP": "clip or open_clip_quickgelu",
    "bare CLIP": "clip, open_clip or open_clip_quickgelu",
    "open_clip": "clip, open_clip or open_clip_quickgelu",
    "open_clip layer scale": "open_clip or open_clip_quickgelu",
    "open_clip no ln_pre": "open_clip or open_clip_quickgelu",
    "HF CLIP inside": "hf_clip or hf_clip_gelu",
    "DINO": "dino",
    "DINOv2": "dinov2",
    "MAE": "mae",
    "BEiT": "beit",
    "DeiT III": "deit3",
    "timm": "dino, mae or timm",
    "timm layer scale": "deit3 or timm",
    "timm CLIP": "timm or timm_quickgelu",
}


@pytest.mark.parametrize("case", LIKE)
def test_a_wrong_kind_is_told_the_right_one(case: str) -> None:
    state = CASES[case][1]().state
    right = set(LIKE[case].replace(" or ", ", ").split(", "))
    assert CASES[case][0] in right
    for kind in KINDS:
        if kind in right:
            source_settings(kind, state)
        else:
            with pytest.raises(CheckpointError) as caught:
                source_settings(kind, state)
            assert caught.value.message == f"the weights are not of kind {kind}, they look like {LIKE[case]}"
            assert caught.value.hint == f"start from {LIKE[case].replace(' or ', ', ').split(', ')[0]}:PATH"


STRANGERS: list[tuple[str, Mapping[str, Any], str]] = [
    ("nothing", {}, "kinds: clip, open_clip"),
    ("a text model", {"token_embedding.weight": torch.ones(3, 4)}, "kinds: clip"),
    ("ours", UniFormerV2(BASE).state_dict(), "take official:PATH, or run:PATH"),
    ("official", {f"backbone.{k}": v for k, v in UniFormerV2(BASE).state_dict().items()}, "take official:PATH"),
]


@pytest.mark.parametrize(("state", "hint"), [row[1:] for row in STRANGERS], ids=[row[0] for row in STRANGERS])
def test_what_is_no_image_transformer_is_refused(state: Mapping[str, Any], hint: str) -> None:
    with pytest.raises(CheckpointError, match="not of an image transformer that is known") as caught:
        source_settings("clip", state)
    assert hint in caught.value.hint


def test_scales_spelled_as_in_rotary_models_are_not_of_a_known_kind() -> None:
    state = models.timm().state | {f"blocks.{i}.gamma_{j}": torch.ones(WIDTH) for i in (0, 1) for j in (1, 2)}
    with pytest.raises(CheckpointError, match="not of an image transformer that is known"):
        source_settings("timm", state)


def test_hugging_face_names_of_other_families_are_refused_with_the_way_out() -> None:
    state = {"embeddings.patch_embeddings.projection.weight": torch.ones(4, 3, 2, 2), "embeddings.cls_token": None}
    state["embeddings.cls_token"] = torch.ones(1, 1, 4)
    with pytest.raises(CheckpointError, match="the names of Hugging Face") as caught:
        source_settings("dinov2", state)
    assert "original checkpoint" in caught.value.hint


def flat_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The innermost dictionary, with the weights themselves."""
    inner = next((checkpoint[n] for n in ("teacher", "state_dict", "model") if n in checkpoint), None)
    return checkpoint if inner is None else flat_weights(inner)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_or_loads_whole(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(sorted(CASES)))
    kind, _, decided = CASES[case]
    source = copy.deepcopy(checkpoint_of(case))
    weights = flat_weights(source)
    for key in data.draw(st.lists(st.sampled_from(sorted(weights)), min_size=1, max_size=3, unique=True)):
        value = weights.pop(key)
        damage = data.draw(st.sampled_from(["lost", "renamed", "wrapped", "nan", "scalar", "text", "half", "sparse"]))
        made = {
            "wrapped": value[None],
            "nan": value.float() * torch.nan,
            "scalar": torch.tensor(1.0),
            "text": "x",
            "half": value[: len(value) // 2] if value.ndim else value,
            "sparse": value.float().to_sparse(),
        }
        if damage != "lost":
            weights[key + data.draw(st.text(max_size=3)) if damage == "renamed" else key] = made.get(damage, value)
    model = UniFormerV2(dataclasses.replace(BASE, **decided))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_image_vit(model, kind, source)
    except CheckpointError:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    else:
        assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@functools.cache
def checkpoint_of(case: str) -> dict[str, Any]:
    return CASES[case][1]().state
