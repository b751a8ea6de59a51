"""UniFormerV2: a CLIP image transformer on every frame, and global blocks that gather the frames into one query.

    clip -> patches -> layer 0 ... layer D-1            backbone, optionally with temporal convolutions
                            |           |
                        global 0 ... global G-1          one query per clip, from block to block
                                        |
                      mean class token + query -> head -> logits

Li et al., UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer (arXiv 2211.09552, section 3).
Parameters have their published names, so ``state_dict`` is the published format.

Axes: B clip, T frame, H x W pixel or patch grid, L = 1 + H*W tokens of a frame with the class token in front, M = T*L,
C width or colour channel, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uniformerv2.models.blocks import DropPathMode, DynamicPositionEncoding, GlobalUniBlock, LocalUniBlock
from uniformerv2.models.fusion import Fusion, fuse
from uniformerv2.models.layers import Gelu, LayerNorm, PatchEmbedding
from uniformerv2.models.stochastic import Dropout, Randomness, recompute_contexts
from uniformerv2.weights.load_report import LoadReport
from uniformerv2.weights.published import load_published

BACKBONE_NAMES = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer.resblocks")
"""A parameter is part of the backbone, and frozen with it, when one of these is in its name."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UniFormerV2Config:
    """Everything that decides what parameters a UniFormerV2 has and what it computes; defaults: B/16 on Kinetics."""

    image_size: int | tuple[int, int] = 224
    """Frame size that the model takes, in pixels: one number, or height and width."""
    patch_size: int = 16
    """Side of a patch, in pixels."""
    width: int = 768
    """Channels of a token."""
    layers: int = 12
    """Layers of the backbone."""
    heads: int = 12
    """Attention heads; 64 channels each in all published models."""
    num_frames: int = 8
    """Frames that the model takes. No parameter depends on it."""
    num_classes: int = 400
    """Rows of the classifier."""
    local_blocks: int = 0
    """Temporal convolutions (local MHRA) in each layer: 0, 1 or 2."""
    dw_reduction: float = 1.5
    """How much narrower than ``width`` the temporal convolutions are."""
    temporal_downsample: bool = False
    """Patches span three frames, every second one starts a patch: half as many frames reach the backbone."""
    global_layers: tuple[int, ...] = (8, 9, 10, 11)
    """Layers, counted from 0, after which a global block looks at the tokens."""
    mlp_factor: float = 4.0
    """Hidden width of the MLP in global blocks, over ``width``."""
    fusion: Fusion = "sequential"
    """How the global blocks are joined; all published weights are ``sequential``."""
    gelu: Gelu = "quick"
    """Activation of the backbone's MLPs, as in the image model it starts from; CLIP's is ``quick``."""
    norm_eps: float = 1e-5
    """Added to the variance in the backbone's norms, as in the image model it starts from."""
    pre_norm: bool = True
    """A norm stands before the first layer, as in CLIP; most other image models have none."""
    frozen_backbone: bool = False
    """The backbone does not train, and the head sees the query alone."""
    dropout: float = 0.5
    """Dropout rate in the head and in the MLPs of global blocks."""
    drop_path_backbone: float = 0.0
    """Drop-path rate of the last layer; it grows linearly from 0 at the first."""
    drop_path_global: float = 0.0
    """Drop-path rate of the last global block; it grows linearly from 0 at the first."""
    drop_path_mode: DropPathMode = "sample"
    """``sample`` drops a branch for single clips; ``official`` masks the axes that the published training masked."""

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_blocks()
        for name in ("dropout", "drop_path_backbone", "drop_path_global"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name, choices in (("drop_path_mode", DropPathMode), ("fusion", Fusion), ("gelu", Gelu)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        if self.norm_eps <= 0:
            raise ValueError(f"norm_eps must be positive, got {self.norm_eps}")

    @property
    def num_queries(self) -> int:
        """Learned queries: one that runs through all global blocks, or one for each."""
        return 1 if self.fusion == "sequential" else len(self.global_layers)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of a frame, in patches."""
        height, width = self.frame_size
        return height // self.patch_size, width // self.patch_size

    @classmethod
    def variant(
        cls,
        name: Literal["b16", "l14", "l14_336"],
        kind: Literal["kinetics", "ssv2"] = "kinetics",
        frames: int = 8,
        classes: int = 400,
    ) -> UniFormerV2Config:
        """A published architecture: ``kinetics`` has global blocks only, ``ssv2`` local ones too."""
        if name not in _SHAPES:
            raise ValueError(f"variant must be one of {', '.join(_SHAPES)}, got {name!r}")
        base = cls(num_frames=frames, num_classes=classes, **_SHAPES[name])
        if kind == "kinetics":
            return base
        if kind != "ssv2":
            raise ValueError(f"kind must be 'kinetics' or 'ssv2', got {kind!r}")
        return dataclasses.replace(
            base,
            local_blocks=2,
            temporal_downsample=True,
            global_layers=tuple(range(base.layers // 3, base.layers)),
            drop_path_backbone=0.2,
            drop_path_global=0.4,
        )

    def _check_sizes(self) -> None:
        sizes = ("patch_size", "width", "layers", "heads", "num_frames", "num_classes", "dw_reduction", "mlp_factor")
        for name in sizes:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if any(side < 1 or side % self.patch_size for side in self.frame_size) or len(self.frame_size) != 2:
            raise ValueError(f"image_size must be multiples of patch_size {self.patch_size}, got {self.image_size}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")

    def _check_blocks(self) -> None:
        if self.local_blocks not in (0, 1, 2):
            raise ValueError(f"local_blocks must be 0, 1 or 2, got {self.local_blocks}")
        if self.local_blocks and not self.dw_reduction <= self.width:
            raise ValueError(f"dw_reduction must be at most width {self.width}, got {self.dw_reduction}")
        if self.temporal_downsample and self.num_frames % 2:
            raise ValueError(f"temporal_downsample takes an even num_frames, got {self.num_frames}")
        in_order = all(a < b for a, b in zip(self.global_layers, self.global_layers[1:], strict=False))
        if not in_order or any(not 0 <= layer < self.layers for layer in self.global_layers):
            raise ValueError(f"global_layers must increase within 0..{self.layers - 1}, got {self.global_layers}")
        if self.frozen_backbone and not self.global_layers:
            raise ValueError("frozen_backbone needs a global block, got global_layers ()")
        if self.fusion != "sequential" and not self.global_layers:
            raise ValueError(f"fusion {self.fusion} needs a global block, got global_layers ()")
        # Batch norm would go on moving in a backbone that is said to stand still, and no published model has both.
        if self.frozen_backbone and self.local_blocks:
            raise ValueError(f"frozen_backbone takes no local_blocks, got {self.local_blocks}")


@dataclasses.dataclass(frozen=True, slots=True)
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
                parameter.requires_grad_(not any(part in name for part in BACKBONE_NAMES))

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

    def load_official(self, state_dict: Mapping[str, Any]) -> LoadReport:
        """Fill every parameter and buffer from a published checkpoint, or from one of our own, and say what was taken.

        Raises:
            CheckpointError: a key is missing, unexpected or of another shape; the model is then as it was.
        """
        return load_published(self, state_dict)

    def recompute_layers(self, num_layers: int, every: int = 1) -> None:
        """Keep no activations of every ``every``-th of the first ``num_layers`` layers: backward computes them again.

        Of ``every`` layers the first is recomputed; 1 means all. Layers outside keep theirs.
        """
        if num_layers < 0 or every < 1:
            raise ValueError(f"expected num_layers >= 0 and every >= 1, got {num_layers} and {every}")
        self.transformer.recomputed = frozenset(range(0, min(num_layers, self.config.layers), every))

    def compile_blocks(self, **options: Any) -> None:
        """Compile every layer and every global block in place; keys of the state dict stay as they are.

        Args:
            options: for ``torch.compile``.
        """
        for block in (*self.transformer.resblocks, *self.transformer.dpe, *self.transformer.dec):
            block.compile(fullgraph=True, **options)

    def _check_clip(self, clip_BCTHW: Tensor) -> None:
        expected = (3, self.config.num_frames, *self.config.frame_size)
        if clip_BCTHW.ndim != 5 or clip_BCTHW.shape[1:] != expected:
            wanted = ", ".join(map(str, expected))
            raise ValueError(f"expected clips of shape [B, {wanted}], got {list(clip_BCTHW.shape)}")
        own, given = self.class_embedding.dtype, clip_BCTHW.dtype
        if given != own and not (given.is_floating_point and torch.is_autocast_enabled(clip_BCTHW.device.type)):
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
        return Features(tuple(seen_BTLC), x_BTLC[:, :, 0].mean(dim=1))

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


_SHAPES: dict[str, dict[str, Any]] = {
    "b16": {},
    "l14": {"patch_size": 14, "width": 1024, "layers": 24, "heads": 16, "global_layers": (20, 21, 22, 23)},
    "l14_336": {
        "image_size": 336,
        "patch_size": 14,
        "width": 1024,
        "layers": 24,
        "heads": 16,
        "global_layers": (20, 21, 22, 23),
    },
}


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
