"""A running average of the weights, in fp32, moved once by every step that is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from uniformerv2.training.sharded import local, placed_like


class Ema:
    """``average = decay * average + (1 - decay) * weights`` after each step; it begins as the first weights.

    Batch statistics are averaged like weights; counters are copied. Of a sharded model each rank averages its part.
    """

    def __init__(self, model: nn.Module, decay: float, saved: Mapping[str, Tensor] | None = None) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self.decay = decay
        current = model.state_dict()
        start = {name: placed_like(saved[name], value) for name, value in current.items()} if saved else current
        self.state = {name: _own_copy(value) for name, value in start.items()}
        """By the names of the state dict; of a sharded model, sharded like it."""

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of a step that was made."""
        averages, values = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averages.append(local(self.state[name]))
                values.append(local(value).float())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - self.decay)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The average in the model inside the block, its own weights before and after, bit for bit."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, value in model.state_dict().items():
            own, average = local(value), local(self.state[name])
            before = own.clone()
            own.copy_(average)
            average.copy_(before)


def _own_copy(value: Tensor) -> Tensor:
    return value.detach().clone() if not value.is_floating_point() else value.detach().float().clone()
