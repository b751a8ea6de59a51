"""What the shard measurement compares is the same work, and the frames that it reads are the right ones."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import shard_clips
import shard_reading
import shards

from k710.clips.make import make_clip
from k710.clips.media import EncodeConfig, encode_frames

NUM_FRAMES = 70


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two videos of 7 s, of which one would be scaled."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (height, width) in enumerate(((48, 64), (96, 64))):
        picture_HWC = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        picture_HWC = picture_HWC.repeat(8, 0).repeat(8, 1)
        # One picture that moves: a scene cut would begin a group of pictures.
        frames_THWC = np.stack([np.roll(picture_HWC, step, 1) for step in range(NUM_FRAMES)])
        encode_frames(frames_THWC, folder / f"{seed}.mp4", fps=10, config=EncodeConfig())
    (folder / "README.md").write_text("no video")
    return shard_clips.find_videos(folder)


@pytest.fixture(scope="module")
def sparse8(videos: list[Path]) -> bytes:
    return videos[0].read_bytes()


def test_only_videos_are_found(videos: list[Path]) -> None:
    assert [path.name for path in videos] == ["0.mp4", "1.mp4"]


def test_bare_commands_write_the_clips_of_the_product(videos: list[Path], tmp_path: Path) -> None:
    jobs = shard_clips.trimmed_jobs(videos, 3, tmp_path / "jobs", EncodeConfig(short_side_px=32))
    made = [make_clip(job).sha256 for job in jobs]
    commands = shard_clips.commands_of(jobs)
    for job in jobs:
        job.target.unlink()
    shard_clips.run_bare([[command] for command in commands], 2)
    assert [hashlib.sha256(job.target.read_bytes()).hexdigest() for job in jobs] == made
    assert len({job.segment.key for job in jobs}) == 3


def test_without_verification_the_same_clip_is_written(videos: list[Path], tmp_path: Path) -> None:
    (job,) = shard_clips.trimmed_jobs(videos, 1, tmp_path / "jobs", EncodeConfig(short_side_px=32))
    assert shard_clips.make_unverified(job).outcome.sha256 == make_clip(job).sha256


def test_two_passes_give_as_many_frames_as_one(videos: list[Path], tmp_path: Path) -> None:
    jobs = shard_clips.whole_jobs(videos, 2, tmp_path / "whole", EncodeConfig(short_side_px=32))
    one = [make_clip(job).frames for job in jobs]
    assert one == [50, 50]
    chains = shard_clips.trim_then_resize(jobs, tmp_path / "two")
    assert [len(chain) for chain in chains] == [2, 2]
    for job in jobs:
        job.target.unlink()
    shard_clips.run_bare(chains, 1)
    assert [_num_frames(job.target) for job in jobs] == one


def test_both_decoders_are_timed_on_the_same_frames(sparse8: bytes) -> None:
    indices = [39, 0, 39, 7]
    product, plain = (decoder(sparse8, indices) for decoder in shard_reading.DECODERS.values())
    np.testing.assert_array_equal(product, plain)
    spent_ms = shard_reading.read_ms({"sparse8": sparse8}, rounds=1)
    assert {name: set(of_one) for name, of_one in spent_ms.items()} == {
        "product": {"sparse8"},
        "plain decoding": {"sparse8"},
    }


def test_default_pictures_differ_in_nothing_but_the_pictures(videos: list[Path], tmp_path: Path) -> None:
    jobs = shard_clips.trimmed_jobs(videos, 1, tmp_path / "jobs", EncodeConfig(short_side_px=32))
    (command,) = shard_clips.commands_of(jobs)
    default = shard_reading.with_default_pictures(command, tmp_path / "default.mp4")
    shard_clips.run_bare([[default]], 1)
    pictures = ["-bf", "3", "-g", "16", "-x264-params", "b-adapt=0:b-pyramid=none"]
    assert [word for word in command if word not in default] == [*pictures, f"file:{jobs[0].target}"]
    assert _num_keyframes(jobs[0].target) == 5
    assert _num_keyframes(tmp_path / "default.mp4") == 1


def test_psnr_is_that_of_the_same_frames(videos: list[Path], tmp_path: Path) -> None:
    psnr_db = []
    for crf in (10, 40):
        (job,) = shard_clips.trimmed_jobs(videos, 1, tmp_path / str(crf), EncodeConfig(crf=crf))
        (command,) = shard_clips.commands_of([job])
        exact = shard_reading.without_loss(command, tmp_path / f"{crf}.mp4")
        shard_clips.run_bare([[exact]], 1)
        psnr_db.append(shard_reading.luma_psnr_db(job.target, tmp_path / f"{crf}.mp4"))
    assert psnr_db[0] > 45 > psnr_db[1] > 15


def test_marks_say_what_was_met_and_what_was_missed() -> None:
    assert {name: mark["met"] for name, mark in shards.marks(_result()).items()} == {
        "encoding at most 1.05x of bare ffmpeg, once the workers run": True,
        "2 workers at least 1.85x one worker, once they run": False,
        "2 workers at least 1.85x one worker on one core, once they run": True,
        "one pass at least 1.5x faster than two": True,
        "copy at least 60 clips/s": True,
        "copy of all at least 60 clips/s": False,
        "8 frames at least 2.5x faster, by product": False,
        "at most 1.25x the bytes": True,
        "within 0.5 dB": False,
    }


def test_everything_is_run_in_turn_and_the_median_counts() -> None:
    seconds = {"a": iter([3.0, 1.0, 2.0]), "b": iter([9.0, 9.0, 1.0])}
    order: list[str] = []

    def run(name: str) -> shard_clips.Spent:
        order.append(name)
        wall_s = next(seconds[name])
        return shard_clips.Spent(wall_s=wall_s, cpu_s=2 * wall_s)

    spent = shards.interleaved({name: functools.partial(run, name) for name in seconds}, 3)
    assert spent == {"wall_s": {"a": 2.0, "b": 9.0}, "cpu_s": {"a": 4.0, "b": 18.0}}
    assert "".join(order) == "ababab"


def test_a_measurement_runs_the_product_and_ends_in_a_table(videos: list[Path], tmp_path: Path) -> None:
    result = _result() | {"encode": shards.measure_encode(videos, 2, tmp_path / "encode", 1, 1)}
    assert set(result["encode"]["wall_s"]) == {*WAYS, shards.START, shards.START_ONE}
    lines = shards.tables(result | {"marks": shards.marks(result)}).splitlines()
    assert any(line.startswith("| bare | 2 | ") for line in lines)
    assert result["encode"]["cpu_over_bare"] > 0
    assert sum(line.endswith(("| met |", "| missed |")) for line in lines) == len(shards.marks(result))


WAYS = ("unverified", "bare", "verified", shards.ONE_WORKER, shards.ONE_CORE)


def _result() -> dict[str, Any]:
    return {
        "command": "bench/shards.py",
        "machine": {"system": "Linux", "cores": 2, "ffmpeg": "ffmpeg version 9", "load_at_start": 0.0},
        "load_at_end": 2.0,
        "workers": 2,
        "rounds": 3,
        "encode": {"clips": 2, "over_bare": 1.05, "over_one_worker": 1.84, "over_one_core": 1.85},
        "one_pass": {
            "clips": 2,
            "speedup": 1.5,
            "cpu_speedup": 1.6,
            "wall_s": {"one pass": 1.0},
            "cpu_s": {"one pass": 2.0},
        },
        "copy": {
            "clips": 60,
            "clips_per_s": {"copy": 60.0, "copy of all": 59.9},
            "cpu_ms": {"0.mp4": 30.0},
            "wall_s": {"copy": 1.0, "copy of all": 1.1},
            "cpu_s": {"copy": 2.0, "copy of all": 2.1},
        },
        "read": {
            "clips": [
                {
                    "video": "0.mp4",
                    "frames": 300,
                    "bytes": {"sparse8": 5000, "default": 4000},
                    "psnr_db": {"sparse8": 38.0, "default": 38.6},
                    "cpu_ms": {d: {"sparse8": 20.0, "default": 50.0} for d in shard_reading.DECODERS},
                }
            ],
            "speedup": {"product": 2.4, "plain decoding": 2.6},
            "bytes_ratio": 1.25,
            "psnr_loss_db": 0.6,
        },
    }


def _num_frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def _num_keyframes(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
