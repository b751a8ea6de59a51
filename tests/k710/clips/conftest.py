"""Small videos of every kind, drawn and encoded in a moment, and the job that makes a clip of one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from k710.clips.make import ClipJob, make_clip
from k710.clips.media import EncodeConfig, encode_frames, ffmpeg_path
from k710.clips.outcomes import ClipOutcome
from k710.clips.sources.candidates import Candidate
from k710.segments import Segment

Ffmpeg = Callable[..., Path]
Make = Callable[..., ClipOutcome]


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s of 64x48 at 10 fps whose grey level is the number of the frame, with sound; its index stands in front."""
    path = tmp_path_factory.mktemp("counting") / "counting.mp4"
    levels = np.arange(200, dtype=np.uint8)[:, None, None, None]
    frames_THWC = np.broadcast_to(levels, (200, 48, 64, 3))
    encode_frames(frames_THWC, path, fps=10, config=EncodeConfig(crf=1), tone_hz=440)
    return path


@pytest.fixture
def ffmpeg(tmp_path: Path) -> Ffmpeg:
    """Runs ffmpeg with the given arguments, the last being the name of a new file; returns its path."""

    def run(*arguments: str | Path) -> Path:
        target = tmp_path / str(arguments[-1])
        command = [ffmpeg_path(), "-v", "error", "-y", *map(str, arguments[:-1]), str(target)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return target

    return run


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the clip ``start_s`` to ``end_s`` from files that are named with times unless told otherwise."""

    def run(
        *paths: Path,
        start_s: float = 0,
        end_s: float = 20,
        timed: bool = True,
        may_be_trimmed: bool = True,
        encode: EncodeConfig | None = None,
    ) -> ClipOutcome:
        candidates = tuple(Candidate(path=str(p), timed=timed, may_be_trimmed=may_be_trimmed) for p in paths)
        segment = Segment(id="abcdefghijk", start_s=start_s, end_s=end_s)
        target = tmp_path / "made.mp4"
        job = ClipJob(segment=segment, candidates=candidates, target=target, encode=encode or EncodeConfig())
        return make_clip(job)

    return run
