"""One file over HTTP, from servers that break the rules: whole or not there, and never two versions in one."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
from web_site import HURRIED, Page, Site, write_certificate

from k710.errors import StoppedOnPurposeError
from k710.fetch.client import Client
from k710.fetch.download import download, has_page
from k710.fetch.outcomes import (
    BAD_REDIRECT,
    CHANGED,
    DAMAGED,
    FETCHED,
    FORBIDDEN,
    FOUND,
    IN_THE_WAY,
    NO_LENGTH,
    NO_ROOM,
    NOT_COMPARED,
    NOT_DATA,
    NOT_FOUND,
    RATE_LIMITED,
    REFUSED,
    REPLACED,
    SERVER_ERROR,
    TOO_SLOW,
    TRUNCATED,
    UNCHANGED,
    UNREACHABLE,
    WRONG_CHECKSUM,
    Outcome,
    Wanted,
)
from k710.fetch.record import Sources

ROWS = b"label,youtube_id,time_start,time_end,split\n" + b"abseiling,-3B32lodo2M,59,69,train\n" * 400
OTHER = b"label,youtube_id,time_start,time_end,split\n" + b"zumba,-3B32lodo2M,59,69,train\n" * 500
SAME_LENGTH = ROWS.replace(b"abseiling", b"ABSEILING")


def get(site: Site, client: Client, out: Path, **more: object) -> Outcome:
    """Downloads ``/a/train.csv`` to ``train.csv``."""
    accept = bool(more.pop("accept_changed", False))
    wanted = Wanted(url=f"{site.url}/a/train.csv", path=out / "train.csv", **more)  # type: ignore[arg-type]
    return download(client, Sources(out), wanted, accept_changed=accept)


def names(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir())


def test_a_file_arrives_whole_and_its_first_sight_is_recorded(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, modified="Wed, 01 Jan 2020 00:00:00 GMT")
    outcome = get(site, client, out)
    assert (outcome.status, outcome.size_bytes) == (FETCHED, len(ROWS))
    assert (out / "train.csv").read_bytes() == ROWS
    assert names(out) == ["sources.json", "train.csv"]
    seen = json.loads((out / "sources.json").read_text())["files"]["train.csv"]
    assert seen["sha256"] == hashlib.sha256(ROWS).hexdigest()
    assert (seen["etag"], seen["size_bytes"]) == (site.pages["/a/train.csv"].version, len(ROWS))
    assert seen["url"] == f"{site.url}/a/train.csv"


def test_a_second_run_asks_and_downloads_nothing(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    assert get(site, client, out).status == UNCHANGED
    assert len(site.gets("/a/train.csv")) == 1


@pytest.mark.parametrize("how", [{}, {"etag": None, "modified": "Wed, 01 Jan 2020 00:00:00 GMT"}])
def test_a_connection_that_ends_early_is_gone_on_with(
    site: Site, client: Client, out: Path, how: dict[str, str]
) -> None:
    page = site.put("/a/train.csv", ROWS, cut_after=[5000, 3000], **how)
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == ROWS
    parts = [(h.get("Range"), h.get("If-Range")) for h in site.gets("/a/train.csv")]
    validator = page.version or page.modified
    assert parts == [(None, None), ("bytes=5000-", validator), ("bytes=8000-", validator)]
    assert site.sent["/a/train.csv"] == len(ROWS)


def test_a_file_that_never_comes_whole_is_truncated_and_waits_for_the_next_run(
    site: Site, client: Client, out: Path
) -> None:
    page = site.put("/a/train.csv", ROWS, cut_after=[4000, 1000, 1000])
    outcome = get(site, client, out)
    assert outcome.status == TRUNCATED
    assert names(out) == [".train.csv.partial", ".train.csv.partial.json"]
    page.cut_after = []
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == ROWS
    assert site.sent["/a/train.csv"] == len(ROWS)


def test_a_chunked_body_that_ends_early_is_not_taken_for_whole(site: Site, client: Client, out: Path) -> None:
    page = site.put("/a/train.csv", ROWS, chunked=True, cut_after=[4000] * 9, ranges=False)
    assert get(site, client, out).status == TRUNCATED
    page.cut_after = []
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == ROWS


def test_without_ranges_it_begins_again(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, ranges=False, cut_after=[5000])
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == ROWS


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("modified", [None, "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_a_file_that_changes_under_way_is_never_spliced(
    site: Site, client: Client, out: Path, heeds: bool, modified: str | None
) -> None:
    # One server says 200 to If-Range, the other gives a part of the new file regardless.
    page = site.put("/a/train.csv", ROWS, cut_after=[5000], heeds_if_range=heeds, modified=modified)

    def change(page: Page) -> None:
        if len(site.gets("/a/train.csv")) == 2:
            page.data = SAME_LENGTH

    page.on_get = change
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == SAME_LENGTH


def test_a_part_without_a_version_is_not_gone_on_with(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, etag=None, cut_after=[5000])
    assert get(site, client, out).status == FETCHED
    assert all("Range" not in h for h in site.gets("/a/train.csv"))


def test_a_part_of_another_size_is_not_gone_on_with(site: Site, client: Client, out: Path) -> None:
    page = site.put("/a/train.csv", ROWS, etag='"same"', cut_after=[5000])
    page.on_get = lambda page: setattr(page, "data", OTHER if len(site.gets("/a/train.csv")) > 1 else ROWS)
    assert get(site, client, out).status == FETCHED
    assert (out / "train.csv").read_bytes() == OTHER


def test_a_partial_of_another_address_is_not_gone_on_with(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, cut_after=[3000] * 3, etag='"same"')
    get(site, client, out)
    site.put("/b/train.csv", SAME_LENGTH, etag='"same"')
    wanted = Wanted(url=f"{site.url}/b/train.csv", path=out / "train.csv")
    assert download(client, Sources(out), wanted, accept_changed=False).status == FETCHED
    assert (out / "train.csv").read_bytes() == SAME_LENGTH


@pytest.mark.parametrize(
    ("code", "status", "asked"),
    [
        (404, NOT_FOUND, 1),
        (410, NOT_FOUND, 1),
        (403, FORBIDDEN, 1),
        (401, FORBIDDEN, 1),
        (400, REFUSED, 1),
        (501, REFUSED, 1),
        (500, SERVER_ERROR, 3),
        (503, SERVER_ERROR, 3),
        (429, RATE_LIMITED, 3),
    ],
)
def test_each_refusal_has_its_own_status(
    site: Site, client: Client, out: Path, code: int, status: str, asked: int
) -> None:
    site.put("/a/train.csv", ROWS, codes=[code], always=True)
    outcome = get(site, client, out)
    assert outcome.status == status
    assert str(code) in outcome.reason
    assert len(site.gets("/a/train.csv")) == asked
    assert names(out) == []


def test_a_server_error_that_passes_is_no_failure(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, codes=[500, 502])
    assert get(site, client, out).status == FETCHED


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(site: Site, out: Path, monkeypatch: pytest.MonkeyPatch, as_date: bool) -> None:
    client = Client(type(HURRIED)(tries=2, max_wait_s=60))
    after = email.utils.formatdate(time.time() + 30, usegmt=True) if as_date else "30"
    site.put("/a/train.csv", ROWS, codes=[429], headers={"Retry-After": after})
    waits: list[float] = []
    monkeypatch.setattr(client, "rest", lambda seconds, _: waits.append(seconds))
    assert get(site, client, out).status == FETCHED
    assert waits == [pytest.approx(30, abs=2)]


def test_while_one_file_waits_the_others_of_its_server_do_too(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    threading.Timer(0.0, client.rest, (0.3, f"{site.url}/b/val.csv")).start()
    time.sleep(0.05)
    began = time.monotonic()
    assert get(site, client, out).status == FETCHED
    assert time.monotonic() - began > 0.2


def test_a_server_that_asks_to_wait_for_an_hour_is_not_waited_for(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, codes=[429], always=True, headers={"Retry-After": "3600"})
    outcome = get(site, client, out)
    assert (outcome.status, outcome.reason) == (RATE_LIMITED, "429 Too Many Requests, to be asked again in 3600 s")
    assert len(site.gets("/a/train.csv")) == 1


def test_a_drip_is_too_slow(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, drip_s=0.1)
    outcome = get(site, client, out)
    assert outcome.status == TOO_SLOW
    assert "bytes/s" in outcome.reason
    assert names(out) == [".train.csv.partial", ".train.csv.partial.json"]


def test_a_silence_is_too_slow(site: Site, out: Path) -> None:
    client = Client(type(HURRIED)(read_s=0.2, tries=1))
    site.put("/a/train.csv", ROWS, drip_s=1)
    assert get(site, client, out).status == TOO_SLOW


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><title>log in</title>",
        b"\xef\xbb\xbf\n <HTML><body>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        gzip.compress(b"<html>blocked", mtime=0),
        b"",
    ],
    ids=["page", "page with a mark", "error of S3", "packed page", "nothing"],
)
def test_a_page_in_place_of_the_file_is_not_taken(site: Site, client: Client, out: Path, page: bytes) -> None:
    site.put("/a/train.csv", page)
    assert get(site, client, out).status == NOT_DATA
    assert names(out) == []


def test_a_page_in_between_costs_nothing_of_what_has_come(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, cut_after=[4000, 0, 0])
    assert get(site, client, out).status == TRUNCATED
    site.put("/a/train.csv", b"<html>log in", headers={"Content-Type": "text/html; charset=utf-8"})
    assert get(site, client, out).status == NOT_DATA
    assert (out / ".train.csv.partial").stat().st_size == 4000
    site.put("/a/train.csv", ROWS)
    assert get(site, client, out).status == FETCHED


def test_a_list_is_no_page() -> None:
    assert not has_page(ROWS)
    assert not has_page(gzip.compress(ROWS))
    assert not has_page(b"\x1f\x8b torn")


def test_a_body_without_any_end_is_refused(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, length=False)
    assert get(site, client, out).status == NO_LENGTH
    assert "train.csv" not in names(out)


def test_redirects_are_followed_and_not_for_ever(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", location="/b/train.csv")
    site.put("/b/train.csv", ROWS)
    assert get(site, client, out).status == FETCHED
    site.put("/a/train.csv", location="/a/train.csv")
    (out / "train.csv").unlink()
    assert get(site, client, out).status == BAD_REDIRECT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[::1/x", "ftp://h/x"])
def test_a_redirect_to_what_is_no_server_is_not_followed(site: Site, client: Client, out: Path, location: str) -> None:
    site.put("/a/train.csv", location=location)
    assert get(site, client, out).status == BAD_REDIRECT


def test_a_secure_server_is_trusted_by_its_certificate_and_leads_to_no_open_one(
    site: Site, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "certificate.pem")
    secure = Site(certificate)
    secure.put("/a/train.csv", ROWS)
    outcome = get(secure, Client(HURRIED), out)
    assert (outcome.status, "certificate" in outcome.reason) == (UNREACHABLE, True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert get(secure, Client(HURRIED), out).status == FETCHED
    site.put("/a/train.csv", ROWS)
    secure.put("/a/train.csv", location=f"{site.url}/a/train.csv")
    (out / "train.csv").unlink()
    outcome = get(secure, Client(HURRIED), out)
    secure.close()
    assert (outcome.status, "from https to http" in outcome.reason) == (BAD_REDIRECT, True)


def test_a_known_checksum_is_checked(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    assert get(site, client, out, sha256="0" * 64).status == WRONG_CHECKSUM
    assert names(out) == []
    assert get(site, client, out, sha256=hashlib.sha256(ROWS).hexdigest()).status == FETCHED


def test_another_checksum_than_at_first_is_an_error_until_it_is_accepted(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    site.put("/a/train.csv", OTHER)
    for _ in range(2):
        outcome = get(site, client, out)
        assert outcome.status == CHANGED
        assert hashlib.sha256(ROWS).hexdigest() in outcome.reason
        assert (out / "train.csv").read_bytes() == ROWS
    outcome = get(site, client, out, accept_changed=True)
    assert (outcome.status, outcome.sha256) == (REPLACED, hashlib.sha256(OTHER).hexdigest())
    assert (out / "train.csv").read_bytes() == OTHER
    # The new version came once only.
    assert site.sent["/a/train.csv"] == len(ROWS) + len(OTHER)
    assert get(site, client, out).status == UNCHANGED


@pytest.mark.parametrize("head_code", [0, 405])
def test_a_whole_file_that_has_no_name_yet_is_asked_about_before_it_gets_one(
    site: Site, client: Client, out: Path, head_code: int
) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    site.put("/a/train.csv", SAME_LENGTH)
    assert get(site, client, out).status == CHANGED
    site.put("/a/train.csv", ROWS.replace(b"abseiling", b"Abseiling"), head_code=head_code)
    (out / "train.csv").unlink()
    outcome = get(site, client, out, accept_changed=True)
    assert outcome.status == REPLACED
    assert (out / "train.csv").read_bytes() == site.pages["/a/train.csv"].data


def test_another_version_with_the_same_bytes_is_no_change(site: Site, client: Client, out: Path) -> None:
    page = site.put("/a/train.csv", ROWS)
    get(site, client, out)
    page.etag = '"moved to another disk"'
    assert get(site, client, out).status == FETCHED
    assert get(site, client, out).status == UNCHANGED


def test_a_file_that_was_removed_must_be_the_same_again(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    (out / "train.csv").unlink()
    site.put("/a/train.csv", OTHER)
    assert get(site, client, out).status == CHANGED
    assert not (out / "train.csv").exists()
    site.put("/a/train.csv", ROWS)
    assert get(site, client, out).status == FETCHED


def test_what_is_here_stays_when_nobody_answers(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    del site.pages["/a/train.csv"]
    outcome = get(site, client, out)
    assert (outcome.status, outcome.is_good) == (NOT_COMPARED, True)
    assert "404" in outcome.reason


def test_a_file_of_the_users_is_taken_in_or_left_alone(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    (out / "train.csv").write_bytes(b"my own rows\n")
    outcome = get(site, client, out)
    assert outcome.status == IN_THE_WAY
    assert (out / "train.csv").read_bytes() == b"my own rows\n"
    (out / "train.csv").write_bytes(ROWS)
    assert get(site, client, out).status == FOUND
    assert not json.loads((out / "sources.json").read_text())["files"]["train.csv"]["fetched"]


def test_a_fetched_file_that_the_user_edited_is_left_alone(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS)
    get(site, client, out)
    edited = ROWS.replace(b"abseiling", b"Abseiling")
    (out / "train.csv").write_bytes(edited)
    assert get(site, client, out, accept_changed=True).status == IN_THE_WAY
    assert (out / "train.csv").read_bytes() == edited


@pytest.mark.parametrize("what", ["folder", "dead link", "pipe"])
def test_what_is_no_file_is_in_the_way(site: Site, client: Client, out: Path, what: str) -> None:
    site.put("/a/train.csv", ROWS)
    path = out / "train.csv"
    {"folder": path.mkdir, "dead link": lambda: path.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(path)}[what]()
    assert get(site, client, out).status == IN_THE_WAY


def tar(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


CLIPS = tar(("./-bc_efghijk_000001_000011.mp4", b"\0\0\0 ftypisom" * 500))


@pytest.mark.parametrize("data", [CLIPS, gzip.compress(CLIPS, mtime=0)], ids=["plain", "packed"])
def test_an_archive_is_read_to_its_end_before_it_counts(site: Site, client: Client, out: Path, data: bytes) -> None:
    site.put("/a/train.csv", data[:-12] if data[:2] == b"\x1f\x8b" else data[:-10000])
    assert get(site, client, out, is_archive=True).status == DAMAGED
    assert names(out) == []
    site.put("/a/train.csv", data)
    assert get(site, client, out, is_archive=True).status == FETCHED


@pytest.mark.parametrize("answered_before", [False, True])
def test_a_server_that_is_gone_is_given_up_for_all_its_files(out: Path, answered_before: bool) -> None:
    client = Client(type(HURRIED)(tries=3, first_wait_s=0.05, connect_s=1))
    gone = Site()
    gone.put("/0", ROWS)
    if answered_before:
        client.facts(f"{gone.url}/0")
    gone.close()
    wanted = [Wanted(url=f"{gone.url}/{n}", path=out / str(n)) for n in range(50)]
    began = time.monotonic()
    outcomes = [download(client, Sources(out), w, accept_changed=False) for w in wanted]
    assert {o.status for o in outcomes} == {UNREACHABLE}
    assert time.monotonic() - began < 2


def test_a_disk_without_room_is_named_before_anything_comes(
    site: Site, client: Client, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k710.fetch.partial.SPARE_BYTES", 1 << 60)
    site.put("/a/train.csv", ROWS)
    assert get(site, client, out).status == NO_ROOM
    assert (out / ".train.csv.partial").stat().st_size == 0


def test_credentials_in_an_address_are_not_written(site: Site, client: Client, out: Path) -> None:
    site.put("/a/train.csv", ROWS, cut_after=[3000] * 3)
    address = f"{site.url.replace('//', '//me:secret@')}/a/train.csv?token=secret"
    wanted = Wanted(url=address, path=out / "train.csv")
    outcomes = [download(client, Sources(out), wanted, accept_changed=False)]
    written = b"".join(p.read_bytes() for p in out.iterdir())
    site.pages["/a/train.csv"].cut_after = []
    outcomes.append(download(client, Sources(out), wanted, accept_changed=False))
    written += b"".join(p.read_bytes() for p in out.iterdir())
    assert [o.status for o in outcomes] == [TRUNCATED, FETCHED]
    assert b"secret" not in written
    assert "secret" not in repr(outcomes)


def test_stopping_ends_a_download_that_is_waiting(site: Site, out: Path) -> None:
    client = Client(type(HURRIED)(read_s=30, window_s=30))
    site.put("/a/train.csv", ROWS, drip_s=5)
    threading.Timer(0.5, client.stop).start()
    began = time.monotonic()
    with pytest.raises(StoppedOnPurposeError):
        get(site, client, out)
    assert time.monotonic() - began < 2
    assert names(out) == [".train.csv.partial", ".train.csv.partial.json"]


def test_a_run_killed_between_name_and_record_is_settled_by_the_next(
    site: Site, client: Client, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/a/train.csv", ROWS)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Sources, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            get(site, client, out)
    assert names(out) == [".train.csv.partial.json", "train.csv"]
    assert get(site, client, out).status == UNCHANGED
    assert names(out) == ["sources.json", "train.csv"]
    assert json.loads((out / "sources.json").read_text())["files"]["train.csv"]["fetched"]
