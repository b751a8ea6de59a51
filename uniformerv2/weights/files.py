"""Weights files: safetensors, whole or in parts, ``torch.save`` files of plain data, and TorchScript archives.

No code from a file is ever run: pickles are read by torch's ``weights_only`` reader, or by one that knows less.
"""

from __future__ import annotations

import json
import lzma
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from k710.errors import CheckpointError
from uniformerv2.weights.torchscript import is_torchscript, read_torchscript

_OWN_FILE = re.compile(r"(checkpoint|best|step-\d+)\.pt|model(_best|_ema)?\.safetensors")
"""Names under which runs of this program save: nobody can download these again."""
INDEX_SUFFIX = ".safetensors.index.json"
"""End of the name of a list that says which of several safetensors files holds which tensor."""


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a weights file: safetensors, a ``torch.save`` file of plain data, or a TorchScript archive.

    Of an index of safetensors files (``*.safetensors.index.json``), the content of all of them.

    Raises:
        CheckpointError: there is no such file, or it cannot be read without running code from it.
    """
    if not path.is_file():
        if path.exists():
            raise CheckpointError(f"{path}: not a file", hint="give the path of a weights file")
        raise CheckpointError(f"{path}: no such file", hint="download the weights first and give their path")
    if path.name.endswith(INDEX_SUFFIX):
        return _read_parts(path)
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
    if foreign := _foreign_object(error):
        return CheckpointError(
            f"{path}: holds code ({foreign}) beside tensors and plain values, and code in a weights file is never run",
            hint="save the state dict alone, in the program that made the file",
        )
    ours = _OWN_FILE.fullmatch(path.name) is not None
    again = "use another copy, or run again with --fresh in a new folder" if ours else "download it again"
    return CheckpointError(
        f"{path}: not a weights file, or a damaged one: {_looks_like(path)}",
        hint=f"{again}; a whole one can be told by its size and digest",
    )


def parts_of(index: Path) -> dict[str, list[str]]:
    """The files that an index of safetensors files names, each with its tensors.

    Raises:
        CheckpointError: it is not such an index, or names a file outside its folder.
    """
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files: dict[str, list[str]] = {}
        for key, name in names.items():
            files.setdefault(name, []).append(key)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable(index, error if isinstance(error, OSError) else ValueError()) from error
    for name in files:
        # An index comes from elsewhere: it decides about the files beside it, not about those of the whole disk.
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: names {name!r}, which is not a safetensors file beside it")
    if not files:
        raise CheckpointError(f"{index}: names no tensors")
    return files


_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
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
    zlib.error,
    lzma.LZMAError,
    safetensors.SafetensorError,
)
"""What the readers make of damaged bytes."""


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    if is_torchscript(path):
        return read_torchscript(path)
    with warnings.catch_warnings():
        # Torch warns of pickles by other programs; what it cannot read it refuses all the same.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_parts(index: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, keys in parts_of(index).items():
        part = read_weights(index.parent / name)
        absent = [key for key in keys if key not in part]
        if absent:
            raise CheckpointError(
                f"{index.parent / name}: lacks {len(absent)} tensors that {index.name} names, such as {absent[0]}",
                hint="download all parts and their index again, from one place",
            )
        content |= {key: part[key] for key in keys}
    return content


_FOREIGN = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) ([\w.]{1,200})")
"""How those readers name a function or class that it would have to call, and will not."""


def _foreign_object(error: Exception) -> str:
    """Name of the function or class that a pickle asks for; empty when that is not what was wrong."""
    found = _FOREIGN.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return found[1] if found else ""


_BEGINNINGS = (
    (b"<", "it is a web page (HTML or XML)"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself"),
    (b"\x1f\x8b", "it is an archive (gzip), to be unpacked first"),
    (b"7z\xbc\xaf", "it is an archive (7z), to be unpacked first"),
)
"""First bytes of what stands where weights were expected, and what that is."""


def _looks_like(path: Path) -> str:
    """What the first bytes of a file say that it is."""
    with path.open("rb") as handle:
        head = handle.read(512)
    if not head:
        return "it is empty"
    if head[257:262] == b"ustar":
        return "it is a tar archive, which is to be unpacked, or weights as torch saved them before 2017"
    found = next((what for begin, what in _BEGINNINGS if head.lstrip().lower().startswith(begin)), "")
    if found:
        return found
    return "it is text" if head.isascii() and b"\0" not in head else "it may be cut short, or of another program"
