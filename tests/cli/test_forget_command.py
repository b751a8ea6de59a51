"""`k710 forget`, as a user runs it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from k710 import schema
from k710.segments import id_hash
from k710.tables import read_table

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    """A finished build to take videos from."""
    shutil.copytree(built, tmp_path / "data")
    return tmp_path / "data"


def planned(data: Path) -> list[str]:
    """Planned videos; those whose ids look like options come last."""
    ids = read_table(data / "manifest.parquet", schema.MANIFEST, ["id"])["id"].to_pylist()
    return sorted(set(map(str, ids)), key=lambda i: (i.startswith("-"), i))


def forgotten(data: Path) -> list[str]:
    return list(json.loads((data / "forgotten.json").read_text())["id_hashes"])


def test_it_ends_with_one_line_that_says_what_was_done(k710: Run, data: Path) -> None:
    first, second = planned(data)[:2]
    code, out, err = k710("forget", first, second, "--data", data)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("forgot 2 videos (2 clips in ")
    assert out.splitlines()[-1].endswith(f" removed) -> {data}, {data}/forgotten.json")
    assert {first, second}.isdisjoint(planned(data))
    assert forgotten(data) == sorted(f"{id_hash(i):016x}" for i in (first, second))


def test_ids_come_from_a_file_or_standard_input(k710: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = planned(data)[:2]
    (data.parent / "ids.txt").write_text(f"\n{first}\r\n-bcdefghijk\n")
    assert k710("forget", "--ids", data.parent / "ids.txt", "--data", data)[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{second}\n"))
    assert k710("forget", "--ids", "-", "--data", data)[0] == 0
    assert len(forgotten(data)) == 3
    assert {first, second}.isdisjoint(planned(data))


def test_an_id_that_begins_with_a_dash_comes_after_two(k710: Run, data: Path) -> None:
    code, out, _ = k710("forget", "--data", data, "--", "-bcdefghijk")
    assert code == 0
    assert "not in this build, and kept out of it from now on: -bcdefghijk" in out
    assert forgotten(data) == [f"{id_hash('-bcdefghijk'):016x}"]


def test_a_machine_reads_the_same(k710: Run, data: Path) -> None:
    video = planned(data)[0]
    code, out, _ = k710("forget", video, "--data", data, "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["videos"], told["dry_run"], told["id_hashes"]) == (0, 1, True, [f"{id_hash(video):016x}"])
    assert not (data / "forgotten.json").exists()
    code, out, _ = k710("forget", video, "--data", data, "--json")
    assert {**json.loads(out), "dry_run": True} == told


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("abc",), 2, "'abc' is not a YouTube id"),
        ((), 2, "no video named"),
        (("--ids", "nowhere.txt"), 2, "nowhere.txt: cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    k710: Run, data: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    got, _, err = k710("forget", *arguments, "--data", data)
    assert (got, said in err) == (code, True), err
    assert not (data / "forgotten.json").exists()


def test_a_folder_without_a_build_is_an_error_of_the_feed(k710: Run, tmp_path: Path) -> None:
    code, _, err = k710("forget", "aaaaaaaaaaa", "--data", tmp_path / "nowhere")
    assert code == 5
    assert "no build here" in err
