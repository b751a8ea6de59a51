"""The gallery over HTTP: pages made when they are opened, to this machine alone, and nothing else of the disk."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gallery_cases import PLAIN, SCRIPT, TRAIN, key_of

from k710.browse.folder import claim
from k710.browse.gallery import BrowseConfig, Gallery
from k710.browse.sections import Asked
from k710.browse.serve import GalleryServer, serve
from k710.errors import UsageError
from k710.takedown.forget import ForgetConfig, forget

PAGE = "/views/k710-train/class-0003-page-0001.html"


@pytest.fixture
def server(odd: Path) -> Iterator[GalleryServer]:
    """The gallery of a build, with nothing made."""
    claim(odd / "browse")
    (odd / "browse" / "views").mkdir()
    (odd / "browse" / "sheets" / "ab").mkdir(parents=True)
    with GalleryServer(Gallery(BrowseConfig(build=str(odd), workers=1)), 0) as started:
        thread = threading.Thread(target=started.serve_forever, args=(0.01,))
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def get(
    server: GalleryServer, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_a_page_and_its_pictures_are_made_when_it_is_opened(server: GalleryServer, odd: Path) -> None:
    assert list((odd / "browse" / "sheets").rglob("*.jpg")) == []
    status, headers, body = get(server, PAGE)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert key_of(TRAIN).encode() in body
    assert SCRIPT.encode() not in body
    pictures = re.findall(r'src="(?:\.\./)*(sheets/[^"]+)"', body.decode())
    assert pictures
    for picture in pictures:
        status, headers, data = get(server, f"/{picture}")
        assert (status, headers["Content-Type"], data[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")


def test_every_page_can_be_followed_from_the_index(server: GalleryServer) -> None:
    body = get(server, "/")[2].decode()
    assert "not made" not in body
    links = {link for link in re.findall(r'href="([a-z][^":]+)"', body) if "page-" in link}
    assert len(links) > 10
    assert {get(server, f"/{link}", method="HEAD")[0] for link in links} == {200}


@pytest.mark.parametrize(
    "path",
    [
        "/../k710.lock.json",
        "/..%2fk710.lock.json",
        "/%2e%2e/k710.lock.json",
        "/views/../../k710.lock.json",
        "//etc/passwd",
        "/sheets/../../k710.lock.json",
        "/sheets/ab/../../../shards.parquet",
        "/gallery.json",
        "/.browse-guard",
        "/views/k710-train/class-0003-page-9999.html",
        "/views/k710-train/class-0003-page-0001.html%00",
        f"/views/k710-train/{PLAIN}",
        "/views/",
    ],
)
def test_nothing_else_of_the_disk_is_answered(server: GalleryServer, path: str) -> None:
    assert get(server, path)[0] == 404


def test_a_page_of_another_site_that_points_here_is_not_answered(server: GalleryServer) -> None:
    assert get(server, "/index.html", host="evil.example")[0] == 421
    assert get(server, "/index.html", host=f"localhost:{server.server_port}")[0] == 200


def test_only_this_machine_can_reach_it(server: GalleryServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/index.html", method="POST")[0] == 501


def test_a_build_that_breaks_meanwhile_is_an_answer_and_no_crash(server: GalleryServer, odd: Path) -> None:
    for shard in odd.rglob("*.tar"):
        shard.unlink()
    assert b"no such file" in get(server, PAGE)[2]
    assert get(server, "/index.html")[0] == 200
    (odd / "manifest.parquet").rename(odd / "away")
    status, _, body = get(server, "/index.html")
    assert status == 500
    assert b"manifest.parquet: no such file" in body
    (odd / "away").rename(odd / "manifest.parquet")
    assert get(server, "/index.html")[0] == 200


def test_a_build_that_is_another_by_now_is_read_again(server: GalleryServer, odd: Path) -> None:
    body = get(server, PAGE)[2].decode()
    assert key_of(TRAIN) in body
    picture = next(iter(re.findall(r'src="(?:\.\./)*(sheets/[^"]+)"', body)))
    forget(ForgetConfig(ids=(TRAIN,), out=odd))
    status, _, data = get(server, f"/{picture}")
    assert (status, data[:3] == b"\xff\xd8\xff") == (500, False)
    assert key_of(TRAIN).encode() not in get(server, PAGE)[2]
    assert key_of(TRAIN).encode() not in get(server, "/index.html")[2]


def test_nothing_is_drawn_into_a_gallery_that_was_removed(server: GalleryServer, odd: Path) -> None:
    shutil.rmtree(odd / "browse")
    assert b"has been removed meanwhile" in get(server, PAGE)[2]
    assert not (odd / "browse").exists()


def test_a_takedown_waits_for_the_end_of_a_server(odd: Path) -> None:
    before = {path: path.read_bytes() for path in odd.rglob("*") if path.is_file()}
    with Gallery(BrowseConfig(build=str(odd), workers=1)).held():
        with pytest.raises(UsageError, match="or serves it"):
            forget(ForgetConfig(ids=(TRAIN,), out=odd))
        assert {path: path.read_bytes() for path in before} == before
        assert not (odd / "forgotten.json").exists()


def test_a_client_that_hangs_up_is_no_news(server: GalleryServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            # Closed with a reset instead of a farewell.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(f"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n".encode())
    assert get(server, "/index.html")[0] == 200
    time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_named(server: GalleryServer, odd: Path) -> None:
    with pytest.raises(UsageError, match=f"port {server.server_port}: cannot be had"):
        GalleryServer(Gallery(BrowseConfig(build=str(odd))), server.server_port)


def test_what_is_asked_for_has_no_place_in_serving(odd: Path) -> None:
    config = BrowseConfig(build=str(odd), asked=Asked(everything=True))
    with pytest.raises(UsageError, match="--serve makes every page"):
        serve(config, port=0, say=print)
    assert not (odd / "browse").exists()
