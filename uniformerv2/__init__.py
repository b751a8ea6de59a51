"""Training: UniFormerV2 models, published weights, the feed, the engine and evaluation."""

from __future__ import annotations

from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.models.uniformerv2_config import UniFormerV2Config

__all__ = ["UniFormerV2", "UniFormerV2Config"]
