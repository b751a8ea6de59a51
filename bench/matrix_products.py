"""The matrix products of a forward pass and nothing else: recorded once, then run again on tensors of their own.

Same shapes, strides, dtype and number of threads as in the model; every product has its own tensors, as in the model,
so that none finds its input in a cache that the model would not have filled. Fused attention counts as two products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Product = Callable[[], Tensor]

_PLAIN = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
_ATTENTION = "_scaled_dot_product"


class _Recorder(TorchDispatchMode):
    """Keeps every matrix product that is dispatched, as a function that runs it on other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _PLAIN:
            self.products.append(_bound(func, args, kwargs or {}))
        elif _ATTENTION in name:
            q, k, v = args[:3]
            scores = torch.empty(*q.shape[:-1], k.shape[-2], dtype=q.dtype)
            self.products.append(_bound(torch.matmul, (q, k.transpose(-1, -2)), {}))
            self.products.append(_bound(torch.matmul, (scores, v), {}))
        return func(*args, **(kwargs or {}))


def record_products(model: nn.Module, inputs: Tensor) -> list[Product]:
    """Every matrix product of ``model(inputs)``, in order; call them all to do that work alone."""
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        model(inputs)
    return recorder.products


def run_all(products: Sequence[Product]) -> None:
    """The work of all products."""
    for product in products:
        product()


def _bound(func: Any, args: Any, kwargs: Any) -> Product:
    own = [_like(a) if isinstance(a, Tensor) else a for a in args]
    return lambda: func(*own, **kwargs)  # type: ignore[no-any-return]


def _like(tensor: Tensor) -> Tensor:
    """Random numbers with the shape, strides and dtype of ``tensor``, in memory of their own."""
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    filled = torch.randn(math.prod((extent,)), dtype=torch.float32).to(tensor.dtype)
    return filled.as_strided(tensor.shape, tensor.stride())
