"""Test names that differ between two collections stop a parallel run before its first test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_another_collection_names_the_same_tests(request: pytest.FixtureRequest) -> None:
    here = [_name(item) for item in request.session.items]
    files = dict.fromkeys(name.partition("::")[0] for name in here)
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "--disable-warnings", *files]
    # Later, in another process and with another order of sets: what goes into a name by chance is another one.
    environment = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=True)
    there = [line for line in done.stdout.splitlines() if "::" in line]
    chosen = set(here)
    assert [name for name in there if name in chosen] == here


def _name(item: pytest.Item) -> str:
    group = item.get_closest_marker("xdist_group")
    # Under xdist the group of a test stands behind its name.
    named = f"@{group.args[0] if group.args else group.kwargs.get('name', 'default')}" if group else ""
    return item.nodeid.removesuffix(named)
