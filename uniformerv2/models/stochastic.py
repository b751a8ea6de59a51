"""What a forward pass in train mode draws and records: dropout, drop path, batch statistics.

Random masks are a function of (seed, step, site, position of the sample, repeat, element) and of nothing else, so it
does not matter which process, micro-batch or recomputation asks for one. Batch statistics can wait until every
micro-batch and rank of a step has been seen.

Axes: B samples, E elements of one sample, N rows that share statistics, C channel.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DRAW_BITS = 53
"""Draws are integers below ``2**DRAW_BITS``: a mask is an integer comparison, which every device does alike."""

Axis = Literal["sample", "token", "batch"]
"""What a drop-path mask varies over: each sample, each token (shared by the batch), or nothing at all."""


class Randomness:
    """The seed, step and sample positions that all ``Dropout`` and ``DropPath`` modules of one model share.

    Until ``begin`` is called for the first time, draws come from torch's global generator.
    """

    def __init__(self) -> None:
        self._step_key: Tensor | None = None
        self._sample_key_B: Tensor | None = None

    def begin(self, seed: int, step: int, positions_B: Tensor, repeats_B: Tensor) -> None:
        """Tie the masks of the next forward pass to a step and to its samples; call before every micro-batch.

        Args:
            seed: of the run.
            step: optimiser step, the same for all micro-batches and ranks of a step.
            positions_B: int64, the place of each sample in the order of the epoch, over all ranks.
            repeats_B: int64, which repeat of the sample this is, when a clip is augmented more than once.
        """
        if positions_B.dtype != torch.int64 or repeats_B.dtype != torch.int64:
            raise ValueError(f"positions and repeats must be int64, got {positions_B.dtype} and {repeats_B.dtype}")
        if positions_B.ndim != 1 or positions_B.shape != repeats_B.shape:
            shapes = f"{tuple(positions_B.shape)} and {tuple(repeats_B.shape)}"
            raise ValueError(f"positions and repeats must be two vectors of one length, got {shapes}")
        seed_key = mix(torch.full((), _signed(seed), dtype=torch.int64, device=positions_B.device))
        self._step_key = mix(seed_key ^ _signed(step))
        self._sample_key_B = mix(mix(self._step_key ^ positions_B) ^ repeats_B.to(positions_B.device))

    def reset(self) -> None:
        """Go back to torch's global generator."""
        self._step_key = self._sample_key_B = None

    def per_sample(self, site: int, num_samples: int, num_elements: int, device: torch.device) -> Tensor:
        """Draws [B, E], the row of a sample a function of (seed, step, site, position, repeat)."""
        if self._sample_key_B is None:
            return torch.randint(1 << DRAW_BITS, (num_samples, num_elements), device=device)
        if len(self._sample_key_B) != num_samples:
            begun = len(self._sample_key_B)
            raise ValueError(f"randomness was begun for {begun} samples, the forward pass has {num_samples}")
        return _draws(self._sample_key_B.to(device), site, num_elements)

    def per_step(self, site: int, num_elements: int, device: torch.device) -> Tensor:
        """Draws [1, E], a function of (seed, step, site): the same for every sample of the step."""
        if self._step_key is None:
            return torch.randint(1 << DRAW_BITS, (1, num_elements), device=device)
        return _draws(self._step_key.to(device).reshape(1), site, num_elements)


def mix(x: Tensor) -> Tensor:
    """SplitMix64 of every int64 element: a fixed, well-spread 64-bit value (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


class _Masked(nn.Module):
    """What dropout and drop path share: a rate, a named site, and where the draws come from."""

    def __init__(self, rate: float, randomness: Randomness, site: str) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop rate must be in [0, 1), got {rate}")
        self.rate = rate
        self.randomness = randomness
        # A number from the name, not from a counter: a module added elsewhere leaves all other masks as they were.
        self.site = zlib.crc32(site.encode())
        self.site_name = site

    @property
    def active(self) -> bool:
        return self.training and self.rate > 0

    def scaled_mask(self, draws: Tensor, like: Tensor) -> Tensor:
        """0 where dropped and 1/(1 - rate) where kept, so that the expectation stays."""
        kept = draws < round((1 - self.rate) * (1 << DRAW_BITS))
        return kept.to(like.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, site={self.site_name!r}"


class Dropout(_Masked):
    """Each element of x [B, ...] is zero with probability ``rate``; identity in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        draws_BE = self.randomness.per_sample(self.site, len(x), x[0].numel(), x.device)
        return x * self.scaled_mask(draws_BE, x).view_as(x)


class DropPath(_Masked):
    """A residual branch x [B, ..., tokens, C] is removed with probability ``rate``; identity in eval mode.

    ``over="sample"`` removes it for each sample by itself (Huang et al., Deep Networks with Stochastic Depth). The
    other two reproduce the published training, which masks the first axis of a sequence-first layout: ``"token"``
    removes token positions for the whole batch, ``"batch"`` the whole branch.
    """

    def __init__(self, rate: float, randomness: Randomness, site: str, over: Axis = "sample") -> None:
        super().__init__(rate, randomness, site)
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if self.over == "sample":
            draws = self.randomness.per_sample(self.site, len(x), 1, x.device).view(-1, *[1] * (x.ndim - 1))
        elif self.over == "token":
            draws = self.randomness.per_step(self.site, x.shape[-2], x.device).view(-1, 1)
        else:
            draws = self.randomness.per_step(self.site, 1, x.device).view(1)
        return x * self.scaled_mask(draws, x)


class BatchNorm(nn.BatchNorm3d):
    """``nn.BatchNorm3d`` for channel-last tensors [..., C], whose running statistics can wait for the end of a step.

    With ``deferred`` set, a forward pass in train mode keeps its (mean, unbiased variance) as pending instead of moving
    the running statistics. A recomputation for the backward pass (``recompute_contexts``) never leaves a trace.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float
    pending: Tensor
    """Sum of (mean, variance) over the micro-batches that wait, [2C] fp32."""
    num_pending: Tensor
    """How many wait."""
    recording: Tensor
    """False while a pass runs again for the backward pass: the same batch must not count twice."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5, momentum=0.1)
        self.deferred = False
        # Tensors, not a list: a compiled block would be compiled again for every length of a list.
        _forget_pending(self)
        # What waits belongs to the old weights; and a model that was made without memory has garbage there.
        self.register_load_state_dict_post_hook(_forget_pending)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        rows_NC = x.flatten(0, -2)
        if not self.training:
            y_NC = F.batch_norm(rows_NC, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
            return y_NC.view_as(x)
        # With momentum 1 these two come out as the statistics of this batch, without a second pass over it.
        mean_C, var_C = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        y_NC = F.batch_norm(rows_NC, mean_C, var_C, self.weight, self.bias, True, momentum=1.0, eps=self.eps)
        self._record(torch.cat([mean_C, var_C]))
        return y_NC.view_as(x)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What the norm does in eval mode, [C] each: x * scale + shift."""
        scale_C = self.weight / torch.sqrt(self.running_var + self.eps)
        return scale_C, self.bias - self.running_mean * scale_C

    def _record(self, statistics: Tensor) -> None:
        if self.deferred:
            self.pending.add_(torch.where(self.recording, statistics, 0))
            self.num_pending.add_(self.recording)
        else:
            self.commit(statistics)

    @torch.no_grad()
    def commit(self, statistics: Tensor) -> None:
        """Move the running statistics one step towards ``statistics`` (mean, then variance); nothing stays pending."""
        mean_C, var_C = statistics.chunk(2)
        for running_C, new_C in ((self.running_mean, mean_C), (self.running_var, var_C)):
            moved_C = running_C * (1 - self.momentum) + self.momentum * new_C.to(running_C)
            running_C.copy_(torch.where(self.recording, moved_C, running_C))
        self.num_batches_tracked.add_(self.recording)
        self.pending.zero_()
        self.num_pending.zero_()


def defer_batch_norm(model: nn.Module, deferred: bool = True) -> None:
    """Make every batch norm of the model keep its statistics as pending until ``commit_batch_norm``, or stop that."""
    for norm in _batch_norms(model):
        norm.deferred = deferred


def pending_batch_norm(model: nn.Module) -> Tensor | None:
    """Sum over the pending micro-batches of all (mean, variance), flat fp32; None only if the model has no batch norm.

    A process that saw no live sample gets zeros, so that it can still take part in the sum over ranks. Divide the sum
    over ranks by the sum of ``num_pending_batches`` and hand the result to ``commit_batch_norm``.
    """
    sums = [norm.pending for norm in _batch_norms(model)]
    return torch.cat(sums) if sums else None


def num_pending_batches(model: nn.Module) -> int:
    """Micro-batches in the sum of ``pending_batch_norm``."""
    counts = {int(norm.num_pending) for norm in _batch_norms(model)}
    assert len(counts) <= 1, f"batch norms of one model saw different numbers of micro-batches: {sorted(counts)}"
    return counts.pop() if counts else 0


def commit_batch_norm(model: nn.Module, mean_flat: Tensor) -> None:
    """Move all running statistics by the mean of a step, laid out as ``pending_batch_norm``; nothing stays pending."""
    norms = list(_batch_norms(model))
    sizes = [2 * norm.num_features for norm in norms]
    if mean_flat.shape != (sum(sizes),):
        raise ValueError(f"expected {sum(sizes)} batch statistics, got shape {tuple(mean_flat.shape)}")
    for norm, statistics in zip(norms, torch.split(mean_flat, sizes), strict=True):
        norm.commit(statistics)


def recompute_contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For ``context_fn`` of ``checkpoint``: the batch norms of ``module`` do not count in the second pass."""
    return nullcontext(), _Unrecorded(module)


class _Unrecorded(AbstractContextManager[None]):
    """Entered again for every backward pass through the same graph, which a generator could not be."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = list(_batch_norms(module))

    def __enter__(self) -> None:
        # A tensor, not an attribute: both passes must be one compiled graph, or they would keep different activations.
        for norm in self.norms:
            norm.recording.fill_(False)

    def __exit__(self, *exception: object) -> None:
        for norm in self.norms:
            norm.recording.fill_(True)


def _forget_pending(norm: BatchNorm, *_: object) -> None:
    """Give ``norm`` new buffers for what waits, beside its statistics; none of them is part of the state dict."""
    device = norm.running_mean.device
    norm.register_buffer("pending", torch.zeros(2 * norm.num_features, device=device), persistent=False)
    norm.register_buffer("num_pending", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
    norm.register_buffer("recording", torch.ones((), dtype=torch.bool, device=device), persistent=False)


def _batch_norms(model: nn.Module) -> Iterator[BatchNorm]:
    return (module for module in model.modules() if isinstance(module, BatchNorm))


def _draws(key_B: Tensor, site: int, num_elements: int) -> Tensor:
    element_E = torch.arange(num_elements, device=key_B.device)
    return _shift_right(mix(mix(key_B ^ site)[:, None] ^ element_E), 64 - DRAW_BITS)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64 >> copies the sign bit in from the left; the published function works on unsigned numbers.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
