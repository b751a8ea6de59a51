"""The configuration of UniFormerV2: everything that decides what parameters it has and what it computes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args

from uniformerv2.models.blocks import DropPathMode
from uniformerv2.models.fusion import Fusion
from uniformerv2.models.layers import Gelu

BACKBONE_NAMES = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.", "transformer.resblocks.")
"""Beginnings of the names of all that an image transformer has too; a frozen backbone is what they name."""


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
    """How the global blocks are joined; published weights are ``sequential``. Of ``hierarchical_q`` only the last block
    reaches the logits."""
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
        if not 0 < self.norm_eps < math.inf:
            raise ValueError(f"norm_eps must be a positive number, got {self.norm_eps}")

    @property
    def num_queries(self) -> int:
        """Learned queries: one that runs through all global blocks, or one for each."""
        return 1 if self.fusion == "sequential" else len(self.global_layers)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

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
            value, whole = getattr(self, name), name not in ("dw_reduction", "mlp_factor")
            if not 0 < value < math.inf or (whole and not isinstance(value, int)):
                raise ValueError(f"{name} must be a positive {'whole ' if whole else ''}number, got {value}")
        if not all(isinstance(side, int) for side in self.frame_size):
            raise ValueError(f"image_size must be whole numbers of pixels, got {self.image_size}")
        if round(self.mlp_factor * self.width) < 1:
            raise ValueError(f"mlp_factor {self.mlp_factor} leaves no hidden channel of width {self.width}")
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
        inside = all(isinstance(layer, int) and 0 <= layer < self.layers for layer in self.global_layers)
        if not in_order or not inside:
            raise ValueError(f"global_layers must increase within 0..{self.layers - 1}, got {self.global_layers}")
        if self.frozen_backbone and not self.global_layers:
            raise ValueError("frozen_backbone needs a global block, got global_layers ()")
        if self.fusion != "sequential" and not self.global_layers:
            raise ValueError(f"fusion {self.fusion} needs a global block, got global_layers ()")
        # Batch norm would go on moving in a backbone that is said to stand still, and no published model has both.
        if self.frozen_backbone and self.local_blocks:
            raise ValueError(f"frozen_backbone takes no local_blocks, got {self.local_blocks}")


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
