"""Models: one file each; ``MODELS`` maps a name to its configuration and its module."""

from __future__ import annotations

from typing import Any

from torch import nn

from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.models.uniformerv2_config import UniFormerV2Config

MODELS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "uniformerv2": (UniFormerV2Config, UniFormerV2),
}
"""Model name in a recipe -> (config dataclass, module built from it)."""
