"""A whole build with YouTube as its last source, by processes on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_site import Served, VideoSite

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.outcomes import OK, REMOVED
from k710.clips.sources import chosen
from k710.clips.sources.youtube import Access, YouTubeSettings, YouTubeVideos

IDS = [f"-bcdefghij{number}" for number in range(4)]
HIDDEN = "s3cretpassword"


def write_lists(folder: Path) -> Path:
    (folder / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},{5 + n},{9 + n},train\n" for n, video in enumerate(IDS))
    (folder / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    return folder


@pytest.mark.slow
def test_a_build_asks_for_what_nothing_else_has_and_keeps_nothing_private(
    site: VideoSite, numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_loopback(settings: chosen.SourceSettings, encode: EncodeConfig, access: Access | None) -> YouTubeVideos:
        own = {"url_template": "http://nowhere.invalid/{id}.mp4", "state": tmp_path / "state", "rest_s": 0.1}
        return YouTubeVideos(YouTubeSettings(rate_per_h=1e6, **own), access)  # type: ignore[arg-type]

    monkeypatch.setattr(chosen, "_youtube", on_loopback)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / f"{IDS[0]}.mp4").write_bytes(numbered.read_bytes())
    site.files |= {f"{video}.mp4": Served(data=numbered.read_bytes()) for video in IDS[1:3]}
    config = BuildConfig(
        annotations=write_lists(tmp_path / "annotations"),
        out=tmp_path / "out",
        videos=(str(tmp_path / "videos"), "youtube:"),
        workers=2,
    )
    access = Access(proxy=f"http://somebody:{HIDDEN}@127.0.0.1:{site.server.server_port}")
    said: list[str] = []
    assert build(config, access=access, say=said.append).clips == {OK: 3, REMOVED: 1}
    assert any("terms of service" in line for line in said)
    assert f"{IDS[0]}.mp4" not in {asked.path for asked in site.asked}
    for path in (*(tmp_path / "out").rglob("*"), *(tmp_path / "state").rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        assert HIDDEN.encode() not in data
        assert b"somebody" not in data
    asked = len(site.asked)
    assert build(config, access=access).clips == {OK: 3, REMOVED: 1}
    assert len(site.asked) == asked
