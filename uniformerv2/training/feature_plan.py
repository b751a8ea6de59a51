"""Whether a run keeps features of its frozen backbone, where, and whether there is room for them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from k710 import atomic
from k710.config import to_mapping
from k710.errors import UsageError
from k710.shards.index import View
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import Recipe
from uniformerv2.data.draws import DrawnClips
from uniformerv2.data.order import Positions
from uniformerv2.models.uniformerv2_config import BACKBONE_NAMES
from uniformerv2.training.digest import content_digest
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.feature_store import SCHEMA_VERSION, FeatureStore, digest_of
from uniformerv2.training.feeds import Feed, IndexedFeed
from uniformerv2.training.frozen_features import FrozenFeatures
from uniformerv2.training.scaling import dtype_of
from uniformerv2.training.task import Task

FEATURE_FOLDER = "features"
"""In the run folder; nothing in it is needed to go on."""
_OF_NO_PICTURE = {
    *("view", "global_batch", "micro_batch", "repeats", "window", "workers", "max_hole_fraction"),
    "feature_views",
}
"""Settings of the feed that change no sample of a draw."""
HEADER_BYTES = 1024
"""At most, of a file of features."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FeaturePlan:
    """The feed of a run whose samples are drawn anew only so often, and its frozen backbone."""

    feed: IndexedFeed
    """Makes pixels of what is not kept."""
    features: FrozenFeatures
    """Computes, keeps and reads."""


def plan_features(
    task: Task, feed: Feed, model: UniFormerV2, ranks: Ranks, *, epoch: int, say: Callable[[str], None]
) -> FeaturePlan | None:
    """How the features of ``model``, on the device of this rank, are kept from ``epoch`` on; None: they are not.

    Raises:
        UsageError: they would not fit on the disk.
    """
    epochs = range(epoch, task.recipe.optim.epochs)
    if not isinstance(feed, IndexedFeed) or not isinstance(feed.clips, DrawnClips) or not epochs:
        return None
    store, clips = None, feed.clips.clips
    if task.recipe.runtime.keep_features:
        store = feature_store(task.out / FEATURE_FOLDER, task.recipe, feed.view, model, ranks)
        feed = dataclasses.replace(feed, clips=dataclasses.replace(feed.clips, known=store.has))
        say(ranks.from_first(lambda: _prepared(store, task.recipe, feed.order.epoch(0), epochs, ranks.device)))
    return FeaturePlan(feed=feed, features=FrozenFeatures(model, ranks.device, clips, store))


def feature_store(folder: Path, recipe: Recipe, view: View, model: UniFormerV2, ranks: Ranks) -> FeatureStore:
    """The store of what ``model`` makes of ``view``: another backbone, precision or sample has other files."""
    weights = {name: p.detach().cpu() for name, p in model.named_parameters() if name.startswith(BACKBONE_NAMES)}
    data = {name: value for name, value in to_mapping(recipe.data).items() if name not in _OF_NO_PICTURE}
    settings = {
        "version": SCHEMA_VERSION,
        "weights": content_digest(weights),
        "model": to_mapping(recipe.model),
        "data": data,
        "augment": to_mapping(recipe.augment),
        "seed": recipe.seed,
        "precision": str(dtype_of(recipe.runtime.precision, ranks.device)),
        "device": ranks.device.type,
    }
    clips = tuple(f"{key} {_known_of(view, position)}" for position, key in enumerate(view.keys))
    return FeatureStore(folder=folder, digest=digest_of(settings), clips=clips)


def feature_bytes(config: UniFormerV2Config, dtype: torch.dtype) -> int:
    """Size of the features of one clip: all tokens after each layer that a global block looks at, and a mean token."""
    rows, columns = config.grid
    num_frames = config.num_frames // 2 if config.temporal_downsample else config.num_frames
    num_tokens = len(config.global_layers) * num_frames * (1 + rows * columns) + 1
    return num_tokens * config.width * dtype.itemsize


def _known_of(view: View, position: int) -> str:
    """What is known of the bytes of a clip."""
    if view.sha256 is not None and view.sha256[position].any():
        return bytes(view.sha256[position]).hex()
    return f"{view.data_digest} {view.sizes_bytes[position]}"


def _prepared(store: FeatureStore, recipe: Recipe, clips: Positions, epochs: range, device: torch.device) -> str:
    """What the files take, in a sentence; those that are there are counted, and what a killed run left is removed."""
    with atomic.writable(store.folder):
        store.remove_leftovers()
        store.folder.mkdir(parents=True, exist_ok=True)
    draws, repeats = sorted({e % recipe.data.feature_views for e in epochs}), range(recipe.data.repeats)
    there = sum(store.has(p, draw, repeat) for p in clips.tolist() for draw in draws for repeat in repeats)
    entry = feature_bytes(recipe.model, dtype_of(recipe.runtime.precision, device)) + HEADER_BYTES
    total = len(clips) * len(draws) * len(repeats)
    needed, free = (total - there) * entry, shutil.disk_usage(store.folder).free
    counts = {"clip": len(clips), "draw": len(draws), "repeat": len(repeats)}
    of_what = " x ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for name, number in counts.items())
    what = f"{_size(entry)} per clip, {_size(total * entry)} in all: {of_what}"
    if needed > free:
        raise UsageError(
            f"{store.folder}: features would take {what}; {_size(needed)} of it are not there yet, and "
            f"{_size(free)} are free",
            hint="make room, lower data.feature_views, or compute them in every epoch with "
            "--set runtime.keep_features=false",
        )
    return f"features: {what}"


def _size(num_bytes: float) -> str:
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 1000:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1000:.1f} TB"
