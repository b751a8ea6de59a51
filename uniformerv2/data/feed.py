"""From a build to batches: every clip is read by byte range, decoded and augmented in a worker process.

Axes: N samples (clip x repeat), C channel, T frame, H height, W width, V test view.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from k710.errors import FeedError
from k710.processes import end_with_parent
from k710.shards.index import View
from k710.store import Store
from uniformerv2.data.augment import AugmentConfig, augment, test_views
from uniformerv2.data.decode import decode_chosen
from uniformerv2.data.order import Batching, Order
from uniformerv2.data.sampling import FrameOrder, eval_indices, reorder, stream, train_indices

Made = TypeVar("Made")

_GRACE_S = 60
"""How long a worker outlives a SIGTERM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """A clip that failed at read time."""

    position: int
    """Planned position in the view."""
    reason: str
    """What the reader or decoder said."""
    shard: str = ""
    """File that has the clip, of the build or in place; empty: unknown."""

    @property
    def repair(self) -> str:
        """What to do about damaged clips, for a hint."""
        if self.shard and not self.shard.endswith(".tar"):
            return f"replace {self.shard} by a sound copy and run `k710 build` again: it looks at changed files anew"
        what = f"{PurePosixPath(self.shard).with_suffix('.json')}" if self.shard else "the .json marker of its shard"
        return (
            f"remove {what} and run `k710 build` again: it checks every clip of that shard and makes damaged ones anew"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The live samples of one micro-batch, and its holes."""

    clips: Tensor
    """uint8 [N, C, T, H, W]; empty when no clip could be read."""
    labels: Tensor
    """int64 [N], class in the model's own order."""
    positions: Tensor
    """int64 [N], planned position in the view."""
    repeats: Tensor
    """int64 [N], which repeat of the clip."""
    holes: tuple[Hole, ...]
    """Clips that are not in the batch."""

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """The same with its clips in page-locked memory, from which a device copies while it computes.

        ``DataLoader`` calls this by name; what has no such method it leaves as it is.
        """
        return dataclasses.replace(self, clips=self.clips.pin_memory())


class ClipBytes:
    """Where the bytes of a view's clips are, in a form that is cheap to hand to a worker."""

    def __init__(self, store: Store, view: View) -> None:
        self._store = store
        self._shards = sorted({s for s in view.shards if s is not None})
        number = {s: i for i, s in enumerate(self._shards)}
        self._shard_of = np.array([-1 if s is None else number[s] for s in view.shards], dtype=np.int32)
        self._offsets, self._sizes = view.offsets, view.sizes_bytes
        self.frames = view.frames

    def shard_of(self, position: int) -> str:
        """The file, a shard or one in place, that has the clip at a planned position that has bytes."""
        return str(self._shards[self._shard_of[position]])

    def read(self, position: int) -> bytes:
        """The encoded clip at a planned position that has bytes; a ``FeedError`` when they cannot be read."""
        shard = self.shard_of(position)
        try:
            return self._store.read_range(shard, int(self._offsets[position]), int(self._sizes[position]))
        except OSError as error:  # no permission, a disk or a network that fails
            raise FeedError(f"{shard}: cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClips(Dataset[list[tuple[Tensor, int, int, int]] | Hole]):
    """Training samples by (epoch, planned position): a function of these and the seed, whoever asks and when."""

    clips: ClipBytes
    labels: npt.NDArray[np.int64]
    """Class of each planned position in the model's order; -1: none."""
    num_frames: int
    size_px: int
    augment: AugmentConfig
    seed: int
    repeats: int = 1
    """Augmentations of one decoded clip."""

    def __getitem__(self, item: tuple[int, int]) -> list[tuple[Tensor, int, int, int]] | Hole:
        epoch, position = item
        frame_rng = stream("frames", self.seed, epoch, position)
        try:
            frames_THWC = decode_chosen(
                self.clips.read(position),
                int(self.clips.frames[position]),
                lambda num_source: train_indices(num_source, self.num_frames, frame_rng),
            )
        except FeedError as error:
            return Hole(position=position, reason=error.message, shard=self.clips.shard_of(position))
        label = int(self.labels[position])
        return [
            (self._augmented(frames_THWC, epoch, position, repeat), label, position, repeat)
            for repeat in range(self.repeats)
        ]

    def _augmented(self, frames_THWC: npt.NDArray[np.uint8], epoch: int, position: int, repeat: int) -> Tensor:
        rng = stream("augment", self.seed, epoch, position, repeat)
        return augment(frames_THWC, self.augment, self.size_px, rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class TestClips(Dataset[tuple[int, Tensor] | Hole]):
    """All test views of a clip, float32 [V, C, T, H, W], by planned position; test clip v // crops, crop v % crops."""

    __test__ = False
    clips: ClipBytes
    keys: tuple[str, ...]
    num_frames: int
    size_px: int
    num_clips: int
    num_crops: int
    frame_order: FrameOrder = "source"

    def __getitem__(self, position: int) -> tuple[int, Tensor] | Hole:
        try:
            frames_THWC = decode_chosen(
                self.clips.read(position), int(self.clips.frames[position]), lambda n: self._all_indices(n, position)
            )
        except FeedError as error:
            return Hole(position=position, reason=error.message, shard=self.clips.shard_of(position))
        clips = frames_THWC.reshape(self.num_clips, self.num_frames, *frames_THWC.shape[1:])
        return position, torch.cat([test_views(clip_THWC, self.size_px, self.num_crops) for clip_THWC in clips])

    def _all_indices(self, num_source: int, position: int) -> list[int]:
        chosen: list[int] = []
        for clip in range(self.num_clips):
            picked = eval_indices(num_source, self.num_frames, clip, self.num_clips)
            chosen += reorder(picked, self.frame_order, self.keys[position])
        return chosen


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


def train_loader(clips: TrainClips, batches: RestOfRun, *, workers: int, pin: bool) -> DataLoader[Batch]:
    """Batches of the rest of the run, in order, made by ``workers`` processes (0: in this one)."""
    return DataLoader(
        clips,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=collate_train,
        pin_memory=pin,
        **_worker_settings(workers),
    )


def test_loader(
    clips: TestClips, positions: Sequence[int], *, clips_per_batch: int, workers: int
) -> DataLoader[list[tuple[int, Tensor] | Hole]]:
    """The test views of the clips at ``positions``, in order, as lists of ``clips_per_batch`` clips."""
    return DataLoader(
        clips,  # type: ignore[arg-type]
        batch_size=clips_per_batch,
        sampler=positions,
        collate_fn=list,
        **_worker_settings(workers),
    )


@contextmanager
def running(loader: DataLoader[Made]) -> Iterator[Iterator[Made]]:
    """The batches of a loader; its workers end with the block, whatever ends it.

    A worker that was killed from outside is a ``FeedError``.
    """
    batches = iter(loader)
    try:
        yield _naming_dead_workers(batches)
    finally:
        # Left to garbage collection they would live on in the traceback of an error, and the exit would wait for them.
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _naming_dead_workers(batches: Iterator[Made]) -> Iterator[Made]:
    try:
        yield from batches
    except (RuntimeError, EOFError, ConnectionError) as error:
        # Torch's own sign of it, or a pipe that ends; what a living worker raised begins with "Caught".
        is_pipe = not isinstance(error, RuntimeError) and not str(error).startswith("Caught")
        if not (is_pipe or str(error).startswith("DataLoader worker (pid")):
            raise
        reason = (str(error).splitlines() or ["no answer"])[0]
        hint = "the usual cause is too little memory: lower the number of workers, then run the same command again"
        raise FeedError(f"a decoding process was killed: {reason}", hint=hint) from error


def collate_train(made: Sequence[list[tuple[Tensor, int, int, int]] | Hole]) -> Batch:
    """One micro-batch: holes set aside, live samples stacked."""
    holes = tuple(m for m in made if isinstance(m, Hole))
    live = [sample for m in made if not isinstance(m, Hole) for sample in m]
    clips, labels, positions, repeats = zip(*live, strict=True) if live else ((), (), (), ())
    return Batch(
        clips=torch.stack(clips) if clips else torch.empty(0, dtype=torch.uint8),
        labels=torch.tensor(labels, dtype=torch.int64),
        positions=torch.tensor(positions, dtype=torch.int64),
        repeats=torch.tensor(repeats, dtype=torch.int64),
        holes=holes,
    )


def _worker_settings(workers: int) -> dict[str, Any]:
    if workers == 0:
        return {"num_workers": 0}
    # A fork of this process would hang: OpenMP and swscale pools do not survive it (measured).
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "av", "uniformerv2.data.feed"])
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
