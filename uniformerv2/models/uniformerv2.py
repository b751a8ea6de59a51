"""UniFormerV2: a CLIP image transformer on every frame, and global blocks that gather the frames into one query.

    clip -> patches -> layer 0 ... layer D-1            backbone, optionally with temporal convolutions
                            |           |
                        global 0 ... global G-1          one query per clip, from block to block
                                        |
                      mean class token + query -> head -> logits

Li et al., UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer (arXiv 2211.09552, section 3).
Parameters have their published names, so ``state_dict`` is the published format.

Axes: B clip, T frame, H x W pixel or patch grid, S = H*W patch tokens, L = 1 + S tokens of a frame with the class token
in front, M = T*L, C width or colour channel, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uniformerv2.models.blocks import DynamicPositionEncoding, GlobalUniBlock, LocalUniBlock
from uniformerv2.models.fusion import fuse
from uniformerv2.models.layers import LayerNorm, PatchEmbedding
from uniformerv2.models.stochastic import Dropout, Randomness, recompute_contexts
from uniformerv2.models.uniformerv2_config import BACKBONE_NAMES, UniFormerV2Config
from uniformerv2.weights.load_report import LoadReport
from uniformerv2.weights.published import load_published

_VARIANTS = 8
"""Ways in which one block is called: in train and eval mode, with and without gradients, a batch of one and of more."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What the backbone hands on; of a frozen one it can be kept and used again, whatever trains behind it."""

    seen_BTLC: tuple[Tensor, ...]
    """Tokens of all frames after each of ``global_layers``: what the global blocks look at."""
    class_BC: Tensor
    """Class token after the last layer, mean over the frames."""


class UniFormerV2(nn.Module):
    """Clips [B, 3, num_frames, height, width], normalised, to logits [B, num_classes]."""

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        self.config = config
        self.randomness = Randomness()
        height, width = config.grid
        scale = config.width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(config.width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + height * width, config.width))
        self.conv1 = PatchEmbedding(config.width, config.patch_size, config.temporal_downsample)
        self.ln_pre = LayerNorm(config.width, config.norm_eps) if config.pre_norm else None
        self.transformer = Transformer(config, self.randomness)
        if config.frozen_backbone:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(not name.startswith(BACKBONE_NAMES))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        return self.classify(self.features(clip_BCTHW))

    def features(self, clip_BCTHW: Tensor) -> Features:
        """The backbone alone: all that is left to do is ``classify``.

        Raises:
            ValueError: not a float tensor [B, 3, num_frames, height, width] as the configuration says.
        """
        self._check_clip(clip_BCTHW)
        with torch.no_grad() if self.config.frozen_backbone else nullcontext():
            return self.transformer.features(self.embed(clip_BCTHW))

    def classify(self, features: Features) -> Tensor:
        """Logits [B, num_classes] from what the backbone made of the clips."""
        logits_BK: Tensor = self.transformer(features)
        return logits_BK

    def embed(self, clip_BCTHW: Tensor) -> Tensor:
        """Tokens [B, T, L, C] of every frame by itself: there is no temporal position embedding."""
        patch_BTSC = self.conv1(clip_BCTHW)
        class_BT1C = self.class_embedding.to(patch_BTSC.dtype).expand(*patch_BTSC.shape[:2], 1, -1)
        x_BTLC = torch.cat([class_BT1C, patch_BTSC], dim=2) + self.positional_embedding.to(patch_BTSC.dtype)
        return x_BTLC if self.ln_pre is None else self.ln_pre(x_BTLC)

    def load_official(self, state_dict: Mapping[str, Any], source_grid: tuple[int, int] | None = None) -> LoadReport:
        """Fill every parameter and buffer from a published checkpoint, or from one of our own, and say what was taken.

        Args:
            state_dict: bare, or in a training checkpoint, with any of the usual prefixes.
            source_grid: height and width, in patches, that its position table is for; None: the model's, or square.

        Raises:
            CheckpointError: a key is missing, unexpected or of another shape; the model is then as it was.
        """
        return load_published(self, state_dict, source_grid)

    def recompute_layers(self, num_layers: int, every: int = 1) -> None:
        """Keep no activations of every ``every``-th of the first ``num_layers`` layers: backward computes them again.

        Of ``every`` layers the first is recomputed; 1 means all. Layers outside keep theirs.
        """
        if num_layers < 0 or every < 1:
            raise ValueError(f"expected num_layers >= 0 and every >= 1, got {num_layers} and {every}")
        self.transformer.recomputed = frozenset(range(0, min(num_layers, self.config.layers), every))

    def compile_blocks(self, **options: Any) -> None:
        """Compile every layer and every global block in place; keys of the state dict stay as they are.

        Raises the process's limit of compiled variants: layers with a drop path each have a rate of their own.

        Args:
            options: for ``torch.compile``.
        """
        blocks = (*self.transformer.resblocks, *self.transformer.dpe, *self.transformer.dec)
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, _VARIANTS * len(blocks))
        for block in blocks:
            block.compile(fullgraph=True, **options)

    def _check_clip(self, clip_BCTHW: Tensor) -> None:
        expected = (3, self.config.num_frames, *self.config.frame_size)
        if clip_BCTHW.ndim != 5 or clip_BCTHW.shape[1:] != expected or clip_BCTHW.shape[0] < 1:
            wanted = ", ".join(map(str, expected))
            raise ValueError(f"expected clips of shape [B, {wanted}], got {list(clip_BCTHW.shape)}")
        own, given = self.class_embedding.dtype, clip_BCTHW.dtype
        half = given in (torch.float16, torch.bfloat16)
        if given != own and not (half and torch.is_autocast_enabled(clip_BCTHW.device.type)):
            raise ValueError(f"expected clips of {own}, normalised as (x / 255 - 0.45) / 0.225, got {given}")


class Transformer(nn.Module):
    """Everything behind ``transformer.`` in the published names: the layers, the global blocks and the head."""

    def __init__(self, config: UniFormerV2Config, randomness: Randomness) -> None:
        super().__init__()
        self.config = config
        self.recomputed: frozenset[int] = frozenset()
        width, blocks = config.width, range(len(config.global_layers))
        self.temporal_cls_token = nn.Parameter(torch.zeros(config.num_queries, 1, width))
        self.balance = None if config.frozen_backbone else nn.Parameter(torch.zeros(width))
        self.resblocks = nn.ModuleList(_local_block(config, i, randomness) for i in range(config.layers))
        self.dpe = nn.ModuleList(DynamicPositionEncoding(width, config.grid) for _ in blocks)
        self.dec = nn.ModuleList(_global_block(config, j, randomness) for j in blocks)
        dropout = Dropout(config.dropout, randomness, "head")
        self.proj = nn.Sequential(nn.LayerNorm(width), dropout, nn.Linear(width, config.num_classes))
        self.fusion = nn.Linear(len(blocks) * width, width) if config.fusion == "parallel" else None
        if self.fusion is not None:
            nn.init.zeros_(self.fusion.bias)

    def features(self, x_BTLC: Tensor) -> Features:
        """Embedded tokens [B, T, L, C] through all layers."""
        seen_BTLC = []
        for i, layer in enumerate(self.resblocks):
            x_BTLC = _recomputed(layer, x_BTLC) if i in self.recomputed else layer(x_BTLC)
            if i in self.config.global_layers:
                seen_BTLC.append(x_BTLC)
        return Features(seen_BTLC=tuple(seen_BTLC), class_BC=x_BTLC[:, :, 0].mean(dim=1))

    def forward(self, features: Features) -> Tensor:
        feature_BC = self._query(features)
        if self.balance is not None:
            weight_C = self.balance.sigmoid()
            feature_BC = (1 - weight_C) * feature_BC + weight_C * features.class_BC
        logits_BK: Tensor = self.proj(feature_BC)
        return logits_BK

    def _query(self, features: Features) -> Tensor:
        """What the global blocks made of the learned queries."""
        if not features.seen_BTLC:
            return self.temporal_cls_token[0].expand(features.class_BC.shape[0], -1)
        seen = [encode(x_BTLC) for encode, x_BTLC in zip(self.dpe, features.seen_BTLC, strict=True)]
        return fuse(self.config.fusion, list(self.dec), self.temporal_cls_token, seen, self.fusion)


def _recomputed(layer: nn.Module, x_BTLC: Tensor) -> Tensor:
    """What ``layer`` returns; of what happens inside, nothing is kept for the backward pass."""
    if torch.compiler.is_compiling():
        # A graph that holds both passes writes statistics once by itself.
        out: Tensor = checkpoint(layer, x_BTLC, use_reentrant=False)
    elif torch.is_grad_enabled():
        out = checkpoint(layer, x_BTLC, use_reentrant=False, context_fn=partial(recompute_contexts, layer))
    else:
        out = layer(x_BTLC)
    return out


def _local_block(config: UniFormerV2Config, index: int, randomness: Randomness) -> LocalUniBlock:
    return LocalUniBlock(
        width=config.width,
        heads=config.heads,
        local_blocks=config.local_blocks,
        dw_reduction=config.dw_reduction,
        gelu=config.gelu,
        norm_eps=config.norm_eps,
        drop_path=_ramp(config.drop_path_backbone, index, config.layers),
        mode=config.drop_path_mode,
        randomness=randomness,
        name=f"resblocks.{index}",
    )


def _global_block(config: UniFormerV2Config, index: int, randomness: Randomness) -> GlobalUniBlock:
    return GlobalUniBlock(
        width=config.width,
        heads=config.heads,
        hidden=round(config.mlp_factor * config.width),
        dropout=config.dropout,
        drop_path=_ramp(config.drop_path_global, index, len(config.global_layers)),
        mode=config.drop_path_mode,
        randomness=randomness,
        name=f"dec.{index}",
    )


def _ramp(last: float, index: int, count: int) -> float:
    """Value ``index`` of ``count`` evenly spaced ones from 0 to ``last``; a single one is 0."""
    return last * index / (count - 1) if count > 1 else 0.0
