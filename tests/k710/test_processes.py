"""Children and their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from k710.errors import UsageError
from k710.processes import require_room_for_sockets

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import multiprocessing, time
from k710.processes import end_with_parent

def work(pipe):
    end_with_parent()
    pipe.send(multiprocessing.current_process().pid)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    ours, theirs = context.Pipe()
    context.Process(target=work, args=(theirs,)).start()
    print(ours.recv(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, method: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(CHILD.replace("{method}", method))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_temporary_folder_with_too_long_a_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for length, fits in ((75, True), (76, False)):
        folder = "/" + "a" * (length - 1)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with nullcontext() if fits else pytest.raises(UsageError, match=f"{folder}: too long"):
            require_room_for_sockets()
