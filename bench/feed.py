"""What feeding a model costs, beside the published input pipeline (`bench/published_feed.py`), in one run.

usage: python bench/feed.py --videos DIR [--rounds N] [--draws N] [--workers N] [--quick] [--json FILE]

The videos in DIR that have 250 frames or more in 10 s become clips twice: as `sparse8`, and with the pictures that x264
chooses by itself (GOP 250), all else equal. Everything is run in turn (A B A B ...); medians of the rounds:
  clip     CPU-ms of a training clip of 8 and of 32 frames, from a file in the page cache to what a batch is made of:
           ours in both modes of RandAugment (uint8, normalised on the device later), the baseline (float32, normalised)
  loader   clips/s of wall time with all workers, once each has given a batch: ours on `sparse8`, the baseline on
           default pictures
  test     CPU-ms of all test views of a clip: one decode for all, against a decode for each by our decoder (that is the
           mark), and as published
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import published_feed
import torch
from shard_clips import commands_of, find_videos, trimmed_jobs
from shard_reading import MIN_SOURCE_FRAMES, with_default_pictures
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from k710.clips.media import EncodeConfig, ffmpeg_build
from k710.shards.index import View
from k710.store import Store
from uniformerv2.data.augment import AugmentConfig, augment, normalise, test_views
from uniformerv2.data.decode import count_frames, decode_chosen
from uniformerv2.data.feed import ClipBytes, RestOfRun, TestClips, TrainClips, running, train_loader
from uniformerv2.data.order import Batching, Order
from uniformerv2.data.sampling import eval_indices, stream, train_indices

POLICY = "rand-m7-n4-mstd0.5-inc1"
FAST = AugmentConfig(randaugment=POLICY)
PUBLISHED = AugmentConfig(randaugment=POLICY, randaugment_mode="published")
SIZE_PX, NUM_FRAMES, LONG = 224, 8, 32
TEST_CLIPS, TEST_CROPS = 4, 3
MICRO_BATCH = 8
BASELINE, OURS, OURS_PUBLISHED = "baseline", "fast", "published mode"
MIN_SPEEDUP = {NUM_FRAMES: (3.0, 6.0, 9.0), LONG: (4.0, 5.0, 5.5)}
"""Both on default pictures, both on sparse8, ours on sparse8 against the baseline on default."""
MIN_LOADER, MIN_TEST = 6.0, 3.0

Make = Callable[["Clip", int, int], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One encoding of a clip."""

    path: Path
    """Where it is."""
    num_source: int
    """Frames in it, as the index of a build says."""


class BaselineClips(Dataset[tuple[Tensor, int]]):
    """The published pipeline as a data set."""

    def __init__(self, clips: Sequence[Clip], num: int) -> None:
        self._clips, self._num = clips, num

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        path = self._clips[position % len(self._clips)].path
        return published_feed.train_clip(path, NUM_FRAMES, SIZE_PX, random.Random(position)), position


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured as Markdown tables, and write it as JSON."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rounds, draws = (1, 1) if arguments.quick else (arguments.rounds, arguments.draws)
    result: dict[str, Any] = {"command": " ".join(sys.argv), "machine": machine(), "rounds": rounds, "draws": draws}
    with tempfile.TemporaryDirectory() as name:
        clips = encoded(find_videos(arguments.videos), Path(name))
        result["clips"] = {e: [[c.path.name, c.num_source, c.path.stat().st_size] for c in clips[e]] for e in clips}
        result["clip_ms"] = {str(frames): measure_clip(clips, frames, rounds, draws) for frames in (NUM_FRAMES, LONG)}
        result["normalise_ms"] = measure_normalise()
        num_batches = arguments.workers * (2 if arguments.quick else 8)
        result["loader"] = measure_loader(clips, arguments.workers, rounds, num_batches)
        result["test_ms"] = {encoding: measure_test(of_one, rounds) for encoding, of_one in clips.items()}
    result["load_at_end"] = os.getloadavg()[0]
    result["marks"] = marks(result)
    print(tables(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def encoded(videos: Sequence[Path], folder: Path) -> dict[str, list[Clip]]:
    """The long videos as clips, by encoding."""
    jobs = trimmed_jobs(videos, len(videos), folder, EncodeConfig())
    clips: dict[str, list[Clip]] = {"default": [], "sparse8": []}
    for job, command in zip(jobs, commands_of(jobs), strict=True):
        num_source = count_frames(job.target.read_bytes())
        if num_source < MIN_SOURCE_FRAMES:
            continue
        default = job.target.with_suffix(".default.mp4")
        subprocess.run(with_default_pictures(command, default), stdin=subprocess.DEVNULL, check=True)
        clips["sparse8"].append(Clip(path=job.target, num_source=num_source))
        clips["default"].append(Clip(path=default, num_source=num_source))
    if not clips["default"]:
        sys.exit(f"--videos: none has {MIN_SOURCE_FRAMES} frames or more")
    return clips


def ours(config: AugmentConfig, clip: Clip, num_frames: int, seed: int) -> Tensor:
    """A training clip, uint8, as the feed makes it."""
    rng = stream("frames", seed)
    frames_THWC = decode_chosen(clip.path.read_bytes(), clip.num_source, lambda n: train_indices(n, num_frames, rng))
    return augment(frames_THWC, config, SIZE_PX, stream("augment", seed))


def baseline(clip: Clip, num_frames: int, seed: int) -> Tensor:
    """A training clip, float32, as published."""
    return published_feed.train_clip(clip.path, num_frames, SIZE_PX, random.Random(seed))


def measure_clip(
    clips: Mapping[str, Sequence[Clip]], num_frames: int, rounds: int, draws: int
) -> dict[str, dict[str, float]]:
    """CPU-ms of a clip, by pipeline and encoding: means over clips and draws, medians over rounds."""
    pipelines: dict[str, Make] = {
        BASELINE: baseline,
        OURS: functools.partial(ours, FAST),
        OURS_PUBLISHED: functools.partial(ours, PUBLISHED),
    }
    seconds: dict[str, dict[str, list[float]]] = {p: {e: [] for e in clips} for p in pipelines}
    for number in range(-1, rounds):  # the first one warms up
        for encoding, of_one in clips.items():
            for name, make in pipelines.items():
                started = time.process_time()
                for draw in range(1 if number < 0 else draws):
                    for place, clip in enumerate(of_one):
                        make(clip, num_frames, ((number + 1) * draws + draw) * len(of_one) + place)
                if number >= 0:
                    seconds[name][encoding].append((time.process_time() - started) / (draws * len(of_one)))
        print(f"{num_frames} frames, round {number}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return {p: {e: 1000 * median(values) for e, values in of_one.items()} for p, of_one in seconds.items()}


def measure_normalise() -> float:
    """CPU-ms of what ours leaves to the device, here on the CPU, for a clip of 8 frames."""
    clip_CTHW = torch.zeros((3, NUM_FRAMES, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    seconds = []
    for _ in range(21):
        started = time.process_time()
        normalise(clip_CTHW)
        seconds.append(time.process_time() - started)
    return 1000 * median(seconds)


def measure_loader(clips: Mapping[str, Sequence[Clip]], workers: int, rounds: int, num_batches: int) -> dict[str, Any]:
    """Clips a second of both loaders, the published one on fewer batches."""
    made: dict[str, list[float]] = {BASELINE: [], OURS: []}
    for _ in range(rounds):
        made[BASELINE].append(clips_per_s(_baseline_batches(clips["default"], workers, num_batches), workers))
        made[OURS].append(clips_per_s(_our_batches(clips["sparse8"], workers, 4 * num_batches), workers))
    return {"workers": workers, "clips_per_s": {name: median(values) for name, values in made.items()}}


def clips_per_s(batches: Iterator[int], workers: int) -> float:
    """From when each worker has given its first batch to the last one; ``batches`` gives their sizes."""
    for _ in range(max(1, workers)):
        next(batches)
    started = time.perf_counter()
    num = sum(batches)
    return num / (time.perf_counter() - started)


def measure_test(clips: Sequence[Clip], rounds: int) -> dict[str, float]:
    """CPU-ms of all test views of a clip, float32, in three ways."""
    whole = TestClips(
        clips=ClipBytes(Store("/"), view_of(clips, len(clips))),
        keys=tuple(clip.path.name for clip in clips),
        num_frames=NUM_FRAMES,
        size_px=SIZE_PX,
        num_clips=TEST_CLIPS,
        num_crops=TEST_CROPS,
    )
    ways: dict[str, Callable[[int], object]] = {
        "one decode": lambda position: whole[position],
        "a decode for each": lambda position: [_one_view(clips[position], v) for v in range(TEST_CLIPS * TEST_CROPS)],
        "published": lambda position: [_published_view(clips[position], v) for v in range(TEST_CLIPS * TEST_CROPS)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            for position in range(len(clips)):
                way(position)
            seconds[name].append((time.process_time() - started) / len(clips))
    return {name: 1000 * median(values) for name, values in seconds.items()}


def view_of(clips: Sequence[Clip], num: int) -> View:
    """A view of ``num`` clips in place, which are the given ones in turn."""
    in_turn = [clips[n % len(clips)] for n in range(num)]
    return View(
        name="bench",
        release="k710",
        split="train",
        taxonomy="k710",
        digest="bench",
        data_digest="bench",
        keys=tuple(f"{n:011d}_000000_000010" for n in range(num)),
        id_hashes=np.arange(num, dtype=np.uint64),
        classes=np.zeros(num, np.int64),
        all_classes=((0,),) * num,
        shards=tuple(str(clip.path) for clip in in_turn),
        offsets=np.zeros(num, np.int64),
        sizes_bytes=np.array([clip.path.stat().st_size for clip in in_turn], np.int64),
        frames=np.array([clip.num_source for clip in in_turn], np.int64),
    )


def machine() -> dict[str, Any]:
    """What this runs on."""
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "ffmpeg": ffmpeg_build(),
        "baseline decodes with": published_feed.decoder_name(),
        "load_at_start": os.getloadavg()[0],
    }


def marks(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was asked for, what was seen, and whether that is enough."""
    found: dict[str, tuple[float, float]] = {}
    for frames, (on_default, on_sparse, across) in MIN_SPEEDUP.items():
        slow, quick = (result["clip_ms"][str(frames)][name] for name in (BASELINE, OURS))
        found[f"{frames} frames, both on default"] = (slow["default"] / quick["default"], on_default)
        found[f"{frames} frames, both on sparse8"] = (slow["sparse8"] / quick["sparse8"], on_sparse)
        found[f"{frames} frames, sparse8 against default"] = (slow["default"] / quick["sparse8"], across)
    per_s = result["loader"]["clips_per_s"]
    found["loader, sparse8 against default"] = (per_s[OURS] / per_s[BASELINE], MIN_LOADER)
    for encoding, test_ms in result["test_ms"].items():
        seen = test_ms["a decode for each"] / test_ms["one decode"]
        found[f"test views, one decode against one for each, {encoding}"] = (seen, MIN_TEST)
    return {name: {"seen": seen, "least": least, "met": seen >= least} for name, (seen, least) in found.items()}


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    of, loader = result["machine"], result["loader"]
    lines = [
        f"`{result['command']}`: {of['cores']} cores, {of['system']}, torch {of['torch']}, opencv {of['opencv']};",
        f"baseline with {of['baseline decodes with']}; medians of {result['rounds']} rounds of {result['draws']} draws "
        f"for each of {len(result['clips']['default'])} clips, "
        f"load {of['load_at_start']:.1f} at the start, {result['load_at_end']:.1f} at the end",
        "",
        "| CPU-ms of a clip | 8 frames, default | 8 frames, sparse8 | 32 frames, default | 32 frames, sparse8 |",
        "|---|---|---|---|---|",
    ]
    for name in (BASELINE, OURS, OURS_PUBLISHED):
        values = [result["clip_ms"][frames][name][e] for frames in result["clip_ms"] for e in ("default", "sparse8")]
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |")
    lines += [
        "",
        f"left to the device: normalise, {result['normalise_ms']:.2f} CPU-ms for 8 frames on a CPU",
        f"loader, {loader['workers']} workers, clips/s: "
        + ", ".join(f"{name} {value:.1f}" for name, value in loader["clips_per_s"].items()),
        *(
            f"{TEST_CLIPS} x {TEST_CROPS} test views of a clip, {encoding}, CPU-ms: "
            + ", ".join(f"{name} {value:.0f}" for name, value in test_ms.items())
            for encoding, test_ms in result["test_ms"].items()
        ),
        "",
        "| mark | seen | asked for | |",
        "|---|---|---|---|",
    ]
    for name, mark in result["marks"].items():
        met = "met" if mark["met"] else "missed"
        lines.append(f"| {name} | {mark['seen']:.2f}x | {mark['least']:g}x | {met} |")
    return "\n".join(lines)


def _our_batches(clips: Sequence[Clip], workers: int, num_batches: int) -> Iterator[int]:
    num = MICRO_BATCH * num_batches
    view = view_of(clips, num)
    train = TrainClips(
        clips=ClipBytes(Store("/"), view),
        labels=view.classes,
        num_frames=NUM_FRAMES,
        size_px=SIZE_PX,
        augment=FAST,
        seed=0,
    )
    order = Order(seed=0, view_digest="bench", num_planned=num, window=0, taken_out=np.zeros(0, np.int64))
    batching = Batching(num_clips=num, global_batch=MICRO_BATCH, micro_batch=MICRO_BATCH)
    rest = RestOfRun(order, batching, rank=0, epoch=0, step_in_epoch=0, epochs=1)
    with running(train_loader(train, rest, workers=workers, pin=False)) as batches:
        for batch in batches:
            assert not batch.holes
            yield len(batch)


def _baseline_batches(clips: Sequence[Clip], workers: int, num_batches: int) -> Iterator[int]:
    data = BaselineClips(clips, MICRO_BATCH * num_batches)
    loader = DataLoader(
        data, batch_size=MICRO_BATCH, shuffle=True, num_workers=workers, multiprocessing_context="forkserver"
    )
    for batch, _ in loader:
        yield len(batch)


def _one_view(clip: Clip, view: int) -> Tensor:
    """One test view, decoded for itself by our decoder; the centre crop, which costs what the others do."""
    chosen = view // TEST_CROPS
    frames_THWC = decode_chosen(
        clip.path.read_bytes(), clip.num_source, lambda n: eval_indices(n, NUM_FRAMES, chosen, TEST_CLIPS)
    )
    return test_views(frames_THWC, SIZE_PX, 1)


def _published_view(clip: Clip, view: int) -> Tensor:
    return published_feed.test_view(clip.path, NUM_FRAMES, SIZE_PX, view, clips=TEST_CLIPS, crops=TEST_CROPS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=lambda text: Path(text).resolve(), required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=8, help="training clips made of each clip in a round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of one draw: shows that it runs, no figures")
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
