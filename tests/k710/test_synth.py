"""The toy Kinetics on disk: files, lists, resuming and refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from k710.clips.outcomes import Unusable
from k710.clips.probing import VideoFacts, probe
from k710.errors import UsageError
from k710.labels import load_labels
from k710.synth.plan import SynthConfig, min_clips
from k710.synth.write import synth

SMALL = SynthConfig(num_clips=min_clips(4), num_classes=4)
LISTS = [(release, split) for release in ("k400", "k600", "k700") for split in ("train", "val", "test")]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest toy Kinetics, written in this process."""
    out = tmp_path_factory.mktemp("synth") / "toy"
    synth(SMALL, out, workers=1)
    return out


@pytest.fixture(scope="session")
def truth(toy: Path) -> Any:
    """What the toy says of itself."""
    return json.loads((toy / "truth.json").read_text())


def digests(out: Path) -> dict[str, str]:
    """sha256 of each file by its path."""
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def read_list(out: Path, release: str, split: str) -> list[dict[str, str]]:
    path = out / "annotations" / f"kinetics{release[1:]}" / f"{split}.csv"
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def list_rows(out: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    for release, split in LISTS:
        for row in read_list(out, release, split):
            yield release, split, row


def decode(path: Path) -> np.ndarray[Any, Any]:
    """Frames as grey ``frames_THW``."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)]).astype(np.float32)


def test_two_workers_write_the_same_bytes_as_one(toy: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    summary = synth(SMALL, tmp_path / "again", workers=2, progress=lambda done, total: calls.append((done, total)))
    assert digests(tmp_path / "again") == digests(toy)
    assert calls == [(n, summary.num_files) for n in range(summary.num_files + 1)]
    assert summary.num_written == summary.num_files


def test_a_run_that_was_cut_off_goes_on(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    shutil.copytree(toy, out)
    lost = sorted((out / "videos").rglob("*.mp4"))[::20]
    for path in lost:
        path.unlink()
    (out / "truth.json").unlink()
    (out / "annotations" / "kinetics600" / "val.csv").unlink()
    (out / "videos" / ".abc_000001_000003.mp4.x7.partial").write_bytes(b"half")
    assert synth(SMALL, out, workers=1).num_written == len(lost)
    assert digests(out) == digests(toy)


def test_a_run_that_ended_before_its_record_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".synth.json.k2.partial").write_bytes(b"{")
    with pytest.raises(RuntimeError, match="first file"):
        synth(SMALL, tmp_path, workers=1, progress=_stop)
    assert (tmp_path / "synth.json").is_file()
    assert not (tmp_path / "truth.json").exists()


def _stop(done: int, total: int) -> None:
    if done:
        raise RuntimeError("first file")


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(UsageError, match=r"holds thesis\.tex"):
        synth(SMALL, tmp_path, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        synth(SMALL, tmp_path / "out", workers=1)


def test_another_config_is_refused_by_field(toy: Path) -> None:
    before = digests(toy)
    with pytest.raises(UsageError, match=r"config\.seed: 0 -> 1"):
        synth(SynthConfig(num_clips=SMALL.num_clips, num_classes=4, seed=1), toy, workers=1)
    assert digests(toy) == before


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "synth.json").write_text("{")
    with pytest.raises(UsageError, match="not a record"):
        synth(SMALL, tmp_path, workers=1)


def test_a_strange_video_among_ours_is_refused(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    shutil.copytree(toy, out)
    (out / "videos" / "holiday.mp4").write_bytes(b"sun")
    with pytest.raises(UsageError, match=r"holiday\.mp4 is not a file of this data set"):
        synth(SMALL, out, workers=1)


def test_what_was_built_beside_the_videos_is_no_obstacle(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    shutil.copytree(toy, out)
    (out / "built").mkdir()
    (out / "built" / "k710.lock.json").write_text("{}")
    assert synth(SMALL, out, workers=1).num_written == 0


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1, got 0"):
        synth(SMALL, tmp_path, workers=0)


@pytest.mark.parametrize(("release", "split"), LISTS)
def test_lists_have_the_official_columns(toy: Path, release: str, split: str) -> None:
    expected = ["label", "youtube_id", "time_start", "time_end", "split"]
    if release == "k400":
        expected.append("is_cc")
    if (release, split) == ("k700", "test"):
        expected.remove("label")
    rows = read_list(toy, release, split)
    assert rows
    for row in rows:
        assert list(row) == expected
        assert row["split"] == split
        assert len(row["youtube_id"]) == 11
        assert 1 <= int(row["time_end"]) - int(row["time_start"]) <= 10


def test_every_label_is_an_official_name_of_its_release(toy: Path) -> None:
    labels = load_labels()
    for release, _, row in list_rows(toy):
        assert "label" not in row or labels.canonical(release, row["label"]) is not None


def test_the_truth_counts_the_rows_of_the_lists(toy: Path, truth: Any) -> None:
    assert truth["lists"] == {f"{r}:{s}": len(read_list(toy, r, s)) for r, s in sorted(LISTS)}


def test_leaks_of_the_truth_are_those_of_the_lists(toy: Path, truth: Any) -> None:
    ids: dict[tuple[str, str], set[str]] = {
        (r, s): {row["youtube_id"] for row in read_list(toy, r, s)} for r, s in LISTS
    }
    leaked: set[str] = set()
    for train in ("k400", "k600", "k700"):
        for release in ("k400", "k600", "k700"):
            for split in ("val", "test"):
                both = ids[train, "train"] & ids[release, split]
                assert truth["leaks"]["pairs"][f"{train}:train & {release}:{split}"] == len(both)
                leaked |= both
    assert truth["leaks"]["ids"] == sorted(leaked)
    assert truth["leaks"]["total"] == len(leaked) >= 12


def test_planted_videos_stand_where_the_truth_says(toy: Path, truth: Any) -> None:
    found: dict[str, dict[str, str | None]] = {}
    for release, split, row in list_rows(toy):
        key = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        found.setdefault(key, {})[f"{release}:{split}"] = row.get("label")
    for videos in truth["planted"].values():
        for video in videos:
            for segment in video["segments"]:
                assert segment["key"].startswith(video["id"])
                assert found[segment["key"]] == segment["lists"]


def test_files_end_as_the_truth_says(toy: Path, truth: Any) -> None:
    for clip in truth["clips"]:
        path = toy / clip["path"]
        if clip["status"] == "missing":
            assert not path.exists()
            continue
        facts = probe(path)
        if clip["status"] != "ok":
            assert isinstance(facts, Unusable)
            assert facts.status == clip["status"]
            continue
        assert isinstance(facts, VideoFacts)
        assert (facts.width_px, facts.height_px) == (clip["form"]["width_px"], clip["form"]["height_px"])
        assert facts.fps == pytest.approx(clip["form"]["fps"], rel=1e-3)
        start_s, end_s = (int(t) for t in clip["key"][-13:].split("_"))
        if clip["layout"] == "original":
            assert facts.duration_s >= end_s - 0.5
            assert facts.duration_s > end_s - start_s + 1
        else:
            assert facts.frames == clip["form"]["num_frames"]
            assert end_s - start_s - 1 < facts.duration_s <= end_s - start_s + 0.01


def test_some_files_have_sound(toy: Path, truth: Any) -> None:
    loud = [c for c in truth["clips"] if c["form"]["tone_hz"]]
    assert loud
    for clip in loud:
        with av.open(str(toy / clip["path"])) as container:
            assert len(container.streams.audio) == 1


def test_a_pair_shows_the_same_frames_in_opposite_order(toy: Path, truth: Any) -> None:
    bases: dict[str, list[dict[str, Any]]] = {}
    for clip in truth["clips"]:
        if clip["status"] == "ok" and clip["layout"] != "original":
            bases.setdefault(clip["base"], []).append(clip)
    pairs = [sorted(p, key=lambda c: c["backward"]) for p in bases.values() if len(p) == 2]
    assert len(pairs) >= 5
    for forward, backward in pairs:
        first_THW, second_THW = decode(toy / forward["path"]), decode(toy / backward["path"])
        assert np.abs(first_THW - second_THW[::-1]).mean() < 3
        assert np.abs(first_THW - second_THW).mean() > 10


def test_a_whole_video_moves_inside_its_segment_only(toy: Path, truth: Any) -> None:
    clip = next(c for c in truth["clips"] if c["layout"] == "original" and c["lists"].keys() == {"k600:train"})
    start_s, end_s = (int(t) for t in clip["key"][-13:].split("_"))
    frames_THW = decode(toy / clip["path"])
    fps = round(clip["form"]["fps"])
    still = np.abs(frames_THW[: start_s * fps] - frames_THW[0]).mean()
    moving = np.abs(frames_THW[start_s * fps : end_s * fps] - frames_THW[0]).mean()
    assert moving > 5 * still


def test_an_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/toy: cannot be written \(not a folder: .*file\)"):
        synth(SMALL, tmp_path / "file" / "toy", workers=1)
