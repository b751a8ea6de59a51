"""Fixtures: a site of videos on loopback, a source that asks it, and no way to the internet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from numbered import write_numbered
from video_site import VideoSite, refuse_the_internet

from k710.clips.sources.youtube import Access, YouTubeSettings, YouTubeVideos, download
from k710.clips.sources.youtube.access import VARIABLES

Source = Callable[..., YouTubeVideos]


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_the_internet(monkeypatch)
    for variable in (*VARIABLES.values(), "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    # Where the network is behind a proxy, this machine is not.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[VideoSite]:
    served = VideoSite()
    yield served
    download._SESSIONS.close()
    served.close()


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 s of numbered frames at 30000/1001, with B-frames and a keyframe each 1.6 s; 6 MB, so that parts are parts."""
    path = tmp_path_factory.mktemp("numbered") / "numbered.mp4"
    # Rubbish at a rate that no picture needs: the size of a real video.
    noise = ["-g", "48", "-bf", "3", "-b:v", "1M", "-minrate", "1M", "-maxrate", "1M", "-bufsize", "1M"]
    return write_numbered(path, 1500, "30000/1001", *noise, "-x264-params", "nal-hrd=cbr:scenecut=0", "-crf", "-1")


@pytest.fixture
def source(site: VideoSite, tmp_path: Path) -> Source:
    """Makes a source that asks the site, as often as it likes unless told otherwise."""

    def make(access: Access | None = None, **settings: object) -> YouTubeVideos:
        usual = {"url_template": site.template, "state": tmp_path / "state", "rate_per_h": 1e6, "burst": 1000}
        return YouTubeVideos(YouTubeSettings(**{**usual, **settings}), access)  # type: ignore[arg-type]

    return make
