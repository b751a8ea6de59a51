"""A damaged build is put right by running it again, to the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARD = "shards/k400-train.k600-train.k710-train/t-root.tar"


def contents(out: Path) -> dict[str, str]:
    """sha256 of every file of a build but the ledger."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in ("ledger.jsonl", ".build-guard", "build.json"))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1500])


def garble(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def flip_video_and_lose_marker(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)
    path.with_suffix(".json").unlink()


def lose_marker(path: Path) -> None:
    path.with_suffix(".json").unlink()


def garble_marker(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize("damage", [remove, empty, truncate, flip_video_and_lose_marker, lose_marker, garble_marker])
def test_a_damaged_shard_is_made_again(
    tiny_build: Path, tiny_copy: Path, rebuild: Any, damage: Callable[[Path], None]
) -> None:
    damage(tiny_copy / SHARD)
    rebuild(tiny_copy)
    assert contents(tiny_copy) == contents(tiny_build)


@pytest.mark.parametrize("damage", [lose_marker, garble_marker])
def test_a_lost_marker_costs_no_encoding(tiny_copy: Path, rebuild: Any, damage: Callable[[Path], None]) -> None:
    damage(tiny_copy / SHARD)
    assert rebuild(tiny_copy).made == 0


@pytest.mark.parametrize(
    "name",
    [
        "shards.parquet",
        "manifest.parquet",
        "excluded.parquet",
        "held_out.parquet",
        "audit.md",
        "audit.json",
        "views/k710-val.json",
    ],
)
def test_a_lost_table_is_written_again(tiny_build: Path, tiny_copy: Path, rebuild: Any, name: str) -> None:
    (tiny_copy / name).unlink()
    assert rebuild(tiny_copy).made == 0
    assert contents(tiny_copy) == contents(tiny_build)


def test_a_lost_ledger_costs_time_and_changes_nothing(tiny_build: Path, tiny_copy: Path, rebuild: Any) -> None:
    (tiny_copy / "ledger.jsonl").unlink()
    assert rebuild(tiny_copy).made == 2
    assert contents(tiny_copy) == contents(tiny_build)


def test_a_torn_last_line_of_the_ledger_costs_one_clip(tiny_build: Path, tiny_copy: Path, rebuild: Any) -> None:
    path = tiny_copy / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    assert rebuild(tiny_copy).made == 1
    assert contents(tiny_copy) == contents(tiny_build)
    assert len(path.read_bytes().splitlines()) == len(lines)


def test_a_damaged_clip_in_the_cache_is_made_again(tiny_build: Path, tiny_copy: Path, rebuild: Any) -> None:
    (tiny_copy / SHARD).unlink()
    cached = tiny_copy / "cache" / "-a" / "-aaaaaaaaaa_000000_000001.mp4"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half")
    assert rebuild(tiny_copy).made == 1
    assert contents(tiny_copy) == contents(tiny_build)


def test_shards_and_scratch_files_that_are_not_planned_go(tiny_build: Path, tiny_copy: Path, rebuild: Any) -> None:
    (tiny_copy / "shards" / "k999-train").mkdir()
    (tiny_copy / "shards" / "k999-train" / "t-root.tar").write_bytes(b"old")
    (tiny_copy / "cache" / "tmp-1").mkdir(parents=True)
    (tiny_copy / "cache" / "tmp-1" / "x.mp4").write_bytes(b"half")
    rebuild(tiny_copy)
    assert contents(tiny_copy) == contents(tiny_build)
