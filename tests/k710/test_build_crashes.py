"""The machine fails under a build (no room, no memory): the clips are not to blame, and the next run goes on."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from broken_builds import (
    NUM_CLIPS,
    ROOT,
    Site,
    assert_unbroken,
    contents,
    encoders,
    encodes,
    file_size_limit,
    kill_tree,
    ledger,
    make_site,
    nothing_twice,
    outcomes,
    said,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("broken_builds")

ONCE = '[ "$(wc -l < "$ENCODES")" -eq {} ] && {{ {}; }}; true'
"""Does something at one encode, by its number from 1."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def whole(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    site.finish(out)
    return out


def sizes(whole: Path) -> tuple[int, int]:
    """Bytes of the smallest clip and of the smallest shard."""
    clips = [line["size_bytes"] for line in ledger(whole)]
    return min(clips), min(path.stat().st_size for path in whole.glob("shards/*/*.tar"))


def assert_no_clip_is_blamed(out: Path) -> None:
    """Whatever has an outcome is good."""
    assert {key: status for key, (status, _) in outcomes(out).items() if status != "ok"} == {}


@pytest.mark.parametrize("what", ["a clip", "a shard"])
def test_a_disk_too_full_for_a_file_is_named_and_the_next_run_goes_on(
    site: Site, whole: Path, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "out"
    clip, shard = sizes(whole)
    limit = clip // 2 if what == "a clip" else (clip + shard) // 2
    with nothing_twice(out) as mark:
        assert site.run(out, limit=file_size_limit(limit)) == 2, said(out)
        assert "out: cannot be written" in said(out)
        assert "Traceback" not in said(out)
        assert_no_clip_is_blamed(out)
        mark()
        site.finish(out)
    assert_unbroken(out, whole)


def small_disks(folder: Path) -> bool:
    """Whether this user may make a disk of a given size, in a corner where nobody else sees it."""
    if shutil.which("unshare") is None:
        return False
    folder.mkdir()
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.03, 0.1, 0.3, 0.8, 0.95, 0.99))]
)
def test_a_full_disk_is_named_and_the_next_run_goes_on(site: Site, whole: Path, tmp_path: Path, share: float) -> None:
    disk = tmp_path / "disk"
    if not small_disks(disk):
        pytest.skip("a file system cannot be mounted here (unshare -Urm mount -t tmpfs)")
    size_kib = int(sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) * share) // 1024
    out, run = disk / "out", shlex.join(site.command(disk / "out"))
    # The disk is gone with the namespace, so all of it happens inside: too small, then large enough.
    script = f"""
    mount -t tmpfs -o size={size_kib}k none {shlex.quote(str(disk))} || exit 99
    {run} > first.txt 2>&1; echo $? > code.txt
    cp -r {shlex.quote(str(out))} stopped
    mount -o remount,size=1g {shlex.quote(str(disk))} || exit 99
    {run} > second.txt 2>&1 || exit 1
    cp -r {shlex.quote(str(out))} .
    """
    environment = {**site.environment(out), "ENCODES": str(tmp_path / "encodes.txt"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], cwd=tmp_path, env=environment, timeout=120)
    said = (tmp_path / "first.txt").read_text()
    assert done.returncode == 0, (tmp_path / "second.txt").read_text()
    assert ((tmp_path / "code.txt").read_text().strip(), "Traceback" in said) == ("2", False), said
    assert "No space left on device" in said
    assert_no_clip_is_blamed(tmp_path / "stopped")
    assert_unbroken(tmp_path / "out", whole)
    # What was on the way when the room ended is made again: no more than the workers held.
    assert len(encodes(tmp_path / "out")) <= NUM_CLIPS + 6


def test_a_killed_worker_costs_no_clip(site: Site, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with nothing_twice(out) as mark:
        process = site.start(out, encoder=ONCE.format(6, "sleep 60"))
        wait_until(lambda: len(encodes(out)) >= 7 and len(encoders(out)) >= 1, process)
        sleeping = encoders(out)
        orphan, worker = next(iter(sleeping.items()))
        os.kill(worker, signal.SIGKILL)
        # It goes on with another worker, or says that it died and stops.
        code = process.wait(30)
        assert code == 0 or (code, "worker" in said(out)) == (4, True), said(out)
        assert "Traceback" not in said(out)
        # What it had started ends with its clip, and nobody waits for that.
        kill_tree(orphan)
        mark()
        site.finish(out)
    assert_unbroken(out, whole)


@pytest.mark.parametrize(
    "death",
    [
        pytest.param("kill -KILL $$", id="killed for its memory"),
        *(
            pytest.param(death, id=name, marks=pytest.mark.slow)
            for name, death in {
                "refused memory by x264": "echo 'x264 [error]: malloc of size 1000000 failed' >&2; exit 187",
                "refused memory": "echo 'Error: Cannot allocate memory' >&2; exit 244",
                "refused a thread": "echo 'pthread_create() failed: Resource temporarily unavailable' >&2; exit 245",
                "no room": "echo 'Error writing trailer: No space left on device' >&2; exit 228",
                "too large a file": "kill -XFSZ $$",
                "told to stop": "kill -TERM $$",
                # This is how ffmpeg answers to most signals, at the level of its messages that is asked for.
                "told to stop, and silent": "exit 255",
            }.items()
        ),
    ],
)
def test_an_encoder_that_the_machine_ends_is_not_the_clips_failure(
    site: Site, whole: Path, tmp_path: Path, death: str
) -> None:
    out = tmp_path / "out"
    with nothing_twice(out) as mark:
        code = site.run(out, encoder=ONCE.format(6, death))
        assert len(encodes(out)) >= 6
        # It tries the clip again, or says what happened and stops.
        assert (code in (0, 2, 4), "Traceback" in said(out)) == (True, False), (code, said(out))
        mark()
        site.finish(out)
    assert_unbroken(out, whole)


def test_an_encoder_that_crashes_on_a_clip_is_that_clips_failure(site: Site, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    key = "video_00007_000000_000003"
    assert site.run(out, encoder=f'[ "$key" = {key} ] && kill -SEGV $$; true') == 0, said(out)
    assert {k: status for k, (status, _) in outcomes(out).items() if status != "ok"} == {key: "corrupt"}
    before = contents(out)
    site.finish(out)
    assert contents(out) == before
