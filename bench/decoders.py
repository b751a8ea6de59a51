"""What frames of a clip cost with each decoder of the feed.

usage: python bench/decoders.py --videos DIR [--rounds N] [--json FILE]

The videos in DIR that have 250 frames or more in 10 s become clips twice: as `sparse8`, and with the pictures that x264
chooses by itself (GOP 250), all else equal. CPU-ms of 8 and of 32 frames of a clip in memory, as RGB, by PyAV and by
torchcodec, in turn (A B A B ...); medians of the rounds, then means over the clips. First the frames of both are
compared: they are the same, and none of the clips is left to PyAV by torchcodec.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from feed import LONG, NUM_FRAMES, Clip, encoded, machine
from shard_clips import find_videos

from uniformerv2.data.decode import Pixels, decode_by_torchcodec, decode_frames
from uniformerv2.data.sampling import eval_indices
from uniformerv2.data.torchcodec_check import require_decoder
from uniformerv2.data.torchcodec_library import load


def by_torchcodec(data: bytes, indices: Sequence[int]) -> Pixels:
    """As ``decode_frames``, by torchcodec or not at all."""
    rgb = decode_by_torchcodec(data, indices)
    return np.stack([rgb[index] for index in indices])


DECODERS: Mapping[str, Callable[[bytes, Sequence[int]], Pixels]] = {"pyav": decode_frames, "torchcodec": by_torchcodec}


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured as a Markdown table, and write it as JSON."""
    torch.set_num_threads(1)
    require_decoder("torchcodec")
    with tempfile.TemporaryDirectory() as name:
        clips = encoded(find_videos(arguments.videos), Path(name))
        rows = [
            {"encoding": encoding, "frames": frames, **measure(of_one, frames, arguments.rounds)}
            for encoding, of_one in clips.items()
            for frames in (NUM_FRAMES, LONG)
        ]
    library = load()
    result = {
        "command": " ".join(sys.argv),
        "machine": machine(),
        "torchcodec": f"{library.__version__}, FFmpeg {library.ffmpeg_major_version}",
        "rounds": arguments.rounds,
        "clips": [clip.path.name for clip in clips["sparse8"]],
        "cpu_ms": rows,
        "load_at_end": os.getloadavg()[0],
    }
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(clips: Sequence[Clip], num_frames: int, rounds: int) -> dict[str, float]:
    """CPU-ms of each decoder: medians of the rounds, means over the clips."""
    spent: dict[str, list[float]] = {name: [] for name in DECODERS}
    for clip in clips:
        data, indices = clip.path.read_bytes(), eval_indices(clip.num_source, num_frames, 0, 1)
        frames = [decoder(data, indices) for decoder in DECODERS.values()]
        assert all(np.array_equal(frames[0], other) for other in frames[1:])
        rounds_s: dict[str, list[float]] = {name: [] for name in DECODERS}
        for _ in range(rounds):
            for name, decoder in DECODERS.items():
                started = time.process_time()
                decoder(data, indices)
                rounds_s[name].append(time.process_time() - started)
        for name, seconds in rounds_s.items():
            spent[name].append(1000 * median(seconds))
    return {name: mean(values) for name, values in spent.items()}


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{len(result['clips'])} clips, {result['rounds']} rounds; torchcodec {result['torchcodec']}",
        "",
        "| encoding | frames | PyAV, CPU-ms | torchcodec, CPU-ms | torchcodec / PyAV |",
        "|---|---|---|---|---|",
    ]
    for row in result["cpu_ms"]:
        ratio = row["torchcodec"] / row["pyav"]
        spent = f"{row['pyav']:.1f} | {row['torchcodec']:.1f} | {ratio:.2f}"
        lines.append(f"| {row['encoding']} | {row['frames']} | {spent} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What frames of a clip cost with each decoder of the feed.")
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos of 10 s or more")
    parser.add_argument("--rounds", type=int, default=15, help="decodes of each clip by each decoder")
    parser.add_argument("--json", type=Path, help="file that takes all that was measured")
    main(parser.parse_args())
