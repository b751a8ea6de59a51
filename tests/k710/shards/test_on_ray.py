"""Ray: each task once, with its own result; deaths are told, nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k710.errors import UsageError
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.shards.executors.on_ray import run_ray

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'k710[ray]'", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("ray"),
    # Ray leaves log files of its own open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHORT: dict[str, Any] = {"prefix": "ray-", "ignore_cleanup_errors": True}
"""Of a temporary folder; a path of pytest's own is too long for Ray's sockets."""


def triple(number: int) -> int:
    return 3 * number


def die_on_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse_two(number: int) -> int:
    if number == 2:
        raise UsageError("no twos here", hint="take threes")
    return number


def folder(_: int) -> str:
    return str(Path.cwd())


def no_memory(_: int) -> int:
    raise MemoryError


@pytest.fixture(scope="module", autouse=True)
def functions() -> Iterator[None]:
    """Let workers import the functions of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def cluster(functions: None) -> Iterator[None]:
    """One cluster for the tests of this module that do not ask for their own."""
    import ray

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(**SHORT) as place:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=place)
        yield
        ray.shutdown()


def test_a_cluster_of_its_own_is_started_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import signal; from test_on_ray import triple\n"
        "from k710.shards.executors.on_ray import run_ray\n"
        "for _ in range(2):\n"
        "    print(sorted(item for batch in run_ray(triple, range(4), workers=2) for item in batch))\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )
    with tempfile.TemporaryDirectory(**SHORT) as temporary:
        environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": temporary}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert list(Path(temporary).iterdir()) == []
    assert done.stdout == 2 * "[(0, 0), (1, 3), (2, 6), (3, 9)]\n" + "True\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_task_has_its_own_result_and_few_are_taken_ahead(cluster: None) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(1, 41):
            taken = number
            yield number

    done = 0
    for batch in run_ray(triple, tasks(), workers=2):
        done += len(batch)
        assert taken <= done + 4
        assert all(result == 3 * task for task, result in batch)
    assert (done, taken) == (40, 40)


def test_a_dead_worker_costs_its_own_task_alone(cluster: None) -> None:
    found = dict(item for batch in EXECUTORS["ray"](die_on_five, range(12), workers=2) for item in batch)
    assert isinstance(found.pop(5), WorkerDied)
    assert found == {number: number for number in range(12) if number != 5}


def test_no_memory_for_a_task_is_the_death_of_its_worker(cluster: None) -> None:
    (batch,) = run_ray(no_memory, [1], workers=1)
    assert isinstance(batch[0][1], WorkerDied)


def test_an_error_of_a_task_is_raised_with_its_hint(cluster: None) -> None:
    with pytest.raises(UsageError, match="no twos here") as error:
        list(run_ray(refuse_two, range(5), workers=1))
    assert error.value.hint == "take threes"


def test_workers_are_in_the_folder_of_the_run(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(run_ray(folder, [1], workers=1)) == [[(1, str(tmp_path.resolve()))]]


def test_what_is_not_taken_any_more_is_given_up(cluster: None) -> None:
    batches = run_ray(time.sleep, [0.01, 55.5, 55.5], workers=2)  # type: ignore[arg-type]
    next(batches)
    began = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 10
    # The processors are free again.
    assert list(run_ray(triple, [1], workers=2)) == [[(1, 3)]]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray is not installed") as error:
        list(run_ray(triple, [1], workers=1))
    assert "k710[ray]" in error.value.hint


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001"])
def test_an_address_without_a_cluster_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UsageError, match=f"--ray-address {address}"):
        list(run_ray(triple, [1], workers=1, address=address))
