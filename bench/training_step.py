"""One training step as the trainer does it, of any model that takes clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uniformerv2.config import OptimConfig
from uniformerv2.training.optim import make_optimizer


class TrainingStep:
    """Forward, backward, clipping, AdamW; fp32 weights, the forward pass under autocast when ``dtype`` is another."""

    def __init__(self, model: nn.Module, clip_BCTHW: Tensor, dtype: torch.dtype) -> None:
        self.model, self.clip_BCTHW, self.dtype = model.train(), clip_BCTHW, dtype
        self.labels_B = torch.arange(len(clip_BCTHW), device=clip_BCTHW.device)
        self.optimizer = make_optimizer(model, OptimConfig())
        self.scaler = torch.amp.GradScaler(clip_BCTHW.device.type, enabled=dtype == torch.float16)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss()).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 20.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def loss(self) -> Tensor:
        """The forward pass."""
        with torch.autocast(self.clip_BCTHW.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits_BK = self.model(self.clip_BCTHW)
        return nn.functional.cross_entropy(logits_BK.float(), self.labels_B)


def kept_bytes(step: TrainingStep) -> int:
    """Bytes that the forward pass keeps for the backward pass, each storage once, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step.loss()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
