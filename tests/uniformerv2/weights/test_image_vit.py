"""CLIP fills the backbone: every key of the source and of the model is accounted for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.image_vit import inflate, load_clip, load_image_vit
from uniformerv2.weights.positions import resize_positions

TINY = UniFormerV2Config(
    image_size=32, width=32, layers=2, heads=2, num_frames=4, num_classes=5, local_blocks=2, global_layers=(1,)
)
FRESH_BEGINNINGS = ("transformer.temporal_cls_token", "transformer.balance", "transformer.d", "transformer.proj.")


def test_inflation_is_the_published_one(shared: Path) -> None:
    recorded = load_file(shared / "golden/uniformerv2/clip_inflate.safetensors")
    kernel = recorded["clip.conv1.weight"]
    assert torch.equal(inflate(kernel, 1), recorded["inflated_tdown0"])
    assert torch.equal(inflate(kernel, 3), recorded["inflated_tdown1"])


def test_mean_inflation_gives_a_still_clip_the_response_of_its_image() -> None:
    kernel = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(inflate(kernel, 3, "mean").sum(2), kernel)
    with pytest.raises(ValueError, match="got 'middle'"):
        inflate(kernel, 3, "middle")  # type: ignore[arg-type]


def test_a_whole_clip_fills_the_backbone_and_nothing_else() -> None:
    visual = clip_visual(TINY)
    source = {f"visual.{key}": value for key, value in visual.items()}
    source |= {"logit_scale": torch.zeros(()), "transformer.resblocks.0.ln_1.weight": torch.zeros(8)}
    model = UniFormerV2(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_clip(model, source)
    after = model.state_dict()
    ignored = {key for key, _ in report.ignored}
    assert ignored == {
        "visual.proj",
        "visual.ln_post.weight",
        "visual.ln_post.bias",
        "logit_scale",
        "transformer.resblocks.0.ln_1.weight",
    }
    assert all(reason for _, reason in report.ignored)
    assert {f"visual.{key}" for key in report.taken} | ignored == set(source)
    assert sorted((*report.taken, *report.fresh)) == sorted(after)
    assert all(".lmhra" in key or key.startswith(FRESH_BEGINNINGS) for key in report.fresh)
    assert all(torch.equal(after[key], before[key]) for key in report.fresh)
    assert all(torch.equal(after[key], visual[key]) for key in report.taken if key not in report.inflated)
    assert (report.inflated, report.prefix) == (("conv1.weight",), "visual.")


def test_a_bare_visual_part_loads_the_same() -> None:
    visual = clip_visual(TINY)
    bare = {key: value.half() for key, value in visual.items() if key not in ("proj", "ln_post.weight", "ln_post.bias")}
    model = UniFormerV2(dataclasses.replace(TINY, temporal_downsample=True))
    report = load_clip(model, bare)
    assert (report.prefix, report.ignored) == ("", ())
    assert torch.equal(model.conv1.weight[:, :, 1], visual["conv1.weight"].half().float())
    assert not model.conv1.weight[:, :, ::2].any()


def test_mean_inflation_can_be_asked_for() -> None:
    visual = clip_visual(TINY)
    model = UniFormerV2(dataclasses.replace(TINY, temporal_downsample=True))
    load_clip(model, visual, inflation="mean")
    torch.testing.assert_close(model.conv1.weight[:, :, 0], visual["conv1.weight"] / 3)


def test_a_table_for_another_image_size_is_resized_and_keeps_its_class_row() -> None:
    visual = clip_visual(TINY)
    model = UniFormerV2(dataclasses.replace(TINY, image_size=64))
    report = load_clip(model, visual)
    assert report.resized == ("positional_embedding",)
    assert torch.equal(model.positional_embedding[0], visual["positional_embedding"][0])
    assert torch.equal(model.positional_embedding, resize_positions(visual["positional_embedding"], (4, 4)))


def test_as_many_patches_on_another_grid_are_resized_too() -> None:
    visual = clip_visual(dataclasses.replace(TINY, image_size=64))
    model = UniFormerV2(dataclasses.replace(TINY, image_size=(32, 128)))
    assert load_clip(model, visual).resized == ("positional_embedding",)
    assert torch.equal(model.positional_embedding, resize_positions(visual["positional_embedding"], (2, 8)))


def test_a_table_that_is_no_square_is_refused() -> None:
    visual = clip_visual(dataclasses.replace(TINY, image_size=(32, 64)))
    with pytest.raises(CheckpointError, match="8 rows beside the class row, which make no square grid"):
        load_clip(UniFormerV2(TINY), visual)


def test_missing_and_unexpected_keys_are_named_and_change_nothing() -> None:
    visual = clip_visual(TINY)
    visual["transformer.resblocks.0.extra"] = visual.pop("transformer.resblocks.1.ln_2.bias")
    model = UniFormerV2(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 missing: \S+1.ln_2.bias; 1 unexpected: \S+0.extra"):
        load_clip(model, visual)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("change", [{"layers": 3}, {"patch_size": 8, "image_size": 16}, {"width": 64}])
def test_another_size_is_said_in_one_sentence(change: dict[str, int]) -> None:
    config = dataclasses.replace(TINY, **change)
    sizes = f"{config.width} wide with {config.layers} layers and patches of {config.patch_size}"
    with pytest.raises(CheckpointError) as caught:
        load_clip(UniFormerV2(TINY), clip_visual(config))
    own = "the model is 32 wide with 2 layers and patches of 16"
    assert caught.value.message == f"the image transformer is {sizes}, {own}"
    assert f"width={config.width}, layers={config.layers}, patch_size={config.patch_size}" in caught.value.hint


@pytest.mark.parametrize(("rows", "variant"), [(257, "l14"), (577, "l14_336"), (1370, "l14")])
def test_a_published_size_is_called_by_its_name(rows: int, variant: str) -> None:
    shapes = {"class_embedding": (1024,), "positional_embedding": (rows, 1024), "conv1.weight": (1024, 3, 14, 14)}
    source = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    source |= {f"transformer.resblocks.{i}.ln_1.bias": torch.zeros(1024) for i in range(24)}
    source["ln_pre.weight"] = torch.ones(1024)
    with pytest.raises(CheckpointError, match="is 1024 wide with 24 layers and patches of 14") as caught:
        load_clip(UniFormerV2(TINY), source)
    assert caught.value.hint == f"it looks like variant {variant}: take a recipe of that size, such as k710_{variant}"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of clip, open_clip, .*, got 'inception'"):
        load_image_vit(UniFormerV2(TINY), "inception", {})


@given(
    kernel=st.integers(0, 2**32 - 1).map(lambda s: torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(s))),
    depth=st.integers(1, 7),
    inflation=st.sampled_from(["centre", "mean"]),
)
def test_an_inflated_kernel_sums_to_the_one_of_images(
    kernel: Tensor, depth: int, inflation: Literal["centre", "mean"]
) -> None:
    inflated = inflate(kernel, depth, inflation)
    assert inflated.shape == (2, 3, depth, 2, 2)
    torch.testing.assert_close(inflated.sum(2), kernel)


def clip_visual(config: UniFormerV2Config) -> dict[str, Tensor]:
    """Random weights with the names and shapes of OpenAI CLIP's image transformer."""
    plain = UniFormerV2(dataclasses.replace(config, local_blocks=0, global_layers=(), temporal_downsample=False))
    state = {key: torch.randn(value.shape) for key, value in plain.state_dict().items()}
    visual = {key: value for key, value in state.items() if not key.startswith(FRESH_BEGINNINGS)}
    visual["conv1.weight"] = visual["conv1.weight"][:, :, 0]
    visual["proj"] = torch.randn(config.width, 16)
    visual["ln_post.weight"], visual["ln_post.bias"] = torch.randn(2, config.width)
    return visual
