"""Ranks: started by torchrun or by ``--devices``, gradients summed by hand, decisions taken together."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from k710.errors import K710Error, UsageError
from uniformerv2.training.metrics import OnProgress, silent
from uniformerv2.training.supervisor import supervise

R = TypeVar("R")

_HOST = "127.0.0.1"
_PATIENCE = timedelta(minutes=30)
_BUCKET_BYTES = 64 * 2**20
"""Gradients are copied together to be summed, so much at a time: one copy of all would double their memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those of the run."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Number of this process; 0 alone writes."""
    world: int = 1
    """Number of processes."""

    def sum_(self, values: Tensor) -> Tensor:
        """``values`` summed over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def sum_all_(self, tensors: Sequence[Tensor]) -> None:
        """Each of ``tensors`` summed over all ranks, in place: one portion travels while the next is put together."""
        if self.world == 1:
            return
        on_its_way: tuple[Sequence[Tensor], Tensor, dist.Work | None] | None = None
        for portion in _portions(tensors):
            flat = torch.cat([tensor.flatten() for tensor in portion])
            begun = portion, flat, dist.all_reduce(flat, async_op=True)
            _arrive(on_its_way)
            on_its_way = begun
        _arrive(on_its_way)

    def gather(self, value: R) -> list[R]:
        """What each rank gave, in order of rank; for small plain objects."""
        if self.world == 1:
            return [value]
        found: list[R | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def from_first(self, make: Callable[[], R]) -> R:
        """What ``make`` returns on rank 0, on every rank; or the error it raises there, on every rank."""
        if self.world == 1:
            return make()
        box: list[object] = [None, None]
        if self.rank == 0:
            try:
                box[0] = make()
            except K710Error as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if isinstance(box[1], K710Error):
            raise box[1]
        return box[0]  # type: ignore[return-value]


def _portions(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, together at most ``_BUCKET_BYTES`` but for one that is larger by itself."""
    portion: list[Tensor] = []
    size_bytes = 0
    for tensor in tensors:
        if portion and size_bytes + tensor.nbytes > _BUCKET_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(tensor)
        size_bytes += tensor.nbytes
    if portion:
        yield portion


def _arrive(on_its_way: tuple[Sequence[Tensor], Tensor, dist.Work | None] | None) -> None:
    """Wait for a portion and put its sums where they belong."""
    if on_its_way is None:
        return
    portion, flat, work = on_its_way
    if work is not None:
        work.wait()
    for tensor, summed in zip(portion, torch.split(flat, [t.numel() for t in portion]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def on_ranks(work: Callable[[Ranks, OnProgress], R], *, devices: int, device: str, on_progress: OnProgress) -> R:
    """What ``work`` returns on this rank, or on rank 0.

    Under torchrun this process is one of its ranks. Otherwise, with more than one device, the ranks are processes of
    their own, so ``work`` and what it returns must be picklable, and this one returns what rank 0 did.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _under_torchrun(work, devices=devices, device=device, on_progress=on_progress)
    if devices == 1:
        return work(Ranks(device=pick_device(device)), on_progress)
    # Before any starts: a rank that finds no device of its own would leave the others waiting for it.
    for rank in range(devices):
        pick_device(device, rank)
    store = TCPStore(_HOST, 0, devices, is_master=True, timeout=_PATIENCE, wait_for_workers=False)
    as_rank = functools.partial(_as_rank, work, devices, store.port, device)
    return supervise(as_rank, world=devices, on_progress=on_progress)


def pick_device(name: str, local_rank: int = 0, cpu_hint: str = "--set runtime.device=cpu") -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means for a process.

    Raises:
        UsageError: CUDA is asked for and there are not enough devices.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if local_rank >= available:
        hint = "lower --devices" if available else f"compute on the CPU with {cpu_hint}"
        raise UsageError(f"device cuda:{local_rank} is asked for, and there are {available}", hint=hint)
    return torch.device("cuda", local_rank)


def _under_torchrun(work: Callable[[Ranks, OnProgress], R], *, devices: int, device: str, on_progress: OnProgress) -> R:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if devices not in (1, world):
        raise UsageError(f"--devices {devices} under a torchrun of {world} processes", hint="leave --devices out")
    with _joined(None, rank, world, device, int(os.environ.get("LOCAL_RANK", "0"))) as ranks:
        return work(ranks, on_progress if rank == 0 else silent)


def _as_rank(
    work: Callable[[Ranks, OnProgress], R], world: int, port: int, device: str, rank: int, on_progress: OnProgress
) -> R:
    # The store has one more client than ranks, the supervisor; nobody waits for their number.
    store = TCPStore(_HOST, port, None, is_master=False, timeout=_PATIENCE, wait_for_workers=False)
    with _joined(store, rank, world, device, rank, ends_here=True) as ranks:
        return work(ranks, on_progress)


@contextmanager
def _joined(
    store: Store | None, rank: int, world: int, device: str, local_rank: int = 0, *, ends_here: bool = False
) -> Iterator[Ranks]:
    """This process in the group of all ranks; ``ends_here``: it ends by ``os._exit`` right after."""
    chosen = pick_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Ranks(rank=rank, world=world, device=chosen)
    finally:
        # Gloo takes its connections apart in this thread while its own still hears of peers that leave. A process that
        # ends anyhow leaves that to the system, which ends all threads at once.
        if not (ends_here and backend == "gloo"):
            dist.destroy_process_group()
