"""Our models as official checkpoints: the names and shapes that the published code loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor, nn

from k710 import atomic
from k710.errors import CheckpointError, UsageError
from uniformerv2.weights.layouts import strip_prefixes

OFFICIAL_PREFIX: Final = "backbone."
"""In front of every key of a published file."""
SUFFIXES = (".pyth", ".pth", ".safetensors")


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of ``model`` under the names in published files, in their order, sharing memory with it.

    Raises:
        CheckpointError: the published code has no such model, or would compute something else with these weights.
    """
    reasons = [reason for differs, reason in _beyond_the_published(model.config) if differs]
    if reasons:
        raise CheckpointError(
            f"the model has no published format: {'; '.join(reasons)}",
            hint="keep model.safetensors, which this program reads",
        )
    weights, _ = strip_prefixes(model.state_dict())
    return {OFFICIAL_PREFIX + key: value.detach() for key, value in weights.items()}


def save_official(model: nn.Module, path: Path) -> None:
    """Write ``model`` where the published code can load it, whole or not at all.

    A plain dict with ``backbone.`` in front of every key: for ``.pyth`` and ``.pth`` by ``torch.save``, which loads
    with ``weights_only``, else as safetensors.

    Raises:
        CheckpointError: the model has no published format.
        UsageError: another ending, or a folder that cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: the name must end in {', '.join(SUFFIXES)}")
    # Copies: a view into a larger storage would be saved with all of it.
    state = {key: value.to("cpu", copy=True).contiguous() for key, value in official_state_dict(model).items()}
    with atomic.writable(path.parent), atomic.replacing(path) as partial:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, partial)
        else:
            torch.save(state, partial)


def _beyond_the_published(config: Any) -> tuple[tuple[bool, str], ...]:
    """What only our models can be: whether this one is, and what is then in the way."""
    height, width = config.grid
    return (
        (config.fusion != "sequential", f"its global blocks are joined by fusion {config.fusion}, not sequential"),
        (not config.pre_norm, "it has no norm before the first layer (pre_norm)"),
        (config.gelu != "quick", f"its activation is gelu {config.gelu}, the published code computes the quick one"),
        (config.norm_eps != 1e-5, f"its norms add {config.norm_eps}, those of the published code 1e-05 (norm_eps)"),
        (height != width, f"its frames are {height} x {width} patches, the published code takes square ones"),
    )
