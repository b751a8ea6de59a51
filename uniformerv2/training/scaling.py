"""Precision of a step, and what happens to one whose result is not finite. All ranks decide alike.

The scale of the loss under fp16 follows torch's ``GradScaler``: halved by a step that is not finite, doubled after so
many that are. Here every rank judges the same summed gradient, and the state is plain numbers, so that a run that was
interrupted goes on with the very scale that it had.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from k710.errors import UsageError
from uniformerv2.config import Recipe

FIRST_SCALE = 65536.0
GROWTH = 2.0
BACKOFF = 0.5
FINITE_STEPS = 2000
"""Steps without a fault after which the scale is doubled."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """What the forward pass computes in, under autocast; ``auto`` is bf16 on an accelerator, fp32 on a CPU."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[precision]


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """``recipe`` with the precision that ``auto`` means on ``device``: a run keeps the one that it began with."""
    dtype = dtype_of(recipe.runtime.precision, device)
    name: Any = next(name for name, known in _DTYPES.items() if known == dtype)
    return dataclasses.replace(recipe, runtime=dataclasses.replace(recipe.runtime, precision=name))


class Guard:
    """Keeps steps that are not finite out of the weights, counts them, and scales the loss where that helps."""

    def __init__(self, *, scaled: bool = False) -> None:
        self.scale: float | None = FIRST_SCALE if scaled else None
        self.finite_steps = 0
        """Since the scale last changed."""
        self.bad_steps = 0
        """Steps skipped since the run began."""
        self.bad_in_a_row = 0
        """Of those, the last ones without a good one between, that no smaller scale can help."""

    @property
    def factor(self) -> float:
        """What the loss is multiplied by before the backward pass."""
        return 1.0 if self.scale is None else self.scale

    def judge(self, loss: float, norm: float, *, step: int, allowed: int) -> bool:
        """Whether the step is one to make; ``norm`` is that of the gradient, its scale taken off.

        Raises:
            UsageError: more than ``allowed`` steps in a row were not.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        # A gradient that is too large for fp16 says that the scale is, and nothing about the run.
        of_the_scale = math.isfinite(loss) and self.scale is not None and self.scale > 1
        self._rescale(finite)
        if finite:
            self.bad_in_a_row = 0
            return True
        self.bad_steps += 1
        self.bad_in_a_row += not of_the_scale
        if self.bad_in_a_row > allowed:
            _refuse(loss, norm, step, self.bad_in_a_row)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers to go on from."""
        return {
            "scale": self.scale,
            "finite_steps": self.finite_steps,
            "bad_steps": self.bad_steps,
            "bad_in_a_row": self.bad_in_a_row,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from ``saved``; a run whose loss is not scaled takes no scale from it, and one that was not, none."""
        if self.scale is not None and saved.get("scale") is not None:
            self.scale = float(saved["scale"])
        self.finite_steps = int(saved.get("finite_steps", 0))
        self.bad_steps = int(saved.get("bad_steps", 0))
        self.bad_in_a_row = int(saved.get("bad_in_a_row", 0))

    def _rescale(self, finite: bool) -> None:
        if self.scale is None:
            return
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.scale *= BACKOFF
        elif self.finite_steps == FINITE_STEPS:
            # Beyond the largest fp32 number no loss could be multiplied by it.
            self.scale = self.scale * GROWTH if self.scale < 2.0**127 else self.scale
            self.finite_steps = 0


def _refuse(loss: float, norm: float, step: int, in_a_row: int) -> None:
    what, value = ("norm of the gradient", norm) if math.isfinite(loss) else ("loss", loss)
    row = f", the last of {in_a_row} such steps in a row" if in_a_row > 1 else ""
    raise UsageError(
        f"the {what} is {value} at step {step}{row}",
        hint="lower optim.base_lr or lengthen optim.warmup_epochs, with another --out; the last checkpoint is from "
        "before",
    )
