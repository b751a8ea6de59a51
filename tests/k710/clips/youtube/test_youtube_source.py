"""What the source offers, what it tells of itself, and what is private about it."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from k710.clips.outcomes import PENDING, Unusable
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.youtube import (
    VARIABLES,
    Access,
    YouTubeOrigin,
    YouTubeSettings,
    YouTubeVideos,
    terms_notice,
    version_note,
)
from k710.clips.sources.youtube.access import Key, PutAway
from k710.clips.sources.youtube.formats import choose
from k710.clips.sources.youtube.session import _browser, _extractor_args
from k710.errors import UsageError
from k710.segments import Segment

Source = Callable[..., YouTubeVideos]

HIDDEN = "s3cret"
COOKIES = f"# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t0\tSID\t{HIDDEN}\n"


def everything(folder: Path) -> Access:
    cookies = folder / f"{HIDDEN}.txt"
    cookies.write_text(COOKIES)
    return Access(
        cookies=cookies,
        cookies_from_browser=f"firefox:{HIDDEN}",
        proxy=f"http://me:{HIDDEN}@127.0.0.1:1",
        source_address="127.0.0.5",
        extractor_args=(f"youtube:po_token={HIDDEN}",),
    )


def origin_of(source: YouTubeVideos, video_id: str = "-bcdefghij_") -> YouTubeOrigin:
    segment = Segment(id=video_id, start_s=1, end_s=2)
    ((candidate,),) = source.candidates([Wanted(segment=segment, releases=frozenset())], {})
    assert isinstance(candidate.origin, YouTubeOrigin)
    return candidate.origin


def test_each_clip_with_a_youtube_id_may_be_there_and_no_other(source: Source) -> None:
    ids = ["-bcdefghij_", "v_bcdefghijk", "0123456789", "some opaque id", "1e2NaN_null"]
    wanted = [Wanted(segment=Segment(id=i, start_s=3, end_s=5), releases=frozenset()) for i in ids]
    offered = source().candidates(wanted, {})
    assert [[candidate.path for candidate in one] for one in offered] == [
        ["-bcdefghij_.mp4"],
        [],
        [],
        [],
        ["1e2NaN_null.mp4"],
    ]
    ((first,), *_) = offered
    assert (first.kind, first.videos_are, first.timed, first.may_be_trimmed) == ("youtube", "originals", False, False)
    assert first.origin is not None
    assert first.origin.kind == "youtube"


def test_an_id_that_begins_with_a_dash_is_a_part_of_an_address() -> None:
    assert YouTubeSettings().url("-bcdefghij_") == "https://www.youtube.com/watch?v=-bcdefghij_"


def test_another_answer_is_hoped_for_only_from_another_place_or_as_somebody(source: Source, tmp_path: Path) -> None:
    plain = origin_of(source()).identity
    assert plain == origin_of(source()).identity
    assert plain != origin_of(source(), "abcdefghijk").identity
    assert plain != origin_of(source(everything(tmp_path))).identity
    assert HIDDEN not in origin_of(source(everything(tmp_path))).identity


def test_what_is_private_is_in_nothing_that_is_shown_or_travels(source: Source, tmp_path: Path) -> None:
    access = everything(tmp_path)
    asking = source(access)
    origin = origin_of(asking)
    for text in (repr(access), repr(asking), repr(origin), str(pickle.dumps(origin)), json.dumps(origin.key.given)):
        assert HIDDEN not in text
        assert "127.0.0.5" not in text
    for spread in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            spread(access)


def test_another_process_of_this_machine_finds_what_is_private_and_no_disk_has_it(tmp_path: Path) -> None:
    access = everything(tmp_path)
    kept = PutAway(access)
    script = (
        "import pickle, sys\n"
        "access = pickle.loads(bytes.fromhex(sys.argv[1])).access()\n"
        "print(access.proxy, access.cookies, access.extractor_args)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, pickle.dumps(kept.key).hex()], capture_output=True, text=True, check=True
    )
    assert told.stdout == f"{access.proxy} {access.cookies} {access.extractor_args}\n"
    place = Path(kept.key.place)
    assert place.readlink().name.startswith("memfd:")
    assert place.stat().st_mode & 0o077 == 0
    kept.close()
    assert not place.exists()
    assert kept.key.access() is None


def test_a_number_that_another_file_has_by_now_is_not_taken_for_it(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"token": "another", "access": {"proxy": "http://elsewhere:1"}}))
    assert Key(place=str(other), token="ours", given=("proxy",)).access() is None
    other.write_text("no document")
    assert Key(place=str(other), token="ours", given=("proxy",)).access() is None


def test_a_worker_elsewhere_takes_it_from_its_environment_or_asks_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Key(place="/proc/1/fd/does-not-exist", token="gone", given=("proxy",))
    origin = replace(origin_of(source()), key=key)
    answer = origin.bring(tmp_path)
    assert answer == Unusable(status=PENDING, detail="this worker does not know the proxy")
    monkeypatch.setenv("K710_YOUTUBE_PROXY", "http://127.0.0.1:1")
    found = key.access()
    assert found is not None
    assert found.proxy == "http://127.0.0.1:1"


def test_every_private_field_has_its_variable_and_a_flag_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(VARIABLES) == {one.name for one in fields(Access)}
    expected = everything(tmp_path)
    for name, variable in VARIABLES.items():
        value = getattr(expected, name)
        monkeypatch.setenv(variable, "\n".join(value) if isinstance(value, tuple) else str(value))
    assert Access().with_environment() == expected
    assert Access(proxy="http://mine:1").with_environment().proxy == "http://mine:1"


@pytest.mark.parametrize(
    "given",
    [
        {"proxy": f"me:{HIDDEN}@host:1"},
        {"proxy": f"ftp://me:{HIDDEN}@host:1"},
        {"source_address": HIDDEN},
        {"extractor_args": (HIDDEN,)},
    ],
)
def test_what_is_of_no_use_is_refused_without_its_being_told(given: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        Access(**given)  # type: ignore[arg-type]
    assert HIDDEN not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"<html>", b"SID=s3cret; HSID=s3cret"])
def test_a_file_without_cookies_is_refused_before_anything_is_asked(
    source: Source, tmp_path: Path, content: bytes | None
) -> None:
    cookies = tmp_path / HIDDEN
    if content is not None:
        cookies.write_bytes(content)
    with pytest.raises(UsageError, match="cookies") as caught:
        source(Access(cookies=cookies))
    assert HIDDEN not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "wrong", [{"rate_per_h": 0}, {"rate_per_h": float("nan")}, {"rate_per_h": float("inf")}, {"url_template": "x"}]
)
def test_a_rate_of_nothing_and_an_address_without_an_id_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        YouTubeSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"pad_s": -1}, {"timeout_s": 0}, {"rest_s": float("nan")}])
def test_other_settings_keep_to_their_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        YouTubeSettings(**wrong)  # type: ignore[arg-type]


def test_yt_dlp_is_loaded_by_who_brings_a_video_only() -> None:
    script = (
        "import sys; from k710.clips.sources.youtube import *; YouTubeVideos(); terms_notice(); version_note()\n"
        "sys.exit(bool({'yt_dlp', 'av', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_yt_dlp_the_source_says_what_to_install(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(UsageError) as caught:
        source()
    assert caught.value.hint == 'pip install "k710[youtube]"'


def test_the_notice_names_the_terms_and_whose_they_are_to_keep() -> None:
    assert "terms of service apply to you" in terms_notice()


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("2026.10.26", ""),
        ("2026.08.24", ""),
        ("2026.8.22", "yt-dlp 2026.8.22 is 91 days old"),
        ("2026.10.26.232815.dev0", ""),
        ("unknown", ""),
    ],
)
def test_an_old_yt_dlp_is_named(version: str, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    found = version_note(datetime.date(2026, 11, 21))
    assert (note in found) if note else found == ""


def test_browsers_and_extractor_arguments_are_named_as_for_yt_dlp() -> None:
    assert _browser("firefox") == ("firefox", None, None, None)
    assert _browser("Chrome+gnomekeyring:Profile 1::none") == ("chrome", "Profile 1", "GNOMEKEYRING", "none")
    assert _extractor_args(("youtube:player-client=tv,mweb;skip=hls", "generic:a=b")) == {
        "youtube": {"player_client": ["tv", "mweb"], "skip": ["hls"]},
        "generic": {"a": ["b"]},
    }


def video(width: int, height: int, **more: object) -> dict[str, object]:
    usual = {"url": "https://x", "protocol": "https", "ext": "mp4", "vcodec": "avc1.4d401e", "acodec": "none"}
    return {**usual, "width": width, "height": height, "format_id": f"{width}x{height}", **more}


SOUND = {**video(0, 0, vcodec="none", acodec="mp4a.40.2", ext="m4a", abr=128.0), "width": None, "height": None}


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ([video(256, 144), video(426, 240), video(640, 360), video(1280, 720)], "640x360"),
        ([video(256, 144), video(426, 240)], "426x240"),
        ([video(360, 640), video(240, 426)], "360x640"),
        ([video(640, 360, ext="webm", vcodec="vp9"), video(640, 360, format_id="mp4")], "mp4"),
        ([video(640, 360, vcodec="av01.0.01M.08"), video(640, 360, format_id="avc")], "avc"),
        ([video(640, 360, has_drm=True), video(1280, 720)], "1280x720"),
        ([video(640, 360, protocol="m3u8_native"), video(1280, 720)], "1280x720"),
        ([video(640, 360, protocol="mhtml"), video(256, 144)], "256x144"),
        ([SOUND, video(256, 144)], "256x144"),
        ([video(640, 360, acodec="mp4a", format_id="both"), video(640, 360, format_id="mute")], "mute"),
        ([{"url": "https://x/file.mp4", "protocol": "https", "format_id": "unknown"}], "unknown"),
    ],
)
def test_the_smallest_picture_that_suffices_is_taken(formats: list[dict[str, object]], expected: str) -> None:
    choice = choose(formats, short_side_px=256, sound=False)
    assert choice is not None
    assert choice.picture["format_id"] == expected
    assert choice.sound is None


def test_sound_comes_with_the_picture_or_apart() -> None:
    apart = choose([SOUND, video(640, 360)], short_side_px=256, sound=True)
    assert apart is not None
    assert apart.sound == SOUND
    together = choose([SOUND, video(640, 360, acodec="mp4a"), video(640, 360)], short_side_px=256, sound=True)
    assert together is not None
    assert (together.sound, together.picture["acodec"]) == (None, "mp4a")
    in_one = choose(
        [SOUND, video(640, 360), video(1280, 720, acodec="mp4a")], short_side_px=256, sound=True, in_one=True
    )
    assert in_one is not None
    assert (in_one.sound, in_one.picture["width"]) == (None, 1280)


def test_the_original_sound_goes_before_dubbed_ones() -> None:
    dubbed = {**SOUND, "language_preference": -1, "format_id": "dubbed"}
    original = {**SOUND, "language_preference": 10, "abr": 48.0, "format_id": "original"}
    choice = choose([dubbed, original, video(640, 360)], short_side_px=256, sound=True)
    assert choice is not None
    assert choice.sound == original


def test_where_there_is_no_picture_nothing_is_taken() -> None:
    assert choose([SOUND], short_side_px=256, sound=False) is None
