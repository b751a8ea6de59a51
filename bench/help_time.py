"""Time of `k710 --help`, start of the interpreter included.

usage: python bench/help_time.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL_S = 0.5


def main(runs: int) -> None:
    """Print the median of ``runs`` runs, after one to warm the disk cache."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", "--help"], check=True, capture_output=True, cwd=_root())
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[1:])
    print(f"k710 --help: median {median:.3f} s of {runs} runs (goal {GOAL_S} s)")


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
