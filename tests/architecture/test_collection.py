"""Test names that differ between two collections stop a parallel run before its first test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def test_two_collections_name_the_same_tests() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        "--disable-warnings",
        "-p",
        "no:cacheprovider",
    ]
    runs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        runs.append(subprocess.Popen(command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE))
        time.sleep(1.1)  # names that hold a time in seconds must differ too
    first, second = ([line for line in run.communicate()[0].splitlines() if "::" in line] for run in runs)
    assert len(first) > 1000
    assert first == second
