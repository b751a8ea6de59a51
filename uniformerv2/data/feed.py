"""From a build to batches: every clip is read by byte range, decoded and augmented in a worker process."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from k710.errors import FeedError
from k710.processes import end_with_parent, require_room_for_sockets
from uniformerv2.data.draws import DrawnClips, collate_drawn
from uniformerv2.data.order import Batching, Order
from uniformerv2.data.reading import ClipBytes, ReadingConfig
from uniformerv2.data.samples import Batch, Hole, Portion, TestClips, TrainClips, collate_test, collate_train
from uniformerv2.data.transfer import Refusal, or_refusal, too_small

__all__ = [
    "Batch",
    "ClipBytes",
    "Hole",
    "ReadingConfig",
    "RestOfRun",
    "TestClips",
    "TrainClips",
    "collate_train",
    "running",
    "test_loader",
    "train_loader",
    "worker_settings",
]

Made = TypeVar("Made")
StartMethod = Literal["forkserver", "spawn", "fork"]
"""How worker processes begin."""

_GRACE_S = 60
"""How long a worker outlives a SIGTERM."""
_PORTIONS_AHEAD = 4
"""Portions of the same worker whose clips are fetched from an object store in advance."""


class RestOfRun(Sampler[list[tuple[int, int]]]):
    """This rank's micro-batches from a place in the run to its end, so that workers are started once."""

    def __init__(
        self, order: Order, batching: Batching, *, rank: int, epoch: int, step_in_epoch: int, epochs: int
    ) -> None:
        self._order, self._batching, self._rank = order, batching, rank
        self._epoch, self._step, self._epochs = epoch, step_in_epoch, epochs

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self._step
        for epoch in range(self._epoch, self._epochs):
            order = self._order.epoch(epoch)
            for step in range(first, self._batching.steps_per_epoch):
                for chunk in self._batching.micro_batches(order, step, self._rank):
                    yield [(epoch, int(position)) for position in chunk]
            first = 0

    def __len__(self) -> int:
        steps = (self._epochs - self._epoch) * self._batching.steps_per_epoch - self._step
        return steps * self._batching.accumulation


class _Announced(Sampler[Portion]):
    """Batches with what follows them in the same worker: torch deals batches to its workers in turn."""

    def __init__(self, batches: Iterable[Sequence[Any]], length: int, *, workers: int) -> None:
        self._batches, self._length, self._turn = batches, length, max(1, workers)

    def __iter__(self) -> Iterator[Portion]:
        coming: deque[Sequence[Any]] = deque()
        rest = iter(self._batches)
        while True:
            while len(coming) <= self._turn * _PORTIONS_AHEAD and (batch := next(rest, None)) is not None:
                coming.append(batch)
            if not coming:
                return
            later = list(coming)[self._turn :: self._turn]
            yield Portion(items=coming.popleft(), ahead=[item for batch in later for item in batch])

    def __len__(self) -> int:
        return self._length


def train_loader(
    clips: TrainClips | DrawnClips, batches: RestOfRun, *, workers: int, pin: bool, start: StartMethod = "forkserver"
) -> DataLoader[Batch]:
    """Batches of the rest of the run, in order, made by ``workers`` processes (0: in this one)."""
    drawn = isinstance(clips, DrawnClips)
    source = clips.clips.clips if isinstance(clips, DrawnClips) else clips.clips
    announced = batches if source.is_local else _Announced(batches, len(batches), workers=workers)
    return DataLoader(
        clips,  # type: ignore[arg-type]
        batch_sampler=announced,  # type: ignore[arg-type]
        collate_fn=or_refusal(collate_drawn) if drawn else or_refusal(collate_train),
        pin_memory=pin,
        **worker_settings(workers, start),
    )


def test_loader(
    clips: TestClips,
    positions: Sequence[int],
    *,
    clips_per_batch: int,
    workers: int,
    start: StartMethod = "forkserver",  # noqa: PT028 - it is no test
) -> DataLoader[list[tuple[int, Tensor] | Hole]]:
    """The test views of the clips at ``positions``, in order, as lists of ``clips_per_batch`` clips."""
    batches = [positions[first : first + clips_per_batch] for first in range(0, len(positions), clips_per_batch)]
    announced = batches if clips.clips.is_local else _Announced(batches, len(batches), workers=workers)
    return DataLoader(
        clips,  # type: ignore[arg-type]
        batch_sampler=announced,  # type: ignore[arg-type]
        collate_fn=or_refusal(collate_test),
        **worker_settings(workers, start),
    )


@contextmanager
def running(loader: DataLoader[Made]) -> Iterator[Iterator[Made]]:
    """The batches of a loader; its workers end with the block, whatever ends it.

    A worker that was killed from outside, or that finds no shared memory, is a ``FeedError``.
    """
    batches = iter(loader)
    try:
        yield _naming_failures(batches)
    finally:
        # Left to garbage collection they would live on in the traceback of an error, and the exit would wait for them.
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _naming_failures(batches: Iterator[Made]) -> Iterator[Made]:
    try:
        for made in batches:
            if isinstance(made, Refusal):
                raise FeedError(made.message, hint=made.hint)
            yield made
    except MemoryError as error:
        if not str(error).startswith("Caught"):
            raise
        hint = "lower the number of workers, then run the same command again"
        raise FeedError("a decoding process ran out of memory", hint=hint) from error
    except (RuntimeError, EOFError, ConnectionError) as error:
        # Torch's own sign of it, or a pipe that ends; what a living worker raised begins with "Caught".
        is_pipe = not isinstance(error, RuntimeError) and not str(error).startswith("Caught")
        if not (is_pipe or str(error).startswith("DataLoader worker (pid")):
            raise
        reason = (str(error).splitlines() or ["no answer"])[0]
        if "Bus error" in reason:  # a page of shared memory that could not be had
            raise too_small(0) from error
        hint = "the usual cause is too little memory: lower the number of workers, then run the same command again"
        raise FeedError(f"a decoding process was killed: {reason}", hint=hint) from error


def worker_settings(workers: int, start: StartMethod = "forkserver") -> dict[str, Any]:
    """What a ``DataLoader`` must be told to have ``workers`` processes that end when they should."""
    if workers == 0:
        return {"num_workers": 0}
    context = multiprocessing.get_context(start)
    if start == "forkserver":
        require_room_for_sockets()
        # Workers that share what was loaded once, and no thread pool of the trainer's: in a forked child those hang.
        # torchcodec is among it where this process has checked it: to load it takes each worker seconds.
        decoder = [name for name in ("torchcodec",) if name in sys.modules]
        context.set_forkserver_preload(["torch", "av", "uniformerv2.data.feed", *decoder])
        _start_forkserver()
    return {"num_workers": workers, "multiprocessing_context": context, "worker_init_fn": _start_worker}


def _start_forkserver() -> None:
    """Start it with SIGTERM blocked: one to the process group would end it, and a worker ends when it does."""
    resource_tracker.ensure_running()  # first, because it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    # Signals to the whole process group are for the trainer, which still needs the rest of its step to save. Only a
    # delay, not SIG_IGN: at exit multiprocessing sends SIGTERM to what is left, and waits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
