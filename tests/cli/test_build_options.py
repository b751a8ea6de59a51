"""`k710 build` and `k710 retry` as commands: what they say, and how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.progress import Stages

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def again(built: Path, toy: Path, tmp_path: Path, k710: Command) -> Command:
    """Builds the toy Kinetics again into a copy of its build, with more options."""
    shutil.copytree(built, tmp_path / "data")

    def command(*more: object) -> tuple[int, str, str]:
        places = ("--annotations", toy / "annotations", "--videos", toy / "videos", "--out", tmp_path / "data")
        return k710("build", *places, "--workers", "1", *more)

    return command


def test_the_last_lines_say_what_was_done_and_where_it_is(again: Command, tmp_path: Path) -> None:
    code, out, _ = again()
    assert code == 0
    assert ", 0 made now, " in out
    assert out.rstrip().endswith(f"{tmp_path}/data/audit.md")


def test_machines_get_every_figure(again: Command) -> None:
    _, out, _ = again("--json")
    summary = json.loads(out)
    assert {"clips", "usable", "tried", "made", "size_bytes", "seconds", "clips_per_s", "unclaimed"} <= set(summary)
    good, planned = summary["usable"]["k710-train"]
    assert 0 < good < planned


def test_too_few_clips_end_with_1_after_the_summary(again: Command) -> None:
    code, out, err = again("--min-clips", "100")
    assert code == 1
    assert "done " in out
    assert "fewer usable clips than --min-clips asks for: all clips: " in err
    assert again("--min-clips", "50")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encode", "mp3"), "encode must be one of sparse8, sparse32, intra, copy, none, got mp3"),
        (("--crf", "52"), "crf must be between 0 and 51, got 52"),
        (("--preset", "swift"), "preset must be one of ultrafast"),
        (("--short-side", "4"), "short_side_px must be at least 16, got 4"),
        (("--videos-are", "films"), "videos_are must be one of auto, clips, originals, got films"),
        (("--min-clips", "101"), "min_clips_pct must be between 0 and 100, got 101"),
    ],
)
def test_settings_that_cannot_be_end_with_2(again: Command, options: tuple[str, str], message: str) -> None:
    code, _, err = again(*options)
    assert code == 2
    assert message in err


def test_another_encode_is_refused_by_name(again: Command) -> None:
    code, _, err = again("--encode", "none")
    assert code == 2
    assert "config.encode.encode: 'sparse8' -> 'none'" in err


def test_clips_that_failed_are_tried_again_on_request(again: Command, k710: Command, tmp_path: Path) -> None:
    again()
    before = (tmp_path / "data" / "ledger.jsonl").read_bytes()
    code, out, err = k710("retry", "--status", "not_a_video,truncated", "--data", tmp_path / "data", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["tried"] == summary["clips"]["not_a_video"] + summary["clips"]["truncated"]
    assert summary["made"] == 0
    after = (tmp_path / "data" / "ledger.jsonl").read_bytes()
    assert after.startswith(before)
    assert b'"attempts": 2' in after[len(before) :]


def test_an_unknown_status_is_a_usage_error(k710: Command, built: Path) -> None:
    code, _, err = k710("retry", "--status", "lost", "--data", built)
    assert code == 2
    assert "statuses must be some of ok, missing" in err


def test_where_there_is_no_terminal_a_line_comes_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: now[0])
    with Stages() as stages:
        for done in range(1, 101):
            now[0] += 1
            stages("clips", done, 100, f"note {done}")
        stages("clips", 100, 100, "note 100")
    assert capfd.readouterr().err.splitlines() == [
        "clips: 31 of 100 note 31",
        "clips: 61 of 100 note 61",
        "clips: 91 of 100 note 91",
        "clips: 100 of 100 note 100",
    ]


def test_lines_for_people_come_one_by_one(capfd: pytest.CaptureFixture[Any]) -> None:
    with Stages() as stages:
        stages.say("disk: [3] GB")
    assert capfd.readouterr().err == "disk: [3] GB\n"
