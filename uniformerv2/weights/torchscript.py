"""The tensors of a TorchScript archive, read without TorchScript: OpenAI published CLIP as such archives.

``torch.jit.load`` runs what a class in the archive says under ``__setstate__``, and that may write files. Here the
pickle of the object tree is read with a handful of harmless names, and the sources in the archive are read as text, for
the one thing they say that the tree does not: which tensors of an object are parameters and buffers.
"""

from __future__ import annotations

import collections
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from k710.errors import CheckpointError


def is_torchscript(path: Path) -> bool:
    """Whether ``path`` is an archive of TorchScript, and not of plain ``torch.save``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the module in an archive, under the names that its state dict has.

    Raises:
        CheckpointError: the objects in the archive hold each other in more places than a module's do.
        pickle.UnpicklingError: the archive holds more than modules, tensors and plain values.
        Exception: others of the standard library and of torch, for damaged archives.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).removesuffix(
            "constants.pkl"
        )
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("weights in another order of bytes")
        with archive.open(f"{root}data.pkl") as handle:
            module = _Tree(handle, archive, root).load()
        if not isinstance(module, _ScriptObject):
            raise ValueError("no module in the archive")
        tensors = _tensors(module, archive, root)
    if tensors is None:
        raise CheckpointError(
            f"{path}: the objects in the archive hold each other in more places than those of a module do, "
            f"with more than {_MOST_VALUES} values",
            hint="download it again; a whole one can be told by its size and digest",
        )
    return tensors


class _ScriptObject:
    """A module, or another object of a class in the archive: its attributes, and where its class is written."""

    where: tuple[str, str] = ("", "")
    attributes: dict[str, Any]

    def __new__(cls, *_: object) -> _ScriptObject:
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: Any) -> None:
        # Any other form is for a `__setstate__` in the archive, which is not run.
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"unsupported GLOBAL {'.'.join(self.where)}.__setstate__")
        self.attributes = {str(name): value for name, value in state.items()}


class _Tree(pickle.Unpickler):
    """Reader of the object tree: classes of the archive become ``_ScriptObject``, tensors are made of its bytes."""

    def __init__(self, handle: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(handle, encoding="utf-8")
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for; any other than these is refused."""
        if module == "__torch__" or module.startswith("__torch__."):
            return type(name, (_ScriptObject,), {"where": (module, name)})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        raise pickle.UnpicklingError(f"unsupported GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """The storage ``("storage", dtype, file, device, number of values)`` as a vector."""
        _, dtype, file, _, num_values = pid
        if file not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{file}"))
            vector = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[file] = vector
        return self._storages[file][:num_values]


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    """A tensor of a storage's values; what reaches beyond them raises."""
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _as_it_is(value: Any, *_: object) -> Any:
    return value


_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_HARMLESS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "device"): _as_it_is,
    **{("torch.jit._pickle", f"build_{kind}list"): _as_it_is for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _as_it_is,
}
"""All that a tree may call."""


_MOST_VALUES = 100_000
"""Attributes of all modules together, and modules; CLIP L/14 has fewer than ten thousand."""


def _tensors(module: _ScriptObject, archive: zipfile.ZipFile, root: str) -> dict[str, Tensor] | None:
    """Parameters and buffers of a module by name; None when there are too many values to look at."""
    tensors: dict[str, Tensor] = {}
    declared_by: dict[tuple[str, str], set[str] | None] = {}
    num_values = 0
    for prefix, owner in _places(module, ""):
        # A module may stand in several places, under several names: few shared objects can make endless names.
        num_values += 1 + len(owner.attributes)
        if num_values > _MOST_VALUES:
            return None
        if owner.where not in declared_by:
            declared_by[owner.where] = _declared(owner, archive, root)
        declared = declared_by[owner.where]
        for name, value in owner.attributes.items():
            if isinstance(value, Tensor) and (declared is None or name in declared):
                tensors[prefix + name] = value
    return tensors


def _places(owner: _ScriptObject, prefix: str) -> Iterator[tuple[str, _ScriptObject]]:
    """Every place that an object has in the tree below ``owner``: what its names begin with, and the object."""
    yield prefix, owner
    for name, value in owner.attributes.items():
        if isinstance(value, _ScriptObject):
            yield from _places(value, f"{prefix}{name}.")


def _declared(owner: _ScriptObject, archive: zipfile.ZipFile, root: str) -> set[str] | None:
    """Parameters and buffers of an object, as the source of its class lists them; None when there is no source."""
    module, name = owner.where
    file = f"{root}code/{module.replace('.', '/')}.py"
    if file not in archive.NameToInfo:
        return None
    source = archive.read(file).decode()
    body = re.search(rf"^class {re.escape(name)}\(Module\):\n((?:  .*\n|\n)*)", source, re.MULTILINE)
    lists = re.findall(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", body[1], re.MULTILINE) if body else []
    return set(re.findall(r'"([^"]*)"', ",".join(lists)))
