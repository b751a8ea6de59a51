"""Class probabilities of the clips of a view: the core of ``k710 evaluate`` and of validation during training.

Clips are scored in batches of a fixed composition that are dealt to the ranks, so a score does not depend on how many
ranks there are, nor on what was scored before. Axes: N clips, V test views, C channel, T frame, H height, W width,
K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from k710.errors import FeedError
from k710.shards.index import ShardIndex, View
from uniformerv2 import UniFormerV2
from uniformerv2.data.decode import Decoder
from uniformerv2.data.feed import ClipBytes, Hole, TestClips, running, test_loader
from uniformerv2.data.samples import Sampling
from uniformerv2.data.sampling import FrameOrder
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.stopping import StopFlag, deaf_children

Precision = Literal["fp32", "bf16", "fp16"]
"""Of the forward pass; ``fp32`` is that of the published test."""
Made = list[tuple[int, Tensor] | Hole]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_TURN_S = 2.0
"""Time after which ranks tell each other what they have."""


class ScoringStoppedError(Exception):
    """A rank was asked to stop before everything was scored; every rank raises it, after the same turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewScore:
    """How well a model does on a view."""

    top1: float
    """Share of the scored clips whose class comes first."""
    top5: float
    """Share whose class is among the first five."""
    scored: int
    """Clips behind the numbers."""
    holes: tuple[Hole, ...]
    """Clips that could not be read: they are in none of the numbers."""
    not_finite: int = 0
    """Scored clips whose scores are not finite: they count as wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBatch:
    """What one batch came to."""

    number: int
    """Place of the batch among those of the view."""
    positions: tuple[int, ...]
    """Planned positions of the clips that were scored."""
    scores_NK: npt.NDArray[np.float32]
    """Their mean probabilities over the test views."""
    holes: tuple[Hole, ...]
    """Clips of the batch that could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """Which clips are scored, and how."""

    clips: TestClips
    """The test views of each clip."""
    positions: tuple[int, ...]
    """Planned positions to score, in order."""
    views_per_batch: int
    """Test views in one forward pass."""
    workers: int
    """Decoding processes of each rank; 0: decode in this one."""
    ranks: Ranks
    """This process among those that score."""
    precision: Precision = "fp32"
    """Of the forward pass."""
    done: frozenset[int] = frozenset()
    """Batches that need not be scored."""
    stop: StopFlag | None = None
    """Whether this process was asked to stop, looked at after each turn."""

    @property
    def clips_per_batch(self) -> int:
        """Clips that are scored together."""
        return max(1, self.views_per_batch // self._views_per_clip)

    @property
    def passes_per_batch(self) -> int:
        """Forward passes of a batch without holes."""
        return math.ceil(self.clips_per_batch * self._views_per_clip / self.views_per_batch)

    @property
    def num_batches(self) -> int:
        """Batches of the view."""
        return math.ceil(len(self.positions) / self.clips_per_batch)

    @property
    def _views_per_clip(self) -> int:
        return self.clips.num_clips * self.clips.num_crops

    def positions_of(self, number: int) -> tuple[int, ...]:
        """The clips of a batch."""
        return self.positions[number * self.clips_per_batch : (number + 1) * self.clips_per_batch]


def score_view(
    model: UniFormerV2,
    index: ShardIndex,
    view: View,
    *,
    targets: npt.NDArray[np.int64],
    clips: int,
    crops: int,
    workers: int,
    ranks: Ranks,
    views_per_batch: int = 32,
    precision: Precision = "fp32",
    sampling: Sampling = "sparse",
    stride: int = 4,
    decoder: Decoder = "pyav",
    stop: StopFlag | None = None,
) -> ViewScore:
    """The score of ``model``, which is on the device of this rank, on the clips of ``view``; the same on every rank.

    The model is left as it was, in the mode in which it was, and so are the generators of random numbers.

    Args:
        model: the same on every rank.
        index: the build that has the view.
        view: what is scored.
        targets: class of each planned position in the order of the model's head; -1: none.
        clips: test clips of each clip, along time.
        crops: crops of each test clip: 1 or 3.
        workers: decoding processes of each rank; 0: decode in this one.
        ranks: this process among those that score; each clip is scored by one of them.
        views_per_batch: test views in one forward pass.
        precision: of the forward pass.
        sampling: how the frames of a test clip are chosen.
        stride: distance of neighbouring frames under ``dense`` sampling.
        decoder: the library that decodes.
        stop: whether this process was asked to stop.

    Raises:
        FeedError: no clip has bytes and a class, or none can be read.
        ScoringStoppedError: a rank was asked to stop.
    """
    scoring = Scoring(
        clips=clips_of_view(
            model, index, view, clips=clips, crops=crops, sampling=sampling, stride=stride, decoder=decoder
        ),
        positions=scorable(view, targets),
        views_per_batch=views_per_batch,
        workers=workers,
        ranks=ranks,
        precision=precision,
        stop=stop,
    )
    places: list[int] = []
    holes: list[Hole] = []
    not_finite = 0
    for batch in (batch for turn in scored_in_turns(model, scoring) for batch in turn):
        places += ranks_of_class(batch.scores_NK, targets[list(batch.positions)]).tolist()
        holes += batch.holes
        not_finite += int((~np.isfinite(batch.scores_NK).all(axis=1)).sum())
    if not places:
        raise none_scored(view, holes)
    return ViewScore(
        top1=sum(place == 1 for place in places) / len(places),
        top5=sum(place <= 5 for place in places) / len(places),
        scored=len(places),
        holes=tuple(sorted(holes, key=lambda hole: hole.position)),
        not_finite=not_finite,
    )


def clips_of_view(
    model: UniFormerV2,
    index: ShardIndex,
    view: View,
    *,
    clips: int,
    crops: int,
    frame_order: FrameOrder = "source",
    sampling: Sampling = "sparse",
    stride: int = 4,
    decoder: Decoder = "pyav",
) -> TestClips:
    """The test views of the clips of ``view`` as ``model`` takes them.

    For a model on an accelerator their frames, from which the views are made there: a seventh of the bytes for three
    crops, and none of the workers' time.
    """
    return TestClips(
        clips=ClipBytes(index.store, view, sha256=view.sha256),
        keys=view.keys,
        num_frames=model.config.num_frames,
        size_px=model.config.frame_size[0],
        num_clips=clips,
        num_crops=crops,
        frame_order=frame_order,
        sampling=sampling,
        stride=stride,
        decoder=decoder,
        frames_only=next(model.parameters()).device.type != "cpu",
    )


def scorable(view: View, targets: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Planned positions of the clips that have bytes and a class."""
    return tuple(int(p) for p in np.flatnonzero((view.offsets >= 0) & (targets >= 0)))


def none_scored(view: View, holes: Sequence[Hole]) -> FeedError:
    """What to raise when no clip of ``view`` was scored."""
    if holes:
        message = f"none of the {len(holes)} clips of view {view.name} could be read; the last: {holes[-1].reason}"
        return FeedError(message, hint=holes[-1].repair)
    return FeedError(f"view {view.name} has no clip with bytes and a class", hint="`k710 build` with --videos")


def ranks_of_class(scores_NK: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each clip's class among all, from 1; equal scores rank by class index, one that is no number is last."""
    own_N1 = np.take_along_axis(scores_NK, labels_N[:, None], axis=1)
    not_below_NK = ~(scores_NK < own_N1)  # among them whatever cannot be compared
    equal_after_NK = (scores_NK == own_N1) & (np.arange(scores_NK.shape[1]) > labels_N[:, None])
    places_N: npt.NDArray[np.int64] = np.maximum((not_below_NK & ~equal_after_NK).sum(axis=1), 1)
    return places_N


def scored_in_turns(model: UniFormerV2, scoring: Scoring) -> Iterator[list[ScoredBatch]]:
    """All batches but those that are done, a few at a time; every rank gets those of all ranks, in the same order.

    Every rank must take them to the end, or raise at the same turn.

    Raises:
        ScoringStoppedError: a rank was asked to stop, and not everything is scored.
    """
    world, rank = scoring.ranks.world, scoring.ranks.rank
    left = [number for number in range(scoring.num_batches) if number not in scoring.done]
    mine, rounds = left[rank::world], math.ceil(len(left) / world)
    first, length = 0, 1
    with _undisturbed(model, scoring.ranks.device), _made(scoring, mine) as batches:
        while first < rounds:
            began, after = time.perf_counter(), min(first + length, rounds)
            found = [_scored(model, scoring, number, next(batches)) for number in mine[first:after]]
            if len(found) < after - first:
                _keep_step(model, scoring, scoring.passes_per_batch)
            asked = scoring.stop is not None and scoring.stop.asked
            told = scoring.ranks.gather((found, time.perf_counter() - began, asked))
            yield sorted((batch for theirs, _, _ in told for batch in theirs), key=lambda batch: batch.number)
            first, length = after, _next_length(length, max(seconds for _, seconds, _ in told))
            if first < rounds and any(asked for _, _, asked in told):
                raise ScoringStoppedError


def _next_length(length: int, seconds: float) -> int:
    """Batches of each rank in the next turn; from what all ranks know, so that they agree on it."""
    return max(1, min(2 * length, int(length * _TURN_S / max(seconds, 1e-3))))


@contextmanager
def _undisturbed(model: UniFormerV2, device: torch.device) -> Iterator[None]:
    """The model in evaluation mode inside the block; after it, its modes and torch's generator are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    # A loader draws the seed of its workers from torch's own generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def _made(scoring: Scoring, numbers: Sequence[int]) -> Iterator[Iterator[Made]]:
    """The test views of the batches ``numbers``, in order."""
    positions = [position for number in numbers for position in scoring.positions_of(number)]
    if not positions:
        yield iter(())
        return
    with ExitStack() as running_now:
        with deaf_children():
            loader = test_loader(
                scoring.clips, positions, clips_per_batch=scoring.clips_per_batch, workers=scoring.workers
            )
            batches = running_now.enter_context(running(loader))
        yield batches


def _scored(model: UniFormerV2, scoring: Scoring, number: int, made: Made) -> ScoredBatch:
    """Mean softmax over the test views of each clip, as in the published test."""
    live = [one for one in made if not isinstance(one, Hole)]
    holes = tuple(one for one in made if isinstance(one, Hole))
    parts: list[Tensor] = []
    if live:
        views = torch.cat([_views(scoring, one) for _, one in live])
        parts = [_probabilities(model, scoring, part) for part in torch.split(views, scoring.views_per_batch)]
    _keep_step(model, scoring, scoring.passes_per_batch - len(parts))
    means_NK = torch.cat(parts).view(len(live), -1, parts[0].shape[1]).mean(dim=1) if live else torch.empty(0, 0)
    return ScoredBatch(
        number=number, positions=tuple(position for position, _ in live), scores_NK=means_NK.numpy(), holes=holes
    )


def _views(scoring: Scoring, made: Tensor) -> Tensor:
    """The test views of a clip, of which a worker made these or the frames."""
    if not scoring.clips.frames_only:
        return made
    return scoring.clips.views(made.to(scoring.ranks.device, non_blocking=True))


# Not inference_mode: what a compiled or sharded module makes and keeps under it cannot be trained with afterwards.
@torch.no_grad()
def _probabilities(model: UniFormerV2, scoring: Scoring, views_VCTHW: Tensor) -> Tensor:
    device, dtype = scoring.ranks.device, _DTYPES.get(scoring.precision)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits_VK = model(views_VCTHW.to(device, non_blocking=True))
    probabilities: Tensor = logits_VK.float().softmax(dim=1).cpu()
    return probabilities


def _keep_step(model: UniFormerV2, scoring: Scoring, passes: int) -> None:
    """Take part in the forward passes of the other ranks, which a model that is split over them waits in."""
    if scoring.ranks.world > 1 and any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        nothing_VCTHW = torch.zeros(1, 3, model.config.num_frames, *model.config.frame_size)
        for _ in range(passes):
            _probabilities(model, scoring, nothing_VCTHW)
