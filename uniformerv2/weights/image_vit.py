"""Image transformers as the start of a video model: CLIP, DINO, MAE and others of the same plain build.

The backbone comes from the image model, its patch convolution given a time axis and its positions resized to the grid
of the video model; global blocks, temporal convolutions and the head keep their initial values. Every entry of the
source is taken, folded exactly into another, or left out for a reason; what has no exact place is refused.

Axes: L = 1 + H*W positions with the class in front, C width, P patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2.models.uniformerv2 import UniFormerV2
from uniformerv2.models.uniformerv2_config import BACKBONE_NAMES, UniFormerV2Config
from uniformerv2.weights.image_kinds import KINDS, require_kind, settings_of
from uniformerv2.weights.image_source import ImageSource, open_source
from uniformerv2.weights.load_report import LoadReport
from uniformerv2.weights.positions import POSITIONS, resize_positions
from uniformerv2.weights.published import copy_into, differences

Inflation = Literal["centre", "mean"]
"""How a 2-D kernel fills a 3-D one: as its middle frame among zeros, or spread evenly over the frames."""

_KERNEL = "conv1.weight"


def source_settings(kind: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """``gelu``, ``norm_eps`` and ``pre_norm`` of a model whose backbone computes what this image transformer does.

    Raises:
        ValueError: an unknown kind.
        CheckpointError: the weights are of another kind, or of none that fits.
    """
    source = open_source(state_dict)
    require_kind(source, kind)
    return settings_of(source, kind)


def load_image_vit(
    model: UniFormerV2, kind: str, state_dict: Mapping[str, Any], inflation: Inflation = "centre"
) -> LoadReport:
    """Fill the backbone of ``model`` from an image transformer of one of ``KINDS``, and say what was taken.

    How many attention heads the source has is not in its weights: ``model`` must have as many.

    Raises:
        ValueError: an unknown kind or inflation.
        CheckpointError: the source is of another kind or size, a model of its settings is needed, or something in it
            has no exact place in the model; the model is then as it was.
    """
    source = open_source(state_dict)
    require_kind(source, kind)
    _require_settings(model.config, settings_of(source, kind), kind)
    KINDS[kind].read(source)
    state = model.state_dict()
    # Of what an image transformer has too, the temporal convolutions are the model's own.
    expected = {key: value for key, value in state.items() if key.startswith(BACKBONE_NAMES) and ".lmhra" not in key}
    tensors = source.tensors
    _require_size(tensors, model.config)
    resized = _fit_positions(source, model.config.grid)
    inflated = tuple(k for k in tensors if k in expected and tensors[k].ndim == 4 and expected[k].ndim == 5)
    for key in inflated:
        tensors[key] = inflate(tensors[key], expected[key].shape[2], inflation)
    # Quoted, because what nothing explains must not pass for a key of ours that happens to have its name.
    left = {repr(source.key_of(name)): value for name, value in source.entries.items()}
    left |= {repr(key): torch.empty(0) for key in source.unexplained}
    _require_match({**tensors, **left}, expected)
    copy_into(model, tensors)
    return LoadReport(
        taken=tuple(expected),
        ignored=tuple(source.ignored),
        prefix=source.prefix,
        renamed=tuple(source.renamed),
        folded=tuple(source.folded),
        resized=resized,
        inflated=inflated,
        fresh=tuple(key for key in state if key not in expected),
    )


def load_clip(model: UniFormerV2, state_dict: Mapping[str, Any], inflation: Inflation = "centre") -> LoadReport:
    """Fill the backbone of ``model`` from OpenAI CLIP: a whole CLIP, its ``visual.`` part, or that without prefix."""
    return load_image_vit(model, "clip", state_dict, inflation)


def inflate(kernel: Tensor, depth: int, inflation: Inflation = "centre") -> Tensor:
    """A convolution kernel [C, 3, P, P] of images as [C, 3, depth, P, P] of clips.

    ``centre``, which all published models use, lets the middle frame count alone; ``mean`` lets all count alike.
    """
    if inflation == "mean":
        return (kernel / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)
    if inflation != "centre":
        raise ValueError(f"inflation must be 'centre' or 'mean', got {inflation!r}")
    inflated = kernel.new_zeros(*kernel.shape[:2], depth, *kernel.shape[2:])
    inflated[:, :, depth // 2] = kernel
    return inflated


def _require_settings(config: UniFormerV2Config, settings: Mapping[str, Any], kind: str) -> None:
    """Refuse a model that would compute something else with the same weights."""
    wrong = {name: value for name, value in settings.items() if getattr(config, name) != value}
    if wrong:
        named = ", ".join(f"{name}={value!r}, not {getattr(config, name)!r}" for name, value in wrong.items())
        raise CheckpointError(
            f"weights of kind {kind} need a model with {named}",
            hint="replace these fields of its config by source_settings(kind, state_dict)",
        )


def _require_size(tensors: Mapping[str, Tensor], config: UniFormerV2Config) -> None:
    """Refuse an image transformer of another width, depth or patch size in one sentence instead of a list of keys."""
    kernel = tensors.get(_KERNEL)
    if kernel is None:
        return
    if kernel.ndim != 4 or kernel.shape[1] != 3 or kernel.shape[2] != kernel.shape[3]:
        message = f"the patch convolution is {tuple(kernel.shape)}, not one of square patches of RGB images"
        raise CheckpointError(message, hint="take an image transformer for RGB images")
    layers = {int(key.split(".")[2]) for key in tensors if key.startswith("transformer.resblocks.")}
    width, depth, patch = kernel.shape[0], 1 + max(layers, default=-1), kernel.shape[2]
    if (width, depth, patch) == (config.width, config.layers, config.patch_size):
        return
    raise CheckpointError(
        f"the image transformer is {width} wide with {depth} layers and patches of {patch}, "
        f"the model is {config.width} wide with {config.layers} layers and patches of {config.patch_size}",
        hint=_size_hint(width, depth, patch, num_positions=len(tensors.get(POSITIONS, ()))),
    )


def _size_hint(width: int, depth: int, patch: int, *, num_positions: int) -> str:
    for name in ("b16", "l14_336", "l14"):
        config = UniFormerV2Config.variant(name)
        fits_grid = num_positions == 1 + config.grid[0] * config.grid[1] or name != "l14_336"
        if (width, depth, patch) == (config.width, config.layers, config.patch_size) and fits_grid:
            return f"it looks like variant {name}: take a recipe of that size, such as k710_{name}"
    return f"build a model of that size: width={width}, layers={depth}, patch_size={patch}, and its number of heads"


def _require_match(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a source that lacks an entry of its kind, or has one more."""
    keys, problems = differences(tensors, expected)
    if keys:
        raise CheckpointError(
            f"the checkpoint does not fit the model: {problems}",
            hint="entries were lost or added after it was saved: use an unchanged checkpoint",
        )


def _fit_positions(source: ImageSource, grid: tuple[int, int]) -> tuple[str, ...]:
    """Bring the position table to ``grid`` and add the patch bias to it; the keys that had to be interpolated."""
    resized: tuple[str, ...] = ()
    bias_C = source.patch_bias_C
    if source.lacks_positions and (class_C := source.tensors.get("class_embedding")) is not None:
        source.tensors[POSITIONS] = class_C.new_zeros(1 + grid[0] * grid[1], len(class_C))
    table_LC = source.tensors.get(POSITIONS)
    if table_LC is None or table_LC.ndim != 2:
        return ()
    fitted_LC = resize_positions(table_LC, grid)
    if fitted_LC is not table_LC:
        resized = (POSITIONS,)
    if bias_C is not None:
        # A bias of the convolution reaches every patch and not the class, as the patch rows of the table do.
        if bias_C.shape != fitted_LC.shape[1:]:
            shapes = f"{tuple(bias_C.shape)}, positions are {tuple(fitted_LC.shape)}"
            raise CheckpointError(f"the bias of the patch convolution is {shapes}", hint="give an unchanged checkpoint")
        fitted_LC = torch.cat([fitted_LC[:1], fitted_LC[1:] + bias_C])
    source.tensors[POSITIONS] = fitted_LC
    return resized
