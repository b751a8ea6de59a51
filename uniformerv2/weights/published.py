"""Published UniFormerV2 checkpoints: compared with a model, then loaded whole or not at all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from k710.errors import CheckpointError
from uniformerv2.weights.layouts import read_layout
from uniformerv2.weights.load_report import LoadReport
from uniformerv2.weights.positions import POSITIONS, resize_positions
from uniformerv2.weights.remap import HEAD_KEYS
from uniformerv2.weights.variants import describe, settings_to_change


def load_published(
    model: nn.Module, state_dict: Mapping[str, Any], source_grid: tuple[int, int] | None = None
) -> LoadReport:
    """Fill every parameter and buffer of ``model`` from published weights, and say what was taken.

    Takes the official layout, ours and mmaction2's, bare or inside a training checkpoint, with any of
    ``layouts.PREFIXES`` in front of the keys; values may be tensors or arrays of any float type. A position table for
    another grid of patches is resized to that of ``model.config``.

    Args:
        model: what is filled.
        state_dict: the weights.
        source_grid: height and width of the grid, in patches, that the position table is for; None: the model's when
            it has as many patches, else a square one.

    Raises:
        CheckpointError: a key is missing, unexpected or of another shape, a value is not a finite number, or the
            position table fits a square grid as well as the model's; the model is then as it was.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    layout = read_layout(state_dict)
    source = {key: as_tensor(key, value) for key, value in layout.weights.items()}
    expected = model.state_dict()
    grid = _grid_of_positions(model, source, expected)
    # The number of its rows is not compared, because the table will be brought to the grid.
    require_fit(source, expected if grid is None else {**expected, POSITIONS: source[POSITIONS]})
    values = in_dtypes_of(expected, source)
    resized = False
    if grid is not None:
        table_LC = values[POSITIONS]
        values[POSITIONS] = _on_grid(table_LC, grid, source_grid)
        resized = values[POSITIONS] is not table_LC
    copy_into(model, values)
    return LoadReport(
        taken=tuple(expected),
        ignored=layout.ignored,
        prefix=layout.prefix,
        renamed=layout.renamed,
        resized=(POSITIONS,) if resized else (),
    )


def as_tensor(key: str, value: Any) -> Tensor:
    """``value`` as a tensor that shares memory where it can; what holds no numbers is a ``CheckpointError``."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    message = f"checkpoint entry {key!r} is a {type(value).__name__}, not a tensor"
    raise CheckpointError(message, hint="give the state dict of a model, or a checkpoint with `model_state`")


def require_fit(source: Mapping[str, Tensor], expected: Mapping[str, Tensor], apart_from: Collection[str] = ()) -> None:
    """Raise a ``CheckpointError`` that says which model the checkpoint is of, unless keys and shapes are equal.

    Entries in ``apart_from`` are not compared, because they will be made to fit.
    """
    compared = {key: value for key, value in source.items() if key not in apart_from}
    wanted = {key: value for key, value in expected.items() if key not in apart_from}
    keys, problems = differences(compared, wanted)
    if not keys:
        return
    theirs, ours = describe(source), describe(expected)
    if theirs is None or ours is None:
        raise CheckpointError(
            f"the checkpoint does not look like a UniFormerV2: {problems}",
            hint="give the weights of a UniFormerV2, or start from an image transformer with --init KIND:PATH",
        )
    alike = dataclasses.replace(theirs, num_classes=ours.num_classes) if HEAD_KEYS[0] in apart_from else theirs
    if alike == ours:
        raise CheckpointError(
            f"the checkpoint looks like {theirs}, as the model is, but does not fit it: {problems}",
            hint="entries were lost or added after it was saved: use another copy",
        )
    settings = settings_to_change(alike, ours)
    hint = f"build the model with {settings}" if settings else "build the model with the checkpoint's configuration"
    if "model.num_classes" in settings:
        hint += "; then pick the head's rows by class"
    raise CheckpointError(f"the checkpoint looks like {theirs}, the model is {ours}: {problems}", hint=hint)


def differences(source: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[list[str], str]:
    """The keys that differ, and one line that names each kind of difference with at most five of its keys."""
    missing = [key for key in expected if key not in source]
    unexpected = [key for key in source if key not in expected]
    misshapen = [key for key in expected if key in source and source[key].shape != expected[key].shape]
    shapes = [f"{k} is {tuple(source[k].shape)}, the model has {tuple(expected[k].shape)}" for k in misshapen]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys)
    return missing + unexpected + misshapen, problems


def in_dtypes_of(expected: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``source``, whose keys are all in ``expected``, in the dtypes that the model has.

    Raises:
        CheckpointError: a value is NaN or infinite, also after conversion, or is not of the expected kind.
    """
    values = {key: _in_dtype(key, value, expected[key].dtype) for key, value in source.items()}
    broken = {key: n for key, value in values.items() if (n := int(value.numel() - value.isfinite().sum()))}
    if broken:
        first = next(iter(broken))
        raise CheckpointError(
            f"{sum(broken.values())} values in {len(broken)} entries of the checkpoint are NaN or infinite, "
            f"the first in {first} ({broken[first]} of {values[first].numel()})",
            hint="the training that made it diverged, or the file is damaged: use another checkpoint",
        )
    return values


def copy_into(model: nn.Module, source: Mapping[str, Tensor]) -> None:
    """Write ``source``, already checked, over the parameters and buffers it names, in their own dtype.

    Raises:
        ValueError: the model has no memory to write to.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the model is on the meta device; give it memory first: model.to_empty(device=...)")
    model.load_state_dict(dict(source), strict=False)


def _grid_of_positions(
    model: nn.Module, source: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    """The patch grid of ``model``, when nothing differs but the number of rows of the position table; else None."""
    grid: tuple[int, int] | None = getattr(getattr(model, "config", None), "grid", None)
    if grid is None or POSITIONS not in source or POSITIONS not in expected:
        return None
    have, want = source[POSITIONS].shape, expected[POSITIONS].shape
    if len(have) != 2 or have[1:] != want[1:] or want[0] != 1 + grid[0] * grid[1]:
        return None
    return grid if set(differences(source, expected)[0]) <= {POSITIONS} else None


def _on_grid(table_LC: Tensor, grid: tuple[int, int], source_grid: tuple[int, int] | None) -> Tensor:
    """The table for ``grid``; the very same one when it is for that grid already."""
    num_patches = len(table_LC) - 1
    if source_grid is not None or num_patches != grid[0] * grid[1]:
        return resize_positions(table_LC, grid, source_grid)
    side = math.isqrt(num_patches)
    if grid[0] != grid[1] and side * side == num_patches:
        # Taken for the wrong one of the two, every position would be that of another place, without a word.
        raise CheckpointError(
            f"{POSITIONS} has {num_patches} rows beside the class row, which fit {side}x{side} patches as well as the "
            f"model's {grid[0]}x{grid[1]}",
            hint=f"say which it is for: load_official(state_dict, source_grid=({side}, {side})), or source_grid={grid}",
        )
    return table_LC


def _in_dtype(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    if value.is_meta or value.layout != torch.strided:
        kind = "without values" if value.is_meta else "in sparse form"
        raise CheckpointError(f"checkpoint entry {key!r} is a tensor {kind}", hint="save plain float weights")
    if value.is_complex() or (dtype.is_floating_point and not value.is_floating_point()):
        raise CheckpointError(
            f"checkpoint entry {key!r} is of {str(value.dtype).removeprefix('torch.')}, the model has float numbers",
            hint="save plain float weights: quantized ones need their scales",
        )
    try:
        converted = value.to(dtype)
        # Counters are integers, but programs that halve a whole file leave them as floats.
        kept = dtype.is_floating_point or bool((converted.double() == value.double()).all())
    except RuntimeError as error:  # packed types, such as two 4-bit floats in a byte
        message = f"checkpoint entry {key!r} is of {str(value.dtype).removeprefix('torch.')}, which cannot be converted"
        raise CheckpointError(message, hint="save it as float32, float16 or bfloat16") from error
    if not kept:
        raise CheckpointError(f"checkpoint entry {key!r} is a counter, and holds what is no whole number")
    return converted


def _some(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (f", ... and {len(keys) - limit} more" if len(keys) > limit else "")
