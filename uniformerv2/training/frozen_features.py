"""What the frozen backbone makes of a run's samples: computed clip by clip, kept in files, read ahead of the loop.

A clip's features depend in their last bits on the batch that they are computed in. Under ``data.feature_views`` that
batch is always the sample alone, so features that were kept are those that would be computed, bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from uniformerv2 import UniFormerV2
from uniformerv2.data.augment import normalise
from uniformerv2.data.draws import DrawnBatch, values_of
from uniformerv2.data.feed import Batch, Hole, TrainClips
from uniformerv2.models.uniformerv2 import Features
from uniformerv2.training.feature_store import DamagedFeaturesError, FeatureStore

_THREADS = 4
"""Files that are read or written at a time."""
_BATCHES_AHEAD = 1
"""Micro-batches whose files are read while the one before is computed."""
_WRITES_AHEAD = 8
"""Files that may wait to be written; each holds the features of a clip in memory."""
_NAMED = 100
"""Damaged files that are named; the others are only counted."""

Say = Callable[[str], None]
"""Tells the user a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBatch(DrawnBatch):
    """A micro-batch with the features that were kept of its samples."""

    kept: Mapping[int, Features] = field(default_factory=dict)
    """By sample, in host memory, each of one clip; all other samples have pixels."""


class FrozenFeatures:
    """The frozen backbone of a run."""

    def __init__(self, model: UniFormerV2, device: torch.device, clips: TrainClips, store: FeatureStore | None) -> None:
        """Of ``model`` on ``device``; ``clips`` make samples anew, and without a ``store`` nothing is kept."""
        self.damaged = 0
        """Files that were damaged; their features were computed again."""
        self._model, self._device, self._clips, self._store = model, device, clips, store
        self._say: Say = _silent
        self._pool: ThreadPoolExecutor | None = None
        self._writes: deque[Future[None]] = deque()
        self._can_write = True

    def of(self, batch: Batch) -> Features:
        """The features of a micro-batch on the device, computed where none were kept; kept from now on."""
        assert isinstance(batch, DrawnBatch)
        kept = batch.kept if isinstance(batch, FeatureBatch) else {}
        pixels = dict(zip(batch.with_pixels, batch.clips, strict=True))
        parts = [
            _on(self._device, kept[row]) if row in kept else self._computed(batch, row, pixels[row])
            for row in range(len(batch))
        ]
        layers = zip(*(part.seen_BTLC for part in parts), strict=True)
        return Features(
            seen_BTLC=tuple(torch.cat(layer) for layer in layers),
            class_BC=torch.cat([part.class_BC for part in parts]),
        )

    @contextmanager
    def batches(self, made: Iterator[Batch], say: Say) -> Iterator[Iterator[Batch]]:
        """The micro-batches with what was kept of them; when the block ends, all that was computed is written."""
        if self._store is None:
            yield made
            return
        self._say = say
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="features") as self._pool:
            yield self._read_ahead(made)
            while self._writes:
                self._wait_for_a_write()

    def _computed(self, batch: DrawnBatch, row: int, pixels_CTHW: torch.Tensor) -> Features:
        clip_1CTHW = normalise(pixels_CTHW[None].to(self._device, non_blocking=True))
        features = self._model.features(clip_1CTHW)
        if self._store is not None and self._pool is not None and self._can_write:
            on_host = _on(torch.device("cpu"), features)
            self._writes.append(self._pool.submit(self._store.write, self._path(batch, row), on_host))
            while len(self._writes) > _WRITES_AHEAD:
                self._wait_for_a_write()
        return features

    def _wait_for_a_write(self) -> None:
        try:
            self._writes.popleft().result()
        except OSError as error:
            # No step needs these files: the run goes on, and computes again what it could not keep.
            if self._can_write:
                self._say(f"no more features are kept, what is not there is computed in every epoch: {error}")
            self._can_write = False

    def _read_ahead(self, made: Iterator[Batch]) -> Iterator[Batch]:
        coming: deque[tuple[DrawnBatch, dict[int, Future[Features | None]]]] = deque()
        for batch in made:
            assert isinstance(batch, DrawnBatch)
            coming.append((batch, self._reads(batch)))
            if len(coming) > _BATCHES_AHEAD:
                yield self._ready(*coming.popleft())
        while coming:
            yield self._ready(*coming.popleft())

    def _reads(self, batch: DrawnBatch) -> dict[int, Future[Features | None]]:
        """Begin to read what the samples without pixels need."""
        assert self._store is not None
        assert self._pool is not None
        without = [row for row in range(len(batch)) if row not in batch.with_pixels]
        return {row: self._pool.submit(self._store.read, self._path(batch, row)) for row in without}

    def _ready(self, batch: DrawnBatch, reads: Mapping[int, Future[Features | None]]) -> FeatureBatch:
        found = {row: self._found(reading) for row, reading in reads.items()}
        kept = {row: features for row, features in found.items() if features is not None}
        ready = FeatureBatch(**values_of(batch), kept=kept)
        return ready if len(kept) == len(found) else self._decoded(ready, found.keys() - kept.keys())

    def _found(self, reading: Future[Features | None]) -> Features | None:
        try:
            return reading.result()
        except DamagedFeaturesError as error:
            self.damaged += 1
            if self.damaged <= _NAMED:
                self._say(f"{error}: computed again")
            return None

    def _decoded(self, batch: FeatureBatch, lost: set[int]) -> FeatureBatch:
        """The micro-batch with pixels of the samples ``lost``, as if their features had never been kept."""
        positions = batch.positions.tolist()
        made = {p: self._clips[batch.draw, p] for p in sorted({positions[row] for row in lost})}
        pixels = dict(zip(batch.with_pixels, batch.clips, strict=True))
        rows = [row for row in range(len(batch)) if not isinstance(made.get(positions[row]), Hole)]
        for row in lost.intersection(rows):
            samples = made[positions[row]]
            assert not isinstance(samples, Hole)
            pixels[row] = samples[int(batch.repeats[row])][0]
        chosen = torch.tensor(rows, dtype=torch.int64)
        stack = [pixels[row] for row in rows if row in pixels]
        return FeatureBatch(
            clips=torch.stack(stack) if stack else torch.empty(0, dtype=torch.uint8),
            labels=batch.labels[chosen],
            positions=batch.positions[chosen],
            repeats=batch.repeats[chosen],
            holes=(*batch.holes, *(m for m in made.values() if isinstance(m, Hole))),
            draw=batch.draw,
            with_pixels=tuple(i for i, row in enumerate(rows) if row in pixels),
            kept={i: batch.kept[row] for i, row in enumerate(rows) if row in batch.kept},
        )

    def _path(self, batch: DrawnBatch, row: int) -> Path:
        assert self._store is not None
        return self._store.path(int(batch.positions[row]), batch.draw, int(batch.repeats[row]))


def _on(device: torch.device, features: Features) -> Features:
    seen = tuple(x.to(device, non_blocking=device.type != "cpu") for x in features.seen_BTLC)
    return Features(seen_BTLC=seen, class_BC=features.class_BC.to(device))


def _silent(_: str) -> None:
    """Tell nobody."""
