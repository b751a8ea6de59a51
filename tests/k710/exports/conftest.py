"""A build with all that exports must cope with: leaks, clips without bytes or classes, odd ids and class names."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readers import Export

from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig, encode_frames
from k710.exports.export import ExportConfig, export
from k710.exports.summary import ExportSummary
from k710.lists.policy import Policy

HEADER = "label,youtube_id,time_start,time_end,split"
LISTS = {
    "kinetics400/train": [
        "abseiling,__aaaaaaaaa,0,1,train",
        "massaging person's head,_bbbbbbbbbb,0,1,train",
        "passing American football (in game),-cccccccccc,0.5,1.5,train",
        "abseiling,leak4leak4l,0,1,train",
    ],
    "kinetics400/val": ["air drumming,leak4leak4l,0,1,val", "riding a bike,vvvvvvvvvvv,0,1,val"],
    "kinetics600/train": [
        "bull fighting,1e2dddddddd,0,1,train",
        "air drumming,missing6ids,0,1,train",
        "abseiling,-cccccccccc,0.5,1.5,train",
    ],
    "kinetics600/test": ["abseiling,ttttttttttt,0,1,test"],
    "kinetics600/holdout_test": ["hhhhhhhhhhh,0,1,holdout_test"],
    "kinetics700/train": ["air drumming,vvvvvvvvvvv,0,1,train", "air drumming,NaNeeeeeeee,0,3,train"],
}
MISSING = "missing6ids"
VIEWS = ("default", "k600-test", "k600-holdout", "k710-test")


def _names() -> list[str]:
    found = set()
    for row in (row for rows in LISTS.values() for row in rows):
        video, start, end = row.split(",")[-4:-1]
        times = f"{int(start):06d}_{int(end):06d}" if "." not in start else "000000500_000001500"
        found.add(f"{video}_{times}")
    return sorted(name for name in found if not name.startswith(MISSING))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``annotations/`` and ``videos/``, each video another; one video is not there."""
    root = tmp_path_factory.mktemp("source")
    for name, rows in LISTS.items():
        path = root / "annotations" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        header = HEADER if rows[0].count(",") == 4 else HEADER.removeprefix("label,")
        path.write_text("\n".join([header, *rows]) + "\n")
    (root / "videos").mkdir()
    for seed, name in enumerate(_names()):
        frames_THWC = np.random.default_rng(seed).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
        encode_frames(frames_THWC, root / "videos" / f"{name}.mp4", fps=10, config=EncodeConfig(preset="ultrafast"))
    return root


@pytest.fixture(scope="session")
def config(source: Path) -> BuildConfig:
    """Two clips a shard; leaks are reported and stay."""
    return BuildConfig(
        annotations=source / "annotations",
        videos=(str(source / "videos"),),
        clips_per_shard=2,
        workers=1,
        policy=Policy(leaks="report"),
        views=VIEWS,
    )


@pytest.fixture(scope="session")
def built(config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build: do not write to it."""
    out = tmp_path_factory.mktemp("built") / "k710-data"
    build(replace(config, out=out))
    return out


@pytest.fixture(scope="session")
def in_place(config: BuildConfig, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips left where they are: do not write to it."""
    out = tmp_path_factory.mktemp("in_place") / "k710-data"
    build(replace(config, out=out, encode=EncodeConfig(encode="none")))
    return out


@pytest.fixture(scope="session")
def lists_only(config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lists without any clip: do not write to it."""
    out = tmp_path_factory.mktemp("lists_only") / "k710-data"
    build(replace(config, out=out, videos=(), manifest_only=True))
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The build, to write to."""
    return Path(shutil.copytree(built, tmp_path / "k710-data", copy_function=os.link))


@pytest.fixture
def run(tmp_path: Path) -> Export:
    """Exports a build to ``tmp_path / "out"``; what is missing is as a user would leave it."""

    def call(name: str, build: Path | str, **flags: object) -> ExportSummary:
        progress: Any = flags.pop("progress", None)
        settings: Any = {"out": tmp_path / "out", **flags}
        return export(ExportConfig(format=name, build=str(build), **settings), progress)

    return call
