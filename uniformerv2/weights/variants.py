"""Which UniFormerV2 a state dict is of, as far as names and shapes of its entries tell.

They do not tell the number of frames, of heads, the layers that the global blocks follow, dropout or activation.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from uniformerv2.models.fusion import Fusion
from uniformerv2.models.uniformerv2_config import UniFormerV2Config

CHANNELS_PER_HEAD = 64
"""In all published models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A UniFormerV2 as its state dict shows it; a size of 0 that cannot be 0 is one that the entries do not show."""

    width: int
    """Channels of a token."""
    layers: int
    """Layers of the backbone."""
    patch_size: int
    """Side of a patch, in pixels."""
    kernel_depth: int
    """Frames that a patch spans: 3 with temporal downsampling, else 1."""
    num_patches: int
    """Patches of a frame that there are positions for."""
    local_blocks: int
    """Temporal convolutions in each layer."""
    local_width: int
    """Channels inside a temporal convolution; 0 without any."""
    num_global_blocks: int
    """Blocks that gather the frames."""
    global_hidden: int
    """Hidden channels of the MLP in a global block; 0 without any."""
    num_classes: int
    """Rows of the classifier."""
    fusions: tuple[Fusion, ...]
    """The fusion; the two hierarchical ones together, because they have the same parameters."""
    pre_norm: bool
    """A norm stands before the first layer."""
    frozen: bool
    """Nothing weighs the class token against the query, as in models with a frozen backbone."""

    @property
    def temporal_downsample(self) -> bool:
        """Every second frame starts a patch."""
        return self.kernel_depth > 1

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width of the grid of patches; None when it is not square."""
        side = math.isqrt(self.num_patches)
        return (side, side) if side and side * side == self.num_patches else None

    @property
    def published(self) -> str:
        """Name of the published architecture that this is, such as ``l14_336 frozen``; empty when it is none."""
        named = _published_architectures().items()
        return next((name for name, it in named if replace(it, num_classes=self.num_classes) == self), "")

    @property
    def name(self) -> str:
        """The published name with the number of classes, or that there is none."""
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return (self.published or "an unpublished UniFormerV2") + classes

    def settings(self) -> dict[str, Any]:
        """The settings of ``UniFormerV2Config`` that the entries show, or that follow from them in published models.

        ``fusion`` is a tuple of all that it can be.
        """
        shown: dict[str, Any] = {}
        if self.grid and self.patch_size:
            shown["image_size"] = self.grid[0] * self.patch_size
        shown |= {"patch_size": self.patch_size, "width": self.width}
        if self.published:  # of others the number of heads cannot be told, and a wrong one loads all the same
            shown["heads"] = self.width // CHANNELS_PER_HEAD
        shown |= {"layers": self.layers, "num_classes": self.num_classes}
        shown = {name: value for name, value in shown.items() if value}
        shown |= {"local_blocks": self.local_blocks, "temporal_downsample": self.temporal_downsample}
        if self.local_width:
            shown["dw_reduction"] = _ratio(self.width, self.local_width)
        if self.num_global_blocks <= self.layers:
            # The last ones in all published models; others have the same parameters.
            shown["global_layers"] = list(range(self.layers - self.num_global_blocks, self.layers))
        if self.global_hidden and self.width:
            shown["mlp_factor"] = self.global_hidden / self.width
        return shown | {"fusion": self.fusions, "pre_norm": self.pre_norm, "frozen_backbone": self.frozen}

    def __str__(self) -> str:
        grid = f"{self.grid[0]}x{self.grid[1]}" if self.grid else str(self.num_patches)
        facts = (
            f"{self.width} wide" if self.width else "",
            f"{self.layers} layers",
            f"patch {self.patch_size}" if self.patch_size else "",
            f"{grid} patches" if self.num_patches else "",
            f"{self.local_blocks} local blocks per layer" if self.local_blocks else "",
            f"{self.num_global_blocks} global blocks",
            "temporal downsampling" if self.temporal_downsample else "",
            "" if self.fusions == ("sequential",) else f"fusion {' or '.join(self.fusions)}",
            "" if self.pre_norm else "no norm before the first layer",
            "frozen" if self.frozen else "",
        )
        return f"{self.name} ({', '.join(fact for fact in facts if fact)})"


def describe(state_dict: Mapping[str, Any]) -> Architecture | None:
    """The architecture of a state dict under published names (tensors or arrays); None: not a UniFormerV2's."""
    shapes = {str(key): tuple(getattr(value, "shape", ())) for key, value in state_dict.items()}
    if not any(key.startswith(("transformer.resblocks.", "transformer.dec.")) for key in shapes):
        return None
    query = shapes.get("transformer.temporal_cls_token", ())
    if any(key.startswith("transformer.fusion.") for key in shapes):
        fusions = _PARALLEL
    else:
        fusions = _HIERARCHICAL if len(query) == 3 and query[0] > 1 else _SEQUENTIAL
    return Architecture(
        width=_first(shapes, _WIDTHS),
        layers=_count(shapes, r"transformer\.resblocks\.(\d{1,4})\."),
        patch_size=_size(shapes, "conv1.weight", 3, 5),
        kernel_depth=_size(shapes, "conv1.weight", 2, 5),
        num_patches=max(0, _size(shapes, "positional_embedding", 0, 2) - 1),
        local_blocks=len({found[1] for key in shapes if (found := re.search(r"\.lmhra(\d)\.", key))}),
        local_width=_size(shapes, "transformer.resblocks.0.lmhra1.pos_embed.1.weight", 0, 5),
        num_global_blocks=_count(shapes, r"transformer\.dec\.(\d{1,4})\."),
        global_hidden=_size(shapes, "transformer.dec.0.mlp.c_fc.weight", 0, 2),
        num_classes=_first(shapes, (("transformer.proj.2.weight", 0, 2), ("transformer.proj.2.bias", 0, 1))),
        fusions=fusions,
        pre_norm=any(key.startswith("ln_pre.") for key in shapes),
        frozen="transformer.balance" not in shapes,
    )


def settings_to_change(checkpoint: Architecture, model: Architecture) -> str:
    """The settings that a model needs to fit a checkpoint, as for ``--set``; empty when none is known to differ."""
    have = model.settings()
    named = []
    for name, value in checkpoint.settings().items():
        if have.get(name) != value:
            choices = value if name == "fusion" else (value,)
            named.append(f"model.{name}={' or '.join(json.dumps(choice) for choice in choices)}")
    return ", ".join(named)


_SEQUENTIAL: tuple[Fusion, ...] = ("sequential",)
_PARALLEL: tuple[Fusion, ...] = ("parallel",)
_HIERARCHICAL: tuple[Fusion, ...] = ("hierarchical_kv", "hierarchical_q")
_WIDTHS = (
    ("class_embedding", 0, 1),
    ("positional_embedding", 1, 2),
    ("transformer.proj.0.weight", 0, 1),
    ("transformer.resblocks.0.ln_1.weight", 0, 1),
)
"""Entries that show the width: key, axis, number of axes. Several, because a checkpoint may lack one."""


@functools.cache
def _published_architectures() -> dict[str, Architecture]:
    """Name of every size and kind that was published -> what its state dict shows."""
    variant = UniFormerV2Config.variant
    return {
        "b16 kinetics": _architecture_of(variant("b16")),
        "l14 kinetics": _architecture_of(variant("l14")),
        "l14_336 kinetics": _architecture_of(variant("l14_336")),
        "b16 ssv2": _architecture_of(variant("b16", kind="ssv2")),
        "l14 ssv2": _architecture_of(variant("l14", kind="ssv2")),
        "l14_336 frozen": _architecture_of(replace(variant("l14_336"), frozen_backbone=True)),
    }


def _architecture_of(config: UniFormerV2Config) -> Architecture:
    """What the state dict of a published model shows."""
    return Architecture(
        width=config.width,
        layers=config.layers,
        patch_size=config.patch_size,
        kernel_depth=3 if config.temporal_downsample else 1,
        num_patches=config.grid[0] * config.grid[1],
        local_blocks=config.local_blocks,
        local_width=int(config.width // config.dw_reduction) if config.local_blocks else 0,
        num_global_blocks=len(config.global_layers),
        global_hidden=round(config.mlp_factor * config.width),
        num_classes=config.num_classes,
        fusions=(config.fusion,),
        pre_norm=config.pre_norm,
        frozen=config.frozen_backbone,
    )


def _size(shapes: Mapping[str, tuple[int, ...]], key: str, axis: int, num_axes: int) -> int:
    """Size of one axis of an entry; 0 when there is no such entry, or one with another number of axes."""
    shape = shapes.get(key, ())
    return int(shape[axis]) if len(shape) == num_axes else 0


def _first(shapes: Mapping[str, tuple[int, ...]], places: tuple[tuple[str, int, int], ...]) -> int:
    return next((size for place in places if (size := _size(shapes, *place))), 0)


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many blocks there are, by the highest number."""
    return max((int(found[1]) + 1 for key in shapes if (found := re.match(pattern, key))), default=0)


def _ratio(width: int, reduced: int) -> float:
    """The number with the fewest digits by which ``width`` is reduced to ``reduced``, rounded down as in the model."""
    # A whole range of ratios gives the same width after rounding; what is inside it cannot fail by a rounding error.
    inside = (width / (reduced + 1) + width / reduced) / 2
    rounded = (round(inside, digits) for digits in range(6))
    return next((ratio for ratio in rounded if ratio and int(width // ratio) == reduced), inside)
