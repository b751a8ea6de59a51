"""Image transformers as the start of a video model: OpenAI CLIP, whose names UniFormerV2 keeps.

The backbone comes from the image model, its patch convolution given a time axis; global blocks, temporal convolutions
and the head keep their initial values. Each kind of image model is one reader in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from k710.errors import CheckpointError
from uniformerv2.weights.published import LoadReport, as_tensor, copy_into, require_match

Inflation = Literal["centre", "mean"]
"""How a 2-D kernel fills a 3-D one: as its middle frame among zeros, or spread evenly over the frames."""

Ignored = tuple[tuple[str, str], ...]

IMAGE_NAMES = ("class_embedding", "positional_embedding", "conv1.", "ln_pre.", "transformer.resblocks.")
"""Beginnings of the keys that an image transformer has too; of these, temporal convolutions are the model's own."""

_UNUSED = {
    "proj": "projects to the space shared with text, which a classifier does not use",
    "ln_post.weight": "the class token goes to the head without a last norm",
    "ln_post.bias": "the class token goes to the head without a last norm",
}


def load_image_vit(
    model: nn.Module, kind: str, state_dict: Mapping[str, Any], inflation: Inflation = "centre"
) -> LoadReport:
    """Fill the backbone of ``model`` from an image transformer of one of ``KINDS``, and say what was taken.

    Raises:
        ValueError: an unknown kind or inflation.
        CheckpointError: a key is missing, unexpected or of another shape; the model is then as it was.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    source, ignored, prefix = KINDS[kind](state_dict)
    state = model.state_dict()
    expected = {key: value for key, value in state.items() if key.startswith(IMAGE_NAMES) and ".lmhra" not in key}
    _require_same_grid(source, expected)
    inflated = tuple(k for k in source if k in expected and source[k].ndim == 4 and expected[k].ndim == 5)
    for key in inflated:
        source[key] = inflate(source[key], expected[key].shape[2], inflation)
    require_match(source, expected)
    copy_into(model, source)
    fresh = tuple(key for key in state if key not in expected)
    return LoadReport(taken=tuple(expected), ignored=ignored, prefix=prefix, inflated=inflated, fresh=fresh)


def load_clip(model: nn.Module, state_dict: Mapping[str, Any], inflation: Inflation = "centre") -> LoadReport:
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


def read_clip(state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], Ignored, str]:
    """The image transformer of a CLIP state dict under our names, what is left out and why, and the stripped prefix."""
    prefix = "visual." if any(key.startswith("visual.") for key in state_dict) else ""
    source: dict[str, Tensor] = {}
    ignored: list[tuple[str, str]] = []
    for key, value in state_dict.items():
        name = key.removeprefix(prefix)
        if prefix and not key.startswith(prefix):
            ignored.append((key, "belongs to the text transformer, or to both"))
        elif name in _UNUSED:
            ignored.append((key, _UNUSED[name]))
        else:
            source[name] = as_tensor(key, value)
    return source, tuple(ignored), prefix


KINDS: dict[str, Callable[[Mapping[str, Any]], tuple[dict[str, Tensor], Ignored, str]]] = {
    "clip": read_clip,
}
"""Kind of image transformer -> reader of its state dict."""


def _require_same_grid(source: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a position table for another number of patches: the published models never interpolate one."""
    name = "positional_embedding"
    if name not in source or len(source[name]) == len(expected[name]):
        return
    have, want = len(source[name]) - 1, len(expected[name]) - 1
    message = f"{name} is for {have} patches per frame, the model cuts a frame into {want}"
    hint = f"set image_size so that there are {have} patches (square: {have**0.5:g} x patch_size per side)"
    raise CheckpointError(message, hint=hint)
