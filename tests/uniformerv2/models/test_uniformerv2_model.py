"""What the model takes, refuses and computes, without reference data."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from small_models import LOCAL, TINY, clips, randomised
from torch import Tensor, nn
from torch.nn.utils import prune

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.models.layers import PatchEmbedding, QueryAttention, SpatialAttention, TemporalConv


def test_logits_have_a_row_per_clip() -> None:
    assert UniFormerV2(TINY)(clips(TINY, 3)).shape == (3, 5)


@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 32, 32), (2, 3, 4, 32, 48), (2, 1, 4, 32, 32), (3, 4, 32, 32), (0, 3, 4, 32, 32)]
)
def test_a_clip_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected clips of shape \[B, 3, 4, 32, 32\], got"):
        UniFormerV2(TINY)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_a_clip_of_another_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"expected clips of torch.float32, normalised as .*, got {dtype}"):
        UniFormerV2(TINY)(clips(TINY, 1).to(dtype))
    if not dtype.is_floating_point:
        with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match=f"got {dtype}"):
            UniFormerV2(TINY)(clips(TINY, 1).to(dtype))


def test_a_model_of_another_dtype_takes_clips_of_its_own() -> None:
    model = UniFormerV2(LOCAL).double().eval()
    assert model(clips(LOCAL, 1).double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert UniFormerV2(LOCAL).eval()(clips(LOCAL, 1).bfloat16()).isfinite().all()


def test_any_grid_and_an_odd_number_of_frames_work() -> None:
    config = dataclasses.replace(TINY, image_size=(32, 64), num_frames=3)
    assert UniFormerV2(config)(clips(config, 2)).shape == (2, 5)


def test_frames_do_not_change_the_parameters() -> None:
    model = UniFormerV2(TINY)
    longer = UniFormerV2(dataclasses.replace(TINY, num_frames=9))
    assert longer.load_official(model.state_dict()).fresh == ()


def test_global_layers_may_be_few_or_none() -> None:
    for layers in ((), (0,), (0, 2)):
        config = dataclasses.replace(TINY, global_layers=layers)
        assert UniFormerV2(config)(clips(config, 2)).shape == (2, 5)


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    model = randomised(UniFormerV2(LOCAL)).eval()
    batch = clips(LOCAL, 3)
    alone = torch.cat([model(clip[None]) for clip in batch])
    torch.testing.assert_close(model(batch), alone, rtol=0, atol=1e-5)


def test_order_of_frames_matters_to_global_blocks_only() -> None:
    batch = clips(TINY, 2)
    with_global = randomised(UniFormerV2(TINY)).eval()
    assert (with_global(batch) - with_global(batch.flip(2))).abs().max() > 1e-3
    without = randomised(UniFormerV2(dataclasses.replace(TINY, global_layers=()))).eval()
    torch.testing.assert_close(without(batch), without(batch.flip(2)), rtol=0, atol=1e-5)


def test_new_blocks_start_as_identities() -> None:
    local, plain = UniFormerV2(LOCAL).eval(), UniFormerV2(dataclasses.replace(LOCAL, local_blocks=0, global_layers=()))
    state = local.state_dict()
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    batch = clips(LOCAL, 2)
    torch.testing.assert_close(local(batch), plain.eval()(batch), rtol=0, atol=1e-6)


def test_image_models_without_a_first_norm_or_with_another_activation_have_a_place() -> None:
    batch, outputs = clips(TINY, 2), []
    for changes in ({}, {"gelu": "exact"}, {"gelu": "tanh"}, {"norm_eps": 1e-2}, {"pre_norm": False}):
        config = dataclasses.replace(TINY, **changes)
        torch.manual_seed(0)
        model = randomised(UniFormerV2(config)).eval()
        assert any(name.startswith("ln_pre") for name in model.state_dict()) == config.pre_norm
        outputs.append(model(batch))
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("config", [TINY, LOCAL, dataclasses.replace(TINY, frozen_backbone=True)])
def test_kept_features_give_the_same_logits_and_gradients(config: UniFormerV2Config) -> None:
    model = randomised(UniFormerV2(config)).eval()
    batch = clips(config, 2)
    with torch.no_grad():
        features = model.features(batch)
    model.classify(features).square().sum().backward()
    from_features = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    logits = model(batch)
    logits.square().sum().backward()
    assert torch.equal(model.classify(features), logits)
    behind = {n: p.grad for n, p in model.named_parameters() if n in from_features}
    assert all(torch.equal(behind[name], grad) for name, grad in from_features.items())
    assert {"transformer.proj.2.weight", "transformer.dpe.0.weight"} <= set(from_features)
    assert not any("resblocks" in name or "conv1" in name for name in from_features)


@pytest.mark.parametrize("grad", [False, True])
def test_hooks_see_what_modules_return_and_replaced_layers_are_called(grad: bool) -> None:
    model = randomised(UniFormerV2(TINY)).eval()
    layer, seen = model.transformer.resblocks[0], {}
    with torch.set_grad_enabled(grad):
        plain = model(clips(TINY, 2))
        for name in ("attn", "mlp", "mlp.c_fc", "mlp.c_proj"):
            hook = lambda module, inputs, output, name=name: seen.update({name: (inputs[0], output)})  # noqa: E731
            layer.get_submodule(name).register_forward_hook(hook)
        torch.testing.assert_close(model(clips(TINY, 2)), plain)
        assert set(seen) == {"attn", "mlp", "mlp.c_fc", "mlp.c_proj"}
        assert torch.equal(seen["mlp"][1], seen["mlp.c_proj"][1])
        hidden = seen["mlp.c_fc"][1]
        mlp: Any = layer.mlp
        torch.testing.assert_close(seen["mlp"][1], mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden)))


def test_a_pruned_layer_uses_its_pruned_weight() -> None:
    model = randomised(UniFormerV2(TINY)).eval()
    before = model(clips(TINY, 2))
    for name in ("c_fc", "c_proj"):
        prune.random_unstructured(model.transformer.resblocks[0].mlp.get_submodule(name), "weight", amount=0.5)
    after = model(clips(TINY, 2))
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        model.transformer.resblocks[0].mlp.c_proj.weight_orig.zero_()  # type: ignore[union-attr]
    assert (model(clips(TINY, 2)) - after).abs().max() > 1e-3


def test_loading_forgets_what_batch_norm_had_pending() -> None:
    state = UniFormerV2(LOCAL).state_dict()
    with torch.device("meta"):
        bare = UniFormerV2(LOCAL)
    emptied = bare.to_empty(device="cpu").train()
    for buffer in emptied.buffers():
        buffer.fill_(1)
    emptied.load_state_dict(state)
    with torch.device("meta"):
        assigned = UniFormerV2(LOCAL).train()
    assigned.load_state_dict(copy.deepcopy(state), assign=True)
    expected = UniFormerV2(LOCAL).train()
    expected.load_state_dict(state)
    for model in (emptied, assigned, expected):
        model.randomness.begin(1, 0, torch.arange(2), torch.zeros(2, dtype=torch.int64))
        model(clips(LOCAL, 2))
    for model in (emptied, assigned):
        for (name, a), b in zip(model.named_buffers(), expected.buffers(), strict=True):
            assert torch.equal(a, b), name


def test_a_frozen_backbone_gets_no_gradient_and_records_nothing() -> None:
    model = randomised(UniFormerV2(dataclasses.replace(TINY, frozen_backbone=True)))
    outputs: list[Tensor] = []
    model.transformer.resblocks[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(clips(TINY, 2).requires_grad_()).sum().backward()
    assert not outputs[0].requires_grad
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert "transformer.balance" not in model.state_dict()


def test_a_copied_model_keeps_one_source_of_randomness_of_its_own() -> None:
    model = UniFormerV2(LOCAL)
    copied = copy.deepcopy(model)
    assert copied.randomness is not model.randomness
    sources = {id(m.randomness) for m in copied.transformer.modules() if hasattr(m, "randomness")}
    assert sources == {id(copied.randomness)}


@pytest.mark.parametrize("downsample", [False, True])
def test_patch_embedding_is_a_convolution(downsample: bool) -> None:
    embed, clip = PatchEmbedding(8, 4, downsample), torch.randn(2, 3, 6, 8, 12)
    stride, padding = ((2, 4, 4), (1, 0, 0)) if downsample else ((1, 4, 4), (0, 0, 0))
    expected = nn.functional.conv3d(clip, embed.weight, stride=stride, padding=padding)
    torch.testing.assert_close(embed(clip), expected.permute(0, 2, 3, 4, 1).flatten(2, 3))


def test_temporal_convolution_is_a_convolution() -> None:
    conv, x_BTSC = TemporalConv(6), torch.randn(2, 5, 3, 6)
    x_BCTS1 = x_BTSC.permute(0, 3, 1, 2)[..., None]
    expected = nn.functional.conv3d(x_BCTS1, conv.weight, conv.bias, padding=(1, 0, 0), groups=6)
    torch.testing.assert_close(conv(x_BTSC), expected[..., 0].permute(0, 2, 3, 1))


def test_attention_is_multi_head_attention() -> None:
    reference = nn.MultiheadAttention(32, 2, batch_first=True)
    nn.init.normal_(reference.in_proj_bias)
    spatial, single = SpatialAttention(32, 2), QueryAttention(32, 2)
    for attention in (spatial, single):
        attention.load_state_dict(reference.state_dict())
    x_BTLC, query_BC = torch.randn(2, 3, 5, 32), torch.randn(2, 32)
    frames, tokens_BMC = x_BTLC.flatten(0, 1), x_BTLC.flatten(1, 2)
    torch.testing.assert_close(spatial(x_BTLC).flatten(0, 1), reference(frames, frames, frames)[0])
    expected_BC = reference(query_BC[:, None], tokens_BMC, tokens_BMC)[0][:, 0]
    for parts in ([tokens_BMC], [tokens_BMC[:, :4], tokens_BMC[:, 4:]]):
        torch.testing.assert_close(single(query_BC[:, None], parts)[:, 0], expected_BC)
