"""A state dict tells which UniFormerV2 it is of, and a checkpoint that does not fit is refused in those words."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_variants import ARCHITECTURES, meta_model, num_classes_of
from small_states import TINY, random_state
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.variants import Architecture, describe, settings_to_change

B16 = UniFormerV2Config.variant("b16")


def described(config: UniFormerV2Config) -> Architecture:
    found = describe(meta_model(config).state_dict())
    assert found is not None
    return found


def test_every_recorded_variant_is_told_by_its_published_name(shared: Path) -> None:
    found = {}
    for path in (shared / "golden/uniformerv2").glob("keys_*.json"):
        shapes = json.loads(path.read_text())["keys"]
        architecture = describe({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
        found[path.stem.removeprefix("keys_")] = architecture.name if architecture else ""
    assert found == {n: f"{kind}, {num_classes_of(n)} classes" for n, kind in ARCHITECTURES.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"width": 64, "heads": 1},
        {"layers": 3, "global_layers": (2,)},
        {"patch_size": 8},
        {"image_size": 48},
        {"num_classes": 7},
        {"local_blocks": 0},
        {"local_blocks": 2},
        {"dw_reduction": 2.0},
        {"dw_reduction": 1.25},
        {"temporal_downsample": True},
        {"global_layers": (0, 1)},
        {"mlp_factor": 2.5},
        {"global_layers": (0, 1), "fusion": "parallel"},
        {"pre_norm": False},
        {"local_blocks": 0, "frozen_backbone": True},
    ],
    ids=lambda change: "-".join(change),
)
def test_the_settings_that_are_named_make_the_model_fit(change: dict[str, Any]) -> None:
    theirs = dataclasses.replace(TINY, **change)
    named = settings_to_change(described(theirs), described(TINY))
    values = dict(re.findall(r"model\.(\w+)=(\[.*?\]|[^,]+)", named))
    assert set(values) <= {*change, "image_size"}
    told = {key: json.loads(value) for key, value in values.items()}
    told |= {key: tuple(value) for key, value in told.items() if isinstance(value, list)}
    assert described(dataclasses.replace(TINY, **told)) == described(theirs)


@pytest.mark.parametrize("fusion", ["hierarchical_kv", "hierarchical_q"])
def test_fusions_with_the_same_parameters_are_named_together(fusion: Any) -> None:
    found = described(dataclasses.replace(B16, fusion=fusion))
    assert found.published == ""
    assert "fusion hierarchical_kv or hierarchical_q" in str(found)
    named = settings_to_change(found, described(B16))
    assert named == 'model.fusion="hierarchical_kv" or "hierarchical_q"'


def test_two_equal_architectures_have_no_setting_to_change() -> None:
    assert settings_to_change(described(B16), described(dataclasses.replace(B16, num_frames=16))) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"global_layers": (9, 10, 11)},
        {"frozen_backbone": True},
        {"temporal_downsample": True},
        {"mlp_factor": 2.0},
        {"pre_norm": False},
        {"global_layers": (11,), "fusion": "parallel"},
        {"image_size": 256},
    ],
)
def test_a_model_that_was_not_published_has_no_published_name(change: dict[str, Any]) -> None:
    found = described(dataclasses.replace(B16, **change))
    assert found.published == ""
    assert str(found).startswith("an unpublished UniFormerV2, 400 classes (768 wide, 12 layers, patch 16, ")


def test_a_checkpoint_of_another_variant_is_refused_in_one_line_of_words() -> None:
    with pytest.raises(CheckpointError) as caught:
        meta_model(B16).load_official(meta_model(UniFormerV2Config.variant("l14")).state_dict())
    message = caught.value.message
    assert message.startswith(
        "the checkpoint looks like l14 kinetics, 400 classes (1024 wide, 24 layers, patch 14, 16x16 patches, "
        "4 global blocks), the model is b16 kinetics, 400 classes (768 wide, 12 layers, patch 16, 14x14 patches, "
        "4 global blocks): 144 unexpected: "
    )
    assert "\n" not in message
    assert len(message) < 1200
    assert caught.value.hint == (
        "build the model with model.patch_size=14, model.width=1024, model.heads=16, model.layers=24, "
        "model.global_layers=[20, 21, 22, 23]"
    )


def test_only_another_number_of_classes_is_said_so_alone() -> None:
    with pytest.raises(CheckpointError) as caught:
        meta_model(B16).load_official(meta_model(dataclasses.replace(B16, num_classes=710)).state_dict())
    assert caught.value.hint == "build the model with model.num_classes=710; then pick the head's rows by class"


def test_a_checkpoint_of_the_same_architecture_that_lacks_an_entry_is_said_to_be_changed() -> None:
    state = random_state(TINY)
    del state["transformer.resblocks.1.ln_1.bias"]
    with pytest.raises(
        CheckpointError, match=r"as the model is, but does not fit it: 1 missing: transformer"
    ) as caught:
        UniFormerV2(TINY).load_official(state)
    assert "another copy" in caught.value.hint


IMAGE_MODELS = {
    "openai clip": ("clip", ("visual.conv1.weight", "token_embedding.weight", "logit_scale")),
    "its image part": ("clip", ("conv1.weight", "class_embedding", "transformer.resblocks.0.ln_1.weight")),
    "hugging face clip": ("hf_clip", ("vision_model.embeddings.class_embedding", "logit_scale")),
}


@pytest.mark.parametrize(("kind", "keys"), IMAGE_MODELS.values(), ids=list(IMAGE_MODELS))
@pytest.mark.parametrize("prefix", ["", "module."])
def test_clip_is_told_apart_and_the_way_to_start_from_it_named(kind: str, keys: tuple[str, ...], prefix: str) -> None:
    with pytest.raises(CheckpointError, match=r"looks like an image transformer \(CLIP") as caught:
        UniFormerV2(TINY).load_official({prefix + key: torch.zeros(1) for key in keys})
    assert f"--init {kind}:PATH" in caught.value.hint


def test_another_image_transformer_is_told_apart() -> None:
    keys = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight")
    with pytest.raises(CheckpointError, match="looks like an image transformer") as caught:
        UniFormerV2(TINY).load_official({"model": {key: torch.zeros(1) for key in keys}})
    assert "--init" in caught.value.hint


def test_the_state_of_an_optimiser_is_told_apart() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    state = torch.optim.AdamW([parameter]).state_dict()
    with pytest.raises(CheckpointError, match="the state of an optimiser, not weights"):
        UniFormerV2(TINY).load_official(state)


def test_weights_of_something_else_are_not_called_a_uniformerv2() -> None:
    with pytest.raises(CheckpointError, match=r"does not look like a UniFormerV2: .* unexpected: fc.weight$"):
        UniFormerV2(TINY).load_official({"fc.weight": torch.zeros(1)})


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_state_dict_is_described_without_an_error(data: st.DataObject) -> None:
    state: dict[str, Tensor] = dict(META_STATE)
    for key in data.draw(st.lists(st.sampled_from(sorted(state)), max_size=20, unique=True)):
        del state[key]
    for key in data.draw(st.lists(st.sampled_from(sorted(META_STATE)), max_size=20, unique=True)):
        shape = data.draw(st.lists(st.integers(0, 5), max_size=6))
        state[key + data.draw(st.sampled_from(["", ".7.", "x"]))] = torch.empty(shape, device="meta")
    found = describe(state)
    if found is not None:
        assert str(found)
        settings_to_change(found, described(TINY))


META_STATE = meta_model(dataclasses.replace(TINY, local_blocks=2)).state_dict()
