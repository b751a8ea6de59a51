"""What `--videos` names: the kinds of sources, mistakes, and the rounds that several make."""

from __future__ import annotations

from pathlib import Path

import pytest

from k710.clips.encodings import EncodeConfig
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.chosen import ArchiveSettings, Chosen, Clips, SourceSettings, choose, moved, parsed
from k710.clips.sources.local import LocalFolders
from k710.clips.sources.url import UrlVideos
from k710.errors import UsageError
from k710.segments import Segment


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b", "old:videos", "videos.csv"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(*texts: str, encode: str = "sparse8") -> Chosen:
    return choose(texts, encode=EncodeConfig(encode=encode))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "rest"),
    [
        ("a", "local", "a"),
        ("./cvdf:x", "local", "./cvdf:x"),
        ("old:videos", "local", "old:videos"),
        ("file:///data/my%20videos", "local", "/data/my videos"),
        ("cvdf:", "cvdf", ""),
        ("cvdf:/data/archives", "cvdf", "/data/archives"),
        ("youtube:", "youtube", ""),
        ("url:https://host/{id}.mp4", "url", "https://host/{id}.mp4"),
        ("url:list.csv", "url", "list.csv"),
        ("file", "local", "file"),
    ],
)
def test_a_text_names_a_kind_or_a_folder(text: str, kind: str, rest: str, folders: Path) -> None:
    assert parsed(text) == (kind, rest)


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["utube:"], "--videos utube:: neither a folder nor a kind of source", "youtube: YouTube"),
        (["YouTube:"], "neither a folder nor a kind of source", "cvdf:DIR"),
        (["nowhere"], "nowhere: no such folder", ""),
        (["cvdf:nowhere"], "cvdf:nowhere: no such folder", ""),
        (["https://host/videos"], "what a web server has cannot be listed", "url:https://host/{id}.mp4"),
        (["https://u:hunter2@host/videos?sig=hunter2"], "what a web server has cannot be listed", "url:"),
        (["ftp://u:hunter2@host/videos"], "files at ftp:// cannot be listed", "s3://"),
        (["youtube:", "a"], "must be the last", "before it"),
        (["youtube:", "youtube:"], "must be the last", ""),
        (["a", "youtube:cookies.txt"], "nothing may follow", "flags"),
    ],
)
def test_a_mistake_is_refused_in_words_that_help(texts: list[str], message: str, hint: str, folders: Path) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(*texts)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["cvdf:", "youtube:", "url:http://host/{id}.mp4", "s3://bucket/videos"])
def test_videos_elsewhere_cannot_stay_in_place(text: str, folders: Path) -> None:
    with pytest.raises(UsageError, match="--encode none"):
        chosen("a", text, encode="none")


def test_whole_videos_cannot_be_copied(folders: Path) -> None:
    with pytest.raises(UsageError, match="takes trimmed files only"):
        chosen("a", "youtube:", encode="copy")


def test_sources_that_list_what_they_have_are_asked_together_and_archives_by_themselves(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = object()
    monkeypatch.setattr(Chosen, "_cvdf", lambda *_: archives)
    clips = Clips(work=folders, rivals={}, rows=dict, say=print)
    found = chosen("a", "b", "url:http://host/{id}.mp4", "old:videos", "cvdf:", "cvdf:a", "b").rounds(clips)
    assert [[type(s) for s in r] if isinstance(r, tuple) else r for r in found] == [
        [LocalFolders, UrlVideos, LocalFolders],
        archives,
        archives,
        [LocalFolders],
    ]
    assert isinstance(found[0], tuple)
    assert found[0][0].names == ("a", "b")


def test_youtube_is_asked_when_all_others_were(folders: Path) -> None:
    pytest.importorskip("yt_dlp")
    first, last = chosen("a", "youtube:").rounds(Clips(work=folders, rivals={}, rows=dict, say=print))
    assert isinstance(first, tuple)
    assert isinstance(last, tuple)
    assert [source.names for source in (*first, *last)] == [("a",), ("youtube:",)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "../a"),
        ("old:videos", "../old:videos"),
        ("cvdf:", "cvdf:"),
        ("cvdf:a", "cvdf:../a"),
        ("youtube:", "youtube:"),
        ("url:list.csv", "url:../list.csv"),
        ("url:http://host/list.csv", "url:http://host/list.csv"),
        ("url:http://host/{id}.mp4", "url:http://host/{id}.mp4"),
        ("s3://bucket/videos", "s3://bucket/videos"),
        ("file:///videos", "file:///videos"),
    ],
)
def test_only_paths_move_when_a_build_is_run_from_another_folder(text: str, expected: str) -> None:
    assert moved(text, lambda path: f"../{path}") == expected


def test_a_mirror_with_a_password_is_refused() -> None:
    with pytest.raises(UsageError, match="would be stored") as caught:
        ArchiveSettings(base_url="https://user:hunter2@mirror/")
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_youtube_is_told_the_rate_and_what_clips_need(folders: Path) -> None:
    pytest.importorskip("yt_dlp")
    settings = SourceSettings(youtube_rate_per_h=60)
    encode = EncodeConfig(short_side_px=128, keep_audio=True)
    (source,) = choose(["youtube:"], encode=encode, settings=settings).made.values()
    segment = Segment(id="abcdefghijk", start_s=5, end_s=15)
    ((candidate,),) = source.candidates([Wanted(segment=segment, releases=frozenset({"k400"}))], {})
    assert candidate.origin is not None
    asked = candidate.origin.settings  # type: ignore[attr-defined]
    assert (asked.rate_per_h, asked.short_side_px, asked.sound) == (60, 128, True)
