"""The four fusions of the paper, each against its definition written out with plain multi-head attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from small_models import TINY, clips, randomised
from torch import Tensor, nn

from uniformerv2 import UniFormerV2, UniFormerV2Config

FUSIONS = ("sequential", "parallel", "hierarchical_kv", "hierarchical_q")
BASE = dataclasses.replace(TINY, layers=4, global_layers=(0, 2, 3), dropout=0.0)


def config_of(fusion: str, **changes: Any) -> UniFormerV2Config:
    return dataclasses.replace(BASE, fusion=fusion, **changes)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_fusion_is_its_definition(fusion: str) -> None:
    model = randomised(UniFormerV2(config_of(fusion))).eval()
    batch = clips(BASE, 2)
    tokens = [seen.flatten(1, 2) for seen in model.features(batch).seen_BTLC]
    encoded = [_encoded(model, j, seen) for j, seen in enumerate(model.features(batch).seen_BTLC)]
    assert [len(tokens), len(encoded)] == [3, 3]
    expected = _defined(model, fusion, encoded)
    torch.testing.assert_close(model.transformer._query(model.features(batch)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_part_that_the_result_depends_on_gets_a_gradient(fusion: str) -> None:
    model = randomised(UniFormerV2(config_of(fusion)))
    model(clips(BASE, 2)).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # The key bias adds the same to every score. With hierarchical queries the last block's own query is the result,
    # and queries do not see each other.
    silent = ("transformer.dec.0.", "transformer.dec.1.", "transformer.dpe.0.", "transformer.dpe.1.")
    assert without == {n for n, _ in model.named_parameters() if fusion == "hierarchical_q" and n.startswith(silent)}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusions_differ_in_queries_and_one_linear_layer_only(fusion: str) -> None:
    state, plain = UniFormerV2(config_of(fusion)).state_dict(), UniFormerV2(BASE).state_dict()
    added = {"transformer.fusion.weight", "transformer.fusion.bias"} if fusion == "parallel" else set()
    assert set(state) - set(plain) == added
    assert not set(plain) - set(state)
    num_queries = 1 if fusion == "sequential" else 3
    assert state["transformer.temporal_cls_token"].shape == (num_queries, 1, BASE.width)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("frozen", [False, True])
def test_at_the_start_logits_do_not_depend_on_what_global_blocks_see(fusion: str, frozen: bool) -> None:
    model = UniFormerV2(config_of(fusion, frozen_backbone=frozen)).eval()
    before = model(clips(BASE, 2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            starts_at_zero = name.endswith(("out_proj.weight", "out_proj.bias", "c_proj.weight", "c_proj.bias"))
            if name.startswith(("transformer.dpe.", "transformer.dec.", "transformer.fusion.w")) and not starts_at_zero:
                parameter.add_(torch.randn_like(parameter))
    assert torch.equal(model(clips(BASE, 2)), before)


@pytest.mark.parametrize("local_blocks", [0, 1, 2])
@pytest.mark.parametrize("global_layers", [(), (1, 3)])
def test_which_blocks_are_on_is_configuration(local_blocks: int, global_layers: tuple[int, ...]) -> None:
    config = dataclasses.replace(BASE, local_blocks=local_blocks, global_layers=global_layers)
    names = set(UniFormerV2(config).state_dict())
    assert sum(".lmhra" in name and name.endswith("pos_embed.0.weight") for name in names) == 4 * local_blocks
    assert sum(name.startswith("transformer.dec.") and name.endswith("ln_3.weight") for name in names) == len(
        global_layers
    )
    assert UniFormerV2(config)(clips(config, 2)).shape == (2, 5)


@pytest.mark.parametrize("fusion", FUSIONS[1:])
def test_a_fusion_of_no_blocks_is_refused(fusion: str) -> None:
    with pytest.raises(ValueError, match=f"fusion {fusion} needs a global block, got global_layers "):
        config_of(fusion, global_layers=())


def _defined(model: UniFormerV2, fusion: str, seen: list[Tensor]) -> Tensor:
    """The paper's definition (section 3.4), literally, on tokens [B, M, C] of each block."""
    queries = [q.expand(len(seen[0]), 1, -1) for q in model.transformer.temporal_cls_token]
    blocks = [lambda q, x, block=block: _global_block(block, q, x) for block in model.transformer.dec]
    if fusion == "sequential":
        z = queries[0]
        for block, x in zip(blocks, seen, strict=True):
            z = block(z, x)
        return z[:, 0]
    z = blocks[0](queries[0], seen[0])
    if fusion == "parallel":
        rest = [block(q, x) for block, q, x in zip(blocks[1:], queries[1:], seen[1:], strict=True)]
        assert model.transformer.fusion is not None
        joined: Tensor = model.transformer.fusion(torch.cat([z, *rest], dim=-1)[:, 0])
        return joined
    for block, q, x in zip(blocks[1:], queries[1:], seen[1:], strict=True):
        z = block(q, torch.cat([z, x], dim=1)) if fusion == "hierarchical_kv" else block(torch.cat([z, q], dim=1), x)
    return z[:, -1]


def _global_block(block: Any, query_BQC: Tensor, tokens_BMC: Tensor) -> Tensor:
    attention = nn.MultiheadAttention(BASE.width, BASE.heads, batch_first=True)
    attention.load_state_dict(block.attn.state_dict())
    keys_BMC = block.ln_3(tokens_BMC)
    query_BQC = query_BQC + attention(block.ln_1(query_BQC), keys_BMC, keys_BMC)[0]
    hidden = block.mlp.c_fc(block.ln_2(query_BQC))
    out: Tensor = query_BQC + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    return out


def _encoded(model: UniFormerV2, index: int, x_BTLC: Tensor) -> Tensor:
    conv: Any = model.transformer.dpe[index]
    B, C = len(x_BTLC), x_BTLC.shape[-1]
    patch_BCTHW = x_BTLC[:, :, 1:].unflatten(2, model.config.grid).permute(0, 4, 1, 2, 3).contiguous()
    encoding = nn.functional.conv3d(patch_BCTHW, conv.weight, conv.bias, padding=1, groups=C)
    patch_BTSC = x_BTLC[:, :, 1:] + encoding.flatten(3).permute(0, 2, 3, 1)
    return torch.cat([x_BTLC[:, :, :1], patch_BTSC], dim=2).reshape(B, -1, C)
