"""A configuration is checked where it is made, and survives the trip through plain values."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from k710.config import from_mapping, to_mapping
from k710.errors import UsageError
from uniformerv2 import UniFormerV2Config
from uniformerv2.models import MODELS


@pytest.mark.parametrize(
    "config",
    [
        UniFormerV2Config(),
        UniFormerV2Config.variant("l14_336", frames=32, classes=710),
        UniFormerV2Config.variant("b16", kind="ssv2", frames=16, classes=174),
        UniFormerV2Config(image_size=(224, 320), global_layers=(), drop_path_mode="official"),
        UniFormerV2Config(global_layers=(3, 7, 11), mlp_factor=2.5),
    ],
)
def test_config_survives_json(config: UniFormerV2Config) -> None:
    assert from_mapping(UniFormerV2Config, json.loads(json.dumps(to_mapping(config)))) == config


def test_a_wrong_value_in_a_recipe_names_it() -> None:
    with pytest.raises(UsageError, match="local_blocks must be 0, 1 or 2, got 3"):
        from_mapping(UniFormerV2Config, {"local_blocks": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 225}, "image_size must be multiples of patch_size 16, got 225"),
        ({"image_size": (224, 100)}, r"got \(224, 100\)"),
        ({"image_size": 0}, "got 0"),
        ({"width": 770}, "width must be a multiple of heads, got 770 and 12"),
        ({"num_frames": 0}, "num_frames must be a positive whole number, got 0"),
        ({"num_classes": -1}, "num_classes must be a positive whole number, got -1"),
        ({"temporal_downsample": True, "num_frames": 9}, "even num_frames, got 9"),
        ({"global_layers": (3, 2)}, r"got \(3, 2\)"),
        ({"global_layers": (2, 2)}, r"got \(2, 2\)"),
        ({"global_layers": (11, 12)}, r"within 0\.\.11, got \(11, 12\)"),
        ({"global_layers": (-1,)}, r"got \(-1,\)"),
        ({"global_layers": (1.5,)}, r"got \(1.5,\)"),
        ({"image_size": 32.0}, "whole numbers of pixels, got 32.0"),
        ({"width": 768.0}, "width must be a positive whole number, got 768.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be a positive number, got nan"),
        ({"norm_eps": 0.0}, "norm_eps must be a positive number, got 0.0"),
        ({"mlp_factor": 0.0001}, "mlp_factor 0.0001 leaves no hidden channel of width 768"),
        ({"mlp_factor": float("inf")}, "mlp_factor must be a positive number, got inf"),
        ({"gelu": "relu"}, "gelu must be one of quick, exact, tanh, got 'relu'"),
        ({"fusion": "late"}, "fusion must be one of sequential, .*, got 'late'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"drop_path_backbone": -0.1}, "drop_path_backbone .* got -0.1"),
        ({"drop_path_mode": "batch"}, "got 'batch'"),
        ({"frozen_backbone": True, "global_layers": ()}, "frozen_backbone needs a global block"),
        ({"frozen_backbone": True, "local_blocks": 2}, "frozen_backbone takes no local_blocks, got 2"),
        ({"dw_reduction": 1000.0, "local_blocks": 1}, "dw_reduction must be at most width 768, got 1000.0"),
    ],
)
def test_wrong_values_are_refused_with_the_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniFormerV2Config(**change)


def test_variants_are_the_published_architectures() -> None:
    b16, l14 = UniFormerV2Config.variant("b16"), UniFormerV2Config.variant("l14")
    assert (b16.global_layers, l14.global_layers) == ((8, 9, 10, 11), (20, 21, 22, 23))
    assert (b16.local_blocks, b16.temporal_downsample, b16.drop_path_global) == (0, False, 0.0)
    ssv2 = UniFormerV2Config.variant("l14", kind="ssv2", frames=16, classes=174)
    assert ssv2.global_layers == tuple(range(8, 24))
    assert (ssv2.local_blocks, ssv2.temporal_downsample) == (2, True)
    assert (ssv2.drop_path_backbone, ssv2.drop_path_global) == (0.2, 0.4)
    assert UniFormerV2Config.variant("l14_336").grid == (24, 24)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'h14'"):
        UniFormerV2Config.variant("h14")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 'k400'"):
        UniFormerV2Config.variant("b16", kind="k400")  # type: ignore[arg-type]


def test_every_model_is_built_from_its_own_config() -> None:
    for config_class, _ in MODELS.values():
        assert dataclasses.is_dataclass(config_class)
