"""Takedown, killed at any moment: no index is ever wrong, and the next run goes on to the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k710 import atomic, schema
from k710.build import BuildConfig, build
from k710.clips.media import EncodeConfig, encode_frames
from k710.lists.policy import Policy, Selection
from k710.segments import id_hash
from k710.tables import read_table
from k710.takedown.forget import ForgetConfig, forget
from k710.takedown.forgotten import read_forgotten

ROOT = Path(__file__).resolve().parents[2]
IDS = tuple(f"video_{number:05d}" for number in range(14))
GONE = ("video_00000", "video_00003", "video_00004", "video_00012")


def contents(out: Path) -> dict[str, str]:
    names = ("ledger.jsonl", ".build-guard", "build.json", "forgotten.json")
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in names)
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def take_down(out: Path, *ids: str) -> None:
    forget(ForgetConfig(ids=ids, out=out))


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    """14 tiny videos, two of them in a val list, in shards of three."""
    root = tmp_path_factory.mktemp("source")
    picture_THWC = np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), dtype=np.uint8)
    encode_frames(picture_THWC, root / "one.mp4", fps=10, config=EncodeConfig(preset="ultrafast"))
    (root / "videos").mkdir()
    rows: dict[str, str] = {"train": "", "val": ""}
    for number, video in enumerate(IDS):
        os.link(root / "one.mp4", root / "videos" / f"{video}_000000_000001.mp4")
        split = "train" if number < 12 else "val"
        rows[split] += f"abseiling,{video},0,1,{split}\n"
    (root / "a" / "k400").mkdir(parents=True)
    for split, text in rows.items():
        (root / "a" / "k400" / f"{split}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + text)
    return BuildConfig(annotations=root / "a", videos=(str(root / "videos"),), clips_per_shard=3, workers=1)


@pytest.fixture(scope="session")
def built(config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build: do not write to it."""
    out = tmp_path_factory.mktemp("built") / "out"
    build(replace(config, out=out))
    return out


@pytest.fixture(scope="session")
def without(config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same from scratch without ``GONE``."""
    out = tmp_path_factory.mktemp("without") / "out"
    policy = Policy(selection=Selection(forgotten=tuple(id_hash(i) for i in GONE)))
    build(replace(config, out=out, policy=policy))
    return out


class KilledError(BaseException):
    """Stands for SIGKILL inside this process."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Raise just before (even steps) or just after (odd ones) a file takes its name; yields whether it came to that."""
    count = -1
    before, after = atomic.sync_file, atomic.sync_folder

    def counting(real: Callable[[Path], None]) -> Callable[[Path], None]:
        def run(path: Path) -> None:
            nonlocal count
            count += 1
            if count == step:
                raise KilledError
            real(path)

        return run

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "sync_file", counting(before))
        patched.setattr(atomic, "sync_folder", counting(after))
        yield lambda: count >= step


def assert_no_wrong_offset(out: Path) -> None:
    """What an index says is so, wherever there is one."""
    path = out / "shards.parquet"
    rows: list[dict[str, Any]] = read_table(path, schema.SHARDS).to_pylist() if path.exists() else []
    for row in rows:
        if row["shard"] is not None:
            with (out / row["shard"]).open("rb") as handle:
                handle.seek(row["mp4_offset"])
                assert hashlib.sha256(handle.read(row["mp4_size_bytes"])).hexdigest() == row["sha256"]


@pytest.mark.parametrize("how", ["forget", "build", "forget another first"])
def test_a_kill_at_any_write_is_mended_by_the_next_run(
    config: BuildConfig,
    built: Path,
    without: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    first = GONE[1:] if how == "forget another first" else GONE
    for step in range(500):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(built, tmp_path / "out")
        with killed_at(step, monkeypatch) as was_killed, suppress(KilledError):
            take_down(tmp_path / "out", *first)
        assert_no_wrong_offset(tmp_path / "out")
        if how != "build":
            take_down(tmp_path / "out", *GONE)
        elif read_forgotten(tmp_path / "out"):
            assert build(replace(config, out=tmp_path / "out", replan=True)).made == 0
        else:
            assert step == 0
            continue
        assert contents(tmp_path / "out") == contents(without), step
        if not was_killed():
            break
    assert 20 < step < 400


@pytest.mark.parametrize("write", [1, 3, 6, 9])
def test_a_real_kill_is_mended_by_the_next_run(built: Path, without: Path, tmp_path: Path, write: int) -> None:
    shutil.copytree(built, tmp_path / "out")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom k710 import atomic\n"
        "from k710.takedown.forget import ForgetConfig, forget\n"
        "calls, real = [], atomic.sync_file\n"
        "def sync_file(path):\n"
        "    calls.append(path)\n"
        f"    os.kill(os.getpid(), 9) if len(calls) == {write} else real(path)\n"
        "atomic.sync_file = sync_file\n"
        "forget(ForgetConfig(ids=tuple(sys.argv[2:]), out=Path(sys.argv[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), *GONE], cwd=ROOT, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.rglob(".*.partial"))
    take_down(tmp_path / "out", *GONE)
    assert contents(tmp_path / "out") == contents(without)
