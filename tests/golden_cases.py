"""Recorded cases of the published code: their facts as a configuration."""

from __future__ import annotations

from typing import Any

from uniformerv2 import UniFormerV2Config


def recorded_config(facts: dict[str, Any]) -> UniFormerV2Config:
    """Config of a recorded case, without dropout and drop path: the recordings have none."""
    return UniFormerV2Config(
        image_size=facts["input_resolution"],
        patch_size=facts["patch_size"],
        width=facts["width"],
        layers=facts["layers"],
        heads=facts["heads"],
        num_frames=facts["num_frames"],
        num_classes=facts["num_classes"],
        local_blocks=0 if facts["no_lmhra"] else 1 + facts["double_lmhra"],
        dw_reduction=facts.get("dw_reduction", 1.5),
        temporal_downsample=facts["temporal_downsample"],
        global_layers=tuple(facts["return_list"]),
        frozen_backbone=facts.get("frozen", False),
        dropout=0.0,
    )
