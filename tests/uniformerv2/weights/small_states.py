"""Small models and state dicts that several tests of weights use."""

from __future__ import annotations

import torch
from torch import Tensor

from uniformerv2 import UniFormerV2, UniFormerV2Config

TINY = UniFormerV2Config(
    image_size=32, width=32, layers=2, heads=2, num_frames=4, num_classes=5, local_blocks=1, global_layers=(1,)
)


def random_state(config: UniFormerV2Config) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = UniFormerV2(config).state_dict()
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone() + 7
        for key, value in state.items()
    }


def as_mmaction2(state: dict[str, Tensor], mark: str = "") -> dict[str, Tensor]:
    """The same weights as mmaction2 names them; ``mark`` stands where ``torch.compile`` leaves one."""
    names = {"transformer.proj.0.": f"backbone.{mark}transformer.norm.", "transformer.proj.2.": "cls_head.fc_cls."}
    renamed = {}
    for key, value in state.items():
        begin = next((b for b in names if key.startswith(b)), "")
        renamed[(names[begin] if begin else f"backbone.{mark}") + key.removeprefix(begin)] = value
    return {**renamed, "data_preprocessor.mean": torch.zeros(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(actual) == sorted(expected)
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key
