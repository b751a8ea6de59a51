"""WebDataset shards of anybody, read from their start to their end through the ``webdataset`` package.

There is no index: which clips there are is known only after reading them, and what a process has read so far is nowhere
written down. So a run goes on at the start of an epoch, and the batches of an epoch depend on the number of processes
and workers. Shards that ``k710 build`` wrote are better read through their index.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from k710.errors import FeedError, K710Error, UsageError
from k710.store import Store
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.decode import Decoder
from uniformerv2.data.feed import StartMethod, running, worker_settings
from uniformerv2.data.samples import Augmenting, Batch, Hole, Sample, Sampling, collate_train
from uniformerv2.data.sampling import stream
from uniformerv2.data.transfer import Refusal

RESUME_NOTE = "streamed shards have no index: a run that was stopped goes on at the start of the epoch it was in"
"""What a run that streams says when it begins."""

_VIDEO_SUFFIXES = ("mp4", "webm", "mkv", "avi", "mov", "m4v")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """Which foreign shards are read, and how."""

    shards: tuple[str, ...]
    """Paths or URLs of tars; each may hold ``{000..099}`` and ``*``."""
    num_classes: int
    """Labels are integers from 0 to below this, in the order of the model's rows."""
    clips_per_epoch: int
    """Clips of all processes after which an epoch ends."""
    video_suffixes: tuple[str, ...] = _VIDEO_SUFFIXES
    """The first of these that a sample has is its video."""
    taxonomy: str = ""
    """Whose classes these are: shards of a build, whose ``json`` has a label in each, are read by it."""
    json_field: str = "label"
    """Where the label is in ``json``, for other samples without ``cls``."""
    window_clips: int = 256
    """Encoded clips that each worker holds and draws the next one from."""
    repeats: int = 1
    """Augmentations of one decoded clip."""
    sampling: Sampling = "sparse"
    """Which frames."""
    stride: int = 4
    """Distance of neighbouring frames under ``dense`` sampling."""
    decoder: Decoder = "pyav"
    """Library that decodes."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise UsageError("--stream names no shards")
        for name in ("num_classes", "clips_per_epoch", "window_clips", "repeats", "stride"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


def stream_loader(
    config: StreamConfig,
    *,
    num_frames: int,
    size_px: int,
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    rank: int,
    world: int,
    micro_batch: int,
    workers: int,
    start: StartMethod = "forkserver",
) -> DataLoader[Batch]:
    """The micro-batches of a rank in one epoch, for ``feed.running``; all ranks have the same number of them.

    Shards are dealt to ranks and their workers, anew in each epoch by (seed, epoch). What a worker's shards hold beyond
    its share is left out of this epoch, and a worker whose shards hold less begins them again.

    Raises:
        UsageError: no shards, fewer shards than processes, or no batch in an epoch.
        FeedError: the place of the shards cannot be listed.
    """
    shards = expand(config.shards)
    batches = config.clips_per_epoch // (micro_batch * world)
    if not batches:
        raise UsageError(
            f"an epoch of {config.clips_per_epoch} clips has no batch of {micro_batch} for each of {world} process(es)",
            hint="lower data.micro_batch or the number of devices",
        )
    if len(shards) < world:
        raise UsageError(
            f"{len(shards)} shard(s) cannot be dealt to {world} processes", hint=f"use --devices {len(shards)} or fewer"
        )
    # A worker without a shard would have nothing to give, and its turn would never come to an end.
    workers = min(workers, len(shards) // world, batches)
    clips = _StreamedClips(
        config=config,
        shards=tuple(stream("shards", seed, epoch).sample(shards, len(shards))[rank::world]),
        augmenting=Augmenting(
            num_frames=num_frames,
            size_px=size_px,
            augment=augment,
            seed=seed,
            repeats=config.repeats,
            sampling=config.sampling,
            stride=config.stride,
            decoder=config.decoder,
        ),
        epoch=epoch,
        micro_batch=micro_batch,
        batches=batches,
    )
    return DataLoader(clips, batch_size=None, **worker_settings(workers, start))


def rest_of_stream(
    make: Callable[[int], DataLoader[Batch]],
    *,
    epochs: range,
    batches: int,
    started: Callable[[DataLoader[Batch]], AbstractContextManager[Iterator[Batch]]] = running,
) -> Generator[Batch]:
    """The first ``batches`` micro-batches of each of ``epochs``, whose loaders ``make`` gives and ``started`` runs.

    For ``contextlib.closing``, which ends the workers that run.
    """
    for epoch in epochs:
        with started(make(epoch)) as made:
            yield from itertools.islice(made, batches)


def stream_digest(config: StreamConfig) -> str:
    """sha256 over what is streamed, by name: the nearest that there is to the digest of a view."""
    names = json.dumps([sorted(expand(config.shards)), config.num_classes, config.clips_per_epoch])
    return hashlib.sha256(names.encode()).hexdigest()


def expand(patterns: Sequence[str]) -> list[str]:
    """The shards that ``patterns`` name, without repeats, in order.

    Raises:
        UsageError: a pattern fits nothing, or ``webdataset`` is not installed.
    """
    expand_urls = _webdataset().shardlists.expand_urls
    shards: list[str] = []
    for pattern in patterns:
        found = [shard for name in expand_urls(pattern) for shard in _matching(name)]
        if not found:
            raise UsageError(f"--stream {pattern}: no such shard", hint="quote the pattern; `*` stays within a folder")
        shards += found
    return list(dict.fromkeys(shards))


def _matching(name: str) -> list[str]:
    wild = _WILD.search(name)
    if not wild:
        return [name]
    root = name[: wild.start()].rpartition("/")[0]
    store = _store(root, name)
    return [store.url(path) for path in store.glob(name[len(root) :].lstrip("/"))]


def _store(root: str, name: str) -> Store:
    return Store(root or ("/" if name.startswith("/") else "."))


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise UsageError("--stream needs the package webdataset", hint="pip install 'k710[stream]'") from error
    return webdataset


@dataclass(frozen=True, kw_only=True, slots=True)
class _StreamedClips(IterableDataset[Batch]):
    config: StreamConfig
    shards: tuple[str, ...]
    """Of this rank, in the order of the epoch."""
    augmenting: Augmenting
    epoch: int
    micro_batch: int
    batches: int
    """Of this rank."""

    def __iter__(self) -> Iterator[Batch | Refusal]:  # type: ignore[override]
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        share = len(range(number, self.batches, workers))
        clips = self._clips(self.shards[number::workers])
        try:
            for _ in range(share):
                yield collate_train(list(itertools.islice(clips, self.micro_batch)))
        except K710Error as error:
            yield Refusal(message=error.message, hint=error.hint)

    def _clips(self, shards: tuple[str, ...]) -> Iterator[list[Sample] | Hole]:
        wds, config, seed = _webdataset(), self.config, self.augmenting.seed
        for turn in itertools.count():
            rng = stream("stream-window", seed, self.epoch, turn, *shards)
            read = _samples(wds, rng.sample(shards, len(shards)))
            shuffled = wds.shuffle(config.window_clips, initial=config.window_clips, rng=rng)(read)
            first = next(shuffled, None)
            if first is None:
                raise FeedError(f"{shards[0]}: no samples in it, nor in the {len(shards) - 1} others of this worker")
            for sample in itertools.chain([first], shuffled):
                yield self._made(sample)

    def _made(self, sample: dict[str, Any]) -> list[Sample] | Hole:
        shard, key = sample["__url__"], sample["__key__"]
        position = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 2
        suffix = next((s for s in self.config.video_suffixes if s in sample), None)
        if suffix is None:
            raise FeedError(
                f"{shard}: sample {key} has no video, only {', '.join(s for s in sample if not s.startswith('__'))}",
                hint=f"a sample is KEY.{self.config.video_suffixes[0]} and KEY.cls or KEY.json",
            )
        label = label_of(sample, self.config, where=f"{shard}: sample {key}")
        try:
            return self.augmenting.samples(sample[suffix], -1, label=label, epoch=self.epoch, position=position)
        except FeedError as error:
            return Hole(position=position, reason=f"sample {key}: {error.message}", shard=shard, foreign=True)


def label_of(sample: dict[str, Any], config: StreamConfig, *, where: str) -> int:
    """The class of a sample, from ``cls`` or from ``json``.

    Raises:
        FeedError: there is none, it is no integer, or not one of the model's classes.
    """
    hint = f"labels are integers from 0 to {config.num_classes - 1}, in the order of the model's classes"
    try:
        labels = _labels_of_build(sample) if config.taxonomy else None
        if labels is not None:
            label = labels[config.taxonomy]
            value: Any = label["index"] if isinstance(label, dict) else label
        elif "cls" in sample:
            text = sample["cls"].decode("ascii").strip()
            value = int(text) if re.fullmatch(r"[+-]?\d+", text) else text
        else:
            value = json.loads(sample["json"])[config.json_field]
    except KeyError as error:
        raise FeedError(f"{where} has no label: no {error.args[0]!r}", hint=hint) from error
    except (ValueError, TypeError) as error:
        raise FeedError(f"{where}: the label cannot be read ({error})", hint=hint) from error
    if isinstance(value, bool) or not isinstance(value, int):
        raise FeedError(f"{where}: the label is {value!r}, not an integer", hint=hint)
    if not 0 <= value < config.num_classes:
        raise FeedError(f"{where}: the label {value} is not one of {config.num_classes} classes", hint=hint)
    return value


def _labels_of_build(sample: dict[str, Any]) -> dict[str, Any] | None:
    """The labels of a sample that `k710 build` wrote, whose ``cls`` is the merged class, whatever is trained."""
    try:
        facts = json.loads(sample.get("json", b""))
    except ValueError:
        return None
    labels = facts.get("labels") if isinstance(facts, dict) else None
    return labels if isinstance(labels, dict) else None


def _samples(wds: Any, shards: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Raw samples of ``shards``, one shard after the other.

    Raises:
        FeedError: a shard is missing, torn or no tar.
    """
    for shard in shards:
        root, _, name = shard.rpartition("/")
        expand_tar: Callable[..., Iterator[Any]] = wds.tariterators.tar_file_expander
        with _store(root, shard).open(name) as source:
            try:
                yield from wds.tariterators.group_by_keys(expand_tar([{"url": shard, "stream": source}]))
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise FeedError(
                    f"{shard}: not a sound tar ({_torn(error)})",
                    hint="fetch the shard again, or leave it out of --stream",
                ) from error


def _torn(error: Exception) -> str:
    """What is wrong with a tar, without the reader that ``webdataset`` names behind it."""
    what = str(error.args[0] if error.args else type(error).__name__).partition(" @ ")[0]
    return f"it is cut off: {what}" if what in ("unexpected end of data", "truncated header") else what
