"""Multiply-accumulates of a forward pass, by formula: nothing has to run, and no fused kernel hides anything.

Matrix products, attention products and convolutions are counted, norms and activations are not. Two counts: of the
algorithm as published, which is what papers state, and of the one that runs here, which gives the same result without
projecting the keys and values of every token in the global blocks.

Letters: T frames in the backbone, S patches of a frame, L = S + 1, C width, D layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch

from uniformerv2.models.uniformerv2_config import UniFormerV2Config

Algorithm = Literal["published", "ours"]

_PEAK_TFLOPS: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"bf16": 2250, "fp16": 2250, "fp32": 75}),
    ("H200 NVL", {"bf16": 835.5, "fp16": 835.5, "fp32": 60}),
    ("G?H200", {"bf16": 989.4, "fp16": 989.4, "fp32": 66.9}),
    ("H100 NVL", {"bf16": 835.5, "fp16": 835.5, "fp32": 60}),
    ("H100 PCIe", {"bf16": 756, "fp16": 756, "fp32": 51}),
    ("H100", {"bf16": 989.4, "fp16": 989.4, "fp32": 66.9}),
    ("A100", {"bf16": 312, "fp16": 312, "fp32": 19.5}),
    ("A40", {"bf16": 149.7, "fp16": 149.7, "fp32": 37.4}),
    ("A10", {"bf16": 125, "fp16": 125, "fp32": 31.2}),
    ("A6000", {"bf16": 154.8, "fp16": 154.8, "fp32": 38.7}),
    ("L40S", {"bf16": 362.05, "fp16": 362.05, "fp32": 91.6}),
    ("L40", {"bf16": 181.05, "fp16": 181.05, "fp32": 90.5}),
    ("L4", {"bf16": 121, "fp16": 121, "fp32": 30.3}),
    ("RTX 4090(?! D| Laptop)", {"bf16": 165.2, "fp16": 165.2, "fp32": 82.6}),
    ("RTX 3090", {"bf16": 71, "fp16": 71, "fp32": 35.6}),
    ("V100-SXM2", {"fp16": 125, "fp32": 15.7}),
    ("V100-PCIE", {"fp16": 112, "fp32": 14}),
    ("T4", {"fp16": 65, "fp32": 8.1}),
)
"""Dense peak with fp32 sums by a part of the device's name, from the makers' data sheets; fp32 without TF32.

The first that fits counts.
"""
_NAME_OF = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Dense peak of a device in floating-point operations a second on numbers of ``dtype``; None: unknown.

    Half of a device, as MIG gives, has no name of its own: its peak is unknown.
    """
    if "MIG" in device_name:
        return None
    for pattern, tflops in _PEAK_TFLOPS:
        if re.search(rf"\b{pattern}\b", device_name):
            peak = tflops.get(_NAME_OF.get(dtype, ""))
            return peak * 1e12 if peak is not None else None
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class MacCount:
    """Multiply-accumulates of one view, by part. Two floating-point operations each."""

    patches: int
    """Patch embedding."""
    attention: int
    """Spatial attention: projections and products."""
    mlp: int
    """MLPs of the backbone."""
    temporal: int
    """Local temporal convolutions."""
    global_blocks: int
    """Position encodings, cross-attention and MLPs of the global blocks."""
    head: int
    """Classifier."""
    frozen_backbone: bool
    """The backbone runs forward only."""

    @property
    def total(self) -> int:
        """All parts."""
        return self.patches + self.attention + self.mlp + self.temporal + self.global_blocks + self.head

    @property
    def training_flops(self) -> int:
        """Floating-point operations of a training step on one view.

        The backward pass of what trains costs two forward passes; a frozen backbone has none.
        """
        trained = self.global_blocks + self.head if self.frozen_backbone else self.total
        return 2 * (self.total + 2 * trained)

    @property
    def flops_behind_features(self) -> int:
        """The same where the features of a frozen backbone are kept: what is computed once does not count."""
        return 6 * (self.global_blocks + self.head)


def count_macs(config: UniFormerV2Config, algorithm: Algorithm = "ours") -> MacCount:
    """Multiply-accumulates of ``config`` on one view."""
    rows, columns = config.grid
    S, C, D = rows * columns, config.width, config.layers
    T = config.num_frames // 2 if config.temporal_downsample else config.num_frames
    L = S + 1
    patch_values = 3 * config.patch_size**2 * (3 if config.temporal_downsample else 1)
    return MacCount(
        patches=T * S * C * patch_values,
        attention=D * (T * L * 4 * C * C + 2 * T * L * L * C),
        mlp=D * T * L * 8 * C * C,
        temporal=D * config.local_blocks * T * S * _temporal_conv(C, int(C // config.dw_reduction)),
        global_blocks=len(config.global_layers) * 27 * T * S * C + _global_branch(config, T * L, algorithm),
        head=C * config.num_classes,
        frozen_backbone=config.frozen_backbone,
    )


def _temporal_conv(width: int, reduced: int) -> int:
    """Per token: reduce, three-frame depth-wise, expand."""
    return 2 * width * reduced + 3 * reduced


def _global_branch(config: UniFormerV2Config, num_tokens: int, algorithm: Algorithm) -> int:
    """All global blocks, and what joins them."""
    blocks = 0
    for index in range(len(config.global_layers)):
        queries = index + 1 if config.fusion == "hierarchical_q" else 1
        seen = num_tokens + 1 if config.fusion == "hierarchical_kv" and index else num_tokens
        blocks += _global_block(config, queries, seen, algorithm)
    joined = len(config.global_layers) * config.width**2 if config.fusion == "parallel" else 0
    return blocks + joined


def _global_block(config: UniFormerV2Config, num_queries: int, num_tokens: int, algorithm: Algorithm) -> int:
    C, hidden = config.width, round(config.mlp_factor * config.width)
    small = num_queries * (2 * C * C + 2 * C * hidden)  # the queries' own projections and MLP
    if algorithm == "published":
        return small + num_tokens * (2 * C * C + num_queries * 2 * C)
    # Key and value weights are applied once per head to one vector; scores and sums run over whole tokens per head.
    return small + num_queries * (2 * C * C + 2 * config.heads * num_tokens * C)
