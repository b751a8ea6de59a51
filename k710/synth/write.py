"""Writes a toy Kinetics: lists, videos and ``truth.json``. Run again after any end, it goes on where it was."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from k710 import atomic
from k710.clips.media import EncodeConfig, encode_frames, ffmpeg_build
from k710.config import differences
from k710.errors import UsageError
from k710.shards.executors.local import run_local
from k710.synth.plan import Clip, SynthConfig, make_plan
from k710.synth.scenes import Frames, draw
from k710.synth.truth import Row, rows_of, truth_of

SCHEMA = "k710.synth"
VERSION = 1

_ENCODE = EncodeConfig(short_side_px=720, crf=23, preset="veryfast")
_GOP = 15
_TAIL_S = 2
_HTML = b"<!DOCTYPE html>\n<html><head><title>429 Too Many Requests</title></head><body>Sign in</body></html>\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthSummary:
    """What a run wrote."""

    num_clips: int
    """Distinct segments in the lists."""
    num_files: int
    """Files in ``videos/``, broken ones included."""
    num_written: int
    """Files of these that this run wrote; the others were there."""
    size_bytes: int
    """Size of all of them."""
    num_leaks: int
    """Videos that stand in a train list and in a held-out list."""
    views: dict[str, int]
    """Clips of each default view of a build, those without a usable file included."""


def synth(
    config: SynthConfig, out: Path, *, workers: int, progress: Callable[[int, int], None] | None = None
) -> SynthSummary:
    """Write the toy Kinetics of ``config`` to ``out``: ``annotations/``, ``videos/``, ``truth.json``.

    The bytes are a function of the config and the ffmpeg build, whatever ``workers`` is.

    Args:
        config: what to write.
        out: a new or empty folder, or one that an earlier run with this config began.
        workers: processes that draw and encode.
        progress: called with the video files that are there and their total, first before any is written.

    Raises:
        UsageError: ``out`` holds another config's data set or other files, or cannot be written.
        SourceError: ffmpeg failed, or a worker was killed.
    """
    if workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}")
    plan, out = make_plan(config), out.absolute()
    lists = _lists(rows_of(plan))
    jobs = [FileJob(target=out / "videos" / path, clips=clips) for path, clips in _by_file(plan).items()]
    truth = truth_of(config, plan)
    with atomic.writable(out):
        _claim(out, config, {out / name for name in lists} | {j.target for j in jobs})
        for name, text in lists.items():
            atomic.write_text(out / name, text)
        missing = [j for j in jobs if not j.target.is_file()]
        _write_files(missing, len(jobs), workers, progress or _silent)
        # Last, so that its presence says that the rest is there.
        atomic.write_json(out / "truth.json", truth)
    return SynthSummary(
        num_clips=len(plan),
        num_files=len(jobs),
        num_written=len(missing),
        size_bytes=sum(j.target.stat().st_size for j in jobs),
        num_leaks=truth["leaks"]["total"],
        views={name: view["clips"] for name, view in truth["views"].items()},
    )


def _write_files(missing: Sequence[FileJob], total: int, workers: int, report: Callable[[int, int], None]) -> None:
    num_kept = total - len(missing)
    report(num_kept, total)
    for done, _ in enumerate(run_local(write_file, missing, workers=workers), start=num_kept + 1):
        report(done, total)


def _silent(done: int, total: int) -> None:  # noqa: ARG001
    return


@dataclass(frozen=True, kw_only=True, slots=True)
class FileJob:
    """One file of ``videos/``."""

    target: Path
    """Where it goes."""
    clips: tuple[Clip, ...]
    """The clips it holds: one, or those cut from one whole video in order of time."""


def write_file(job: FileJob) -> None:
    """Draw, encode and commit one video, or what stands for a broken one."""
    clip = job.clips[0]
    if clip.file in ("empty_file", "html"):
        atomic.write_bytes(job.target, _HTML if clip.file == "html" else b"")
        return
    frames_THWC = _whole_video(job.clips) if clip.layout == "original" else draw(clip.base)
    with atomic.replacing(job.target) as partial:
        encode_frames(frames_THWC, partial, fps=clip.form.fps, config=_ENCODE, gop=_GOP, tone_hz=clip.form.tone_hz)
        if clip.file in ("truncated", "unreadable"):
            # The index stands in front: half a file still opens, the first bytes alone do not.
            kept = partial.stat().st_size // 2 if clip.file == "truncated" else 24
            os.truncate(partial, kept)


def _whole_video(clips: Sequence[Clip]) -> Frames:
    """A video that stands still but for the segments of ``clips``, and goes on after the last."""
    fps = round(clips[0].form.fps)
    parts: list[Frames] = []
    num_drawn = 0
    for clip in clips:
        frames_THWC = draw(clip.base)
        wait = int(clip.segment.start_s) * fps - num_drawn
        parts += [frames_THWC[:1].repeat(wait, axis=0), frames_THWC]
        num_drawn += wait + len(frames_THWC)
    return np.concatenate([*parts, parts[-1][-1:].repeat(_TAIL_S * fps, axis=0)])


def _by_file(plan: Sequence[Clip]) -> dict[str, tuple[Clip, ...]]:
    files: dict[str, tuple[Clip, ...]] = {}
    for clip in plan:
        if clip.file != "missing":
            files[clip.path] = (*files.get(clip.path, ()), clip)
    return files


def _lists(rows: Sequence[Row]) -> dict[str, str]:
    """Text of each annotation file by its path in the data set."""
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(f"annotations/kinetics{row.release[1:]}/{row.split}.csv", []).append(row)
    return {path: _csv(members) for path, members in sorted(files.items())}


def _csv(rows: Sequence[Row]) -> str:
    """One list in the columns of the official files: only K400 has ``is_cc``, and K700's test list has no label."""
    records = [_record(r) for r in sorted(rows, key=lambda r: (r.label or "", r.segment.id, r.segment.start_s))]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row) -> dict[str, str | int]:
    segment = row.segment
    record: dict[str, str | int] = {} if row.label is None else {"label": row.label}
    record |= {"youtube_id": segment.id, "time_start": int(segment.start_s), "time_end": int(segment.end_s)}
    record["split"] = row.split
    if row.release == "k400":
        record["is_cc"] = hashlib.sha256(segment.id.encode()).digest()[0] % 2
    return record


def _claim(out: Path, config: SynthConfig, ours: set[Path]) -> None:
    """Make ``out`` this config's folder, or refuse it; leftovers of a run that was killed are removed."""
    record = out / "synth.json"
    wanted = {"schema": SCHEMA, "version": VERSION, "config": asdict(config), "ffmpeg": ffmpeg_build()}
    if record.is_file():
        _check_record(record, wanted)
    elif strangers := [p for p in _entries(out) if not _is_leftover(p)]:
        raise UsageError(f"{out} is not a folder of `k710 synth`: it holds {strangers[0].name}", hint="name a new one")
    for path in _entries(out / "annotations", "**/*") + _entries(out / "videos", "**/*"):
        if _is_leftover(path):
            path.unlink()
        elif path not in ours and not path.is_dir():
            raise UsageError(f"{path} is not a file of this data set", hint="move it away, or name another folder")
    atomic.write_json(record, wanted)


def _entries(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern))


def _is_leftover(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".partial") and path.is_file()


def _check_record(record: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{record} is not a record of `k710 synth` ({error})", hint="name a new folder") from error
    changed = differences(found, wanted) if isinstance(found, dict) else ["not a record"]
    if changed:
        raise UsageError(
            f"{record.parent} holds another toy data set: {'; '.join(changed)}",
            hint="name another folder, or give the arguments it was written with",
        )
