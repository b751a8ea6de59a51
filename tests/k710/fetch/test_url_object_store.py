"""Videos in an object store, listed as a folder or named by a template: a real S3 client, and a server on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from k710.build import BuildConfig, build
from k710.clips.encodings import EncodeConfig
from k710.clips.media import encode_frames
from k710.clips.outcomes import Unusable
from k710.clips.sources.candidates import Brought, Wanted
from k710.clips.sources.url_folders import UrlFolders
from k710.clips.sources.url_origin import UrlOrigin
from k710.errors import SourceError
from k710.retry import RetryConfig, retry
from k710.segments import Segment

moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

IDS = ("-bcdefghij1", "abcdefghij2", "_bcdefghij3")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A new bucket of a server that clients find through the environment."""
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client's own tries, with long pauses
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fsspec.filesystem("s3").clear_instance_cache()
    name = f"test-{hashlib.sha256(bytes(tmp_path)).hexdigest()[:20]}"
    fsspec.filesystem("s3").mkdir(name)
    yield name
    running.stop()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "one.mp4"
    frames_THWC = np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
    encode_frames(frames_THWC, path, fps=10, config=EncodeConfig())
    return path.read_bytes()


def lists(folder: Path) -> Path:
    (folder / "lists" / "k400").mkdir(parents=True)
    rows = "".join(f"abseiling,{video},0,1,train\n" for video in IDS)
    (folder / "lists" / "k400" / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    return folder / "lists"


@pytest.mark.usefixtures("fresh_workers")
def test_a_build_takes_videos_of_a_local_layout_from_a_bucket(bucket: str, video: bytes, tmp_path: Path) -> None:
    files = fsspec.filesystem("s3")
    files.pipe(f"{bucket}/videos/train/abseiling/{IDS[0]}_000000_000001.mp4", video)
    files.pipe(f"{bucket}/videos/train/{IDS[1]}.mp4", video)
    files.pipe(f"{bucket}/videos/train/{IDS[2]}.mp4", b"<!doctype html>")
    files.pipe(f"{bucket}/videos/._{IDS[2]}.mp4", b"a file of another system")
    files.pipe(f"{bucket}/videos/old build/k710.lock.json", b"{}")
    files.pipe(f"{bucket}/videos/old build/cache/{IDS[2]}.mp4", video)
    out = tmp_path / "out"
    config = BuildConfig(annotations=lists(tmp_path), videos=(f"s3://{bucket}/videos",), out=out, workers=1)
    assert build(config).clips == {"ok": 2, "not_a_video": 1}
    assert build(config).tried == 0
    # A new version is another try, and a replacement comes before what it replaces.
    files.pipe(f"{bucket}/videos/replacement_for_corrupted/{IDS[2]}.mp4", video)
    assert build(config).clips == {"ok": 3}
    assert retry(RetryConfig(out=out, statuses=("missing",))).tried == 0


def test_replacements_come_first_and_versions_are_told_apart(bucket: str, video: bytes) -> None:
    files = fsspec.filesystem("s3")
    files.pipe(f"{bucket}/a/{IDS[0]}.mp4", video)
    files.pipe(f"{bucket}/a/replacement/{IDS[0]}.mp4", video)
    wanted = Wanted(segment=Segment(id=IDS[0], start_s=0, end_s=1), releases=frozenset({"k400"}))
    (before,) = UrlFolders(f"s3://{bucket}/a/").candidates([wanted], {})
    assert [c.origin.url for c in before if isinstance(c.origin, UrlOrigin)] == [
        f"s3://{bucket}/a/replacement/{IDS[0]}.mp4",
        f"s3://{bucket}/a/{IDS[0]}.mp4",
    ]
    files.pipe(f"{bucket}/a/{IDS[0]}.mp4", video + b"\0")
    (after,) = UrlFolders(f"s3://{bucket}/a").candidates([wanted], {})
    same = [a.origin.identity == b.origin.identity for a, b in zip(before, after, strict=True) if a.origin and b.origin]
    assert same == [True, False]


def test_an_object_is_brought_or_missing(bucket: str, video: bytes, tmp_path: Path) -> None:
    fsspec.filesystem("s3").pipe(f"{bucket}/a.mp4", video)
    brought = UrlOrigin(url=f"s3://{bucket}/a.mp4", name="a.mp4").bring(tmp_path)
    assert isinstance(brought, Brought)
    assert brought.path.read_bytes() == video
    assert UrlOrigin(url=f"s3://{bucket}/b.mp4", name="b.mp4").bring(tmp_path) == Unusable(
        status="missing", detail="there is no such object"
    )


def test_a_store_that_does_not_answer_is_asked_another_time(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("k710.store.WAITS_S", ())
    fsspec.filesystem("s3").clear_instance_cache()
    brought = UrlOrigin(url=f"s3://{bucket}-2/a.mp4", name="a.mp4").bring(tmp_path)
    assert isinstance(brought, Unusable)
    assert brought.status == "pending"


def test_a_bucket_without_videos_is_an_error(bucket: str) -> None:
    fsspec.filesystem("s3").pipe(f"{bucket}/videos/notes.txt", b"none")
    with pytest.raises(SourceError, match="no video file there"):
        UrlFolders(f"s3://{bucket}/videos")
    with pytest.raises(SourceError, match=r"cannot be listed|no video file there"):
        UrlFolders(f"s3://{bucket}-nowhere/videos")
