"""Position tables for another patch grid.

Axes: L = 1 + H*W rows with the class position first, H x W patch grid, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from k710.errors import CheckpointError

POSITIONS = "positional_embedding"
"""Key of the position table."""


def resize_positions(table_LC: Tensor, grid: tuple[int, int], source_grid: tuple[int, int] | None = None) -> Tensor:
    """A position table for patches on ``grid``: the class row kept, the rest bicubic (no antialiasing) in fp32.

    Args:
        table_LC: rows of the class and of the patches, row by row of the grid.
        grid: height and width of the wanted grid, in patches.
        source_grid: of the table; None: square, as in all published image models.

    Raises:
        CheckpointError: the table is not for ``source_grid``, or for no square grid when none is named.
    """
    num_patches = len(table_LC) - 1
    height, width = source_grid or (math.isqrt(max(num_patches, 0)),) * 2
    if num_patches < 1 or min(height, width) < 1 or height * width != num_patches:
        if source_grid is not None:
            message = f"{POSITIONS} has {num_patches} rows beside the class row, which are no {height}x{width} grid"
            raise CheckpointError(message, hint="name the grid that the checkpoint is for: height and width in patches")
        raise CheckpointError(
            f"{POSITIONS} has {num_patches} rows beside the class row, which make no square grid to resize from",
            hint="set image_size and patch_size to those of the checkpoint",
        )
    if (height, width) == grid:
        return table_LC
    patch_1CHW = torch.unflatten(table_LC[1:].float(), 0, (height, width)).permute(2, 0, 1)[None]
    resized_1CHW = F.interpolate(patch_1CHW, size=grid, mode="bicubic", align_corners=False)
    patch_SC = resized_1CHW[0].permute(1, 2, 0).flatten(0, 1).to(table_LC.dtype)
    out: Tensor = table_LC.new_empty(1 + grid[0] * grid[1], table_LC.shape[1])
    out[0], out[1:] = table_LC[0], patch_SC
    return out
