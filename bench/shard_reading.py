"""How quickly 8 frames of a clip are read, and what that costs in bytes and quality: ours against x264's defaults."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from shard_clips import Command, commands_of, trimmed_jobs

from k710.clips.media import EncodeConfig
from uniformerv2.data.decode import count_frames, decode_frames, decode_in_sequence
from uniformerv2.data.sampling import eval_indices

NUM_FRAMES = 8
MIN_SOURCE_FRAMES = 250

Decoder = Callable[[bytes, Sequence[int]], npt.NDArray[np.uint8]]

PRODUCT, PLAIN = "product", "plain decoding"

DECODERS: Mapping[str, Decoder] = {
    PRODUCT: decode_frames,
    PLAIN: lambda data, indices: np.stack([*map(decode_in_sequence(data, indices).__getitem__, indices)]),
}
"""The decoder of the feed, and one that is fed every packet up to the last wanted frame."""


def measure_reading(videos: Sequence[Path], folder: Path, rounds: int) -> dict[str, Any]:
    """CPU-ms to read 8 frames, bytes and PSNR of the clips of about 300 frames, in both encodings."""
    jobs = trimmed_jobs(videos, len(videos), folder, EncodeConfig())
    rows = []
    for video, job, command in zip(videos, jobs, commands_of(jobs), strict=True):
        ours, default, exact = job.target, job.target.with_suffix(".default.mp4"), job.target.with_suffix(".exact.mp4")
        num_frames = count_frames(ours.read_bytes())
        if num_frames < MIN_SOURCE_FRAMES:
            continue
        for changed in (with_default_pictures(command, default), without_loss(command, exact)):
            subprocess.run(changed, stdin=subprocess.DEVNULL, check=True)
        rows.append(
            {
                "video": video.name,
                "frames": num_frames,
                "bytes": {"sparse8": ours.stat().st_size, "default": default.stat().st_size},
                "psnr_db": {"sparse8": luma_psnr_db(ours, exact), "default": luma_psnr_db(default, exact)},
                "cpu_ms": read_ms({"sparse8": ours.read_bytes(), "default": default.read_bytes()}, rounds),
            }
        )
    if not rows:
        sys.exit(f"--videos: none has {MIN_SOURCE_FRAMES} frames or more")
    return {"rounds": rounds, "clips": rows, **summary(rows)}


def with_default_pictures(command: Command, target: Path) -> Command:
    """The same encode with the pictures that x264 chooses by itself: GOP 250, B-frames that others refer to."""
    return [*_without(command[:-2], ("-g", "-bf", "-x264-params")), f"file:{target}", "-y"]


def without_loss(command: Command, target: Path) -> Command:
    """The same frames, scaled as for the encode, and kept as they are."""
    quality = command.index("-crf")
    return [*command[:quality], "-crf", "0", *command[quality + 2 : -2], f"file:{target}", "-y"]


def read_ms(encodings: Mapping[str, bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU-ms of each decoder on each encoding, in turn; both decoders must give the same frames."""
    seconds: dict[str, dict[str, list[float]]] = {d: {e: [] for e in encodings} for d in DECODERS}
    chosen = {e: eval_indices(count_frames(data), NUM_FRAMES, 0, 1) for e, data in encodings.items()}
    for encoding, data in encodings.items():
        frames = [decoder(data, chosen[encoding]) for decoder in DECODERS.values()]
        assert all(np.array_equal(frames[0], other) for other in frames[1:])
    for _ in range(rounds):
        for encoding, data in encodings.items():
            for name, decoder in DECODERS.items():
                started = time.process_time()
                decoder(data, chosen[encoding])
                seconds[name][encoding].append(time.process_time() - started)
    return {d: {e: 1000 * median(values) for e, values in of_one.items()} for d, of_one in seconds.items()}


def luma_psnr_db(video: Path, reference: Path) -> float:
    """Peak signal-to-noise ratio of the luma of a video against the same frames without loss."""
    errors = []
    with av.open(str(video)) as seen, av.open(str(reference)) as exact:
        for one, other in zip(seen.decode(video=0), exact.decode(video=0), strict=True):
            difference = _luma(one).astype(np.int32) - _luma(other)
            errors.append(float(np.mean(difference * difference)))
    return float(10 * np.log10(255**2 / mean(errors)))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all clips: how much faster ours is, by decoder, how many times the bytes it has, and what it loses."""
    total_ms = {d: {e: sum(r["cpu_ms"][d][e] for r in rows) for e in ("sparse8", "default")} for d in DECODERS}
    return {
        "speedup": {decoder: ms["default"] / ms["sparse8"] for decoder, ms in total_ms.items()},
        "bytes_ratio": sum(r["bytes"]["sparse8"] for r in rows) / sum(r["bytes"]["default"] for r in rows),
        "psnr_loss_db": mean(r["psnr_db"]["default"] - r["psnr_db"]["sparse8"] for r in rows),
    }


def _without(command: Command, options: Sequence[str]) -> Command:
    kept = list(command)
    for option in options:
        position = kept.index(option)
        del kept[position : position + 2]
    return kept


def _luma(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    plane = frame.planes[0]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
