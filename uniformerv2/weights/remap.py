"""Head rows by index: how a classifier of 710 classes becomes one of 400, 600 or 700.

Which rows, and in which order, is asked of the class table by name (``k710.labels``); nothing here knows a class.

Axes: K rows of the source, C width.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

HEAD_KEYS = ("transformer.proj.2.weight", "transformer.proj.2.bias")
"""Names of the classifier's weight [K, C] and bias [K] in a state dict."""


def select_rows(weight_KC: Tensor, bias_K: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a head whose row i is row ``rows[i]`` of the source, bit for bit, in new memory.

    Raises:
        ValueError: weight and bias do not belong together, or a row is not an index from 0 of the source.
    """
    if weight_KC.ndim != 2 or bias_K.shape != weight_KC.shape[:1]:
        shapes = f"{tuple(weight_KC.shape)} and {tuple(bias_K.shape)}"
        raise ValueError(f"a head is a weight [K, C] and a bias [K], got {shapes}")
    if len(rows) == 0:
        raise ValueError("no rows to select")
    picked = [operator.index(row) for row in rows]
    for place, row in enumerate(picked):
        if not 0 <= row < len(weight_KC):
            raise ValueError(f"rows[{place}] must be between 0 and {len(weight_KC) - 1}, got {row}")
    index = torch.tensor(picked, device=weight_KC.device)
    return weight_KC.detach()[index], bias_K.detach()[index.to(bias_K.device)]
