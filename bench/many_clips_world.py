"""Lists of three releases that plan as many clips as wanted, and a tiny video for each."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k710.clips.media import EncodeConfig, encode_frames
from k710.labels import load_labels

RELEASES = {"kinetics400": 4, "kinetics600": 2, "kinetics700": 1}
"""Folder of the lists of each release, and of how many videos it names one."""
_HELD_OUT = 10
_FRAMES, _FPS, _SIDE_PX = 10, 1, 32
_SEGMENT_S = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A clip as the lists name it."""

    number: int
    """From 0."""
    video_id: str
    """11 characters, as of a real one."""
    label: str
    """A class that all releases call the same."""

    @property
    def split(self) -> str:
        """In every release: one in ten is held out."""
        return "val" if self._drawn("split") % _HELD_OUT == 0 else "train"

    @property
    def start_s(self) -> int:
        """Where the segment begins."""
        return self.number % 200

    @property
    def file_name(self) -> str:
        """Of the trimmed clip."""
        return f"{self.video_id}_{self.start_s:06d}_{self.start_s + _SEGMENT_S:06d}.mp4"

    def is_in(self, release: str) -> bool:
        """Whether a release names it; the newest names all."""
        return self._drawn("release") % RELEASES[release] == 0

    def _drawn(self, what: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{what} {self.video_id}".encode()).digest()[:4])


def write_world(folder: Path, num: int, num_drawn: int) -> None:
    """Write ``annotations/`` and ``videos/`` of ``num`` clips; ``num_drawn`` files differ, the others link to them."""
    labels = common_labels()
    rows = list(all_rows(num, labels))
    for release in RELEASES:
        for split in ("train", "val"):
            path = folder / "annotations" / release / f"{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as handle:
                lines = csv.writer(handle, lineterminator="\n")
                lines.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
                lines.writerows(
                    (row.label, row.video_id, row.start_s, row.start_s + _SEGMENT_S, split)
                    for row in rows
                    if row.split == split and row.is_in(release)
                )
    drawn = list(_drawn_videos(folder / "drawn", num_drawn))
    for label in labels:
        (folder / "videos" / label.replace("/", "_")).mkdir(parents=True)
    for row in rows:
        os.link(drawn[row.number % num_drawn], folder / "videos" / row.label.replace("/", "_") / row.file_name)


def all_rows(num: int, labels: list[str]) -> Iterator[Row]:
    """Each clip, the same for the same number."""
    for number in range(num):
        digest = hashlib.sha256(f"video {number}".encode()).digest()
        video_id = base64.urlsafe_b64encode(digest).decode()[:11]
        yield Row(number=number, video_id=video_id, label=labels[number % len(labels)])


def common_labels() -> list[str]:
    """Classes that every release has under one name."""
    labels = load_labels()
    return sorted(set.intersection(*(set(labels.taxonomy_names(name)) for name in ("k400", "k600", "k700"))))


def _drawn_videos(folder: Path, num: int) -> Iterator[Path]:
    folder.mkdir()
    for number in range(num):
        rng = np.random.default_rng(number)
        frames_THWC = rng.integers(0, 255, (_FRAMES, _SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
        path = folder / f"{number}.mp4"
        encode_frames(frames_THWC, path, fps=_FPS, config=EncodeConfig())
        yield path
