"""The commands one after the other, as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


def test_the_bare_commands_chain(k710: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0.5", "--set", "data.workers=0")
    code, out, _ = k710("build", "--annotations", toy / "annotations", "--videos", toy / "videos")
    assert code == 0, out
    assert k710("audit", "--fail-on-leak")[0] == 0
    assert k710("pretrain", *quick)[0] == 0
    assert k710("finetune", "--target", "k400", *quick)[0] == 0
    code, out, _ = k710(
        "evaluate", "--from", "runs/finetune-k400", "--view", "k400-val", "--clips", 1, "--crops", 1, "--json"
    )
    assert code == 0
    report = json.loads(out)
    assert report["clips_scored"] == report["clips_listed"] - report["clips_without_bytes"] > 0
    assert Path("k710-data/k710.lock.json").is_file()
    assert Path("runs/pretrain/model.safetensors").is_file()


def test_a_leak_stops_training_until_it_is_allowed(k710: Run, toy: Path, tmp_path: Path) -> None:
    leaky = tmp_path / "data"
    build = ("build", "--annotations", toy / "annotations", "--videos", toy / "videos", "--out", leaky)
    assert k710(*build, "--leaks", "report")[0] == 0
    assert k710("audit", "--data", leaky, "--fail-on-leak")[0] == 1
    args = ("--data", leaky, "--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0", "--set", "data.workers=0")
    code, _, err = k710("pretrain", *args, "--out", tmp_path / "run")
    assert code == 1
    assert "k400:val" in err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    code, out, _ = k710("pretrain", *args, "--out", tmp_path / "run", "--allow-leaks")
    assert code == 0
    assert "WARNING" in out


def test_fine_tuning_looks_at_all_that_the_weights_have_seen(k710: Run, toy: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    build = ("build", "--annotations", toy / "annotations", "--videos", toy / "videos", "--out", data)
    assert k710(*build, "--protect", "val")[0] == 0
    args = ("--data", data, "--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0", "--set", "data.workers=0")
    # Only val lists are protected, so pre-training may see test videos; a Kinetics-400 model may not.
    assert k710("pretrain", *args, "--out", run)[0] == 0
    code, _, err = k710("finetune", "--target", "k400", "--from", run, *args, "--out", tmp_path / "tuned")
    assert code == 1
    assert "k400:test" in err


def test_the_program_runs_in_a_bare_checkout(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pretrain" in done.stdout


def test_the_wheel_runs_from_another_folder(tmp_path: Path, toy: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    skip = shutil.ignore_patterns(
        ".git", ".venv", "build", "*.egg-info", "demo-out", "runs", "k710-data", "__pycache__"
    )
    shutil.copytree(ROOT, source, ignore=skip)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", target, source], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def installed(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    places = installed("-c", "import k710, k710_cli, uniformerv2.recipes as r; print(k710.__file__, r.__file__)")
    assert places.count(str(target)) == 2
    installed("-m", "k710_cli", "build", "--annotations", str(toy / "annotations"), "--manifest-only")
    assert (elsewhere / "k710-data" / "manifest.parquet").is_file()
    assert "tiny_cpu" in installed("-c", "from uniformerv2.config import recipe_names; print(recipe_names())")


def test_torchrun_and_devices_start_the_same_run(toy: Path, built: Path, tmp_path: Path) -> None:
    # Installed, the package is called k710_cli; in a bare checkout it is the folder cli.
    program = "k710_cli" if importlib.util.find_spec("k710_cli") else "cli"
    settings = ["--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0.5", "--set", "data.micro_batch=4"]
    ways = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", program, "pretrain"],
        "devices": ["-m", program, "pretrain", "--devices", "2"],
    }
    weights = {}
    for name, way in ways.items():
        arguments = [*way, "--data", str(built), "--out", str(tmp_path / name), *settings]
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["torchrun"] == weights["devices"]
