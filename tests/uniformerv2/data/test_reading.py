"""The bytes of clips by position: local files, an object store, what is fetched ahead, and the cache."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt
import pytest

import k710.store
from k710.errors import FeedError, UsageError
from k710.shards.index import View
from k710.store import Store
from uniformerv2.data.clip_cache import ClipCache
from uniformerv2.data.read_ahead import Extent, ReadAhead, coalesced
from uniformerv2.data.reading import ClipBytes, ReadingConfig

SIZE = 1000
NUM = 12


def content(position: int) -> bytes:
    return bytes((position * 31 + i) % 251 for i in range(SIZE))


def view_of(shards: list[str]) -> View:
    """A view whose clips lie one after the other in ``shards``, four in each."""
    return View(
        name="k400-train",
        release="k400",
        split="train",
        taxonomy="k400",
        digest="",
        data_digest="",
        keys=tuple(f"clip{i}" for i in range(NUM)),
        id_hashes=np.arange(NUM, dtype=np.uint64),
        classes=np.zeros(NUM, dtype=np.int64),
        all_classes=((0,),) * NUM,
        shards=tuple(shards[i // 4] for i in range(NUM)),
        offsets=np.array([512 + (i % 4) * (SIZE + 512) for i in range(NUM)]),
        sizes_bytes=np.full(NUM, SIZE),
        frames=np.full(NUM, 8),
    )


def shard(number: int) -> bytes:
    return b"".join(b"h" * 512 + content(number * 4 + i) for i in range(4))


def digests() -> npt.NDArray[np.uint8]:
    return np.array([list(hashlib.sha256(content(i)).digest()) for i in range(NUM)], dtype=np.uint8)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"{number}.tar").write_bytes(shard(number))
    return Store(tmp_path / "data")


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Store]:
    files = fsspec.filesystem("memory")
    for number in range(3):
        files.pipe_file(f"/{tmp_path.name}/{number}.tar", shard(number))
    yield Store(f"memory://{tmp_path.name}")
    files.rm(f"/{tmp_path.name}", recursive=True)


VIEW = view_of(["0.tar", "1.tar", "2.tar"])


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Ranges that were asked for, and no waiting between tries."""
    asked: list[tuple[str, int, int]] = []
    whole = Store.read_range

    def counted(store: Store, path: str, offset: int, size_bytes: int) -> bytes:
        asked.append((path, offset, size_bytes))
        return whole(store, path, offset, size_bytes)

    monkeypatch.setattr(Store, "read_range", counted)
    monkeypatch.setattr(k710.store, "WAITS_S", (0.0, 0.0))
    return asked


# Local files


def test_a_local_shard_is_opened_once_for_many_clips(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = os.open

    def counted(path: str, *rest: int) -> int:
        opened.append(str(path))
        return plain(path, *rest)

    monkeypatch.setattr("os.open", counted)
    clips = ClipBytes(local, VIEW)
    assert [clips.read(i) for i in (0, 1, 2, 3, 5, 0)] == [content(i) for i in (0, 1, 2, 3, 5, 0)]
    assert opened == [f"{local.root}/0.tar", f"{local.root}/1.tar"]


def test_no_more_files_are_open_than_allowed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"x")
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of this process
    store = Store(tmp_path, open_files=4)
    for number in range(20):
        assert store.read_range(str(number), 0, 1) == b"x"
    assert len(set(os.listdir("/proc/self/fd")) - before) == 4  # noqa: PTH208
    del store
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0  # noqa: PTH208


def test_a_file_that_was_replaced_on_a_network_disk_is_opened_anew(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = ClipBytes(local, VIEW)
    clips.read(0)
    plain, stale = os.pread, [True]

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if stale and stale.pop():
            raise OSError(116, "Stale file handle")
        return plain(descriptor, size, offset)

    monkeypatch.setattr("os.pread", pread)
    assert clips.read(1) == content(1)


# A file that is not what the index says


def test_a_shard_of_another_build_is_not_taken_for_ours(local: Store) -> None:
    clips = ClipBytes(local, VIEW, sha256=digests())
    Path(local.root, "1.tar").write_bytes(shard(2))
    assert clips.read(3) == content(3)
    with pytest.raises(
        FeedError, match=r"1.tar: another file than the one that the index was made of, bytes 2024-3023"
    ):
        clips.read(5)
    with pytest.raises(FeedError, match="another file"):
        clips.read(6)


def test_a_torn_shard_gives_the_clips_before_the_tear(local: Store) -> None:
    path = Path(local.root, "1.tar")
    path.write_bytes(path.read_bytes()[: 512 + SIZE + 700])
    clips = ClipBytes(local, VIEW, sha256=digests())
    assert clips.read(4) == content(4)
    with pytest.raises(FeedError, match=r"1.tar: ends before byte 3024"):
        clips.read(5)


def test_bytes_are_known_to_be_others_only_by_a_digest(local: Store) -> None:
    assert ClipBytes(local, VIEW, sha256=digests()).differs(3, content(4))
    assert not ClipBytes(local, VIEW, sha256=digests()).differs(3, content(3))
    assert not ClipBytes(local, VIEW).differs(3, content(4))
    assert not ClipBytes(local, VIEW, sha256=np.zeros_like(digests())).differs(3, content(4))


# Fetching ahead


def test_neighbours_in_a_shard_come_in_one_request(remote: Store, requests: list[tuple[str, int, int]]) -> None:
    clips = ClipBytes(remote, VIEW)
    clips.expect(range(8))
    assert [clips.read(i) for i in range(8)] == [content(i) for i in range(8)]
    assert sorted(requests) == [(f"{n}.tar", 512, 4 * SIZE + 3 * 512) for n in (0, 1)]


def test_a_clip_that_was_not_expected_is_read_all_the_same(remote: Store, requests: list[tuple[str, int, int]]) -> None:
    clips = ClipBytes(remote, VIEW)
    clips.expect([0])
    assert clips.read(9) == content(9)
    assert clips.read(0) == content(0)
    assert len(requests) == 2


def test_clips_are_fetched_before_they_are_asked_for(remote: Store, requests: list[tuple[str, int, int]]) -> None:
    clips = ClipBytes(remote, VIEW)
    clips.expect([0, 4])
    deadline = time.monotonic() + 20
    while len(requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(requests) == 2


def test_no_more_bytes_are_fetched_ahead_than_allowed(remote: Store, requests: list[tuple[str, int, int]]) -> None:
    clips = ClipBytes(remote, VIEW, reading=ReadingConfig(ahead_bytes=2 * SIZE, requests=1))
    clips.expect([0, 4, 8, 9])
    assert [clips.read(p) for p in (0, 4)] == [content(0), content(4)]
    assert len(requests) == 2
    clips.expect([8, 9])
    assert [clips.read(p) for p in (8, 9)] == [content(8), content(9)]


def range_of(offset: int, size_bytes: int) -> Extent:
    return Extent(file="a", offset=offset, size_bytes=size_bytes)


def test_the_gaps_within_a_request_count_too() -> None:
    asked: list[Extent] = []

    def fetch(extent: Extent) -> bytes:
        asked.append(extent)
        return b"x" * extent.size_bytes

    wanted = [range_of(0, 400), range_of(600, 400), range_of(1100, 300)]
    ahead = ReadAhead(fetch, max_bytes=1000, num_threads=1)
    ahead.expect(wanted)
    assert len(ahead.take(wanted[0])) == 400
    ahead = ReadAhead(fetch, max_bytes=900, num_threads=1)
    ahead.expect(wanted)
    assert len(ahead.take(wanted[0])) == 400
    assert asked == [range_of(0, 1000), range_of(0, 400)]


def test_what_is_expected_no_more_makes_room() -> None:
    fetched = threading.Event()
    first, second = range_of(0, 100), range_of(500_000, 100)

    def fetch(extent: Extent) -> bytes:
        if extent == second:
            fetched.set()
        return b"x" * extent.size_bytes

    ahead = ReadAhead(fetch, max_bytes=100, num_threads=1)
    ahead.expect([first])
    ahead.expect([second])
    assert fetched.wait(10)


def test_a_neighbour_that_cannot_be_read_is_no_fault_of_the_clip(remote: Store, tmp_path: Path) -> None:
    name = f"/{tmp_path.name}/0.tar"
    fsspec.filesystem("memory").pipe_file(name, shard(0)[: 2 * (SIZE + 512)])
    clips = ClipBytes(remote, VIEW)
    clips.expect(range(4))
    assert clips.read(1) == content(1)
    with pytest.raises(FeedError, match=r"0.tar: ends before byte"):
        clips.read(2)


def test_ranges_that_are_far_apart_are_asked_for_one_by_one() -> None:
    near = [Extent(file="a", offset=o, size_bytes=100) for o in (0, 200_000, 600_000)]
    assert [members for _, members in coalesced(near[::-1])] == [[near[2]], near[:2]]
    long = [Extent(file="a", offset=o * 2**22, size_bytes=2**22) for o in range(4)]
    assert [span.size_bytes for span, _ in coalesced(long)] == [2**23, 2**23]


def test_a_reader_takes_its_bytes_from_the_thread_that_is_fetching_them() -> None:
    go = threading.Event()

    def slow(extent: Extent) -> bytes:
        go.wait(20)
        return b"x" * extent.size_bytes

    ahead = ReadAhead(slow, max_bytes=100, num_threads=1)
    wanted = Extent(file="a", offset=0, size_bytes=5)
    ahead.expect([wanted])
    threading.Timer(0.1, go.set).start()
    assert ahead.take(wanted) == b"xxxxx"


def test_clips_that_were_read_ahead_can_be_handed_to_another_process(remote: Store) -> None:
    clips = ClipBytes(remote, VIEW)
    clips.expect(range(4))
    again = pickle.loads(pickle.dumps(clips))
    again.expect(range(4))
    assert again.read(2) == content(2)


# Tries


class Flaky(Exception):  # noqa: N818 - one of a family that is not ours
    """What a package of an object store may raise."""


@pytest.fixture
def failing(remote: Store, requests: object, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Errors that the next requests end with, first one first."""
    coming: list[Exception] = []
    files = fsspec.filesystem("memory")
    whole = type(files).cat_file

    def flaky(self: object, *args: object, **named: object) -> bytes:
        if coming:
            raise coming.pop(0)
        return bytes(whole(self, *args, **named))

    monkeypatch.setattr(type(files), "cat_file", flaky)
    return coming


def test_a_request_that_fails_for_a_while_is_made_again(remote: Store, failing: list[Exception]) -> None:
    failing += [Flaky("slow down"), TimeoutError()]
    assert ClipBytes(remote, VIEW).read(3) == content(3)


def test_a_request_that_goes_on_failing_is_an_error_with_its_reason(remote: Store, failing: list[Exception]) -> None:
    failing += [Flaky("slow down")] * 3
    with pytest.raises(FeedError, match=r"0.tar: cannot be read \(slow down, 3 tries\)"):
        ClipBytes(remote, VIEW).read(3)


def test_what_would_fail_again_is_not_tried_again(remote: Store, failing: list[Exception]) -> None:
    failing += [PermissionError(13, "Permission denied"), Flaky("never reached")]
    with pytest.raises(FeedError, match="Permission denied"):
        ClipBytes(remote, VIEW).read(3)
    assert len(failing) == 1


# The cache


def cached(remote: Store, folder: Path, **settings: int) -> ClipBytes:
    return ClipBytes(remote, VIEW, reading=ReadingConfig(cache=folder, **settings), sha256=digests())  # type: ignore[arg-type]


def test_the_second_epoch_is_read_from_the_cache(
    remote: Store, requests: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    for _ in range(2):
        clips = cached(remote, tmp_path / "cache")
        clips.expect(range(NUM))
        assert [clips.read(i) for i in range(NUM)] == [content(i) for i in range(NUM)]
    assert len(requests) == 3


@pytest.mark.parametrize("harm", [b"", b"x" * SIZE, content(3)[:-1]])
def test_a_damaged_file_in_the_cache_is_never_served(remote: Store, tmp_path: Path, harm: bytes) -> None:
    clips = cached(remote, tmp_path / "cache")
    clips.read(3)
    (kept,) = (p for p in (tmp_path / "cache").rglob("*") if len(p.name) == 64)
    kept.write_bytes(harm)
    assert clips.read(3) == content(3)
    assert kept.read_bytes() == content(3)


def test_bytes_that_are_not_the_indexs_are_not_kept(remote: Store, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/0.tar", shard(1))
    with pytest.raises(FeedError, match="another file"):
        cached(remote, tmp_path / "cache").read(0)
    assert [p for p in (tmp_path / "cache").rglob("*") if len(p.name) == 64] == []


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "total_bytes")


def test_a_full_cache_keeps_what_the_run_needs(remote: Store, tmp_path: Path) -> None:
    clips = cached(remote, tmp_path / "cache", cache_bytes=5 * SIZE)
    for _ in range(2):
        assert [clips.read(i) for i in range(NUM)] == [content(i) for i in range(NUM)]
    assert files_in(tmp_path / "cache") == sorted(hashlib.sha256(content(i)).hexdigest() for i in range(5))


def test_clips_of_other_runs_go_first_the_longest_unread_before(remote: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    other = ClipCache(folder, max_bytes=5 * SIZE, wanted=lambda _: True)
    other.prepare()
    old = [bytes([i]) * SIZE for i in range(4)]
    for age, data in enumerate(old):
        name = hashlib.sha256(data).hexdigest()
        other.put(name, data)
        os.utime(folder / name[:2] / name, (1000 + age, 1000 + age))
    assert other.get(hashlib.sha256(old[0]).hexdigest()) == old[0]
    clips = cached(remote, folder, cache_bytes=5 * SIZE)
    for position in range(3):
        clips.read(position)
    left = {hashlib.sha256(data).hexdigest() for data in (old[0], *map(content, range(3)))}
    assert left <= set(files_in(folder))
    assert len(files_in(folder)) <= 5


def test_what_a_killed_process_left_is_counted_and_goes_when_it_is_old(remote: Store, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / ".torn").write_bytes(b"x" * 3 * SIZE)
    (folder / "total_bytes").write_text("")
    clips = cached(remote, folder, cache_bytes=4 * SIZE)
    clips.read(0)
    clips.read(1)
    assert len(files_in(folder)) == 2
    os.utime(folder / "ab" / ".torn", (1000, 1000))
    clips = cached(remote, folder, cache_bytes=4 * SIZE)
    clips.read(1)
    clips.read(2)
    assert ".torn" not in files_in(folder)
    assert len(files_in(folder)) == 3


def test_a_cache_on_a_full_disk_is_given_up_and_said(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = cached(remote, tmp_path / "cache")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.warns(UserWarning, match=r"cache: takes no more clips \(No space left on device\)"):
        assert clips.read(0) == content(0)
    assert clips.read(1) == content(1)


def test_a_cache_that_cannot_be_written_is_refused_at_the_start(remote: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--cache .*file/cache: cannot be written"):
        cached(remote, tmp_path / "file" / "cache")


def test_a_cache_needs_digests(remote: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the sha256"):
        ClipBytes(remote, VIEW, reading=ReadingConfig(cache=tmp_path))


def test_local_clips_are_not_cached(local: Store, tmp_path: Path) -> None:
    clips = ClipBytes(local, replace(VIEW), reading=ReadingConfig(cache=tmp_path / "cache"), sha256=digests())
    clips.expect([0])
    assert clips.read(0) == content(0)
    assert not (tmp_path / "cache").exists()
