"""Three tiny videos, encoded once, and their lists: the smallest data set that a build takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from k710.build import BuildConfig, BuildSummary, build
from k710.clips.media import EncodeConfig, encode_frames

IDS = ("-aaaaaaaaaa", "_bbbbbbbbbb", "1e2cccccccc")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``annotations/`` and ``videos/``: one clip in two train lists with two classes, one val, one without a file."""
    root = tmp_path_factory.mktemp("tiny")
    lists = {
        "kinetics400/train": f"baby waking up,{IDS[0]},0,1,train\n",
        "kinetics600/train": f"waking up,{IDS[0]},0,1,train\nabseiling,{IDS[2]},5,6,train\n",
        "kinetics400/val": f"abseiling,{IDS[1]},3,4,val\n",
    }
    for name, rows in lists.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (root / "videos").mkdir()
    for seed, name in enumerate((f"{IDS[0]}_000000_000001", f"{IDS[1]}_000003_000004")):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, root / "videos" / f"{name}.mp4", fps=10, config=EncodeConfig())
    return root


@pytest.fixture(scope="session")
def tiny_build(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of ``tiny``: do not write to it."""
    out = tmp_path_factory.mktemp("built") / "out"
    build(BuildConfig(annotations=tiny / "annotations", videos=(str(tiny / "videos"),), out=out, workers=1))
    return out


@pytest.fixture
def tiny_copy(tiny_build: Path, tmp_path: Path) -> Path:
    """A finished build of ``tiny`` to damage."""
    shutil.copytree(tiny_build, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def rebuild(tiny: Path) -> Callable[[Path], BuildSummary]:
    """Runs the build of ``tiny`` again."""

    def run(out: Path) -> BuildSummary:
        return build(BuildConfig(annotations=tiny / "annotations", videos=(str(tiny / "videos"),), out=out, workers=1))

    return run
