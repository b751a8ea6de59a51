"""`k710 browse` as it is typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from gallery_cases import DASHED, TRAIN, key_of

from cli.browse import browse, describe
from k710.browse.gallery import BrowseConfig
from k710.browse.gallery import browse as library
from k710.browse.sections import Asked

Command = Callable[..., tuple[int, str]]
ROOT = Path(__file__).resolve().parents[3]
PROGRAM = (
    "import typer\nfrom cli.browse import browse\n"
    "app = typer.Typer()\napp.command()(browse)\nif __name__ == '__main__':\n    app()\n"
)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process; its exit code and what it printed."""
    app = typer.Typer()
    app.command()(browse)

    def run(*words: object) -> tuple[int, str]:
        code = app([str(word) for word in words], standalone_mode=False)
        return int(code or 0), capsys.readouterr().out

    return run


def test_words_that_look_like_options_are_taken_as_they_are(odd: Path, command: Command) -> None:
    code, out = command(odd, f"--class={DASHED}", f"--key={key_of(TRAIN)}", "--workers=1", "--json")
    assert code == 0
    found = json.loads(out)
    assert Path(found["index"]) == odd / "browse" / "index.html"
    assert found["written"] == found["pages"] > 3


def test_the_last_line_says_what_was_done_and_where_it_is(odd: Path, command: Command) -> None:
    (next(odd.rglob("*.tar"))).unlink()
    lines = command(odd, "--all", "--workers=1")[1].splitlines()
    assert lines[0].startswith("no picture: ")
    assert re.match("done ([0-9]+) of \\1 pages, \\1 written now, [0-9]+ clips drawn -> ", lines[-1])
    assert lines[-1].endswith(f" -> {odd}/browse/index.html")


def test_many_clips_without_a_picture_are_counted(odd: Path) -> None:
    summary = library(BrowseConfig(build=str(odd), asked=Asked(conflicts=True), workers=1))
    many = {f"key{number}": "damaged" for number in range(30)}
    lines = describe(
        type(summary)(**{name: getattr(summary, name) for name in summary.__slots__} | {"not_drawn": many})
    )
    assert lines.splitlines()[20] == "... and 10 more; --json has all"


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(odd), "--serve", "--port=0", "--workers=1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    with process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        page = address.replace("index.html", "views/k710-train/class-0003-page-0001.html")
        with urllib.request.urlopen(page, timeout=60) as answer:
            assert key_of(TRAIN) in answer.read().decode()
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("num_files", [1, 6, 14, 25, 40])
def test_a_run_that_was_killed_is_finished_by_the_next_to_the_same_bytes(
    odd: Path, tmp_path: Path, num_files: int
) -> None:
    out = odd / "browse"

    def everything() -> dict[str, bytes]:
        library(BrowseConfig(build=str(odd), asked=Asked(everything=True), per_page=1, workers=1))
        return {str(p): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    undisturbed = everything()
    shutil.rmtree(out)
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(odd), "--all", "--per-page=1", "--workers=2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and sum(p.is_file() for p in out.rglob("*")) < num_files:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    # Workers end when they notice; until then one may finish the sheet that it is at.
    time.sleep(1.0)
    assert everything() == undisturbed
