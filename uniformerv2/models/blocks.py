"""The two blocks of UniFormerV2, their parameters named as in the published checkpoints.

    local UniBlock:   [temporal convolution] -> attention inside each frame -> [temporal convolution] -> MLP
    global UniBlock:  a query of the clip looks at the tokens of all frames -> MLP

Axes: B clip, T frame (after patch embedding), H x W patch grid, S = H*W patch tokens, L = 1 + S tokens of a frame
with the class token in front, M tokens of one part of a clip, Q queries, C width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.models.fusion import Parts
from uniformerv2.models.layers import (
    MLP,
    Gelu,
    LayerNorm,
    PointwiseConv,
    QueryAttention,
    SpatialAttention,
    TemporalConv,
)
from uniformerv2.models.stochastic import BatchNorm, Dropout, DropPath, Randomness

DropPathMode = Literal["sample", "official"]
"""``sample`` removes a branch for single clips; ``official`` masks the axes that the published training masked."""


class LocalMHRA(nn.Module):
    """Local temporal relation aggregation: norm, reduce, mix neighbouring frames, expand.

    There is no activation between the layers. The last one starts at zero, so that the block starts as an identity.
    """

    def __init__(self, width: int, dw_reduction: float) -> None:
        super().__init__()
        reduced = int(width // dw_reduction)
        expand = PointwiseConv(reduced, width)
        for parameter in expand.parameters():
            nn.init.zeros_(parameter)
        self.pos_embed = nn.Sequential(BatchNorm(width), PointwiseConv(width, reduced), TemporalConv(reduced), expand)

    def forward(self, x_BTSC: Tensor) -> Tensor:
        norm, reduce, mix, expand = self.pos_embed
        assert isinstance(norm, BatchNorm)
        # In eval mode the norm is a scale and a shift, which the next layer takes in. Not further: the frames beyond
        # both ends are zero behind that layer, not in front of it.
        reduced = reduce(norm(x_BTSC)) if self.training else reduce(x_BTSC, *norm.scale_and_shift())
        out: Tensor = expand(mix(reduced))
        return out


class LocalUniBlock(nn.Module):
    """One backbone layer: a CLIP transformer layer with 0, 1 or 2 temporal convolutions in it."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        local_blocks: int,
        dw_reduction: float,
        gelu: Gelu,
        norm_eps: float,
        drop_path: float,
        mode: DropPathMode,
        randomness: Randomness,
        name: str,
    ) -> None:
        super().__init__()
        self.lmhra1 = LocalMHRA(width, dw_reduction) if local_blocks >= 1 else None
        self.lmhra2 = LocalMHRA(width, dw_reduction) if local_blocks == 2 else None
        self.attn = SpatialAttention(width, heads)
        self.ln_1 = LayerNorm(width, norm_eps)
        self.mlp = MLP(width, 4 * width, gelu)
        self.ln_2 = LayerNorm(width, norm_eps)
        # The published code calls temporal convolutions batch-first: there its mask did fall on samples.
        over: Literal["sample", "token"] = "token" if mode == "official" else "sample"
        self.drop_local1 = DropPath(drop_path, randomness, f"{name}.lmhra1")
        self.drop_attn = DropPath(drop_path, randomness, f"{name}.attn", over=over)
        self.drop_local2 = DropPath(drop_path, randomness, f"{name}.lmhra2")
        self.drop_mlp = DropPath(drop_path, randomness, f"{name}.mlp", over=over)

    def forward(self, x_BTLC: Tensor) -> Tensor:
        if self.lmhra1 is not None:
            x_BTLC = _add_to_patches(x_BTLC, self.lmhra1, self.drop_local1)
        x_BTLC = x_BTLC + self.drop_attn(self.attn(self.ln_1(x_BTLC)))
        if self.lmhra2 is not None:
            x_BTLC = _add_to_patches(x_BTLC, self.lmhra2, self.drop_local2)
        out: Tensor = x_BTLC + self.drop_mlp(self.mlp(self.ln_2(x_BTLC)))
        return out


class DynamicPositionEncoding(nn.Conv3d):
    """Backbone tokens [B, T, L, C] to what a global block looks at: class [B, T, C] and patch tokens [B, T*S, C].

    Patch tokens get a depth-wise 3x3x3 convolution of themselves added, the only place where the Kinetics models learn
    the order of frames; class tokens pass unchanged.
    """

    bias: Tensor

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__(width, width, kernel_size=3, padding=1, groups=width)
        self.grid = grid
        nn.init.zeros_(self.bias)

    def forward(self, x_BTLC: Tensor) -> Parts:  # type: ignore[override]
        class_BTC, patch_BTSC = x_BTLC[:, :, 0], x_BTLC[:, :, 1:]
        patch_BCTHW = torch.unflatten(patch_BTSC, 2, self.grid).permute(0, 4, 1, 2, 3)
        encoding_BTSC = self._convolve(patch_BCTHW).permute(0, 2, 3, 4, 1).flatten(2, 3)
        return class_BTC, (patch_BTSC + encoding_BTSC).flatten(1, 2)

    def _convolve(self, patch_BCTHW: Tensor) -> Tensor:
        if patch_BCTHW.device.type != "cpu" or patch_BCTHW.dtype != torch.bfloat16 or not torch.is_grad_enabled():
            return super().forward(patch_BCTHW)
        # On a CPU the bf16 gradient of this convolution takes three times as long as the fp32 one.
        with torch.autocast("cpu", enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            encoding = F.conv3d(patch_BCTHW.float(), weight, bias, padding=1, groups=self.groups)
        return encoding.to(patch_BCTHW.dtype)


class GlobalUniBlock(nn.Module):
    """Queries [B, Q, C] of a clip, after one look at all its tokens and an MLP.

    ``attn.out_proj`` and ``mlp.c_proj`` start at zero, so that the block starts as an identity on the query.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        hidden: int,
        dropout: float,
        drop_path: float,
        mode: DropPathMode,
        randomness: Randomness,
        name: str,
    ) -> None:
        super().__init__()
        self.attn = QueryAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden, dropout=Dropout(dropout, randomness, f"{name}.mlp.dropout"))
        self.ln_2 = nn.LayerNorm(width)
        self.ln_3 = nn.LayerNorm(width)
        over: Literal["sample", "batch"] = "batch" if mode == "official" else "sample"
        self.drop_attn = DropPath(drop_path, randomness, f"{name}.attn", over=over)
        self.drop_mlp = DropPath(drop_path, randomness, f"{name}.mlp", over=over)
        nn.init.xavier_uniform_(self.mlp.c_fc.weight)
        for layer in (self.attn.out_proj, self.mlp.c_proj):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query_BQC: Tensor, parts_BMC: Parts) -> Tensor:
        seen_BMC = [self.ln_3(part_BMC) for part_BMC in parts_BMC]
        query_BQC = query_BQC + self.drop_attn(self.attn(self.ln_1(query_BQC), seen_BMC))
        out: Tensor = query_BQC + self.drop_mlp(self.mlp(self.ln_2(query_BQC)))
        return out


def _add_to_patches(x_BTLC: Tensor, branch: LocalMHRA, drop_path: DropPath) -> Tensor:
    class_BT1C, patch_BTSC = x_BTLC[:, :, :1], x_BTLC[:, :, 1:]
    return torch.cat([class_BT1C, patch_BTSC + drop_path(branch(patch_BTSC))], dim=2)
