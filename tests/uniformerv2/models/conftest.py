"""Golden cases: small models whose every number was recorded from the published code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from golden_cases import recorded_config
from safetensors.torch import load_file
from torch import Tensor

from uniformerv2 import UniFormerV2, UniFormerV2Config


@dataclass(frozen=True)
class Golden:
    """One recorded case."""

    config: UniFormerV2Config
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def named(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def model(self) -> UniFormerV2:
        model = UniFormerV2(self.config)
        model.load_official(self.named("state."))
        return model


@pytest.fixture
def golden(shared: Path) -> Callable[[str], Golden]:
    def load(case: str) -> Golden:
        folder = shared / "golden/uniformerv2"
        facts = json.loads((folder / f"{case}.json").read_text())
        return Golden(recorded_config(facts), load_file(folder / f"{case}.safetensors"), facts)

    return load
