"""Which frames and which pictures of a clip the model sees: integers only, no tensors.

Sparse sampling and test crops are those of the published training and test; dense sampling takes neighbours.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Literal

from k710.errors import FeedError

FrameOrder = Literal["source", "reversed", "shuffled"]
"""Order of a test clip's frames; all but ``source`` ask whether a model looks at time."""

_BOX_TRIES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle in a picture."""

    top: int
    """First row."""
    left: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""


def stream(*parts: int | str) -> random.Random:
    """A generator that is a function of ``parts`` alone: the same in every process and on every machine."""
    name = "|".join(map(str, parts)).encode()
    return random.Random(int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big"))


def train_indices(num_source: int, num_frames: int, rng: random.Random) -> list[int]:
    """One random frame from each of ``num_frames`` equal segments, ends included; neighbours share an end frame.

    Raises:
        FeedError: the video is empty.
    """
    segment = _segment(num_source, num_frames)
    return [min(rng.randint(round(segment * i), round(segment * (i + 1))), num_source - 1) for i in range(num_frames)]


def eval_indices(num_source: int, num_frames: int, clip: int, num_clips: int) -> list[int]:
    """Frames of test clip ``clip`` under the sparse sampling of the published UniFormerV2.

    One frame from each of ``num_frames`` equal segments; the clips are shifted inside the segment.

    Args:
        num_source: frames in the decoded video.
        num_frames: frames the model takes.
        clip: which of the ``num_clips`` test clips, from 0.
        num_clips: test clips per video.

    Returns:
        ``num_frames`` indices, non-decreasing, each in ``[0, num_source)``; short videos repeat frames.

    Raises:
        FeedError: the video is empty.
    """
    segment = _segment(num_source, num_frames)
    shift = int(segment / (num_clips + 1) * (clip + 1))
    return [min(round(segment * i) + shift, num_source - 1) for i in range(num_frames)]


def dense_train_indices(num_source: int, num_frames: int, stride: int, rng: random.Random) -> list[int]:
    """A window of frames ``stride`` apart that begins at random, every place where it fits being as likely.

    A video that is shorter than the window is taken from its first frame, and its last frame fills up the rest.

    Raises:
        FeedError: the video is empty.
    """
    spare = _spare(num_source, num_frames, stride)
    return _window(rng.randint(0, spare), num_source, num_frames, stride)


def dense_eval_indices(num_source: int, num_frames: int, stride: int, clip: int, num_clips: int) -> list[int]:
    """The window of test clip ``clip``: the first begins with the video, the last ends with it, the others between.

    One clip is the middle of the video. Short videos are filled up as in training, all clips alike.

    Raises:
        FeedError: the video is empty.
    """
    spare = _spare(num_source, num_frames, stride)
    start = spare // 2 if num_clips == 1 else round(spare * clip / (num_clips - 1))
    return _window(start, num_source, num_frames, stride)


def reorder(indices: list[int], order: FrameOrder, key: str) -> list[int]:
    """``indices`` in another order; a shuffle depends on the clip's key alone."""
    if order == "source":
        return indices
    if order == "reversed":
        return indices[::-1]
    return stream("frame-order", key).sample(indices, len(indices))


def random_resized_crop(
    height: int, width: int, *, area: tuple[float, float], aspect: tuple[float, float], rng: random.Random
) -> Box:
    """A random part of the picture: a share of its area, and width / height log-uniform in ``aspect``.

    After 10 tries that do not fit, the largest centred box with an allowed aspect (Szegedy et al., Going Deeper with
    Convolutions, section 6; the fallback is torchvision's).
    """
    if box := random_box(height, width, area=area, aspect=aspect, rng=rng):
        return box
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_width = min(width, max(1, round(height * ratio)))
    box_height = min(height, max(1, round(width / ratio)))
    return Box(top=(height - box_height) // 2, left=(width - box_width) // 2, height=box_height, width=box_width)


def random_box(
    height: int, width: int, *, area: tuple[float, float], aspect: tuple[float, float], rng: random.Random
) -> Box | None:
    """A random part of the picture as in ``random_resized_crop``; none when 10 tries do not fit."""
    low, high = (math.log(a) for a in aspect)
    for _ in range(_BOX_TRIES):
        target = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(low, high))
        box_width, box_height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = rng.randint(0, height - box_height), rng.randint(0, width - box_width)
            return Box(top=top, left=left, height=box_height, width=box_width)
    return None


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after a resize that brings the short side to ``size``; the other side is rounded down."""
    if height < width:
        return size, math.floor(width / height * size)
    return math.floor(height / width * size), size


def test_boxes(height: int, width: int, size: int, num_crops: int) -> list[Box]:
    """Square crops of a picture whose short side is ``size``: the centre, or three along the long side."""
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
    spare = max(height, width) - size
    middle = math.ceil(spare / 2)
    offsets = [middle] if num_crops == 1 else [0, middle, spare]
    tall = height > width
    return [Box(top=o if tall else 0, left=0 if tall else o, height=size, width=size) for o in offsets]


def _segment(num_source: int, num_frames: int) -> float:
    _require_frames(num_source)
    return (num_source - 1) / num_frames


def _spare(num_source: int, num_frames: int, stride: int) -> int:
    """The last frame at which a window can begin."""
    _require_frames(num_source)
    return max(0, num_source - 1 - (num_frames - 1) * stride)


def _window(start: int, num_source: int, num_frames: int, stride: int) -> list[int]:
    return [min(start + stride * i, num_source - 1) for i in range(num_frames)]


def _require_frames(num_source: int) -> None:
    if num_source < 1:
        raise FeedError("video has no frames", hint="remove the .json marker of its shard and run `k710 build` again")
