"""The example of a gate for a data set: its own commands let clean lists through, and stop those that leak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "audit-gate.yml"
A, B, C = "aaaaaaaaaaa", "bbbbbbbbbbb", "-cccccccccc"


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["jobs"]["audit"]["steps"]
    return found


@pytest.mark.parametrize(("held_out", "expected"), [(C, 0), (A, 1)])
def test_the_gate_stops_just_the_lists_that_leak(tmp_path: Path, held_out: str, expected: int) -> None:
    (tmp_path / "lists").mkdir()
    for name, video in (("train", A), ("val", held_out), ("test", B)):
        text = f"label,youtube_id,time_start,time_end,split\nyoga,{video},0,10,{name}\n"
        (tmp_path / "lists" / f"{name}.csv").write_text(text)
    # As the service runs them: bash, stopping at the first command that fails; k710 is there already.
    commands = [step["run"] for step in steps() if "run" in step and "pip install" not in step["run"]]
    assert commands
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stderr
    answer = "NOT leak-free" if expected else "Leak-free against the lists given"
    assert (tmp_path / "summary.md").read_text().startswith(f"# Audit\n\n{answer}")
    kept = tmp_path / steps()[-1]["with"]["path"]
    assert {str(p.relative_to(kept)) for p in kept.rglob("*.*")} >= {"report/audit.html", "leaks.parquet"}


def test_the_page_is_kept_whatever_the_answer_is() -> None:
    assert steps()[-1]["if"] == "always()"
