"""Memory of a step: how much it took, and what to lower when there was not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from k710.config import to_mapping
from k710.errors import UsageError
from uniformerv2.config import Recipe, depends_on_micro_batch

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What torch's allocators say, in lower case: of a CPU they raise nothing better than a ``RuntimeError``."""


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was allocated on an accelerator since the process began; on a CPU, the most it was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def enough_memory(recipe: Recipe, *, accumulation: int, world: int) -> Iterator[None]:
    """Turn what a lack of memory raises inside the block into a ``UsageError`` that names the batch, and a smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_lack(error):
            raise
        raise _too_large(recipe, accumulation, world) from error


def _is_lack(error: Exception) -> bool:
    lack = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return lack or any(sign in str(error).lower() for sign in _SIGNS)


def _too_large(recipe: Recipe, accumulation: int, world: int) -> UsageError:
    data = recipe.data
    repeats = f" x {data.repeats} repeats" if data.repeats > 1 else ""
    ways = "; or ".join(_ways_out(recipe, world)) or "take a device with more memory"
    return UsageError(
        f"out of memory: {data.micro_batch} clips{repeats} of {recipe.model.num_frames} frames in one pass "
        f"(data.global_batch {data.global_batch} = data.micro_batch {data.micro_batch} x {accumulation} micro-batches "
        f"x {world} process(es))",
        hint=f"{ways}; the last checkpoint stands",
    )


def _ways_out(recipe: Recipe, world: int) -> Iterator[str]:
    """What takes less memory, with the same global batch."""
    layers, runtime, micro = recipe.model.layers, recipe.runtime, recipe.data.micro_batch
    all_recomputed = runtime.recompute_layers >= layers and runtime.recompute_every == 1
    # A frozen backbone keeps nothing for a backward pass.
    if not all_recomputed and not recipe.model.frozen_backbone:
        yield f"to go on with this run: --set runtime.recompute_layers={layers}"
    smaller = next((n for n in range(micro // 2, 0, -1) if micro % n == 0), 0)
    if smaller:
        num = recipe.data.global_batch // (smaller * world)
        depends = depends_on_micro_batch(to_mapping(recipe.model), to_mapping(recipe.augment))
        where = "with another --out" if depends else "to go on with this run"
        yield f"{where}: --accumulate {num}, which is data.micro_batch={smaller} and the same global batch"
    if recipe.data.repeats > 1:
        yield "with another --out: fewer data.repeats"
