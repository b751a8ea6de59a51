"""`k710 fetch` as a command: what it says, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tars import tar
from web_site import Site

from cli.fetch import make_fetch_app
from k710.errors import SourceError, UsageError
from k710.fetch.outcomes import BAD, GOOD
from k710.fetch.videos import TERMS

ROWS = b"label,youtube_id,time_start,time_end,split\n"
Command = Callable[..., tuple[str, str]]


@pytest.fixture
def k400(site: Site) -> Site:
    """Lists of K400, and a path list of two archives."""
    for split in ("train", "val", "test"):
        row = f"abseiling,{split.ljust(11, '-')},10,20,{split}\n".encode()
        site.put(f"/kinetics/400/annotations/{split}.csv", ROWS + row)
    for part in (0, 1):
        clip = (f"./part_{part}-----_000010_000020.mp4", b"\0\0\0\x18ftyp" * 2000)
        site.put(f"/kinetics/400/val/part_{part}.tar.gz", tar(clip, (f"._{part}.mp4", b"x")))
    lines = "".join(f"https://s3.amazonaws.com/kinetics/400/val/part_{part}.tar.gz\n" for part in (0, 1))
    site.put("/kinetics/400/val/k400_val_path.txt", lines.encode())
    return site


@pytest.fixture
def fetch(k400: Site, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command against the server; gives what it says on stdout and stderr."""

    def command(*arguments: object) -> tuple[str, str]:
        make_fetch_app()([*map(str, arguments), "--base-url", k400.url], standalone_mode=False)
        out, err = capfd.readouterr()
        return out, err

    return command


def test_the_last_line_says_what_was_fetched_and_where_it_is(fetch: Command, out: Path) -> None:
    said, _ = fetch("annotations", "--release", "k400", "--out", out)
    assert said.splitlines() == [
        "lists that a build finds there: k400:train, k400:val, k400:test",
        f"done 3 of 3 files (3 fetched) -> {out}, {out}/sources.json",
    ]
    said, _ = fetch("annotations", "--release", "k400", "--out", out)
    assert said.splitlines()[-1] == f"done 3 of 3 files (3 unchanged) -> {out}, {out}/sources.json"


def test_machines_get_every_outcome(fetch: Command, out: Path) -> None:
    said, _ = fetch("annotations", "--release", "k400", "--out", out, "--json")
    summary = json.loads(said)
    assert [f["name"] for f in summary["files"]] == [f"k400/{split}.csv" for split in ("train", "val", "test")]
    assert all(f["status"] == "fetched" and len(f["sha256"]) == 64 for f in summary["files"])


def test_a_file_that_is_missing_is_named_and_ends_with_4(
    fetch: Command, k400: Site, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    del k400.pages["/kinetics/400/annotations/val.csv"]
    with pytest.raises(SourceError, match="1 of 3 files are not there") as caught:
        fetch("annotations", "--release", "k400", "--out", out)
    assert caught.value.exit_code == 4
    assert "WARNING: k400/val.csv: not_found (404 Not Found); look whether it has moved" in capfd.readouterr().out


def test_another_publisher_is_refused_by_name(fetch: Command, out: Path) -> None:
    with pytest.raises(UsageError, match="publisher must be cvdf or deepmind, got google"):
        fetch("annotations", "--release", "k400", "--out", out, "--from", "google")


def test_the_terms_are_said_once_before_videos(fetch: Command, out: Path) -> None:
    said, err = fetch("videos", "--release", "k400", "--split", "val", "--out", out)
    assert err.count(TERMS) == 1
    assert "YouTube" in TERMS
    assert said.splitlines() == [f"done 2 of 2 files (2 fetched) -> {out}, {out}/sources.json"]


def test_a_dry_run_lists_the_archives(fetch: Command, k400: Site, out: Path) -> None:
    said, _ = fetch("videos", "--release", "k400", "--split", "val", "--out", out, "--dry-run")
    assert said.splitlines() == [
        f"{k400.url}/kinetics/400/val/part_0.tar.gz  20.5 kB",
        f"{k400.url}/kinetics/400/val/part_1.tar.gz  20.5 kB",
        f"would fetch 2 archives, 41.0 kB in the 2 whose size is known -> {out}",
    ]
    assert list(out.iterdir()) == []


def test_clips_and_what_was_passed_over_are_counted(fetch: Command, out: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    said, _ = fetch("videos", "--release", "k400", "--split", "val", "--out", out, "--extract", clips)
    assert said.splitlines() == [
        "passed over 2 members: a ._ file of macOS",
        f"done 2 of 2 files (2 fetched) -> 2 clips in {clips}, {out}, {out}/sources.json",
    ]


def test_every_status_is_documented() -> None:
    document = (Path(__file__).parents[3] / "docs" / "fetch.md").read_text(encoding="utf-8")
    assert [status for status in (*GOOD, *BAD) if f"\n| `{status}` |" not in document] == []


SCRIPT = """
import signal, sys
from cli import main
from cli.fetch import make_fetch_app
app = main.make_app()
app.add_typer(make_fetch_app(), name="fetch")
main.make_app = lambda: app
sys.argv = ["k710", "fetch", *sys.argv[1:]]
# A program that a script starts in the background is deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
main.main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_at_once_and_the_next_run_goes_on(
    fetch: Command, k400: Site, out: Path, number: signal.Signals, code: int
) -> None:
    page = k400.pages["/kinetics/400/val/part_0.tar.gz"]
    page.drip_s = 0.02
    arguments = ("videos", "--release", "k400", "--split", "val", "--out", str(out))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments, "--base-url", k400.url], cwd=Path.cwd())
    while k400.sent["/kinetics/400/val/part_0.tar.gz"] < 1000 and process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    os.kill(process.pid, number)
    assert process.wait(timeout=10) == code
    assert time.monotonic() - began < 5
    assert (out / "k400" / "val" / ".part_0.tar.gz.partial").stat().st_size > 0
    page.drip_s = 0
    fetch(*arguments)
    assert k400.gets("/kinetics/400/val/part_0.tar.gz")[-1]["Range"].startswith("bytes=")
    assert (out / "k400" / "val" / "part_0.tar.gz").read_bytes() == page.data
