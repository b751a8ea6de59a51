"""Figures of a build at work: how far it is, how fast, how much room it needs, and which views come out too small."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from k710.clip_rounds import ClipRounds
from k710.clips.encodings import EncodeConfig
from k710.clips.outcomes import MISSING, OK, ClipOutcome
from k710.policies import ENCODED_BYTES_PER_SECOND
from k710.tables import compute

_RELATIVE_BYTES = {"sparse8": 1.0, "sparse32": 0.94, "intra": 2.2}
"""Bytes against ``sparse8`` at the same crf, on the clips that ``ENCODED_BYTES_PER_SECOND`` was measured on."""
_REFERENCE_PX = 256
_REFERENCE_CRF = 23
_CRF_THAT_HALVES = 6
"""x264's rule of thumb: 6 steps of crf halve or double the bytes."""


@dataclass(kw_only=True, slots=True)
class SoFar:
    """How far the clips are; grows with each outcome."""

    total: int
    """Planned clips."""
    counts: Counter[str]
    """Clips with an outcome, by status."""
    tried: int = 0
    """Clips that this run tried, to whatever outcome."""
    made: int = 0
    """Clips that this run made."""
    size_bytes: int = 0
    """Their bytes; of clips in place, those of the files."""
    began: float = field(default_factory=time.monotonic)
    """When this run began with them."""

    def add(self, outcomes: Iterable[ClipOutcome]) -> None:
        """Count clips that have come to an outcome."""
        for outcome in outcomes:
            self.counts[outcome.status] += 1
            # What no source has anything for was not tried.
            self.tried += bool(outcome.tried) or outcome.status != MISSING
            self.made += outcome.status == OK
            self.size_bytes += outcome.size_bytes

    @property
    def done(self) -> int:
        """Clips that have an outcome."""
        return self.counts.total()

    @property
    def seconds(self) -> float:
        """Since this run began with the clips."""
        return time.monotonic() - self.began

    @property
    def clips_per_s(self) -> float:
        """Clips that this run tries in a second."""
        return self.tried / max(self.seconds, 1e-9)

    def note(self) -> str:
        """Speed, bytes, time left and outcomes in a few words."""
        words = []
        if self.tried:
            left_s = (self.total - self.done) / self.clips_per_s
            words = [f"{self.clips_per_s:.1f} clips/s", sized(self.size_bytes), f"{lasting(left_s)} left"]
        return ", ".join([*words, *(f"{status} {n:,}" for status, n in self.counts.most_common())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a build may take on the disk at most, and what is free there."""

    clips: int
    """Clips to be made."""
    clips_bytes: int
    """Their bytes, by estimate."""
    packing_bytes: int
    """Clips that are there twice, in the cache and in a shard: those being packed, or all that are kept."""
    free_bytes: int
    """Free in the folder of the build."""
    archives: tuple[str, ...] = ()
    """What is on the disk meanwhile of sources that are read as a whole, a sentence each."""

    @property
    def peak_bytes(self) -> int:
        """Encoded set and the shard being packed; archives in flight come on top."""
        return self.clips_bytes + self.packing_bytes

    def line(self) -> str:
        """For people; begins with WARNING when there is too little."""
        archives = "; ".join(self.archives)
        text = (
            f"disk: at most about {sized(self.peak_bytes)} for {self.clips:,} clips to be made "
            f"(clips {sized(self.clips_bytes)}, twice while packed {sized(self.packing_bytes)}, "
            f"{f'archives: {archives}' if archives else 'archives in flight 0'}); {sized(self.free_bytes)} free"
        )
        return f"WARNING: {text}" if self.peak_bytes > self.free_bytes else text


def room_for(clips: ClipRounds, encode: EncodeConfig, twice: int, out: Path) -> Room:
    """The room that the open clips need, with at most ``twice`` clips in the cache and in a shard at once.

    Encodes are estimated from seconds, short side and crf; copies are as large as their files, as far as these are
    here; what stays in place needs none.
    """
    total, number = 0, len(clips.open)
    if encode.encode == "copy":
        total = sum(_size(file.path) for file in clips.first_files())
    elif encode.encode in _RELATIVE_BYTES:
        seconds = clips.segments_s
        size = (encode.short_side_px / _REFERENCE_PX) ** 2 * 2 ** ((_REFERENCE_CRF - encode.crf) / _CRF_THAT_HALVES)
        total = round(seconds * ENCODED_BYTES_PER_SECOND * size * _RELATIVE_BYTES[encode.encode])
    per_clip = total / number if number else 0.0
    return Room(
        clips=number,
        clips_bytes=total,
        packing_bytes=round(per_clip * min(twice, number)),
        free_bytes=shutil.disk_usage(out).free,
        archives=tuple(clips.room_of_streams()),
    )


def usable_by_view(index: pa.Table) -> dict[str, tuple[int, int]]:
    """For each view the clips that are ``ok``, and those planned."""
    views = compute.list_flatten(index["views"])
    is_ok = compute.equal(index["status"], OK).take(compute.list_parent_indices(index["views"]))
    planned = Counter(views.to_pylist())
    usable = Counter(views.filter(is_ok).to_pylist())
    return {str(view): (usable[view], planned[view]) for view in sorted(planned)}


def falls_short(clips: Mapping[str, int], usable: Mapping[str, tuple[int, int]], min_clips_pct: float) -> list[str]:
    """What has fewer than ``min_clips_pct`` percent of its planned clips: all clips together, or a view."""
    figures = {"all clips": (clips.get(OK, 0), sum(clips.values())), **usable}
    return [
        f"{name}: {good:,} of {planned:,} ({100 * good / planned:.2f} %)"
        for name, (good, planned) in figures.items()
        if 100 * good < min_clips_pct * planned
    ]


def sized(size_bytes: int) -> str:
    """``size_bytes`` for people, in powers of 1000."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def lasting(seconds: float) -> str:
    """``seconds`` for people."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
