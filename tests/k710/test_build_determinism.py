"""The same inputs give the same bytes, whatever the workers, the machine's settings and the order of files are."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from k710.synth.plan import SynthConfig, min_clips
from k710.synth.write import synth

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
    {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
)

pytestmark = pytest.mark.xdist_group("build_determinism")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy Kinetics with files of every layout."""
    out = tmp_path_factory.mktemp("toy") / "toy"
    synth(SynthConfig(num_clips=min_clips(4), num_classes=4), out, workers=2)
    return out


def run_build(toy: Path, out: Path, settings: dict[str, str], *more: str) -> None:
    places = ["--annotations", str(toy / "annotations"), "--videos", str(toy / "videos"), "--out", str(out)]
    command = [sys.executable, "-m", "cli", "build", *places, "--clips-per-shard", "6", *more]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def checksums(out: Path) -> dict[str, str]:
    """sha256 of every file of a build but its ledger, which is in order of completion."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in ("ledger.jsonl", ".build-guard", "build.json"))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def shuffled(toy: Path, folder: Path) -> Path:
    """The toy in another place, its files written the other way round, and just now."""
    for path in sorted(toy.rglob("*"), reverse=True):
        if path.is_file():
            target = folder / path.relative_to(toy)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder


@pytest.mark.parametrize(
    "encode",
    ["sparse8", *(pytest.param(e, marks=pytest.mark.slow) for e in ("sparse32", "intra", "copy", "none"))],
)
def test_one_worker_and_three_give_the_same_bytes(toy: Path, tmp_path: Path, encode: str) -> None:
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "ü second"
    run_build(toy, first, SETTINGS[0], "--workers", "1", "--encode", encode)
    # Where nothing is copied, the index holds the paths of the files: they must stay where they are.
    source = toy if encode == "none" else shuffled(toy, tmp_path / "shuffled")
    run_build(source, second, SETTINGS[1], "--workers", "3", "--encode", encode)
    found = checksums(first)
    assert checksums(second) == found
    required = {"shards.parquet", "manifest.parquet", "excluded.parquet", "audit.json", "audit.md", "k710.lock.json"}
    assert required <= set(found)
    assert any(name.startswith("views/") for name in found)
    kinds = {Path(name).suffix for name in found if name.startswith("shards/")}
    assert kinds == (set() if encode == "none" else {".tar", ".json"})
