"""The published UniFormerV2, operation by operation as its paper and released weights describe it: the baseline.

Written to be compared with, not to be used: sequence-first tokens, `nn.MultiheadAttention`, copies where the published
algorithm copies, keys and values of every token projected in the global blocks. Same parameter names, same results.

Axes: B clip, T frame, L = 1 + S tokens of a frame, N = B*T, C width, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from uniformerv2 import UniFormerV2Config


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), as three kernels that each keep their input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """Layer norm in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return nn.functional.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).type(x.dtype)


class LocalMHRA(nn.Module):
    """BatchNorm, reduce, depth-wise over time, expand; on [B, C, T, H, W]."""

    def __init__(self, width: int, reduction: float) -> None:
        super().__init__()
        reduced = int(width // reduction)
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, reduced, kernel_size=1),
            nn.Conv3d(reduced, reduced, kernel_size=(3, 1, 1), padding=(1, 0, 0), groups=reduced),
            nn.Conv3d(reduced, width, kernel_size=1),
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.pos_embed(x_BCTHW)


class LocalBlock(nn.Module):
    """One backbone layer on [L, N, C]."""

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        width = config.width
        self.grid = config.grid
        if config.local_blocks >= 1:
            self.lmhra1 = LocalMHRA(width, config.dw_reduction)
        if config.local_blocks == 2:
            self.lmhra2 = LocalMHRA(width, config.dw_reduction)
        self.attn = nn.MultiheadAttention(width, config.heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = _mlp(width, 4 * width)
        self.ln_2 = LayerNorm(width)

    def forward(self, x_LNC: Tensor, num_frames: int) -> Tensor:
        if hasattr(self, "lmhra1"):
            x_LNC = self._with_local(x_LNC, self.lmhra1, num_frames)
        normed_LNC = self.ln_1(x_LNC)
        x_LNC = x_LNC + self.attn(normed_LNC, normed_LNC, normed_LNC, need_weights=False)[0]
        if hasattr(self, "lmhra2"):
            x_LNC = self._with_local(x_LNC, self.lmhra2, num_frames)
        return x_LNC + self.mlp(self.ln_2(x_LNC))

    def _with_local(self, x_LNC: Tensor, branch: LocalMHRA, num_frames: int) -> Tensor:
        patch_SNC = x_LNC[1:]
        S, N, C = patch_SNC.shape
        H, W = self.grid
        x_BCTHW = patch_SNC.view(H, W, N // num_frames, num_frames, C).permute(2, 4, 3, 0, 1).contiguous()
        x_BCTHW = x_BCTHW + branch(x_BCTHW)
        patch_SNC = x_BCTHW.permute(3, 4, 0, 2, 1).contiguous().view(S, N, C)
        return torch.cat([x_LNC[:1], patch_SNC], dim=0)


class GlobalBlock(nn.Module):
    """Cross-attention of one query over all tokens, with every key and value projected."""

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        width = config.width
        self.attn = nn.MultiheadAttention(width, config.heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = _mlp(width, round(config.mlp_factor * width), config.dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.ln_3 = nn.LayerNorm(width)

    def forward(self, query_1BC: Tensor, tokens_MBC: Tensor) -> Tensor:
        query_1BC = query_1BC + self._attention(self.ln_1(query_1BC), self.ln_3(tokens_MBC))
        return query_1BC + self.mlp(self.ln_2(query_1BC))

    def _attention(self, query_1BC: Tensor, tokens_MBC: Tensor) -> Tensor:
        _, B, C = tokens_MBC.shape
        heads = self.attn.num_heads
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        q = nn.functional.linear(query_1BC, weights[0], biases[0])
        k, v = (nn.functional.linear(tokens_MBC, w, b) for w, b in zip(weights[1:], biases[1:], strict=True))
        q, k, v = (t.view(-1, B, heads, C // heads).permute(1, 2, 0, 3) for t in (q, k, v))
        scores = (q * (1.0 / math.sqrt(C // heads))) @ k.transpose(-2, -1)
        out = (scores.softmax(dim=-1) @ v).permute(2, 0, 1, 3).contiguous().view(1, B, C)
        return self.attn.out_proj(out)


class Transformer(nn.Module):
    """Everything behind ``transformer.``."""

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        self.config = config
        width, count = config.width, len(config.global_layers)
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.balance = nn.Parameter(torch.zeros(width))
        self.resblocks = nn.ModuleList(LocalBlock(config) for _ in range(config.layers))
        self.dpe = nn.ModuleList(nn.Conv3d(width, width, kernel_size=3, padding=1, groups=width) for _ in range(count))
        self.dec = nn.ModuleList(GlobalBlock(config) for _ in range(count))
        dropout = nn.Dropout(config.dropout)
        self.proj = nn.Sequential(nn.LayerNorm(width), dropout, nn.Linear(width, config.num_classes))

    def forward(self, x_LNC: Tensor, num_frames: int) -> Tensor:
        L, N, C = x_LNC.shape
        B = N // num_frames
        H, W = self.config.grid
        query_1BC = self.temporal_cls_token.repeat(1, B, 1)
        j = 0
        for i, block in enumerate(self.resblocks):
            x_LNC = block(x_LNC, num_frames)
            if i in self.config.global_layers:
                tokens_LBTC = x_LNC.view(L, B, num_frames, C).clone()
                patch_BCTHW = tokens_LBTC[1:].permute(1, 3, 2, 0).reshape(B, C, num_frames, H, W)
                encoded = self.dpe[j](patch_BCTHW.contiguous()).view(B, C, num_frames, L - 1)
                tokens_LBTC[1:] = tokens_LBTC[1:] + encoded.permute(3, 0, 2, 1)
                tokens_MBC = tokens_LBTC.permute(2, 0, 1, 3).flatten(0, 1)
                query_1BC = self.dec[j](query_1BC, tokens_MBC)
                j += 1
        weight_C = self.balance.sigmoid()
        mean_BC = x_LNC[0].view(B, num_frames, C).mean(1)
        return self.proj((1 - weight_C) * query_1BC[0] + weight_C * mean_BC)


class PublishedUniFormerV2(nn.Module):
    """The published algorithm under the published names."""

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        width, patch = config.width, config.patch_size
        depth, step = (3, 2) if config.temporal_downsample else (1, 1)
        self.conv1 = nn.Conv3d(3, width, (depth, patch, patch), (step, patch, patch), (depth // 2, 0, 0), bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(1 + math.prod(config.grid), width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(config)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        x_BCTHW = self.conv1(clip_BCTHW)
        B, C, T, H, W = x_BCTHW.shape
        x_NSC = x_BCTHW.permute(0, 2, 3, 4, 1).reshape(B * T, H * W, C)
        class_N1C = self.class_embedding.to(x_NSC.dtype) + torch.zeros(
            B * T, 1, C, dtype=x_NSC.dtype, device=x_NSC.device
        )
        x_NLC = torch.cat([class_N1C, x_NSC], dim=1) + self.positional_embedding.to(x_NSC.dtype)
        return self.transformer(self.ln_pre(x_NLC).permute(1, 0, 2), T)


def _mlp(width: int, hidden: int, dropout: float | None = None) -> nn.Sequential:
    layers = [("c_fc", nn.Linear(width, hidden)), ("gelu", QuickGELU())]
    if dropout is not None:
        layers.append(("dropout", nn.Dropout(dropout)))
    return nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(hidden, width))]))
