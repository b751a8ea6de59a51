"""Fixtures of the training tests: a few drawn videos, a small build of them, a recipe for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_build import TINY_RECIPE, clips_of_build, moving_bar, write_build

from k710.clips.media import EncodeConfig, encode_frames


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Four short videos, one a class: a bright bar that moves, stands, grows or shrinks."""
    folder = tmp_path_factory.mktemp("drawn")
    videos = []
    for kind in range(4):
        path = folder / f"{kind}.mp4"
        encode_frames(moving_bar(kind), path, fps=10, config=EncodeConfig(), gop=4)
        videos.append(path.read_bytes())
    return videos


@pytest.fixture
def build(tmp_path: Path, drawn: list[bytes]) -> Path:
    """The small build."""
    return write_build(tmp_path / "data", clips_of_build(), drawn)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """Path of a recipe that trains on the small build in seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return str(path)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
