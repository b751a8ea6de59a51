"""Published UniFormerV2 checkpoints: read, unwrap, compare with a model, load all of it or nothing."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from k710.errors import CheckpointError

PREFIXES = ("module.", "backbone.")
"""Written in front of every key by data-parallel wrappers and by the official code."""
OWN_FILES = ("checkpoint.pt", "model.safetensors")
"""Names under which runs of this program save: nobody can download these again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of every entry of a checkpoint and of every key of the model."""

    taken: tuple[str, ...]
    """Keys of the model that were filled from the checkpoint, in the model's order."""
    ignored: tuple[tuple[str, str], ...] = ()
    """Entries of the checkpoint that were left out, each with the reason."""
    prefix: str = ""
    """Prefix that was taken off every key, such as ``module.backbone.``."""
    inflated: tuple[str, ...] = ()
    """Those of ``taken`` whose image weights were given a time axis."""
    fresh: tuple[str, ...] = ()
    """Keys of the model that keep their initial value, because the checkpoint is of a smaller model."""

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} taken", f"{len(self.ignored)} ignored", f"{len(self.fresh)} left fresh"]
        return ", ".join(parts) + (f", prefix {self.prefix!r} stripped" if self.prefix else "")


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a weights file: safetensors, a ``torch.save`` file of plain data, or a TorchScript archive.

    Raises:
        CheckpointError: there is no such file, or it cannot be read without running code from it.
    """
    if not path.is_file():
        if path.exists():
            raise CheckpointError(f"{path}: not a file", hint="give the path of a weights file")
        raise CheckpointError(f"{path}: no such file", hint="download the weights first and give their path")
    try:
        content = _read(path)
    except _UNREADABLE as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """What to say of a file that a reader could not make weights of; the reader's own advice is not for users."""
    # Safetensors says "No such file" of a file that may not be read, so the system is asked.
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return CheckpointError(f"{path}: permission denied", hint="ask for the right to read it, or use another copy")
    ours = path.name in OWN_FILES
    again = "use another copy, or run again with --fresh in a new folder" if ours else "download it again"
    return CheckpointError(
        f"{path}: not a weights file, or a damaged one, or one that holds code",
        hint=f"{again}; a whole one can be told by its size and digest",
    )


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Fill every parameter and buffer of ``model`` from published weights, and say what was taken.

    Takes a bare state dict or a training checkpoint with ``model_state``, with any of ``PREFIXES`` in front of the
    keys; values may be tensors or arrays of any float type.

    Raises:
        CheckpointError: a key is missing, unexpected or of another shape; the model is then as it was.
    """
    weights, ignored = unwrap(state_dict)
    stripped, prefix = strip_prefixes(weights)
    source = {key: as_tensor(key, value) for key, value in stripped.items()}
    expected = model.state_dict()
    require_match(source, expected)
    copy_into(model, source)
    return LoadReport(taken=tuple(expected), ignored=ignored, prefix=prefix)


def unwrap(checkpoint: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[tuple[str, str], ...]]:
    """The weights inside a training checkpoint, and its other entries, each with the reason why it is not a weight."""
    inner = checkpoint.get("model_state")
    if not isinstance(inner, Mapping):
        return checkpoint, ()
    return inner, tuple((str(key), "training state, not a weight") for key in checkpoint if key != "model_state")


def strip_prefixes(weights: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The same weights without the prefixes that all keys share, and what was taken off."""
    stripped = {str(key): value for key, value in weights.items()}
    removed = ""
    while prefix := next((p for p in PREFIXES if stripped and all(k.startswith(p) for k in stripped)), ""):
        stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
        removed += prefix
    return stripped, removed


def as_tensor(key: str, value: Any) -> Tensor:
    """``value`` as a tensor that shares memory where it can; what holds no numbers is a ``CheckpointError``."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    message = f"checkpoint entry {key!r} is a {type(value).__name__}, not a tensor"
    raise CheckpointError(message, hint="give the state dict of a model, or a checkpoint with `model_state`")


def require_match(source: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise a ``CheckpointError`` that names every kind of difference, unless keys and shapes are equal."""
    missing = [key for key in expected if key not in source]
    unexpected = [key for key in source if key not in expected]
    misshapen = [key for key in expected if key in source and source[key].shape != expected[key].shape]
    if not (missing or unexpected or misshapen):
        return
    shapes = [f"{k} is {tuple(source[k].shape)}, the model has {tuple(expected[k].shape)}" for k in misshapen]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys)
    hint = _hint(missing, unexpected, misshapen)
    raise CheckpointError(f"the checkpoint does not fit the model: {problems}", hint=hint)


@torch.no_grad()
def copy_into(model: nn.Module, source: Mapping[str, Tensor]) -> None:
    """Write ``source``, already checked, over the parameters and buffers it names, in their own dtype."""
    state = model.state_dict()
    for key, value in source.items():
        state[key].copy_(value)


_UNREADABLE = (
    AssertionError,
    OSError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)
"""What the three readers make of damaged bytes."""


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    if _is_torchscript(path):
        return _read_torchscript(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_torchscript(path: Path) -> dict[str, Any]:
    load_archive: Any = torch.jit.load
    with warnings.catch_warnings():
        # Deprecated for new programs, but OpenAI published CLIP as such archives and nothing else reads them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return dict(load_archive(path, map_location="cpu").state_dict())


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _some(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (f", ... and {len(keys) - limit} more" if len(keys) > limit else "")


_HINTS = (
    ("cls_head.", "this is an mmaction2 checkpoint: it names the head differently and orders the classes differently"),
    ("transformer.proj.2.", "build the model with the checkpoint's num_classes, then pick the head's rows by class"),
    ("positional_embedding", "build the model with the image_size and patch_size of the checkpoint"),
    ("transformer.balance", "frozen_backbone differs between model and checkpoint"),
    ("lmhra", "local_blocks or dw_reduction differ between model and checkpoint"),
    ("conv1.", "patch_size, width or temporal_downsample differ between model and checkpoint"),
    ("transformer.dec.", "global_layers or mlp_factor differ between model and checkpoint"),
    ("transformer.resblocks.", "layers or width differ between model and checkpoint"),
)


def _hint(*groups: Iterable[str]) -> str:
    """What to change, when one cause explains every key that differs; else the general advice."""
    keys = [key for group in groups for key in group]
    for part, advice in _HINTS:
        related = (part, "transformer.dpe.") if part == "transformer.dec." else (part,)
        if part == "cls_head." and any(part in key for key in keys):
            return advice
        if all(any(r in key for r in related) for key in keys):
            return advice
    return "build the model with the configuration of the checkpoint: variant, kind, num_classes, image_size"
