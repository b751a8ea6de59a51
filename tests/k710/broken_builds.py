"""A build that is broken off from outside: its source, the programs that run it, and what it has committed so far."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from k710.clips.media import EncodeConfig, encode_frames

ROOT = Path(__file__).resolve().parents[2]
NUM_CLIPS = 16
CLIPS_PER_SHARD = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where a build takes its videos from, and the ffmpeg that it runs."""

    root: Path
    """``annotations/`` and ``videos/``."""
    ffmpeg: Path
    """A script that writes down what is encoded, and then does what ``ENCODER`` says."""

    def command(self, out: Path, *more: str) -> list[str]:
        """The program with its arguments."""
        places = ["--annotations", str(self.root / "annotations"), "--videos", str(self.root / "videos")]
        size = ["--clips-per-shard", str(CLIPS_PER_SHARD)]
        return [sys.executable, "-m", "cli", "build", *places, "--out", str(out), "--workers", "2", *size, *more]

    def environment(self, out: Path, encoder: str = "") -> dict[str, str]:
        """Variables of the program; ``encoder`` is a line of shell that runs before each encode, ``$key`` its clip."""
        log = out.parent / "encodes.txt"
        return {**os.environ, "K710_FFMPEG": str(self.ffmpeg), "ENCODES": str(log), "ENCODER": encoder}

    def start(
        self, out: Path, *more: str, encoder: str = "", limit: Callable[[], None] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begin the build in a session of its own; ``said`` has what it says."""
        # A file, not a pipe: whoever outlives the build would keep that open, and its reader waiting.
        with _words(out).open("wb") as words:
            return subprocess.Popen(
                self.command(out, *more),
                cwd=ROOT,
                env=self.environment(out, encoder),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
                preexec_fn=limit,
            )

    def run(self, out: Path, *more: str, encoder: str = "", limit: Callable[[], None] | None = None) -> int:
        """Let a build come to its end by itself; its exit code."""
        process = self.start(out, *more, encoder=encoder, limit=limit)
        try:
            return process.wait(120)
        finally:
            kill_build(process)

    def finish(self, out: Path, *more: str) -> None:
        """Run the build to its good end."""
        assert self.run(out, *more) == 0, said(out)


def make_site(root: Path) -> Site:
    """Videos of 30 frames in 160x128, and their list."""
    (root / "videos").mkdir()
    rows = []
    for number in range(NUM_CLIPS):
        video = f"video_{number:05d}"
        # Some are copies of others: what is told apart is told apart by name.
        path = root / "videos" / f"{video}_000000_000003.mp4"
        if number < 3:
            pictures_THWC = np.random.default_rng(number).integers(0, 255, (30, 128, 160, 3), dtype=np.uint8)
            encode_frames(pictures_THWC, path, fps=10, config=EncodeConfig(preset="ultrafast"))
        else:
            os.link(root / "videos" / f"video_{number % 3:05d}_000000_000003.mp4", path)
        rows.append(f"abseiling,{video},0,3,train\n")
    (root / "annotations" / "k400").mkdir(parents=True)
    (root / "annotations" / "k400" / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n" + "".join(rows)
    )
    script = root / "ffmpeg"
    script.write_text(
        "#!/bin/sh\n"
        'key=; for word; do case "$word" in *.mp4) key=${word##*/}; key=${key%.mp4}; key=${key%.again} ;; esac; done\n'
        '[ -n "$key" ] && { echo "$key" >> "$ENCODES"; eval "$ENCODER"; }\n'
        f'exec {shlex.quote(_real_ffmpeg())} "$@"\n'
    )
    script.chmod(0o755)
    return Site(root=root, ffmpeg=script)


def said(out: Path) -> str:
    """What the last build at ``out`` wrote to stdout and stderr."""
    return _words(out).read_text()


def encodes(out: Path) -> list[str]:
    """Keys in order of the encodes that were begun for the build at ``out``."""
    log = out.parent / "encodes.txt"
    return log.read_text().split() if log.exists() else []


def ledger(out: Path) -> list[dict[str, Any]]:
    """The whole lines of the ledger."""
    path = out / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def outcomes(out: Path) -> dict[str, tuple[str, str]]:
    """Last status and sha256 of each clip in the ledger."""
    return {line["key"]: (line["status"], line.get("sha256", "")) for line in ledger(out)}


def committed(out: Path) -> set[str]:
    """Clips that the ledger calls good and whose bytes lie in the cache or in a shard."""
    stored = {(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in out.glob("cache/??/*.mp4")}
    for path in out.glob("shards/*/*.tar"):
        with tarfile.open(path) as tar:
            for info in tar:
                data = tar.extractfile(info)
                assert data is not None
                stored.add((Path(info.name).stem, hashlib.sha256(data.read()).hexdigest()))
    return {key for key, (status, sha256) in outcomes(out).items() if status == "ok" and (key, sha256) in stored}


def contents(out: Path) -> dict[str, str]:
    """sha256 of every file by its path; the ledger is in order of completion, so it is left out."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in ("ledger.jsonl", ".build-guard", "build.json"))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def descendants(pid: int) -> list[int]:
    """Processes that a process began, theirs, and so on; children after their parents."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(facts[1]), []).append(int(entry.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        found += front
    return found


def kill_tree(root: int) -> None:
    """End a process and all that it began at one moment, as a machine does that goes down."""
    stopped: list[int] = []
    while new := [pid for pid in (root, *descendants(root)) if pid not in stopped]:
        # Stopped first, so that none of them sees another end, or begins one that is missed here.
        for pid in new:
            _send(pid, signal.SIGSTOP)
        stopped += new
    for pid in stopped:
        _send(pid, signal.SIGKILL)


def kill_build(process: subprocess.Popen[bytes]) -> None:
    """End a build with all its processes, unless it has come to its end."""
    if process.poll() is None:
        kill_tree(process.pid)
        process.wait(60)


def encoders(out: Path) -> dict[int, int]:
    """Processes that encode for the build at ``out`` now, each with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
                if b"ffmpeg" in b" ".join(words[:2]) and any(bytes(out.resolve()) in word for word in words[2:]):
                    found[int(entry.name)] = int(facts[1])
    return found


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None, limit_s: float = 60
) -> None:
    """Wait until something is so, or the process has ended."""
    deadline = time.monotonic() + limit_s
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.005)


@contextmanager
def nothing_twice(out: Path) -> Iterator[Callable[[], None]]:
    """Fails at the end if a clip was encoded after a call of what it yields, at which it was committed."""
    marks: list[tuple[int, set[str]]] = []
    yield lambda: marks.append((len(encodes(out)), committed(out)))
    for begun, done in marks:
        assert sorted(done & set(encodes(out)[begun:])) == []


def assert_unbroken(out: Path, whole: Path) -> None:
    """A build that was broken off and gone on with is as one that was not, to the last byte and file."""
    assert contents(out) == contents(whole)
    assert outcomes(out) == outcomes(whole)
    assert not (out / "cache").exists()


def file_size_limit(size_bytes: int) -> Callable[[], None]:
    """For a new process: no file that it writes can grow beyond this."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def _words(out: Path) -> Path:
    return out.parent / "said.txt"


def _real_ffmpeg() -> str:
    return os.environ.get("K710_FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
