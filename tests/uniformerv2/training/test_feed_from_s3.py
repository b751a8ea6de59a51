"""Training from an object store: the batches of a local disk, from a real S3 client and a server on this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from test_workers import one_epoch, pixels

import k710.store
from k710.processes import end_with_parent
from k710.shards.index import ShardIndex
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.clip_cache import ClipCache
from uniformerv2.data.feed import ClipBytes, Hole, ReadingConfig, TrainClips, train_loader
from uniformerv2.data.samples import Portion

moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An S3 server, which the client finds through the environment as it does elsewhere."""
    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client's own tries, with long pauses
    fsspec.filesystem("s3").clear_instance_cache()
    yield running
    running.stop()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def in_s3(server: object, build: Path) -> str:
    """The small build in a bucket: one of its own, since servers of one process share them."""
    bucket = f"test-{hashlib.sha256(bytes(build)).hexdigest()[:20]}"
    files = fsspec.filesystem("s3")
    files.mkdir(bucket)
    files.put(str(build), f"{bucket}/build", recursive=True)
    return f"s3://{bucket}/build"


def train_clips(root: str | Path, reading: ReadingConfig | None = None) -> TrainClips:
    index = ShardIndex(root)
    view = index.view("k710-train")
    sha256 = np.zeros((len(view), 32), dtype=np.uint8)
    for position in view.present:
        sha256[position] = list(hashlib.sha256(index.read_clip(view, position)).digest())
    return TrainClips(
        clips=ClipBytes(index.store, view, reading=reading, sha256=sha256),
        labels=view.classes,
        num_frames=2,
        size_px=32,
        augment=AugmentConfig(),
        seed=1,
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("workers", "start"), [(0, "fork"), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
def test_batches_from_s3_are_those_of_a_local_disk(
    build: Path, in_s3: str, tmp_path: Path, workers: int, start: str
) -> None:
    wanted = pixels(train_loader(train_clips(build), one_epoch(), workers=0, pin=False))
    clips = train_clips(in_s3, ReadingConfig(cache=tmp_path / "cache", requests=1))
    clips.__getitems__(Portion(items=[(0, 0)], ahead=[(0, 1), (0, 2)]))  # connections and threads that are inherited
    for _ in range(2):
        found = pixels(train_loader(clips, one_epoch(), workers=workers, pin=False, start=start))  # type: ignore[arg-type]
        assert len(found) == 6
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    kept = [p for p in (tmp_path / "cache").rglob("*") if len(p.name) == 64]
    assert len(kept) == 4  # four different videos


@pytest.mark.timeout(120)
def test_a_store_that_goes_away_leaves_holes_but_for_what_is_cached(
    in_s3: str, server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k710.store, "WAITS_S", (0.0,))
    clips = train_clips(in_s3, ReadingConfig(cache=tmp_path / "cache"))
    assert not isinstance(clips[0, 0], Hole)
    server.stop()  # type: ignore[attr-defined]
    assert not isinstance(clips[1, 0], Hole)
    hole = clips[1, 1]
    assert isinstance(hole, Hole)
    assert f"{in_s3}/shards/all.tar: cannot be read" in hole.reason
    assert "2 tries" in hole.reason


def fill(folder: Path, number: int) -> None:
    """Put and get clips, checking each, until killed."""
    end_with_parent()
    cache = ClipCache(folder, max_bytes=400_000, wanted=lambda digest: digest[0] in "01234567")
    draw = random.Random(number)
    while True:
        data = random.Random(draw.randrange(60)).randbytes(20_000)
        digest = hashlib.sha256(data).hexdigest()
        cache.put(digest, data)
        if cache.get(digest) not in (None, data):
            (folder / "wrong").touch()


@pytest.mark.timeout(60)
def test_a_cache_whose_users_are_killed_serves_no_wrong_byte_and_stays_in_its_size(tmp_path: Path) -> None:
    folder, draw = tmp_path / "cache", random.Random(5)
    ClipCache(folder, max_bytes=1, wanted=bool).prepare()
    context = multiprocessing.get_context("fork")
    for number in range(12):
        process = context.Process(target=fill, args=(folder, number))
        other = context.Process(target=fill, args=(folder, 100 + number))
        process.start()
        other.start()
        time.sleep(draw.uniform(0.02, 0.2))
        for one in (process, other):
            os.kill(one.pid or 0, signal.SIGKILL)
            one.join()
    cache = ClipCache(folder, max_bytes=400_000, wanted=bool)
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("total_bytes", "wrong")]
    assert not (folder / "wrong").exists()
    assert len(files) > 5
    assert sum(p.stat().st_size for p in files) <= 400_000
    whole = [p for p in files if not p.name.startswith(".")]
    assert all(cache.get(p.name) == p.read_bytes() for p in whole)
