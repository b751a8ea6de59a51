"""Videos at addresses: templates and tables, and what each way that a server answers means for a clip."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_site import HURRIED, Site

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.make import ClipJob, fingerprint, make_clip
from k710.clips.media import encode_frames
from k710.clips.outcomes import ClipOutcome, Unusable
from k710.clips.sources import url_origin
from k710.clips.sources.candidates import Brought, Candidate, Wanted
from k710.clips.sources.url import UrlVideos
from k710.clips.sources.url_origin import UrlOrigin
from k710.errors import InputError, SourceError, UsageError
from k710.fetch import partial
from k710.fetch.client import Client
from k710.segments import Segment

IDS = ("-bcdefghij1", "abcdefghij2")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of noise."""
    path = tmp_path_factory.mktemp("video") / "one.mp4"
    frames_THWC = np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
    encode_frames(frames_THWC, path, fps=10, config=EncodeConfig())
    return path


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(HURRIED)
    monkeypatch.setattr(url_origin, "_client", lambda: client)


def wanted(video_id: str = IDS[0], start_s: float = 0, end_s: float = 1, releases: str = "k400") -> Wanted:
    return Wanted(segment=Segment(id=video_id, start_s=start_s, end_s=end_s), releases=frozenset(releases.split()))


def urls(text: str, *items: Wanted, rivals: dict[str, Any] | None = None) -> list[list[str]]:
    found = UrlVideos(text).candidates(items, rivals or {})
    return [[c.origin.identity for c in own if c.origin is not None] for own in found]


def clip_of(item: Wanted, candidates: tuple[Candidate, ...], folder: Path) -> ClipOutcome:
    folder.mkdir(exist_ok=True)
    return make_clip(
        ClipJob(segment=item.segment, candidates=candidates, target=folder / "clip.mp4", encode=EncodeConfig())
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("http://h/{id}.mp4", "http://h/-bcdefghij1.mp4"),
        ("http://h/{id}_{start:06d}_{end:06d}.mp4", "http://h/-bcdefghij1_000002_000012.mp4"),
        ("http://h/{key}.mp4?v={start}-{end}", "http://h/-bcdefghij1_000002_000012.mp4?v=2-12"),
        ("https://h/{release}/{id}", "https://h/k400/-bcdefghij1"),
        ("s3://bucket/{id}.webm", "s3://bucket/-bcdefghij1.webm"),
    ],
)
def test_a_template_gives_each_clip_its_address(template: str, expected: str) -> None:
    assert urls(template, wanted(start_s=2, end_s=12)) == [[expected]]


def test_ids_of_any_text_are_quoted_in_addresses() -> None:
    assert urls("http://h/{id}.mp4", wanted("a b/../?#c")) == [["http://h/a%20b%2F..%2F%3F%23c.mp4"]]
    assert urls("s3://bucket/{id}.mp4", wanted("../secret")) == [[]]


def test_times_that_are_no_whole_seconds_have_no_address_in_whole_seconds() -> None:
    assert urls("http://h/{id}_{start:06d}.mp4", wanted(start_s=0.5)) == [[]]
    assert urls("http://h/{id}_{start}.mp4", wanted(start_s=0.5)) == [["http://h/-bcdefghij1_0.5.mp4"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://h/{video}.mp4", r"\{video\} cannot stand there"),
        ("http://h/{id.__class__}.mp4", r"\{id.__class__\} cannot stand there"),
        ("http://h/{id!r}.mp4", r"\{id!r\} cannot stand there"),
        ("http://h/{id:9999999999d}", "cannot stand there"),
        ("http://h/{start:99999999.9f}{id}", "cannot stand there"),
        ("http://h/{start:99999999999999999999d}{id}", "cannot stand there"),
        ("http://user:p/w@h/{id}.mp4", "not an address"),
        ("http://h/{}.mp4", "cannot stand there"),
        ("http://h/{id.mp4", "not a template"),
        ("http://h/{start}.mp4", r"without \{id\}"),
        ("ftp://h/{id}.mp4", "not an address that begins with http"),
        ("h/{id}.mp4", "not an address that begins with http"),
        ("http:///{id}.mp4", "not an address that begins with http"),
        ("nothing.csv", "no such file, and no template"),
    ],
)
def test_what_is_no_template_and_no_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        UrlVideos(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@h/{id}.mp4",
        "https://h/{id}.mp4?X-Amz-Signature=hunter2",
        "https://h/{id}.mp4?sig=hunter2",
        "https://h/{id}.mp4?access_token=hunter2",
        "https://h/{id}.mp4?key=hunter2",
        "https://h/{id}.mp4?jwt=hunter2",
        "https://h/{id}.mp4#token=hunter2",
        "s3://hunter2@bucket/{id}.mp4",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated_in_whole(text: str) -> None:
    with pytest.raises(UsageError, match="would be stored") as caught:
        UrlVideos(text)
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_a_template_with_times_names_trimmed_files_and_one_without_is_told_by_length() -> None:
    item, rival = wanted(), wanted(start_s=5, end_s=6, releases="k600")
    rivals = {item.segment.id: [item, rival]}
    ((timed,),) = UrlVideos("http://h/{id}_{start}_{end}.mp4").candidates([item], rivals)
    assert (timed.timed, timed.may_be_trimmed) == (True, True)
    ((open_,),) = UrlVideos("http://h/{id}.mp4", "originals").candidates([item], rivals)
    assert (open_.timed, open_.may_be_trimmed, open_.videos_are) == (False, False, "originals")
    ((named,),) = UrlVideos("http://h/{release}/{id}.mp4").candidates([item], rivals)
    assert named.may_be_trimmed
    ((alone,),) = UrlVideos("http://h/{id}.mp4").candidates([item], {})
    assert alone.may_be_trimmed


def test_a_table_gives_rows_with_the_times_of_a_clip_before_those_of_its_video(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "\ufeffurl,id,start,end,sha256\n"
        f"http://h/whole.mp4,{IDS[0]},,,\n"
        f"http://h/clip.mp4,{IDS[0]},0,1,{'a' * 64}\n"
        f"http://h/other.mp4,{IDS[0]},1.5,3,\n\n"
        f"http://h/b.mp4,{IDS[1]}\n"
    )
    assert urls(str(table), wanted(), wanted(IDS[1]), wanted("zzzzzzzzzzz")) == [
        [f"http://h/clip.mp4 {'a' * 64}", "http://h/whole.mp4"],
        ["http://h/b.mp4"],
        [],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column id and none url"),
        ("id,url,start\na,http://h/a,1\n", "no column end"),
        ("id,url\n,http://h/a\n", "row 2: no id"),
        ("id,url\na,h/a.mp4\n", "row 2: not an address"),
        ("id,url\nok,http://h/a\na,http://u:hunter2@h/a\n", "row 3: .*would be stored"),
        ("id,url,start,end\na,http://h/a,5,5\n", "row 2: end 5 is not after start 5"),
        ("id,url,start,end\na,http://h/a,x,5\n", "row 2: start 'x' and end '5' are not both seconds"),
        ("id,url,start,end\na,http://h/a,1,nan\n", "row 2: end nan is not after start 1"),
        ("id,url,sha256\na,http://h/a,abc\n", "row 2: sha256 is not 64 hex"),
        ("id,url\na,http://h/\xff", "cannot be read as a table"),
        ('id,url\na,"http://h/a\nb,http://h/b\n', "cannot be read as a table"),
        ("id,url\na,http://h/a,b.mp4\n", "row 2: more cells than columns"),
    ],
)
def test_a_wrong_row_of_a_table_is_named(text: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        UrlVideos(str(table))
    assert "hunter2" not in str(caught.value)


def test_a_table_may_be_at_an_address_itself(site: Site) -> None:
    site.put("/table.csv", f"id,url\n{IDS[0]},http://h/a.mp4\n".encode())
    assert urls(f"{site.url}/table.csv", wanted()) == [["http://h/a.mp4"]]
    with pytest.raises(SourceError, match=r"none\.csv: cannot be had \(missing: not_found: 404"):
        UrlVideos(f"{site.url}/none.csv")


def test_a_video_is_brought_made_and_gone(site: Site, video: Path, tmp_path: Path) -> None:
    site.put(f"/{IDS[0]}.mp4", video.read_bytes())
    ((candidate,),) = UrlVideos(f"{site.url}/{{id}}.mp4").candidates([wanted()], {})
    made = clip_of(wanted(), (candidate,), tmp_path / "scratch")
    assert (made.status, made.kind, made.source, made.frames) == ("ok", "url", f"{IDS[0]}.mp4", 10)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("how", "status", "detail"),
    [
        ({"codes": [404]}, "missing", "not_found: 404"),
        ({"codes": [410]}, "missing", "not_found: 410"),
        ({"codes": [401]}, "forbidden", "forbidden: 401"),
        ({"codes": [403]}, "forbidden", "forbidden: 403"),
        ({"codes": [429], "always": True}, "pending", "rate_limited: 429"),
        ({"codes": [429], "headers": {"Retry-After": "3600"}}, "pending", "asked again in 3600 s"),
        ({"codes": [503], "always": True}, "pending", "server_error: 503"),
        ({"codes": [500, 502, 200]}, "ok", ""),
        ({"cut_after": [100] * 9, "ranges": False}, "pending", "truncated: "),
        ({"cut_after": [100, 100]}, "ok", ""),
        ({"location": "/" + "elsewhere"}, "missing", "not_found: 404"),
        ({"length": False}, "truncated", "no_length: "),
    ],
)
def test_each_answer_of_a_server_is_a_status_of_its_own(
    how: dict[str, Any], status: str, detail: str, site: Site, video: Path, tmp_path: Path
) -> None:
    site.put("/a.mp4", video.read_bytes(), **how)
    origin = UrlOrigin(url=f"{site.url}/a.mp4", name="a.mp4")
    candidate = Candidate(path="a.mp4", timed=True, may_be_trimmed=True, origin=origin, kind="url")
    made = clip_of(wanted(), (candidate,), tmp_path / "scratch")
    assert made.status == status
    assert detail in made.detail
    assert bool(made.tried) == (status != "pending")
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.name != "clip.mp4"]


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"<!doctype html><p>Sign in</p>", "not_a_video"), (b"", "not_a_video"), (b"just text", "not_a_video")],
)
def test_a_page_in_place_of_a_video_is_none(data: bytes, status: str, site: Site, tmp_path: Path) -> None:
    site.put("/a.mp4", data)
    candidate = Candidate(
        path="a.mp4", timed=True, may_be_trimmed=True, origin=UrlOrigin(url=f"{site.url}/a.mp4", name="a.mp4")
    )
    assert clip_of(wanted(), (candidate,), tmp_path / "scratch").status == status


def test_a_server_that_is_not_there_is_asked_another_time(tmp_path: Path) -> None:
    closed = Site()
    closed.close()
    brought = UrlOrigin(url=f"{closed.url}/a.mp4", name="a.mp4").bring(tmp_path)
    assert isinstance(brought, Unusable)
    assert (brought.status, brought.detail.partition(":")[0]) == ("pending", "unreachable")


def test_a_server_that_asks_for_an_hour_is_not_asked_again_meanwhile(site: Site, tmp_path: Path) -> None:
    for name in ("a", "b"):
        site.put(f"/{name}.mp4", codes=[429], always=True, headers={"Retry-After": "3600"})
    brought = [UrlOrigin(url=f"{site.url}/{name}.mp4", name=name).bring(tmp_path) for name in ("a", "b", "b")]
    assert [getattr(refused, "status", "") for refused in brought] == ["pending"] * 3
    assert "asked to wait" in getattr(brought[1], "detail", "")
    assert (len(site.gets("/a.mp4")), len(site.gets("/b.mp4"))) == (1, 0)


def test_a_full_disk_is_not_blamed_on_the_server(
    site: Site, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/a.mp4", video.read_bytes())
    monkeypatch.setattr(partial, "SPARE_BYTES", 1 << 60)
    with pytest.raises(OSError, match=r"No space|room|bytes"):
        UrlOrigin(url=f"{site.url}/a.mp4", name="a").bring(tmp_path)


def test_files_of_a_template_that_are_not_there_are_missing(tmp_path: Path) -> None:
    ((candidate,),) = UrlVideos(f"file://{tmp_path}/{{id}}.mp4").candidates([wanted()], {})
    assert clip_of(wanted(), (candidate,), tmp_path / "scratch").status == "missing"


def test_a_table_in_a_folder_with_a_space_is_found_by_its_address(tmp_path: Path) -> None:
    table = tmp_path / "my table.csv"
    table.write_text(f"id,url\n{IDS[0]},http://h/a.mp4\n")
    assert urls(table.as_uri(), wanted()) == [["http://h/a.mp4"]]


def test_a_checksum_is_checked(site: Site, video: Path, tmp_path: Path) -> None:
    site.put("/a.mp4", video.read_bytes())
    right = hashlib.sha256(video.read_bytes()).hexdigest()
    assert isinstance(UrlOrigin(url=f"{site.url}/a.mp4", name="a", sha256=right).bring(tmp_path), Brought)
    brought = UrlOrigin(url=f"{site.url}/a.mp4", name="b", sha256="0" * 64).bring(tmp_path)
    assert brought == Unusable(status="corrupt", detail=f"sha256 is {right}, should be {'0' * 64}")


def test_no_more_bytes_come_than_a_video_may_have(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_origin, "MAX_BYTES", 1 << 20)
    site.put("/a.mp4", bytes(32 << 20), chunked=True)
    brought = UrlOrigin(url=f"{site.url}/a.mp4", name="a.mp4").bring(tmp_path)
    assert brought == Unusable(status="too_large", detail="more than 1,048,576 bytes")
    assert site.sent["/a.mp4"] < 16 << 20


def test_a_source_that_asks_to_wait_ends_the_search_and_one_that_has_nothing_does_not(
    site: Site, video: Path, tmp_path: Path
) -> None:
    site.put("/busy.mp4", codes=[503], always=True)
    site.put("/here.mp4", video.read_bytes())

    def candidate(name: str) -> Candidate:
        origin = UrlOrigin(url=f"{site.url}/{name}", name=name)
        return Candidate(path=name, timed=True, may_be_trimmed=True, origin=origin, kind="url")

    busy, gone, here = candidate("busy.mp4"), candidate("gone.mp4"), candidate("here.mp4")
    assert clip_of(wanted(), (gone, here), tmp_path / "scratch").status == "ok"
    assert clip_of(wanted(), (gone, busy, here), tmp_path / "scratch").status == "pending"
    page = tmp_path / "page.mp4"
    page.write_text("<!doctype html>")
    local = Candidate(path=str(page), timed=True, may_be_trimmed=True)
    assert clip_of(wanted(), (gone, local), tmp_path / "scratch").status == "not_a_video"


def test_another_address_or_checksum_is_another_try() -> None:
    def tried(url: str, sha256: str = "") -> str:
        origin = UrlOrigin(url=url, name="a.mp4", sha256=sha256)
        return fingerprint((Candidate(path="a.mp4", timed=True, may_be_trimmed=True, origin=origin, kind="url"),))

    digests = [tried("http://h/a"), tried("http://h/b"), tried("http://h/a", "0" * 64)]
    assert len(set(digests)) == 3
    assert tried("http://h/a") == digests[0]


def lists(folder: Path) -> Path:
    (folder / "lists" / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in IDS)
    (folder / "lists" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    return folder / "lists"


@pytest.mark.usefixtures("fresh_workers")
def test_a_build_takes_from_a_server_what_no_folder_has_and_asks_again_for_what_is_pending(
    site: Site, video: Path, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copyfile(video, tmp_path / "videos" / f"{IDS[0]}.mp4")
    page = site.put(f"/{IDS[1]}.mp4", video.read_bytes(), codes=[503], always=True, headers={"Retry-After": "0"})
    config = BuildConfig(
        annotations=lists(tmp_path),
        videos=(str(tmp_path / "videos"), f"url:{site.url}/{{id}}.mp4"),
        out=tmp_path / "out",
        workers=1,
    )
    assert build(config).clips == {"ok": 1, "pending": 1}
    assert not site.gets(f"/{IDS[0]}.mp4")
    page.codes.clear()
    again = build(config)
    assert (again.clips, again.tried) == ({"ok": 2}, 1)
    assert build(config).tried == 0


def test_a_template_of_files_leaves_them_where_they_are(video: Path, tmp_path: Path) -> None:
    (tmp_path / "my videos").mkdir()
    path = tmp_path / "my videos" / f"{IDS[0]}.mp4"
    shutil.copyfile(video, path)
    ((candidate,),) = UrlVideos(f"file://{tmp_path}/my%20videos/{{id}}.mp4").candidates([wanted()], {})
    assert (candidate.path, candidate.origin) == (str(path), None)
    assert clip_of(wanted(), (candidate,), tmp_path / "scratch").status == "ok"
    assert path.exists()
