"""How what a worker made comes to the trainer: through shared memory, or as a refusal in words."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from k710.errors import FeedError, K710Error

Made = TypeVar("Made")

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps the memory that processes share; in a container often 64 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An error of a worker on its way to the trainer, where it is raised."""

    message: str
    """What is wrong, and where."""
    hint: str
    """What to do."""


def or_refusal(make: Callable[[Sequence[Any]], Made]) -> Callable[[Sequence[Any]], Made | Refusal]:
    """``make`` for a loader: our own errors are returned, since torch would wrap what a worker raises in its trace."""
    return functools.partial(_or_refusal, make)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """``parts`` along a new first axis; in a worker in shared memory at once, without a second copy.

    Raises:
        FeedError: shared memory is too small.
    """
    if get_worker_info() is None:
        return torch.stack(list(parts))
    return torch.stack(list(parts), out=_shared(parts[0], len(parts)))


def in_shared_memory(tensor: Tensor) -> Tensor:
    """``tensor``, in a worker moved to shared memory; left to the queue, a lack of it would be waited for for ever.

    Raises:
        FeedError: shared memory is too small.
    """
    if get_worker_info() is None:
        return tensor
    return _shared(tensor, 1)[0].copy_(tensor)


def too_small(wanted_bytes: int) -> FeedError:
    """The error for a batch that finds no room in shared memory."""
    room = os.statvfs(SHARED_MEMORY)
    free, total = (n * room.f_frsize / 2**20 for n in (room.f_bavail, room.f_blocks))
    wanted = f"no room for a batch of {wanted_bytes / 2**20:.1f} MiB" if wanted_bytes else "no room for a batch"
    return FeedError(
        f"{SHARED_MEMORY}: {wanted} from a worker, {free:.1f} of {total:.1f} MiB are free",
        hint="lower the number of workers (each holds up to two batches there) or the batch, or enlarge it: "
        "`mount -o remount,size=8G /dev/shm`, or `docker run --shm-size=8g`; --set data.workers=0 does without",
    )


def _or_refusal(make: Callable[[Sequence[Any]], Made], parts: Sequence[Any]) -> Made | Refusal:
    try:
        return make(parts)
    except K710Error as error:
        return Refusal(message=error.message, hint=error.hint)


def _shared(like: Tensor, count: int) -> Tensor:
    """An uninitialised tensor of ``count`` times the shape of ``like``, in shared memory."""
    size_bytes = count * like.numel() * like.element_size()
    try:
        storage = torch.UntypedStorage._new_shared(size_bytes)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise too_small(size_bytes) from error
    return torch.empty(0, dtype=like.dtype).set_(storage).view(count, *like.shape)
