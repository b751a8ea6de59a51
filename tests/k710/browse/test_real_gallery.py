"""The indexes of the published lists: small pages, made at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from k710.browse.gallery import BrowseConfig, browse
from k710.browse.sections import Asked
from k710.build import BuildConfig, build


@pytest.mark.slow
def test_half_a_million_clips_have_small_indexes_within_a_minute(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    build(BuildConfig(annotations=shared / "kinetics" / "annotations", out=out, manifest_only=True))
    begin = time.monotonic()
    summary = browse(BrowseConfig(build=str(out), budget=0))
    assert time.monotonic() - begin < 60
    assert summary.planned > 20_000
    browse(BrowseConfig(build=str(out), asked=Asked(classes=("waking up",), conflicts=True)))
    sizes = {path.name: path.stat().st_size for path in (out / "browse").rglob("*.html")}
    assert len(sizes) > 20
    assert max(sizes.values()) < 1_000_000
