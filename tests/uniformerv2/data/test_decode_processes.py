"""A process that has decoded can start others that decode, in every way that Python knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from decode_streams import KINDS, make

ROOT = Path(__file__).parents[3]
PROGRAM = """
import hashlib, multiprocessing, sys
from pathlib import Path
from uniformerv2.data.decode import decode_frames, decode_in_sequence

def decode(path, answers):
    data = Path(path).read_bytes()
    in_sequence = decode_in_sequence(data, [1, 40])[40]
    answers.put(hashlib.sha256(decode_frames(data, [1, 40]).tobytes() + in_sequence.tobytes()).hexdigest())

if __name__ == "__main__":
    # A fork first: the others begin with a process that has not decoded.
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        decode(sys.argv[1], answers)
        child = context.Process(target=decode, args=(sys.argv[1], answers))
        child.start()
        child.join()
        print(method, answers.get() == answers.get())
"""


def test_children_of_every_kind_decode_what_their_parent_decoded(tmp_path: Path) -> None:
    make(KINDS["h264 sparse8"], tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "video.mp4")]
    # A child that waits for a thread of its parent waits forever.
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("fork True\nforkserver True\nspawn True\n", "")
