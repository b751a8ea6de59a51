"""A folder that keeps what a frozen backbone made of training samples, one file for each.

A file's name is a digest of all that its content depends on, so nothing that has changed since is ever taken for it.
Axes: B clip, T frame, L tokens of a frame, C width.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from k710 import atomic
from uniformerv2.models.uniformerv2 import Features

SCHEMA = "uniformerv2.features"
SCHEMA_VERSION = 1
_CLASS = "class_BC"
_SEEN = "seen_BTLC"
_CHECKSUM = "crc32"


class DamagedFeaturesError(Exception):
    """A file of features that is not what was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureStore:
    """Features of the clips of a view, by (position, draw, repeat); cheap to hand to a worker."""

    folder: Path
    """Where the files are."""
    digest: str
    """Of all that features depend on beside the clip and its draw: weights, decoding, augmentation, seed, precision."""
    clips: tuple[str, ...]
    """What each planned position holds: the clip's key and what is known of its bytes."""

    def path(self, position: int, draw: int, repeat: int) -> Path:
        """The file of a sample."""
        parts = (SCHEMA_VERSION, self.digest, self.clips[position], position, draw, repeat)
        name = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def has(self, position: int, draw: int, repeat: int) -> bool:
        """Whether there is a file of the sample; it may be damaged."""
        return self.path(position, draw, repeat).is_file()

    def read(self, path: Path) -> Features | None:
        """The features in ``path``, of one clip; None: there is no such file.

        Raises:
            DamagedFeaturesError: they are not those that were written.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                checksum = (file.metadata() or {}).get(_CHECKSUM)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except FileNotFoundError:
            return None
        except (OSError, safetensors.SafetensorError) as error:
            raise DamagedFeaturesError(f"{path}: cannot be read: {error}") from error
        if checksum != _checksum(path, tensors):
            raise DamagedFeaturesError(f"{path}: damaged")
        seen = [tensors[f"{_SEEN}.{layer}"] for layer in range(len(tensors) - 1)]
        return Features(seen_BTLC=tuple(seen), class_BC=tensors[_CLASS])

    def write(self, path: Path, features: Features) -> None:
        """Put the features of one clip into ``path``, whole or not at all."""
        seen = {f"{_SEEN}.{layer}": seen_BTLC for layer, seen_BTLC in enumerate(features.seen_BTLC)}
        tensors = {name: t.contiguous() for name, t in {_CLASS: features.class_BC, **seen}.items()}
        metadata = {"schema": SCHEMA, _CHECKSUM: _checksum(path, tensors)}
        atomic.write_bytes(path, safetensors.torch.save(tensors, metadata))

    def remove_leftovers(self) -> None:
        """Remove what a killed process was writing; nobody else may be."""
        for partial in self.folder.glob("*/.*.partial"):
            partial.unlink(missing_ok=True)


def digest_of(settings: Any) -> str:
    """sha256 over plain values."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path, tensors: dict[str, Tensor]) -> str:
    """Of a file's name and tensors; against accidents, in a third of the time of a cryptographic digest."""
    checksum = zlib.crc32(path.name.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"
