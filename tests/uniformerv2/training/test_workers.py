"""Workers of the feed: however they begin, whatever the trainer did before, and when they have no shared memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from k710.errors import FeedError
from k710.shards.index import ShardIndex
from uniformerv2.data import transfer
from uniformerv2.data.augment import AugmentConfig
from uniformerv2.data.feed import ClipBytes, RestOfRun, TestClips, TrainClips, running, test_loader, train_loader
from uniformerv2.data.order import Batching, Order

test_loader.__test__ = False  # type: ignore[attr-defined]
HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def train_clips(build: Path, **settings: object) -> TrainClips:
    index = ShardIndex(build)
    view = index.view("k710-train")
    plain = {"num_frames": 2, "size_px": 32, "seed": 1, "repeats": 2}
    plain["augment"] = AugmentConfig(randaugment="rand-m7-n4-mstd0.5-inc1")  # type: ignore[assignment]
    return TrainClips(clips=ClipBytes(index.store, view), labels=view.classes, **{**plain, **settings})  # type: ignore[arg-type]


def clips_to_score(build: Path, size_px: int = 32) -> TestClips:
    index = ShardIndex(build)
    view = index.view("k710-val")
    return TestClips(
        clips=ClipBytes(index.store, view), keys=view.keys, num_frames=2, size_px=size_px, num_clips=2, num_crops=3
    )


def one_epoch() -> RestOfRun:
    order = Order(seed=0, view_digest="d", num_planned=14, window=0, taken_out=np.array([5]))
    return RestOfRun(
        order, Batching(num_clips=13, global_batch=4, micro_batch=2), rank=0, epoch=0, step_in_epoch=0, epochs=1
    )


def pixels(loader: object) -> list[Tensor]:
    with running(loader) as batches:  # type: ignore[arg-type, var-annotated]
        return [made.clips if hasattr(made, "clips") else torch.stack([v for _, v in made]) for made in batches]


@pytest.fixture
def pools(drawn: list[bytes]) -> Iterator[None]:
    """Start every thread pool that a trainer may have when its workers begin: of torch, of OpenCV, of the scaler."""
    torch.set_num_threads(2)
    weight = torch.randn(300, 300, requires_grad=True)
    (weight @ weight).sum().backward()
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((2000, 2000, 3), dtype=np.uint8), (500, 500))
    with av.open(io.BytesIO(drawn[0])) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            frame.to_rgb(width=640, height=640)
    yield
    torch.set_num_threads(1)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("start", ["forkserver", "fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("pools")
def test_workers_that_begin_in_any_way_give_the_batches_of_one_process(build: Path, start: str) -> None:
    clips, views = train_clips(build), clips_to_score(build)
    alone = pixels(train_loader(clips, one_epoch(), workers=0, pin=False))
    apart = pixels(train_loader(clips, one_epoch(), workers=2, pin=False, start=start))  # type: ignore[arg-type]
    assert len(alone) == 6
    assert all(torch.equal(a, b) for a, b in zip(alone, apart, strict=True))
    alone = pixels(test_loader(views, range(6), clips_per_batch=2, workers=0))
    apart = pixels(test_loader(views, range(6), clips_per_batch=2, workers=1, start=start))  # type: ignore[arg-type]
    assert len(alone) == 3
    assert all(torch.equal(a, b) for a, b in zip(alone, apart, strict=True))


# Shared memory

SMALL = """
import sys
from pathlib import Path
from k710.errors import FeedError
from test_workers import one_epoch, pixels, clips_to_score, test_loader, train_clips, train_loader
from uniformerv2.data.augment import AugmentConfig

def main():
    build = Path(sys.argv[1])
    for loader in (
        train_loader(train_clips(build, size_px=512, num_frames=8), one_epoch(), workers=1, pin=False, start="fork"),
        test_loader(clips_to_score(build, size_px=256), range(6), clips_per_batch=2, workers=1, start="fork"),
    ):
        try:
            print(len(pixels(loader)))
        except FeedError as error:
            print(error.message, "|", error.hint)

if __name__ == "__main__":
    main()
"""


def may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_without_shared_memory_end_the_run_with_numbers_and_advice(build: Path, tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("this machine lets nobody mount; the error itself is tested below")
    (tmp_path / "small.py").write_text(SMALL)
    run = f"mount -t tmpfs -o size=2m tmpfs /dev/shm && exec {sys.executable} {tmp_path}/small.py {build}"
    paths = os.pathsep.join([str(HERE), str(HERE.parents[2])])
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", run],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    train, test = done.stdout.splitlines()
    assert train.startswith("/dev/shm: no room for a batch of 24.0 MiB from a worker, ")
    assert "of 2.0 MiB are free | lower the number of workers" in train
    assert test.startswith("/dev/shm: no room for a batch of 9.0 MiB from a worker, ")


def refuse(*_: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_a_lack_of_shared_memory_is_told_from_other_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "get_worker_info", object)
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", refuse)
    for send in (transfer.in_shared_memory, lambda tensor: transfer.stacked([tensor])):
        with pytest.raises(FeedError, match=r"/dev/shm: no room for a batch of 3.0 MiB from a worker") as caught:
            send(torch.zeros(3 * 2**20, dtype=torch.uint8))
        assert "docker run --shm-size" in caught.value.hint

    def fail(_: int) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", fail)
    with pytest.raises(RuntimeError, match="something else"):
        transfer.in_shared_memory(torch.zeros(1))


class Ending:
    """A loader that ends with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[object]:
        yield 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"), "/dev/shm: no room"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "a decoding process was killed"),
        (MemoryError("Caught MemoryError in DataLoader worker process 0."), "a decoding process ran out of memory"),
        (EOFError(), "a decoding process was killed: no answer"),
    ],
)
def test_what_happens_to_a_worker_is_one_clear_error(error: Exception, said: str) -> None:
    with running(Ending(error)) as batches, pytest.raises(FeedError, match=said):  # type: ignore[arg-type, var-annotated]
        list(batches)


def test_what_the_trainer_does_wrong_is_not_blamed_on_a_worker() -> None:
    for error in (RuntimeError("Caught ValueError in DataLoader worker process 0"), MemoryError()):
        with running(Ending(error)) as batches, pytest.raises(type(error)):  # type: ignore[arg-type, var-annotated]
            list(batches)
