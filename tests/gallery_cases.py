"""A small build of odd names: what a gallery has to get through."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
UP = "../../etc/passwd"
WORDS = "Müller's 犬 {{ 7 * 7 }} & co"
PLAIN = "abseiling"
DASHED = "--all"
CLASSES = (SCRIPT, IMAGE, UP, WORDS, PLAIN, DASHED)
"""Class names, by canonical index."""
TRAIN = "-aaaaaaaaaa"
"""A video with one row in each release, of two classes; its id looks like an option."""
LOST = "lostlostlos"
"""A video without a file."""
TWICE = "twicetwicet"
"""A video with two segments, of two classes, in two releases."""
HELD_OUT = "val_val_val"
"""A held-out video that is a row of a training list, too, of another class."""
PER_CLASS = 3
"""Videos of every class besides these."""


def key_of(video: str, start_s: int = 0) -> str:
    """The clip of a video of these lists; each is a second long."""
    return f"{video}_{start_s:06d}_{start_s + 1:06d}"


def write_sources(root: Path) -> None:
    """``annotations/``, ``videos/`` and ``classes.csv`` in ``root``."""
    with (root / "classes.csv").open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(
            [
                "index",
                "name",
                "k400_index",
                "k400_name",
                "k600_index",
                "k600_name",
                "k700_index",
                "k700_name",
                "merged_because",
            ]
        )
        rows.writerows([i, name, *[i, name] * 3, ""] for i, name in enumerate(CLASSES))
    listed = [(name, f"video_{i:02d}_{n:02d}", 0) for i, name in enumerate(CLASSES) for n in range(PER_CLASS)]
    lists = {
        "kinetics400/train": [*listed[::2], (SCRIPT, TRAIN, 0), (PLAIN, LOST, 0), (UP, TWICE, 0)],
        "kinetics600/train": [*listed[::3], (WORDS, TRAIN, 0), (WORDS, TWICE, 2), (WORDS, HELD_OUT, 0)],
        "kinetics400/val": [(PLAIN, HELD_OUT, 0), (IMAGE, "valval_val_", 0)],
    }
    for name, rows_of in lists.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        split = name.rpartition("/")[2]
        with path.open("w", newline="", encoding="utf-8") as handle:
            table = csv.writer(handle, lineterminator="\n")
            table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            table.writerows([label, video, start_s, start_s + 1, split] for label, video, start_s in rows_of)
    (root / "videos").mkdir()
    keys = {key_of(video, start_s) for rows_of in lists.values() for _, video, start_s in rows_of} - {key_of(LOST)}
    for seed, key in enumerate(sorted(keys)):
        moving_THWC = np.zeros((10, 64, 96, 3), dtype=np.uint8) + np.uint8(40)
        colour = np.random.default_rng(seed).integers(90, 255, 3, dtype=np.uint8)
        for t in range(10):
            moving_THWC[t, 16:48, 8 * t : 8 * t + 24] = colour
        path = root / "videos" / f"{key}.mp4"
        encode_frames(moving_THWC, path, fps=10, config=EncodeConfig(preset="ultrafast"))


def make_build(root: Path, out: Path, *, encode: EncodeConfig | None = None, manifest_only: bool = False) -> Path:
    """The build of what ``write_sources`` wrote."""
    build(
        BuildConfig(
            annotations=root / "annotations",
            videos=() if manifest_only else (str(root / "videos"),),
            class_table=root / "classes.csv",
            out=out,
            workers=1,
            encode=encode or EncodeConfig(encode="copy"),
            manifest_only=manifest_only,
        )
    )
    return out


def write_near_duplicates(out: Path) -> None:
    """Two pairs, of which one names a clip that is not planned."""
    table = pa.table(
        {
            "key_a": [key_of("video_00_00"), key_of("video_01_01")],
            "key_b": [key_of("video_01_00"), key_of("not_planned")],
            "score": [0.987654, 0.5],
        }
    )
    pq.write_table(table, out / "near_duplicates.parquet")
