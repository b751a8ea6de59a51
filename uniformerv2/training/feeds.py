"""Where the batches of a run come from: a view of a build, by its index, or foreign shards, from start to end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from k710.errors import UsageError
from k710.labels import LabelMap
from k710.shards.index import ShardIndex, View
from uniformerv2.config import Recipe
from uniformerv2.data.draws import DrawnClips
from uniformerv2.data.feed import Batch, ClipBytes, Hole, RestOfRun, TrainClips, running, train_loader
from uniformerv2.data.order import OBJECT_STORE_WINDOW, Batching, Order
from uniformerv2.data.reading import ReadingConfig
from uniformerv2.data.streaming import StreamConfig, rest_of_stream, stream_digest, stream_loader
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.stopping import deaf_children


class Feed(Protocol):
    """What a run needs to know of its batches."""

    @property
    def name(self) -> str:
        """What is trained on."""

    @property
    def batching(self) -> Batching:
        """How clips are dealt to steps and ranks."""

    @property
    def num_taken_out(self) -> int:
        """Listed clips that are left out, because they have no bytes or no class."""

    @property
    def stops_inside(self) -> bool:
        """Whether a run can go on inside an epoch."""

    def start(self) -> RunState:
        """The state at the beginning of a run."""

    def batches(
        self, recipe: Recipe, state: RunState, ranks: Ranks
    ) -> contextlib.AbstractContextManager[Iterator[Batch]]:
        """This rank's micro-batches from ``state`` to the end of the run; workers end with the block."""

    def seen(self, lineage: Lineage) -> Lineage:
        """``lineage`` after training on this."""

    def clip_of(self, hole: Hole) -> str:
        """The name of a clip that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedFeed:
    """A view of a build."""

    index: ShardIndex
    """The build."""
    view: View
    """Which of its clips."""
    order: Order
    """In which order."""
    batching: Batching
    """How clips are dealt to steps and ranks."""
    clips: TrainClips | DrawnClips
    """How they are made."""

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view.name

    @property
    def num_taken_out(self) -> int:
        """Listed clips without bytes or without a class."""
        return len(self.order.taken_out)

    @property
    def stops_inside(self) -> bool:
        """Every step has its place in the order."""
        return True

    def start(self) -> RunState:
        """The first clip of the first epoch."""
        return RunState(
            view_digest=self.view.digest,
            data_digest=self.view.data_digest,
            window=self.order.window,
            taken_out_digest=self.order.taken_out_digest,
            global_batch=self.batching.global_batch,
        )

    @contextmanager
    def batches(self, recipe: Recipe, state: RunState, ranks: Ranks) -> Iterator[Iterator[Batch]]:
        """Workers are started once for the rest of the run."""
        rest = RestOfRun(
            self.order,
            self.batching,
            rank=ranks.rank,
            epoch=state.epoch,
            step_in_epoch=state.step_in_epoch,
            epochs=recipe.optim.epochs,
        )
        pin = ranks.device.type == "cuda"
        with deaf_children():  # from here on, because to make a loader starts the server that forks the workers
            loader = train_loader(self.clips, rest, workers=recipe.data.workers, pin=pin)
        with _started(loader) as made:
            yield made

    def seen(self, lineage: Lineage) -> Lineage:
        """With the videos of the clips that have bytes and a class."""
        trained = np.setdiff1d(np.arange(len(self.view)), self.order.taken_out)
        unchecked = tuple(self.index.lock.get("not_checked", ()))
        return lineage.with_view(self.view.name, self.view.id_hashes[trained], unchecked)

    def clip_of(self, hole: Hole) -> str:
        """The key of the clip."""
        return str(self.view.keys[hole.position])


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedFeed:
    """WebDataset shards of anybody."""

    config: StreamConfig
    """Which, and how they are read."""
    batching: Batching
    """How clips are dealt to steps and ranks."""

    @property
    def name(self) -> str:
        """What stands for the view's name."""
        return "streamed shards"

    @property
    def num_taken_out(self) -> int:
        """Nothing is listed."""
        return 0

    @property
    def stops_inside(self) -> bool:
        """What was read so far is nowhere written down."""
        return False

    def start(self) -> RunState:
        """The beginning of the first epoch."""
        digest = stream_digest(self.config)
        return RunState(
            view_digest=digest,
            data_digest=digest,
            window=self.config.window_clips,
            taken_out_digest="",
            global_batch=self.batching.global_batch,
        )

    @contextmanager
    def batches(self, recipe: Recipe, state: RunState, ranks: Ranks) -> Iterator[Iterator[Batch]]:
        """Workers are started anew in each epoch."""

        def epoch_of(epoch: int) -> DataLoader[Batch]:
            with deaf_children():
                return stream_loader(
                    self.config,
                    num_frames=recipe.model.num_frames,
                    size_px=recipe.size_px,
                    augment=recipe.augment,
                    seed=recipe.seed,
                    epoch=epoch,
                    rank=ranks.rank,
                    world=ranks.world,
                    micro_batch=recipe.data.micro_batch,
                    workers=recipe.data.workers,
                )

        num_batches = self.batching.steps_per_epoch * self.batching.accumulation
        epochs = range(state.epoch, recipe.optim.epochs)
        with contextlib.closing(rest_of_stream(epoch_of, epochs=epochs, batches=num_batches, started=_started)) as made:
            yield made

    def seen(self, lineage: Lineage) -> Lineage:
        """Which videos they were is not known."""
        return dataclasses.replace(lineage, known=False)

    def clip_of(self, hole: Hole) -> str:
        """The shard; the reason names the sample."""
        return hole.shard


def indexed_feed(
    index: ShardIndex, view: View, labels: npt.NDArray[np.int64], recipe: Recipe, reading: ReadingConfig, world: int
) -> IndexedFeed:
    """The feed of ``view``, whose clips have the classes ``labels`` in the order of the head; -1: none."""
    window = recipe.data.window
    order = Order(
        seed=recipe.seed,
        view_digest=view.digest,
        num_planned=len(view),
        window=(0 if index.store.is_local else OBJECT_STORE_WINDOW) if window < 0 else window,
        taken_out=np.flatnonzero((view.offsets < 0) | (labels < 0)),
    )
    clips = TrainClips(
        clips=ClipBytes(index.store, view, reading=reading, sha256=view.sha256),
        labels=labels,
        num_frames=recipe.model.num_frames,
        size_px=recipe.size_px,
        augment=recipe.augment,
        seed=recipe.seed,
        repeats=recipe.data.repeats,
        sampling=recipe.data.sampling,
        stride=recipe.data.stride,
        decoder=recipe.data.decoder,
    )
    views = recipe.data.feature_views
    return IndexedFeed(
        index=index,
        view=view,
        order=order,
        batching=_batching(order.num_clips, recipe, world),
        clips=DrawnClips(clips=clips, views=views) if views else clips,
    )


def streamed_feed(config: StreamConfig, recipe: Recipe, world: int) -> StreamedFeed:
    """The feed of foreign shards.

    Raises:
        UsageError: an epoch has no step, a batch that cannot be dealt to the processes, or features would be kept.
    """
    if recipe.data.feature_views:
        raise UsageError(
            f"data.feature_views {recipe.data.feature_views} and --stream exclude each other",
            hint="the clips of streamed shards have no fixed place: --set data.feature_views=0, or train on a build",
        )
    clips, batch = config.clips_per_epoch, recipe.data.global_batch
    if clips < batch:
        raise UsageError(
            f"--stream-clips {clips} is less than one global batch of {batch}",
            hint=f"--stream-clips {batch} or more, or lower data.global_batch",
        )
    return StreamedFeed(config=config, batching=_batching(config.clips_per_epoch, recipe, world))


def stream_config(shards: tuple[str, ...], num_clips: int | None, recipe: Recipe, taxonomy: str) -> StreamConfig | None:
    """What ``--stream`` and ``--stream-clips`` ask for; None: nothing.

    Raises:
        UsageError: one without the other.
    """
    if not shards and num_clips is None:
        return None
    if not shards or num_clips is None:
        raise UsageError(
            "--stream and --stream-clips go together",
            hint="--stream 'shards/{000..099}.tar' --stream-clips 100000: streamed shards do not say how many clips "
            "make an epoch",
        )
    return StreamConfig(
        shards=shards,
        num_classes=recipe.model.num_classes,
        taxonomy=taxonomy,
        clips_per_epoch=num_clips,
        repeats=recipe.data.repeats,
        sampling=recipe.data.sampling,
        stride=recipe.data.stride,
        decoder=recipe.data.decoder,
    )


def target_labels(view: View, target: str, labels: LabelMap) -> npt.NDArray[np.int64]:
    """Index in ``target`` of each clip's class; -1 where the view has no class for it.

    Raises:
        UsageError: the view has classes that the target lacks.
    """
    index = np.array([-1 if (i := labels.index_in(target, c)) is None else i for c in range(len(labels.rows))])
    outside = (view.classes >= 0) & (index[view.classes] < 0)
    if outside.any():
        name = labels.rows[int(view.classes[outside][0])].name
        raise UsageError(
            f"view {view.name} has {int(outside.sum())} clips of classes that {target} lacks, such as {name!r}",
            hint="name a view of the same taxonomy",
        )
    return np.where(view.classes < 0, -1, index[view.classes])


def _batching(num_clips: int, recipe: Recipe, world: int) -> Batching:
    return Batching(
        num_clips=num_clips,
        global_batch=recipe.data.global_batch,
        micro_batch=recipe.data.micro_batch,
        world=world,
    )


@contextmanager
def _started(loader: DataLoader[Batch]) -> Iterator[Iterator[Batch]]:
    with ExitStack() as running_now:
        with deaf_children():
            batches = running_now.enter_context(running(loader))
        yield batches
