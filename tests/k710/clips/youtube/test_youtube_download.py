"""Videos by yt-dlp's generic extractor from a server on loopback: what comes, and what it is when nothing does."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from numbered import read_numbers, write_numbered
from video_site import Served, VideoSite

from k710.clips.make import ClipJob, make_clip
from k710.clips.media import EncodeConfig, ffmpeg_path
from k710.clips.outcomes import OK, PENDING, REMOVED, TOO_LARGE, TOO_SHORT, ClipOutcome, Unusable
from k710.clips.sources.candidates import Brought, Candidate, Wanted
from k710.clips.sources.youtube import Access, YouTubeVideos, download
from k710.clips.sources.youtube.settings import VIDEO_URL
from k710.segments import Segment

Source = Callable[..., YouTubeVideos]

ID = "-bcdefghij_"
HIDDEN = "s3cret"
LEAVES_SOCKETS = pytest.mark.usefixtures("_swept")
"""Where a read breaks off, yt-dlp leaves its connection to the collector of garbage."""


@pytest.fixture
def _swept() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        download._SESSIONS.close()
        gc.collect()


def candidate_of(source: YouTubeVideos, start_s: float = 20, end_s: float = 30, video_id: str = ID) -> Candidate:
    segment = Segment(id=video_id, start_s=start_s, end_s=end_s)
    ((candidate,),) = source.candidates([Wanted(segment=segment, releases=frozenset({"k400"}))], {})
    return candidate


def bring(source: YouTubeVideos, folder: Path, start_s: float = 20, end_s: float = 30) -> Brought | Unusable:
    folder.mkdir(exist_ok=True)
    origin = candidate_of(source, start_s, end_s).origin
    assert origin is not None
    return origin.bring(folder)


def clip_of(candidate: Candidate, target: Path, start_s: float, end_s: float) -> ClipOutcome:
    segment = Segment(id=ID, start_s=start_s, end_s=end_s)
    encode = EncodeConfig(preset="ultrafast")
    return make_clip(ClipJob(segment=segment, candidates=(candidate,), target=target, encode=encode))


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [pytest.param(0, 4, marks=pytest.mark.slow), (20, 30), pytest.param(33.3, 36.9, marks=pytest.mark.slow)],
)
def test_a_clip_from_a_part_has_the_bytes_of_one_from_the_whole_video(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path, start_s: float, end_s: float
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    whole = Candidate(path=str(numbered), timed=False, may_be_trimmed=False, videos_are="originals")
    expected = clip_of(whole, tmp_path / "whole.mp4", start_s, end_s)
    made = clip_of(candidate_of(source(), start_s, end_s), tmp_path / "part.mp4", start_s, end_s)
    assert (made.status, made.kind, made.source) == (OK, "youtube", f"{ID}.mp4")
    assert read_numbers(tmp_path / "part.mp4") == read_numbers(tmp_path / "whole.mp4")
    assert made.sha256 == expected.sha256


def test_only_the_part_is_asked_for(site: VideoSite, source: Source, numbered: Path, tmp_path: Path) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    brought = bring(source(), tmp_path / "in")
    assert isinstance(brought, Brought)
    assert brought.path.parent == tmp_path / "in"
    assert 15 < brought.begins_s <= 17
    asked = sum(
        int(a.range.partition("-")[2]) - int(a.range[6:].partition("-")[0]) + 1
        for a in site.asked
        if a.range[-1:].isdigit()
    )
    assert asked < 0.7 * numbered.stat().st_size


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_video_of_which_no_part_can_be_taken_comes_whole(
    site: VideoSite, source: Source, tmp_path: Path, suffix: str
) -> None:
    video = write_numbered(tmp_path / f"video{suffix}", 300, "30", "-bf", "3")
    site.files[f"{ID}{suffix}"] = Served(data=video.read_bytes(), type="video/x-matroska")
    brought = bring(source(url_template=site.url("{id}" + suffix)), tmp_path / "in", 5, 8)
    assert isinstance(brought, Brought)
    assert brought.begins_s == 0
    assert brought.path.read_bytes() == video.read_bytes()
    assert list((tmp_path / "in").iterdir()) == [brought.path]


def test_a_video_of_a_server_without_ranges_comes_whole(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), ranges=False)
    brought = bring(source(), tmp_path / "in")
    assert isinstance(brought, Brought)
    assert brought.begins_s == 0
    assert brought.path.read_bytes() == numbered.read_bytes()


def test_a_video_in_pieces_of_a_playlist_comes_whole(site: VideoSite, source: Source, tmp_path: Path) -> None:
    video = write_numbered(tmp_path / "video.mp4", 300, "30")
    command = [ffmpeg_path(), "-v", "error", "-i", str(video), "-c", "copy", "-f", "hls", "-hls_list_size", "0"]
    subprocess.run([*command, str(tmp_path / "list.m3u8")], check=True, stdin=subprocess.DEVNULL)
    for path in tmp_path.glob("list*"):
        kind = "application/vnd.apple.mpegurl" if path.suffix == ".m3u8" else "video/mp2t"
        site.files[path.name] = Served(data=path.read_bytes(), type=kind)
    candidate = candidate_of(source(url_template=site.url("list.m3u8?{id}")), 4, 8)
    site.files[f"list.m3u8?{ID}"] = site.files["list.m3u8"]
    made = clip_of(candidate, tmp_path / "clip.mp4", 4, 8)
    assert made.status == OK, made
    assert read_numbers(tmp_path / "clip.mp4") == list(range(120, 240))


def test_a_segment_behind_the_end_of_the_video_is_too_short(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    made = clip_of(candidate_of(source(), 100, 110), tmp_path / "clip.mp4", 100, 110)
    assert made.status == TOO_SHORT
    assert "ends at 50." in made.detail


@pytest.mark.parametrize(
    ("served", "status", "words"),
    [
        (Served(code=404), REMOVED, "404"),
        (Served(code=403), PENDING, "403"),
        (Served(code=429), PENDING, "429"),
        (Served(code=503), PENDING, "503"),
        (Served(data=b"<!doctype html><title>Sorry</title><p>Nothing", type="text/html"), PENDING, "Unsupported"),
    ],
)
def test_a_video_that_is_refused_is_nothing_but_its_status(
    site: VideoSite, source: Source, tmp_path: Path, served: Served, status: str, words: str
) -> None:
    site.files[f"{ID}.mp4"] = served
    answer = bring(source(), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer.status == status
    assert words in answer.detail
    assert "127.0.0.1" not in answer.detail
    assert not list((tmp_path / "in").iterdir())


@LEAVES_SOCKETS
@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_server_that_refuses_in_the_middle_leaves_the_clip_pending(
    site: VideoSite,
    source: Source,
    numbered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    monkeypatch.setattr("k710.clips.sources.youtube.session._FIRST_WAIT_S", 0.01)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), code_of_ranges=code)
    answer = bring(source(), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer.status == PENDING
    assert str(code) in answer.detail


@LEAVES_SOCKETS
def test_a_connection_that_ends_early_is_tried_again_and_then_pending(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.clips.sources.youtube.session._FIRST_WAIT_S", 0.01)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), cut_after=1000)
    answer = bring(source(), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer.status == PENDING
    ranges = [asked.range for asked in site.asked if asked.range.startswith("bytes=0-5")]
    assert len(ranges) == 3


@LEAVES_SOCKETS
def test_a_server_that_drips_is_given_up_in_time(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), drip_s=0.05)
    began = time.monotonic()
    answer = bring(source(timeout_s=1.5), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer == Unusable(status=PENDING, detail="it took more than 1.5 s")
    assert time.monotonic() - began < 8


@LEAVES_SOCKETS
@pytest.mark.parametrize("ranges", [True, False])
def test_a_video_of_too_many_bytes_is_given_up(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path, ranges: bool
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), ranges=ranges)
    answer = bring(source(max_bytes=1_000_000), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer == Unusable(status=TOO_LARGE, detail="more than 1,000,000 bytes")


def test_nothing_is_said_and_nothing_written_outside_the_folder(
    site: VideoSite,
    source: Source,
    numbered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.chdir(home)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    brought = bring(source(), tmp_path / "in")
    assert isinstance(brought, Brought)
    assert not list(home.rglob("*"))
    assert list((tmp_path / "in").iterdir()) == [brought.path]
    assert {path.name.partition("-")[0] for path in (tmp_path / "state").iterdir()} == {"bucket", "breaker"}
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_cookies_are_sent_and_their_file_stays_as_it_is(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tSID\t{HIDDEN}\n")
    before = (cookies.read_bytes(), cookies.stat().st_mtime_ns)
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    assert isinstance(bring(source(Access(cookies=cookies)), tmp_path / "in"), Brought)
    assert {asked.headers.get("Cookie") for asked in site.asked} == {f"SID={HIDDEN}"}
    # That is when yt-dlp stores what it has been set.
    download._SESSIONS.close()
    assert (cookies.read_bytes(), cookies.stat().st_mtime_ns) == before


def test_every_request_comes_from_the_source_address(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    assert isinstance(bring(source(Access(source_address="127.0.0.9")), tmp_path / "in"), Brought)
    assert {asked.client for asked in site.asked} == {"127.0.0.9"}


def test_every_request_goes_through_the_proxy(site: VideoSite, source: Source, numbered: Path, tmp_path: Path) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    proxy = f"http://somebody:{HIDDEN}@127.0.0.1:{site.server.server_port}"
    asking = source(Access(proxy=proxy), url_template="http://nowhere.invalid/{id}.mp4")
    assert isinstance(bring(asking, tmp_path / "in"), Brought)
    assert len(site.asked) > 3
    assert all("Proxy-Authorization" in asked.headers for asked in site.asked)


@LEAVES_SOCKETS
def test_the_site_itself_is_asked_by_its_own_extractor_and_only_through_the_proxy(
    site: VideoSite, source: Source, tmp_path: Path
) -> None:
    access = Access(proxy=f"http://somebody:{HIDDEN}@127.0.0.1:{site.server.server_port}")
    answer = bring(source(access, url_template=VIDEO_URL), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer.status == PENDING
    assert HIDDEN not in answer.detail
    assert site.asked
    assert {asked.path for asked in site.asked} == {"www.youtube.com:443"}


def test_a_proxy_that_does_not_answer_is_not_told_on(source: Source, tmp_path: Path) -> None:
    proxy = f"http://somebody:{HIDDEN}@127.0.0.1:1"
    answer = bring(source(Access(proxy=proxy)), tmp_path / "in")
    assert isinstance(answer, Unusable)
    assert answer.status == PENDING
    assert not {HIDDEN, "somebody", "127.0.0.1:1"} & set(answer.detail.replace("/", " ").replace("@", " ").split())
    assert HIDDEN not in answer.detail


@pytest.mark.parametrize("sound", [True, False])
def test_the_sound_comes_when_it_is_wanted_and_fits(
    site: VideoSite, source: Source, counting: Path, tmp_path: Path, sound: bool
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=counting.read_bytes())
    brought = bring(source(sound=sound, pad_s=1), tmp_path / "in", 12, 15)
    assert isinstance(brought, Brought)
    with av.open(str(brought.path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"][: 1 + sound]
        lengths = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert max(lengths) - min(lengths) < 2.1


def test_a_full_disk_is_no_fault_of_the_video(
    site: VideoSite, source: Source, numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes())
    (tmp_path / "in").symlink_to("/dev/full")
    origin = candidate_of(source()).origin
    assert origin is not None
    full = tmp_path / "full"
    full.mkdir()
    (full / f"{ID}.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as caught:
        origin.bring(full)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_stops_while_it_reads(site: VideoSite, numbered: Path, tmp_path: Path) -> None:
    site.files[f"{ID}.mp4"] = Served(data=numbered.read_bytes(), drip_s=0.2)
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from k710.clips.sources.youtube import YouTubeSettings, YouTubeVideos\n"
        "from k710.clips.sources.candidates import Wanted\n"
        "from k710.segments import Segment\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"source = YouTubeVideos(YouTubeSettings(url_template={site.template!r}, state=Path({str(tmp_path)!r})))\n"
        f"wanted = Wanted(segment=Segment(id={ID!r}, start_s=1.0, end_s=2.0), releases=frozenset())\n"
        "((candidate,),) = source.candidates([wanted], {})\n"
        f"candidate.origin.bring(Path({str(tmp_path)!r}))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "NO_PROXY": "127.0.0.1"})
    try:
        while not any(asked.range for asked in site.asked):
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.wait(5) == 143
    finally:
        child.kill()
        child.wait()
