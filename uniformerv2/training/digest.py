"""The digest of a checkpoint's content: of its values, so that it stands inside the file that it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def content_digest(content: Mapping[str, Any]) -> str:
    """sha256 over every name, value and tensor byte of ``content``, in its order.

    Torch does not compare the check sums in its own files when it reads them: a flipped bit of a weight would pass.

    Raises:
        TypeError: something in it is neither a tensor, a plain value, nor a mapping or list of them.
    """
    digest = hashlib.sha256()
    _feed(digest, content)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: Any) -> None:
    # Every part begins with its kind and size, so that no two contents give the same bytes.
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for name, inner in value.items():
            _feed(digest, name)
            _feed(digest, inner)
    elif isinstance(value, (list, tuple)):
        digest.update(f"list {len(value)}\n".encode())
        for inner in value:
            _feed(digest, inner)
    elif value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)}\n".encode() + text)
    else:
        raise TypeError(f"a checkpoint holds plain values and tensors, not {type(value).__name__}")
