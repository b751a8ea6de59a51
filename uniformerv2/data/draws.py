"""Training samples from a fixed number of draws: epoch e has the frames, crops and changes of draw e mod ``views``.

What such a sample gives behind a frozen backbone never changes, so a clip whose features are known is not decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import torch
from torch.utils.data import Dataset

from uniformerv2.data.samples import Batch, Hole, Portion, Sample, TrainClips, collate_train

Known = Callable[[int, int, int], bool]
"""Whether the features of (position, draw, repeat) are known; it goes to the workers."""
Drawn: TypeAlias = tuple[int, list[Sample] | Hole]
"""A draw, and its samples of one clip; a sample whose features are known has no pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnBatch(Batch):
    """A micro-batch of one draw, in which samples with known features have no pixels."""

    draw: int = 0
    """Which draw the samples are of."""
    with_pixels: tuple[int, ...] = ()
    """The samples that ``clips`` holds, in order."""

    def __reduce__(self) -> tuple[Any, ...]:
        numbers = [t.tolist() for t in (self.labels, self.positions, self.repeats)]
        return _batch, (self.clips, *numbers, self.holes, self.draw, self.with_pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnClips(Dataset[Drawn]):
    """Training samples by (epoch, planned position), of which only ``views`` epochs differ in what is drawn."""

    clips: TrainClips
    """Makes the samples; a draw is what it calls an epoch."""
    views: int
    """How many draws there are."""
    known: Known | None = None
    """Which features need not be computed; None: all must be."""

    def __getitem__(self, item: tuple[int, int]) -> Drawn:
        epoch, position = item
        draw = epoch % self.views
        if not self._is_known(position, draw):
            return draw, self.clips[draw, position]
        nothing, label = torch.empty(0, dtype=torch.uint8), int(self.clips.labels[position])
        return draw, [(nothing, label, position, repeat) for repeat in range(self.clips.repeats)]

    def __getitems__(self, portion: Portion | Sequence[tuple[int, int]]) -> list[Drawn]:
        """The samples of a portion; clips that must be decoded, now and in the portions that follow, are fetched."""
        if not isinstance(portion, Portion):
            return [self[item] for item in portion]
        wanted = (*portion.items, *portion.ahead)
        self.clips.clips.expect(p for epoch, p in wanted if not self._is_known(p, epoch % self.views))
        return [self[item] for item in portion.items]

    def _is_known(self, position: int, draw: int) -> bool:
        known = self.known
        return known is not None and all(known(position, draw, repeat) for repeat in range(self.clips.repeats))


def collate_drawn(made: Sequence[Drawn]) -> DrawnBatch:
    """One micro-batch: holes set aside, pixels stacked where there are any."""
    draws = {draw for draw, _ in made}
    assert len(draws) == 1, "a micro-batch is of one epoch"
    live = [sample for _, samples in made if not isinstance(samples, Hole) for sample in samples]
    with_pixels = tuple(row for row, (pixels, *_) in enumerate(live) if pixels.numel())
    decoded = collate_train([[live[row] for row in with_pixels]])
    labels, positions, repeats = [s[1] for s in live], [s[2] for s in live], [s[3] for s in live]
    holes = tuple(samples for _, samples in made if isinstance(samples, Hole))
    return _batch(decoded.clips, labels, positions, repeats, holes, draws.pop(), with_pixels)


def values_of(batch: DrawnBatch) -> dict[str, Any]:
    """The fields of ``batch`` by name, for one that has more."""
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def _batch(
    clips: torch.Tensor,
    labels: Sequence[int],
    positions: Sequence[int],
    repeats: Sequence[int],
    holes: tuple[Hole, ...],
    draw: int,
    with_pixels: tuple[int, ...],
) -> DrawnBatch:
    numbers = [torch.tensor(n, dtype=torch.int64) for n in (labels, positions, repeats)]
    return DrawnBatch(
        clips=clips,
        labels=numbers[0],
        positions=numbers[1],
        repeats=numbers[2],
        holes=holes,
        draw=draw,
        with_pixels=with_pixels,
    )
