"""Waits and refusals on the way of a clip: what the bucket and the breaker do to what is brought."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_youtube_download import bring, candidate_of
from video_site import Served, VideoSite, refuse_the_internet

from k710.clips.make import ClipJob, make_clip
from k710.clips.media import EncodeConfig
from k710.clips.outcomes import OK, PENDING, REMOVED, ClipOutcome, Unusable
from k710.clips.sources.candidates import Brought
from k710.clips.sources.youtube import Access, YouTubeVideos
from k710.clips.sources.youtube.breaker import TROUBLE_IN_A_ROW, Answer, Breaker
from k710.clips.sources.youtube.deadline import OutOfTime, time_limit
from k710.clips.sources.youtube.rate import Bucket
from k710.segments import Segment
from k710.shards.executors.local import run_local

Source = Callable[..., YouTubeVideos]

ID = "-bcdefghij_"


def test_after_a_wall_nothing_is_asked_and_nothing_is_gone(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    asking = source()
    site.files[f"{ID}.mp4"] = Served(code=429)
    assert bring(asking, tmp_path / "in") == Unusable(
        status=PENDING, detail="Unable to download webpage: HTTP Error 429: Too Many Requests"
    )
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    asked = len(site.asked)
    for _ in range(3):
        answer = bring(asking, tmp_path / "in")
        assert isinstance(answer, Unusable)
        assert answer.status == PENDING
        assert answer.detail.startswith("not asked, as the site refuses for now (Unable to")
        assert answer.detail.endswith("in 60 min")
    assert len(site.asked) == asked


def test_after_the_rest_it_goes_on(site: VideoSite, source: Source, numbered: Path, tmp_path: Path) -> None:
    asking = source(rest_s=0.05)
    site.files[f"{ID}.mp4"] = Served(code=429)
    assert isinstance(bring(asking, tmp_path / "in"), Unusable)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    time.sleep(0.06)
    assert isinstance(bring(asking, tmp_path / "in"), Brought)
    assert Breaker(tmp_path / "state", rest_s=1, trial_s=1).peek() is None


def test_videos_that_are_gone_do_not_stop_the_others(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    asking = source()
    for _ in range(TROUBLE_IN_A_ROW + 1):
        answer = bring(asking, tmp_path / "in")
        assert isinstance(answer, Unusable)
        assert answer.status == REMOVED
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    assert isinstance(bring(asking, tmp_path / "in"), Brought)


def test_a_site_that_gives_nothing_but_trouble_is_left_alone(site: VideoSite, source: Source, tmp_path: Path) -> None:
    asking = source()
    site.files[f"{ID}.mp4"] = Served(code=403)
    for _ in range(TROUBLE_IN_A_ROW):
        bring(asking, tmp_path / "in")
    asked = len(site.asked)
    answer = bring(asking, tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert "not asked" in answer.detail
    assert len(site.asked) == asked


def test_each_video_takes_one_token_whatever_comes_of_it(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    asking = source(rate_per_h=3600 * 2, burst=1)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    began = time.monotonic()
    for _ in range(3):
        bring(asking, tmp_path / "in")
    assert 1.0 <= time.monotonic() - began < 6


def test_who_waits_for_a_token_learns_of_a_wall_and_does_not_ask(
    site: VideoSite, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = source(rate_per_h=1, burst=1)
    state = tmp_path / "state"
    assert Bucket(state, rate_per_h=1, burst=1).draw() == 0
    other = Breaker(state, rest_s=3600, trial_s=600)

    def another_meets_a_wall(seconds: float) -> None:
        other.report(other.enter(), Answer.WALL, "not a bot")

    monkeypatch.setattr("k710.clips.sources.youtube.download.time.sleep", another_meets_a_wall)
    answer = bring(asking, tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer == Unusable(status=PENDING, detail="not asked, as the site refuses for now (not a bot); in 60 min")
    assert not site.asked


def test_a_worker_that_is_told_to_stop_does_not_wait_for_its_turn(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from k710.clips.sources.youtube import YouTubeSettings, YouTubeVideos\n"
        "from k710.clips.sources.candidates import Wanted\n"
        "from k710.clips.sources.youtube.rate import Bucket\n"
        "from k710.segments import Segment\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"state = Path({str(tmp_path)!r})\n"
        "Bucket(state, rate_per_h=0.1, burst=1).draw()\n"
        "source = YouTubeVideos(YouTubeSettings(rate_per_h=0.1, burst=1, state=state))\n"
        f"wanted = Wanted(segment=Segment(id={ID!r}, start_s=1.0, end_s=2.0), releases=frozenset())\n"
        "((candidate,),) = source.candidates([wanted], {})\n"
        "import k710.clips.sources.youtube.download\n"
        "print('waits', flush=True)\n"
        "candidate.origin.bring(state)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.3)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            assert child.wait(5) == 143
            assert time.monotonic() - began < 2
        finally:
            child.kill()


def _make(job: ClipJob) -> ClipOutcome:
    with pytest.MonkeyPatch.context() as monkeypatch:
        refuse_the_internet(monkeypatch)
        return make_clip(job)


def _jobs(asking: YouTubeVideos, folder: Path, number: int) -> list[ClipJob]:
    jobs = []
    for start_s in range(number):
        segment = Segment(id=ID, start_s=start_s, end_s=start_s + 1)
        candidates = (candidate_of(asking, start_s, start_s + 1),)
        encode = EncodeConfig(preset="ultrafast")
        jobs.append(ClipJob(segment=segment, candidates=candidates, target=folder / segment.key, encode=encode))
    return jobs


@pytest.mark.slow
def test_workers_that_were_started_before_know_what_is_private(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    # The server that forks workers has the environment of its start; so it must not come by that.
    list(run_local(functools.partial(max, 1), [1], workers=1))
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    jobs = _jobs(source(Access(source_address="127.0.0.7")), tmp_path, 2)
    made = [outcome for _, outcome in run_local(_make, jobs, workers=2)]
    assert [outcome.status for outcome in made] == [OK, OK]
    assert {asked.client for asked in site.asked} == {"127.0.0.7"}
    assert multiprocessing.parent_process() is None
    assert os.environ.get("K710_YOUTUBE_SOURCE_ADDRESS") is None


def _nap_after_a_limit() -> None:
    with time_limit(60):
        pass
    time.sleep(3)


def test_a_limit_inside_another_does_not_take_its_place() -> None:
    began = time.monotonic()
    with pytest.raises(OutOfTime), time_limit(0.2):
        _nap_after_a_limit()
    assert time.monotonic() - began < 2
