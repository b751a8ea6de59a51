"""The layers that the blocks of UniFormerV2 are made of, all on channel-last tokens.

Convolutions keep the parameter shapes of their published names and run as what they are: matrix products over tokens.

Axes: B clip, T frame (after patch embedding), H x W patch grid, S = H*W patch tokens, L = 1 + S tokens of a frame
with the class token in front, M tokens of one part of a clip, Q queries, R = Q*h, C width, h heads, E = C/h width of a
head, N rows of whatever, K channels out, X values of a patch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from uniformerv2.models.stochastic import Dropout

Gelu = Literal["quick", "exact", "tanh"]
"""``quick``: x * sigmoid(1.702 x), as in CLIP; ``exact``: with the error function; ``tanh``: its approximation."""


class PatchEmbedding(nn.Conv3d):
    """Clip [B, 3, frames, height, width] to patch tokens [B, T, S, C].

    A convolution whose kernel is its stride in space, so it is one matrix product over cut-out patches. With temporal
    downsampling a patch spans three frames and every second frame starts one; the ends are padded with a zero frame.
    """

    def __init__(self, width: int, patch_size: int, temporal_downsample: bool) -> None:
        depth, self.step = (3, 2) if temporal_downsample else (1, 1)
        super().__init__(3, width, (depth, patch_size, patch_size), bias=False)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        depth, patch, _ = self.kernel_size
        if depth > 1:
            clip_BCTHW = F.pad(clip_BCTHW, (0, 0, 0, 0, depth // 2, depth // 2))
        windows = clip_BCTHW.unfold(2, depth, self.step).unfold(3, patch, patch).unfold(4, patch, patch)
        pixels_BTSX = windows.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(2, 3)
        return F.linear(pixels_BTSX, self.weight.flatten(1))


class LayerNorm(nn.LayerNorm):
    """Layer norm that is computed in fp32 for half types; the result has the dtype of the input, as in CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype and x.element_size() >= 4:
            return super().forward(x)
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class MLP(nn.Module):
    """Two linear layers with a GELU between them; ``dropout`` comes before the second."""

    def __init__(self, width: int, hidden: int, gelu: Gelu = "quick", dropout: Dropout | None = None) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.gelu = gelu
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        if self.gelu != "quick":
            hidden = F.gelu(self.c_fc(x), approximate="none" if self.gelu == "exact" else "tanh")
            out: Tensor = self.c_proj(hidden if self.dropout is None else self.dropout(hidden))
            return out
        # x * sigmoid(a x) is silu(a x) / a, which keeps one tensor for the backward pass instead of three.
        hidden = _scaled_linear(x, self.c_fc, after=_QUICK)
        if self.dropout is None and _is_plain(self.c_proj) and torch.is_grad_enabled():
            return _LinearOfSilu.run(hidden, self.c_proj, 1 / _QUICK)
        hidden = F.silu(hidden)
        return _scaled_linear(hidden if self.dropout is None else self.dropout(hidden), self.c_proj, before=1 / _QUICK)


_QUICK = 1.702


class _LinearOfSilu(torch.autograd.Function):
    """``layer(scale * silu(x))`` that keeps x alone: silu is cheap to do again. Compilers find that by themselves."""

    @classmethod
    def run(cls, x: Tensor, layer: nn.Linear, scale: float) -> Tensor:
        # Autocast does not look into a function; the casts stand outside, where autograd sees them.
        weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
        out_NC: Tensor = cls.apply(x.flatten(0, -2), weight, bias, scale)  # type: ignore[no-untyped-call]
        return out_NC.view(*x.shape[:-1], -1)

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x_NC, weight)
        ctx.scale = scale
        return torch.addmm(bias, F.silu(x_NC), weight.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_NC, weight = ctx.saved_tensors
        grad_weight = (grad_NK.t() @ F.silu(x_NC)).mul_(ctx.scale)
        grad_x_NC = torch.ops.aten.silu_backward((grad_NK @ weight).mul_(ctx.scale), x_NC)
        return grad_x_NC, grad_weight, grad_NK.sum(0), None


def _scaled_linear(x: Tensor, layer: nn.Linear, before: float = 1.0, after: float = 1.0) -> Tensor:
    """``after * layer(before * x)``; on a CPU the product scales on its way, without a pass over the tokens."""
    if x.device.type != "cpu" or not _is_plain(layer):
        # Elsewhere a product with a scaled bias is slower, and compiled blocks scale together with the activation.
        scaled: Tensor = layer(x if before == 1 else before * x)
        return scaled if after == 1 else after * scaled
    out_NC = torch.addmm(layer.bias, x.flatten(0, -2), layer.weight.t(), beta=after, alpha=before * after)
    return out_NC.view(*x.shape[:-1], -1)


def _is_plain(layer: nn.Module) -> bool:
    """Whether its weight may be used without calling it: no hooks, no pruning, no adapter, and no compiler at work."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is nn.Linear and not hooked and not torch.compiler.is_compiling()


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
        out: Tensor = self.out_proj(heads_hLE.transpose(1, 2).reshape(x_BTLC.shape))
        return out


class QueryAttention(_Attention):
    """Cross-attention of a few queries per clip over all its tokens, which may come in several parts.

    Written without projecting tokens to keys and values. With few queries, q . (W_k y) = (W_k^T q) . y, and the sum of
    p W_v y is W_v applied to the sum of p y; the key bias adds the same to every score, so the softmax cancels it.
    """

    def forward(self, query_BQC: Tensor, parts_BMC: Sequence[Tensor]) -> Tensor:
        num_queries = query_BQC.shape[1]
        weight_q, *weights_kv = self.in_proj_weight.chunk(3)
        bias_q, _, bias_v = self.in_proj_bias.chunk(3)
        weight_k_hEC, weight_v_hEC = (torch.unflatten(w, 0, (self.heads, -1)) for w in weights_kv)
        query_BQhE = torch.unflatten(F.linear(query_BQC, weight_q, bias_q), -1, (self.heads, -1))
        probe_BQhC = torch.einsum("bqhe,hec->bqhc", query_BQhE * query_BQhE.shape[-1] ** -0.5, weight_k_hEC)
        probe_BRC = probe_BQhC.flatten(1, 2)
        scores_BRM = torch.cat([probe_BRC @ part_BMC.mT for part_BMC in parts_BMC], dim=-1)
        mean_BRC = _weighted_sum(scores_BRM.softmax(dim=-1), parts_BMC)
        mean_BQhC = torch.unflatten(mean_BRC, 1, (num_queries, self.heads))
        value_BQhE = torch.einsum("bqhc,hec->bqhe", mean_BQhC, weight_v_hEC)
        out: Tensor = self.out_proj(value_BQhE.flatten(2) + bias_v)
        return out


def _weighted_sum(weights_BRM: Tensor, parts_BMC: Sequence[Tensor]) -> Tensor:
    """Sum of the tokens of all parts, weighted by ``weights_BRM``, whose last axis runs through the parts in order."""
    # Slices, not torch.split: compiled by inductor 2.13 on a CPU, a split softmax has a wrong gradient.
    ends = list(itertools.accumulate(part_BMC.shape[1] for part_BMC in parts_BMC))
    starts = [0, *ends[:-1]]
    sums = [weights_BRM[..., a:b] @ part_BMC for a, b, part_BMC in zip(starts, ends, parts_BMC, strict=True)]
    return functools.reduce(torch.add, sums)


class PointwiseConv(nn.Conv3d):
    """A 1x1x1 convolution on channel-last tokens: a linear layer with the parameter shapes of a convolution."""

    bias: Tensor

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, kernel_size=1)

    def forward(self, x: Tensor, scale_C: Tensor | None = None, shift_C: Tensor | None = None) -> Tensor:
        """The layer's output for ``x * scale + shift``, which is never written out."""
        weight_KC = self.weight.flatten(1)
        if scale_C is None or shift_C is None:
            return F.linear(x, weight_KC, self.bias)
        return F.linear(x, weight_KC * scale_C, self.bias + F.linear(shift_C, weight_KC))


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
