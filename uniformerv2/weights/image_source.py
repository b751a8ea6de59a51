"""An image model's checkpoint on its way to our names: what is not explained yet, and what became of the rest.

A checkpoint of whatever wrapping becomes an ``ImageSource``; a reader of its family then explains every entry. Axes:
C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from k710.errors import CheckpointError
from uniformerv2.weights.layouts import PREFIXES, STUDENT, WRAPPERS, unwrap, without_compile
from uniformerv2.weights.published import as_tensor

_WRAPPERS = ("teacher", "student", *WRAPPERS)
"""Entries that hold the weights of a training checkpoint; of a self-distillation, the teacher's are what is used."""
_TEXT = "belongs to the text transformer"
_WITH_TEXT = "compares pictures with texts, which a classifier does not"
_DISTILLED = "head of the self-distillation"
_PARTS: dict[str, dict[str, str]] = {
    "teacher.": {"student.": STUDENT},
    "student.": {},
    "backbone.": {"head.": _DISTILLED, "dino_head.": _DISTILLED, "ibot_head.": _DISTILLED},
    "visual.": {
        "transformer.": _TEXT,
        "token_embedding.": _TEXT,
        "positional_embedding": _TEXT,
        "ln_final.": _TEXT,
        "text.": _TEXT,
        "text_decoder.": _TEXT,
        "text_projection": _WITH_TEXT,
        "logit_scale": _WITH_TEXT,
        "logit_bias": _WITH_TEXT,
    },
    "vision_model.": {
        "text_model.": _TEXT,
        "text_projection.": _WITH_TEXT,
        "visual_projection.": _WITH_TEXT,
        "logit_scale": _WITH_TEXT,
        "classifier.": "another classifier",
    },
}
"""Prefix of the image transformer in a larger model -> beginnings of what stands beside it, each with the reason."""
SCALED_LAYERS = {"1": "attn.out_proj", "2": "mlp.c_proj"}
"""Number of a layer scale -> our name of the layer whose output it scales."""
_MOST_REPEATED = 2**24
"""Values that a tensor may have although the file holds fewer, and the tensor repeats them."""
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_ANOTHER_COPY = "use another copy of the weights"


@dataclass(kw_only=True, slots=True)
class ImageSource:
    """The image transformer of a checkpoint while it is read; names are those of the file without prefix and marks."""

    entries: dict[str, Tensor]
    """Those that are not explained yet, by name."""
    beside: frozenset[str]
    """Names of what stood beside the image transformer."""
    unexplained: tuple[str, ...]
    """Keys beside the image transformer that nothing explains."""
    prefix: str
    """What was taken off every key."""
    ignored: list[tuple[str, str]]
    """Keys of the file that are left out, each with the reason."""
    marked: dict[str, str] = field(default_factory=dict)
    """Name -> name in the file, where ``torch.compile`` left marks in it."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Under our names, fp32."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Name in the file, our name."""
    folded: list[tuple[str, str]] = field(default_factory=list)
    """Name in the file, what was done with it."""
    patch_bias_C: Tensor | None = None
    """Added to every patch; our patch embedding has none, so the position table takes it."""
    lacks_positions: bool = False
    """The source has no position table, and needs none."""

    def key_of(self, name: str) -> str:
        """The key that the entry ``name`` has in the file."""
        return self.prefix + self.marked.get(name, name)

    def fold(self, name: str, what: str) -> Tensor:
        """Take the entry ``name``, which becomes part of another."""
        self.folded.append((self.marked.get(name, name), what))
        return self._take(name)

    def rename(self, name: str, key: str) -> None:
        """Take the entry ``name`` as our ``key``."""
        self.fill(key, self._take(name), name)
        written = self.marked.get(name, name)
        if written != key:
            self.renamed.append((written, key))

    def fill(self, key: str, tensor: Tensor, name: str) -> None:
        """Let our ``key`` be ``tensor``, made of the entry ``name`` and perhaps others."""
        if key in self.tensors:
            message = f"{self.key_of(name)}: a second entry for {key}"
            raise CheckpointError(message, hint="give an unchanged checkpoint")
        self.tensors[key] = tensor

    def ignore(self, name: str, reason: str) -> None:
        """Leave the entry ``name`` out."""
        del self.entries[name]
        self.ignored.append((self.key_of(name), reason))

    def scale_layers(self, scales: Mapping[str, str]) -> None:
        """Multiply each layer scale, an entry, into our linear layer whose output it scales; all layers, or none."""
        layers = [k.removesuffix(".weight") for k in self.tensors if k.endswith(".weight")]
        scalable = [layer for layer in layers if layer.endswith(tuple(SCALED_LAYERS.values()))]
        wrong = [layer for layer in scalable if list(scales.values()).count(layer) != 1]
        if scales and wrong:
            # Without this a lost scale would pass for a layer that has none.
            raise CheckpointError(
                f"the image transformer has layer scales, but not one for {wrong[0]}",
                hint="give an unchanged checkpoint",
            )
        for name, layer in scales.items():
            self.scale_rows(name, layer)

    def scale_rows(self, name: str, layer: str) -> None:
        """Multiply the layer scale ``name`` into the weight and bias of our linear ``layer``.

        s * (W x + b) = (s W) x + s b, row by row.
        """
        scale_C = self.fold(name, "layer scale, multiplied into the layer before it")
        for key in (f"{layer}.weight", f"{layer}.bias"):
            tensor = self.tensors.get(key)
            if tensor is not None and tensor.shape[:1] != scale_C.shape:
                shapes = f"is {tuple(scale_C.shape)}, the layer is {tuple(tensor.shape)}"
                raise CheckpointError(f"{self.key_of(name)} {shapes}", hint="give an unchanged checkpoint")
            if tensor is not None:
                self.tensors[key] = scale_C.view(-1, *(1 for _ in tensor.shape[1:])) * tensor

    def stack_rows(self, names: tuple[str, ...], key: str, what: str) -> None:
        """Put the entries ``names`` below each other as our ``key``; nothing happens unless all are there."""
        if all(name in self.entries for name in names):
            self.fill(key, torch.cat(self.fold_alike(names, what)), names[0])

    def fold_alike(self, names: tuple[str, ...], what: str) -> list[Tensor]:
        """Take the entries ``names``, which must be of one shape."""
        shapes = {tuple(self.entries[name].shape) for name in names}
        if len(shapes) > 1:
            differing = " and ".join(map(str, sorted(shapes)))
            raise CheckpointError(
                f"{self.key_of(names[0])} and its siblings have the shapes {differing}",
                hint="give an unchanged checkpoint",
            )
        return [self.fold(name, what) for name in names]

    def floats(self, name: str) -> Tensor:
        """The entry ``name``, which stays, in fp32.

        Raises:
            CheckpointError: it is not dense, not of float numbers, empty, or far larger than what the file holds of it.
        """
        value, key = self.entries[name], self.key_of(name)
        if value.layout != torch.strided or value.is_meta or not value.ndim:
            raise CheckpointError(f"{key} is no dense tensor with axes", hint=_ANOTHER_COPY)
        if not value.is_floating_point():
            raise _not_of_floats(key, value)
        shape, num_stored = tuple(value.shape), value.untyped_storage().nbytes() // value.element_size()
        if not value.numel():
            raise CheckpointError(f"{key} is {shape}, which is empty", hint=_ANOTHER_COPY)
        # A few bytes may stand for more values than any memory holds.
        if value.numel() > max(num_stored, _MOST_REPEATED):
            raise CheckpointError(
                f"{key} is {shape}, and repeats the few values that the file holds: {num_stored}",
                hint=f"{_ANOTHER_COPY}, or save it with .contiguous() if the shape is right",
            )
        try:
            return value.float()
        except NotImplementedError as error:  # packed types, such as two 4-bit floats in a byte
            raise _not_of_floats(key, value) from error

    def _take(self, name: str) -> Tensor:
        tensor = self.floats(name)
        del self.entries[name]
        if not tensor.isfinite().all():
            raise CheckpointError(f"{self.key_of(name)} has values that are not finite", hint=_ANOTHER_COPY)
        return tensor


def open_source(state_dict: Mapping[str, Any]) -> ImageSource:
    """The image transformer inside a checkpoint: training state, wrappers and a text transformer are set apart.

    Raises:
        CheckpointError: an entry holds no numbers, or two have one name.
    """
    inner, ignored = unwrap(state_dict, _WRAPPERS)
    weights = {str(key): value for key, value in inner.items()}
    prefix, inside, beside = _image_part(list(weights))
    entries: dict[str, Tensor] = {}
    marked: dict[str, str] = {}
    for key in inside:
        tensor = as_tensor(key, weights[key])
        written = key.removeprefix(prefix)
        name = without_compile(written)
        if name in entries:
            raise CheckpointError(f"the checkpoint has {name} twice", hint="it holds two models: save one of them")
        # A weight of whole numbers is a quantised one, and must not pass for one that is not there.
        if tensor.dtype not in _WHOLE or name.endswith((".weight", ".bias")):
            entries[name] = tensor
            marked |= {name: written} if name != written else {}
        else:
            ignored.append((key, "whole numbers, such as a table of indices, not a weight"))
    unexplained = []
    for key, (name, part) in beside.items():
        reason = next((why for beginning, why in _PARTS[part].items() if name.startswith(beginning)), None)
        if reason is None and as_tensor(key, weights[key]).dtype in _WHOLE:
            reason = "whole numbers, not a weight"
        if reason is None:
            unexplained.append(key)
        else:
            ignored.append((key, reason))
    return ImageSource(
        entries=entries,
        beside=frozenset(name for name, _ in beside.values()),
        unexplained=tuple(unexplained),
        prefix=prefix,
        ignored=ignored,
        marked=marked,
    )


def _not_of_floats(key: str, value: Tensor) -> CheckpointError:
    dtype = str(value.dtype).removeprefix("torch.")
    return CheckpointError(
        f"{key} is of {dtype}, float numbers are needed",
        hint="save it as float32, float16 or bfloat16; quantised weights need their scales for that",
    )


def _image_part(keys: list[str]) -> tuple[str, list[str], dict[str, tuple[str, str]]]:
    """Prefix of the image transformer, the keys behind it, and those beside it with their names and the part's."""
    prefix, inside = "", keys
    beside: dict[str, tuple[str, str]] = {}
    while inside:
        names = [key.removeprefix(prefix) for key in inside]
        part = next((p for p in PREFIXES if all(n.startswith(p) for n in names)), "")
        part = part or next((p for p in _PARTS if any(n.startswith(p) for n in names)), "")
        if not part:
            break
        beside |= {k: (n, part) for k, n in zip(inside, names, strict=True) if not n.startswith(part)}
        prefix += part
        inside = [key for key in inside if key.startswith(prefix)]
    return prefix, inside, beside
