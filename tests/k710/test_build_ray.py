"""A build whose clips are made by Ray: the bytes of one without, also when its workers are killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
from pathlib import Path

import pytest
from broken_builds import (
    Site,
    assert_unbroken,
    encoders,
    kill_build,
    kill_tree,
    ledger,
    make_site,
    nothing_twice,
    said,
    wait_until,
)

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'k710[ray]'", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("ray"),
    # Ray leaves log files of its own open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ON_RAY = ("--executor", "ray")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def whole(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build without Ray."""
    out = tmp_path_factory.mktemp("whole") / "out"
    site.finish(out)
    return out


def test_ray_gives_the_bytes_of_one_build(site: Site, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    site.finish(out, *ON_RAY)
    assert_unbroken(out, whole)


def test_a_cluster_that_is_there_makes_the_clips(
    site: Site, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    out = tmp_path / "out"
    # A path of pytest's own is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        head = {"num_cpus": 2, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        try:
            site.finish(out, *ON_RAY, "--ray-address", nodes.address)
        finally:
            nodes.shutdown()
    assert_unbroken(out, whole)


def test_a_ray_worker_killed_amid_a_clip_costs_no_clip(site: Site, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    once = f"[ -e {tmp_path}/slept ] || {{ touch {tmp_path}/slept; sleep 60; }}"
    with nothing_twice(out) as mark:
        process = site.start(out, *ON_RAY, encoder=once)
        wait_until(lambda: (tmp_path / "slept").exists() and len(ledger(out)) >= 3, process)
        sleeping = next(pid for pid in encoders(out))
        worker = encoders(out)[sleeping]
        mark()
        os.kill(worker, signal.SIGKILL)
        kill_tree(sleeping)
        assert process.wait(120) == 0, said(out)
    assert_unbroken(out, whole)


def test_a_build_on_ray_that_is_told_to_stop_stops_and_one_without_goes_on(
    site: Site, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with nothing_twice(out) as mark:
        process = site.start(out, *ON_RAY)
        wait_until(lambda: len(ledger(out)) >= 5, process)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 75, said(out)
        finally:
            kill_build(process)
        assert "Traceback" not in said(out)
        mark()
        site.finish(out)
    assert_unbroken(out, whole)
