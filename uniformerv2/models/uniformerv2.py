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
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uniformerv2.models.blocks import (
    DropPathMode,
    DynamicPositionEncoding,
    GlobalUniBlock,
    LayerNorm,
    LocalUniBlock,
    PatchEmbedding,
)
from uniformerv2.models.stochastic import Dropout, Randomness, recompute_contexts
from uniformerv2.weights.published import LoadReport, load_published

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
        if self.drop_path_mode not in ("sample", "official"):
            raise ValueError(f"drop_path_mode must be 'sample' or 'official', got {self.drop_path_mode!r}")

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
        # Batch norm would go on moving in a backbone that is said to stand still, and no published model has both.
        if self.frozen_backbone and self.local_blocks:
            raise ValueError(f"frozen_backbone takes no local_blocks, got {self.local_blocks}")


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
        self.ln_pre = LayerNorm(config.width)
        self.transformer = Transformer(config, self.randomness)
        if config.frozen_backbone:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(not any(part in name for part in BACKBONE_NAMES))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        expected = (3, self.config.num_frames, *self.config.frame_size)
        if clip_BCTHW.ndim != 5 or clip_BCTHW.shape[1:] != expected:
            wanted = ", ".join(map(str, expected))
            raise ValueError(f"expected clips of shape [B, {wanted}], got {list(clip_BCTHW.shape)}")
        with backbone_grad(self.config):
            x_BTLC = self.embed(clip_BCTHW)
        logits_BK: Tensor = self.transformer(x_BTLC)
        return logits_BK

    def embed(self, clip_BCTHW: Tensor) -> Tensor:
        """Tokens [B, T, L, C] of every frame by itself: there is no temporal position embedding."""
        patch_BTSC = self.conv1(clip_BCTHW).flatten(2, 3)
        class_BT1C = self.class_embedding.to(patch_BTSC.dtype).expand(*patch_BTSC.shape[:2], 1, -1)
        x_BTLC = torch.cat([class_BT1C, patch_BTSC], dim=2) + self.positional_embedding.to(patch_BTSC.dtype)
        out: Tensor = self.ln_pre(x_BTLC)
        return out

    def load_official(self, state_dict: Mapping[str, Any]) -> LoadReport:
        """Fill every parameter and buffer from a published checkpoint, or from one of our own, and say what was taken.

        Raises:
            CheckpointError: a key is missing, unexpected or of another shape; the model is then as it was.
        """
        return load_published(self, state_dict)

    def recompute_layers(self, num_layers: int) -> None:
        """Keep no activations of the first ``num_layers`` layers: the backward pass computes them again."""
        self.transformer.num_recomputed = num_layers


class Transformer(nn.Module):
    """Everything behind ``transformer.`` in the published names: the layers, the global blocks and the head.

    The query runs through the global blocks one after the other, which is the sequential fusion of the paper.
    """

    def __init__(self, config: UniFormerV2Config, randomness: Randomness) -> None:
        super().__init__()
        self.config = config
        self.num_recomputed = 0
        width, blocks = config.width, range(len(config.global_layers))
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.balance = None if config.frozen_backbone else nn.Parameter(torch.zeros(width))
        self.resblocks = nn.ModuleList(_local_block(config, i, randomness) for i in range(config.layers))
        self.dpe = nn.ModuleList(DynamicPositionEncoding(width, config.grid) for _ in blocks)
        self.dec = nn.ModuleList(_global_block(config, j, randomness) for j in blocks)
        dropout = Dropout(config.dropout, randomness, "head")
        self.proj = nn.Sequential(nn.LayerNorm(width), dropout, nn.Linear(width, config.num_classes))

    def forward(self, x_BTLC: Tensor) -> Tensor:
        global_blocks = dict(zip(self.config.global_layers, zip(self.dpe, self.dec, strict=True), strict=True))
        query_BC = self.temporal_cls_token[0].expand(len(x_BTLC), -1)
        for i, layer in enumerate(self.resblocks):
            with backbone_grad(self.config):
                x_BTLC = self._through(layer, x_BTLC, recompute=i < self.num_recomputed)
            if i in global_blocks:
                position_encoding, block = global_blocks[i]
                query_BC = block(query_BC, position_encoding(x_BTLC))
        logits_BK: Tensor = self.proj(self._fuse(query_BC, x_BTLC))
        return logits_BK

    def _through(self, layer: nn.Module, x_BTLC: Tensor, recompute: bool) -> Tensor:
        if not recompute or not torch.is_grad_enabled():
            out: Tensor = layer(x_BTLC)
        else:
            out = checkpoint(layer, x_BTLC, use_reentrant=False, context_fn=recompute_contexts)
        return out

    def _fuse(self, query_BC: Tensor, x_BTLC: Tensor) -> Tensor:
        """Query and mean class token, weighted per channel by ``balance``."""
        if self.balance is None:
            return query_BC
        weight_C = self.balance.sigmoid()
        return (1 - weight_C) * query_BC + weight_C * x_BTLC[:, :, 0].mean(dim=1)


def backbone_grad(config: UniFormerV2Config) -> AbstractContextManager[None]:
    """Around everything of the backbone: a frozen one runs without recording for the backward pass."""
    return torch.no_grad() if config.frozen_backbone else nullcontext()


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
