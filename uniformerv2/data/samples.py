"""One clip to what the model takes: read, decoded, augmented; what fails is a hole.

Axes: N samples (clip x repeat), C channel, T frame, H height, W width, V test view.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from k710.errors import FeedError
from uniformerv2.data.augment import AugmentConfig, all_test_views, augment, normalise
from uniformerv2.data.decode import Decoder, decode_chosen
from uniformerv2.data.reading import ClipBytes
from uniformerv2.data.sampling import (
    FrameOrder,
    dense_eval_indices,
    dense_train_indices,
    eval_indices,
    reorder,
    short_side_size,
    stream,
    test_boxes,
    train_indices,
)
from uniformerv2.data.transfer import in_shared_memory, stacked

Sampling = Literal["sparse", "dense"]
"""One frame from each equal part of the clip, or neighbours at a stride."""
Sample: TypeAlias = tuple[Tensor, int, int, int]
"""Pixels uint8 [C, T, H, W], class, position, repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hole:
    """A clip that failed at read time."""

    position: int
    """Planned position in the view."""
    reason: str
    """What the reader or decoder said."""
    shard: str = ""
    """File that has the clip, of the build or in place; empty: unknown."""
    foreign: bool = False
    """The file is a shard that was not built here."""

    @property
    def place(self) -> str:
        """Where the clip is, for a message; the reason names a sample of a foreign shard."""
        if self.foreign:
            return f"in {self.shard}"
        return f"at position {self.position}{f' in {self.shard}' if self.shard else ''}"

    @property
    def repair(self) -> str:
        """What to do about damaged clips, for a hint."""
        if self.foreign:
            return f"replace {self.shard} by a sound copy"
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

    def __reduce__(self) -> tuple[Any, ...]:
        # A tensor between processes is a file in shared memory and a descriptor: too much for a few numbers.
        numbers = [t.tolist() for t in (self.labels, self.positions, self.repeats)]
        return _batch, (self.clips, *numbers, self.holes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """What a worker makes next, and what it will be asked for after that."""

    items: Sequence[Any]
    """Items of the data set."""
    ahead: Sequence[Any]
    """Items of the portions that follow, in order; to be read, not made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmenting:
    """How the bytes of a clip become training samples: a function of them, the seed, the epoch and the position."""

    num_frames: int
    """Frames that the model takes."""
    size_px: int
    """Side of the crop that the model takes."""
    augment: AugmentConfig
    """Changes to pictures."""
    seed: int
    """Of the run."""
    repeats: int = 1
    """Augmentations of one decoded clip."""
    sampling: Sampling = "sparse"
    """Which frames."""
    stride: int = 4
    """Distance of neighbouring frames under ``dense`` sampling."""
    decoder: Decoder = "pyav"
    """Library that decodes."""

    def samples(self, data: bytes, num_source: int, *, label: int, epoch: int, position: int) -> list[Sample]:
        """Every repeat of the clip in ``data``, which has ``num_source`` frames; -1: unknown.

        Raises:
            FeedError: it cannot be decoded.
        """
        rng = stream("frames", self.seed, epoch, position)
        frames_THWC = decode_chosen(data, num_source, lambda num: self._indices(num, rng), self.decoder)
        return [
            (self._augmented(frames_THWC, epoch, position, repeat), label, position, repeat)
            for repeat in range(self.repeats)
        ]

    def _indices(self, num_source: int, rng: random.Random) -> list[int]:
        if self.sampling == "dense":
            return dense_train_indices(num_source, self.num_frames, self.stride, rng)
        return train_indices(num_source, self.num_frames, rng)

    def _augmented(self, frames_THWC: npt.NDArray[np.uint8], epoch: int, position: int, repeat: int) -> Tensor:
        rng = stream("augment", self.seed, epoch, position, repeat)
        return augment(frames_THWC, self.augment, self.size_px, rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainClips(Dataset[list[Sample] | Hole]):
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
    sampling: Sampling = "sparse"
    stride: int = 4
    """Distance of neighbouring frames under ``dense`` sampling."""
    decoder: Decoder = "pyav"
    """Library that decodes."""

    def __getitem__(self, item: tuple[int, int]) -> list[Sample] | Hole:
        epoch, position = item
        augmenting = Augmenting(
            num_frames=self.num_frames,
            size_px=self.size_px,
            augment=self.augment,
            seed=self.seed,
            repeats=self.repeats,
            sampling=self.sampling,
            stride=self.stride,
            decoder=self.decoder,
        )
        data, num_source = b"", int(self.clips.frames[position])
        try:
            data = self.clips.read(position)
            return augmenting.samples(
                data, num_source, label=int(self.labels[position]), epoch=epoch, position=position
            )
        except FeedError as error:
            return _hole(self.clips, position, data, error)

    def __getitems__(self, portion: Portion | Sequence[tuple[int, int]]) -> list[list[Sample] | Hole]:
        """The samples of a portion; the clips of those that follow are fetched meanwhile."""
        if not isinstance(portion, Portion):
            return [self[item] for item in portion]
        self.clips.expect(position for _, position in (*portion.items, *portion.ahead))
        return [self[item] for item in portion.items]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestClips(Dataset[tuple[int, Tensor] | Hole]):
    """All test views of a clip, float32 [V, C, T, H, W], by planned position; test clip v // crops, crop v % crops.

    Or its frames, from which ``views`` makes the same: three crops of every frame as floats are seven times the bytes.
    """

    __test__ = False
    clips: ClipBytes
    keys: tuple[str, ...]
    num_frames: int
    size_px: int
    num_clips: int
    num_crops: int
    frame_order: FrameOrder = "source"
    sampling: Sampling = "sparse"
    stride: int = 4
    """Distance of neighbouring frames under ``dense`` sampling."""
    decoder: Decoder = "pyav"
    """Library that decodes."""
    frames_only: bool = False
    """Give the decoded frames, uint8 [test clips x T, H, W, C]."""

    def __getitem__(self, position: int) -> tuple[int, Tensor] | Hole:
        data = b""
        try:
            data = self.clips.read(position)
            frames_THWC = decode_chosen(
                data, int(self.clips.frames[position]), lambda n: self._all_indices(n, position), self.decoder
            )
        except FeedError as error:
            return _hole(self.clips, position, data, error)
        frames = torch.from_numpy(frames_THWC)
        return position, frames if self.frames_only else self.views(frames)

    def views(self, frames_THWC: Tensor) -> Tensor:
        """The test views of decoded frames, on the device where these are.

        On a CPU the very values of the published order of operations; elsewhere the last digits are the device's.
        """
        clips = frames_THWC.view(self.num_clips, self.num_frames, *frames_THWC.shape[1:])
        if frames_THWC.device.type == "cpu":
            return all_test_views(frames_THWC.numpy(), self.size_px, num_clips=self.num_clips, num_crops=self.num_crops)
        return torch.cat([_views_on_device(clip, self.size_px, self.num_crops) for clip in clips])

    def __getitems__(self, portion: Portion | Sequence[int]) -> list[tuple[int, Tensor] | Hole]:
        """The test views of a portion; the clips of those that follow are fetched meanwhile."""
        if not isinstance(portion, Portion):
            return [self[position] for position in portion]
        self.clips.expect((*portion.items, *portion.ahead))
        return [self[position] for position in portion.items]

    def _all_indices(self, num_source: int, position: int) -> list[int]:
        chosen: list[int] = []
        for clip in range(self.num_clips):
            picked = self._indices(num_source, clip)
            chosen += reorder(picked, self.frame_order, self.keys[position])
        return chosen

    def _indices(self, num_source: int, clip: int) -> list[int]:
        if self.sampling == "dense":
            return dense_eval_indices(num_source, self.num_frames, self.stride, clip, self.num_clips)
        return eval_indices(num_source, self.num_frames, clip, self.num_clips)


def _views_on_device(frames_THWC: Tensor, size: int, num_crops: int) -> Tensor:
    """As ``test_views``, in operations that every device has."""
    height, width = short_side_size(frames_THWC.shape[1], frames_THWC.shape[2], size)
    pixels_TCHW = frames_THWC.permute(0, 3, 1, 2).float()
    clip_TCHW = F.interpolate(pixels_TCHW, (height, width), mode="bilinear", align_corners=False)
    clip_CTHW = normalise(clip_TCHW).transpose(0, 1)
    boxes = test_boxes(height, width, size, num_crops)
    return torch.stack([clip_CTHW[:, :, b.top : b.top + size, b.left : b.left + size] for b in boxes])


def collate_train(made: Sequence[list[Sample] | Hole]) -> Batch:
    """One micro-batch: holes set aside, live samples stacked."""
    holes = tuple(m for m in made if isinstance(m, Hole))
    live = [sample for m in made if not isinstance(m, Hole) for sample in m]
    clips, labels, positions, repeats = zip(*live, strict=True) if live else ((), (), (), ())
    pixels = stacked(clips) if clips else torch.empty(0, dtype=torch.uint8)
    return _batch(pixels, labels, positions, repeats, holes)


def collate_test(made: Sequence[tuple[int, Tensor] | Hole]) -> list[tuple[int, Tensor] | Hole]:
    """The clips of a batch as they are."""
    return [one if isinstance(one, Hole) else (one[0], in_shared_memory(one[1])) for one in made]


def _batch(
    clips: Tensor, labels: Sequence[int], positions: Sequence[int], repeats: Sequence[int], holes: tuple[Hole, ...]
) -> Batch:
    numbers = [torch.tensor(n, dtype=torch.int64) for n in (labels, positions, repeats)]
    return Batch(clips=clips, labels=numbers[0], positions=numbers[1], repeats=numbers[2], holes=holes)


def _hole(clips: ClipBytes, position: int, data: bytes, error: FeedError) -> Hole:
    """The hole that a clip leaves; bytes that were read and are none of the index's explain what the decoder said."""
    other = data and clips.differs(position, data)
    reason = f"{error.message}: its bytes are not those that the index was made of" if other else error.message
    return Hole(position=position, reason=reason, shard=clips.shard_of(position))
