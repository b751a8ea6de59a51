"""The two blocks of UniFormerV2 and their parts, named as in the published checkpoints.

    local UniBlock:   [temporal convolution] -> attention inside each frame -> [temporal convolution] -> MLP
    global UniBlock:  one query per clip looks at the tokens of all frames -> MLP

Axes: B clip, T frame (after patch embedding), H x W patch grid, S = H*W patch tokens, L = 1 + S tokens of a frame
with the class token in front, M = T*L tokens of a clip, C width, h heads, E = C/h width of a head, X values of a patch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniformerv2.models.stochastic import BatchNorm, Dropout, DropPath, Randomness

DropPathMode = Literal["sample", "official"]
"""``sample`` removes a branch for single clips; ``official`` masks the axes that the published training masked."""


class PatchEmbedding(nn.Conv3d):
    """Clip [B, 3, frames, height, width] to patch tokens [B, T, H, W, C].

    A convolution whose kernel is its stride in space, so it is one matrix product over cut-out patches. With temporal
    downsampling a patch spans three frames and every second frame starts one; the ends are padded with a zero frame.
    """

    def __init__(self, width: int, patch_size: int, temporal_downsample: bool) -> None:
        depth, self.step = (3, 2) if temporal_downsample else (1, 1)
        super().__init__(3, width, (depth, patch_size, patch_size), bias=False)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        depth, patch, _ = self.kernel_size
        padded = F.pad(clip_BCTHW, (0, 0, 0, 0, depth // 2, depth // 2))
        windows = padded.unfold(2, depth, self.step).unfold(3, patch, patch).unfold(4, patch, patch)
        pixels_BTHWX = windows.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
        return F.linear(pixels_BTHWX, self.weight.flatten(1))


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in fp32 whatever the input; the result has the dtype of the input, as in CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class MLP(nn.Module):
    """Two linear layers with QuickGELU, x * sigmoid(1.702 x), between them; ``dropout`` comes before the second."""

    def __init__(self, width: int, hidden: int, dropout: Dropout | None = None) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        out: Tensor = self.c_proj(hidden if self.dropout is None else self.dropout(hidden))
        return out


class _Attention(nn.Module):
    """The parameters of multi-head attention under their published names: rows of ``in_proj`` are query, key, value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class SpatialAttention(_Attention):
    """Self-attention over the L tokens of each frame; frames do not see each other."""

    def forward(self, x_BTLC: Tensor) -> Tensor:
        qkv = F.linear(x_BTLC, self.in_proj_weight, self.in_proj_bias)
        q, k, v = torch.unflatten(qkv.flatten(0, 1), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heads_hLE = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(heads_hLE.transpose(1, 2).flatten(2))
        return out.view_as(x_BTLC)


class SingleQueryAttention(_Attention):
    """Cross-attention of one query per clip over all its tokens.

    Written without projecting the M tokens to keys and values. With one query, q . (W_k y) = (W_k^T q) . y, and the sum
    of p W_v y is W_v applied to the sum of p y; the key bias adds the same to every score, so the softmax cancels it.
    """

    def forward(self, query_BC: Tensor, tokens_BMC: Tensor) -> Tensor:
        weight_q, *weights_kv = self.in_proj_weight.chunk(3)
        bias_q, _, bias_v = self.in_proj_bias.chunk(3)
        weight_k_hEC, weight_v_hEC = (torch.unflatten(w, 0, (self.heads, -1)) for w in weights_kv)
        query_BhE = torch.unflatten(F.linear(query_BC, weight_q, bias_q), -1, (self.heads, -1))
        probe_BhC = torch.einsum("bhe,hec->bhc", query_BhE * query_BhE.shape[-1] ** -0.5, weight_k_hEC)
        weights_BhM = (probe_BhC @ tokens_BMC.mT).softmax(dim=-1)
        values_BhE = torch.einsum("bhc,hec->bhe", weights_BhM @ tokens_BMC, weight_v_hEC)
        out: Tensor = self.out_proj(values_BhE.flatten(1) + bias_v)
        return out


class PointwiseConv(nn.Conv3d):
    """A 1x1x1 convolution on channel-last tokens: a linear layer with the parameter shapes of a convolution."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class TemporalConv(nn.Conv3d):
    """A depth-wise convolution over three neighbouring frames of channel-last tokens, with zero frames at both ends."""

    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, width, kernel_size=(3, 1, 1), groups=width)

    def forward(self, x_BTSC: Tensor) -> Tensor:
        before_C, here_C, after_C = self.weight.to(x_BTSC.dtype).flatten(1).unbind(1)
        padded = F.pad(x_BTSC, (0, 0, 0, 0, 1, 1))
        frames = padded[:, :-2] * before_C + x_BTSC * here_C + padded[:, 2:] * after_C
        return frames + self.bias.to(x_BTSC.dtype)


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
        out: Tensor = self.pos_embed(x_BTSC)
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
        drop_path: float,
        mode: DropPathMode,
        randomness: Randomness,
        name: str,
    ) -> None:
        super().__init__()
        self.lmhra1 = LocalMHRA(width, dw_reduction) if local_blocks >= 1 else None
        self.lmhra2 = LocalMHRA(width, dw_reduction) if local_blocks == 2 else None
        self.attn = SpatialAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.ln_2 = LayerNorm(width)
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
    """Backbone tokens [B, T, L, C] to the tokens [B, M, C] that a global block looks at, time-major.

    Patch tokens get a depth-wise 3x3x3 convolution of themselves added, the only place where the Kinetics models learn
    the order of frames; class tokens pass unchanged.
    """

    bias: Tensor

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__(width, width, kernel_size=3, padding=1, groups=width)
        self.grid = grid
        nn.init.zeros_(self.bias)

    def forward(self, x_BTLC: Tensor) -> Tensor:
        class_BT1C, patch_BTSC = x_BTLC[:, :, :1], x_BTLC[:, :, 1:]
        patch_BCTHW = torch.unflatten(patch_BTSC, 2, self.grid).permute(0, 4, 1, 2, 3)
        encoding_BTSC = super().forward(patch_BCTHW).flatten(3).permute(0, 2, 3, 1)
        return torch.cat([class_BT1C, patch_BTSC + encoding_BTSC], dim=2).flatten(1, 2)


class GlobalUniBlock(nn.Module):
    """The running query of a clip, after one look at all its tokens and an MLP.

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
        self.attn = SingleQueryAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden, Dropout(dropout, randomness, f"{name}.mlp.dropout"))
        self.ln_2 = nn.LayerNorm(width)
        self.ln_3 = nn.LayerNorm(width)
        over: Literal["sample", "batch"] = "batch" if mode == "official" else "sample"
        self.drop_attn = DropPath(drop_path, randomness, f"{name}.attn", over=over)
        self.drop_mlp = DropPath(drop_path, randomness, f"{name}.mlp", over=over)
        nn.init.xavier_uniform_(self.mlp.c_fc.weight)
        for layer in (self.attn.out_proj, self.mlp.c_proj):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query_BC: Tensor, tokens_BMC: Tensor) -> Tensor:
        query_BC = query_BC + self.drop_attn(self.attn(self.ln_1(query_BC), self.ln_3(tokens_BMC)))
        out: Tensor = query_BC + self.drop_mlp(self.mlp(self.ln_2(query_BC)))
        return out


def _add_to_patches(x_BTLC: Tensor, branch: LocalMHRA, drop_path: DropPath) -> Tensor:
    class_BT1C, patch_BTSC = x_BTLC[:, :, :1], x_BTLC[:, :, 1:]
    return torch.cat([class_BT1C, patch_BTSC + drop_path(branch(patch_BTSC))], dim=2)
