"""`k710 verify`, as a user runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def videos(toy: Path, tmp_path: Path) -> Path:
    """Two good videos and an empty one."""
    (tmp_path / "videos").mkdir()
    good = [p for p in sorted((toy / "videos").rglob("*.mp4")) if p.stat().st_size > 5000][:2]
    for path in good:
        shutil.copy(path, tmp_path / "videos" / path.name)
    (tmp_path / "videos" / "zzzzzzzzzzz.mp4").touch()
    return tmp_path / "videos"


def test_a_good_build_ends_with_one_line_and_exit_code_0(k710: Run, built: Path, tmp_path: Path) -> None:
    code, out, err = k710("verify", built, "--workers", 2, "--out", tmp_path / "list.csv")
    assert code == 0, err
    last = out.splitlines()[-1]
    assert last.startswith("verified ")
    assert last.endswith(f" without bytes -> {tmp_path / 'list.csv'}")
    assert (tmp_path / "list.csv").read_text().startswith("path,key,status,reason,frames,")


def test_a_bad_clip_is_named_and_the_exit_code_is_1(k710: Run, videos: Path) -> None:
    code, out, err = k710("verify", videos, "--workers", 1, "--decode", "full")
    assert code == 1
    assert "not_a_video: zzzzzzzzzzz.mp4: empty file" in out.splitlines()
    assert out.splitlines()[-1].startswith("verified 2 of 3 clips: 1 not_a_video")
    assert "1 bad clip" in err


def test_a_machine_reads_the_same(k710: Run, videos: Path) -> None:
    code, out, _ = k710("verify", videos, "--workers", 1, "--json")
    told = json.loads(out)
    assert (code, told["clips"], told["statuses"], told["mode"]) == (1, 3, {"ok": 2, "not_a_video": 1}, "ends")
    assert [clip["path"] for clip in told["bad"]] == ["zzzzzzzzzzz.mp4"]


def test_a_name_with_a_line_break_stays_on_one_line(k710: Run, videos: Path) -> None:
    (videos / "a\nb.mp4").touch()
    _, out, _ = k710("verify", videos, "--workers", 1)
    assert "not_a_video: a\\nb.mp4: empty file" in out.splitlines()


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda p: None, 2, "no such file or folder"),
        (lambda p: p.mkdir(), 4, "no videos and no .tar files in it"),
        (lambda p: (p.mkdir(), (p / "k710.lock.json").write_text("{}")), 5, "not a lock"),
    ],
)
def test_what_cannot_be_read_is_refused(
    k710: Run, tmp_path: Path, make: Callable[[Path], object], code: int, said: str
) -> None:
    make(tmp_path / "data")
    got, _, err = k710("verify", tmp_path / "data")
    assert (got, said in err) == (code, True), err


def test_a_way_to_decode_that_there_is_not_is_refused(k710: Run, videos: Path) -> None:
    assert k710("verify", videos, "--decode", "half")[0] == 2
