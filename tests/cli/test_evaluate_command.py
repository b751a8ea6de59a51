"""`k710 evaluate` on the command line: what is printed, what is written, and what it goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uniformerv2.pretrain import PretrainConfig, pretrain

Run = Callable[..., tuple[int, str, str]]

RECIPE = """
about = "a test"
[model]
image_size = 32
patch_size = 16
width = 16
layers = 1
heads = 2
num_frames = 2
num_classes = 710
global_layers = [0]
[optim]
epochs = 0
warmup_epochs = 0
[test]
clips = 2
crops = 1
[runtime]
device = "cpu"
"""
ALONE = ("--set", "workers=0", "--set", "threads=1", "--set", "device=cpu")


@pytest.fixture(scope="module")
def untrained(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its initial weights; not to be changed."""
    folder = tmp_path_factory.mktemp("untrained")
    (folder / "tiny.toml").write_text(RECIPE)
    pretrain(PretrainConfig(recipe=str(folder / "tiny.toml"), data=str(built), out=folder / "run"))
    return folder / "run"


def test_a_score_is_printed_with_its_cover_and_lineage(k710: Run, built: Path, untrained: Path, tmp_path: Path) -> None:
    files = ("--out", tmp_path / "r.json", "--scores", tmp_path / "s.parquet", "--confusion", tmp_path / "c.parquet")
    code, out, err = k710("evaluate", "--view", "k400-val", "--from", untrained, "--data", built, *files, *ALONE)
    report = json.loads((tmp_path / "r.json").read_text())
    lines = out.splitlines()
    assert (code, "Traceback" in err) == (0, False)
    assert lines[0].startswith(f"k400-val: top-1 {report['top1']:.2%}, top-5 {report['top5']:.2%} (chance")
    assert lines[2].startswith(f"covered {report['clips_scored']} of {report['clips_listed']} clips")
    assert lines[2].endswith("2 x 1 test views (the recipe of the weights)")
    assert lines[3:5] == ["lineage: no view seen", "the weights have seen 0 videos of k400-val"]
    worst = report["confusions"][0]
    assert lines[5] == f"{worst['clips']} x {worst['label_name']!r} taken for {worst['predicted_name']!r}"
    assert lines[-1].endswith(f" -> {', '.join(map(str, files[1::2]))}")
    assert (tmp_path / "s.parquet").is_file()
    assert (tmp_path / "c.parquet").is_file()
    left_out = report["clips_listed"] - report["clips_scored"]
    assert left_out == report["clips_without_bytes"]
    assert f"({left_out} without bytes)" in lines[2] if left_out else "without" not in lines[2]


def test_an_unknown_lineage_is_said(k710: Run, built: Path, untrained: Path, tmp_path: Path) -> None:
    weights = Path(shutil.copy(untrained / "model.safetensors", tmp_path / "alone.safetensors"))
    code, out, _ = k710("evaluate", "--view", "k400-val", "--from", weights, "--data", built, *ALONE)
    assert code == 0
    assert out.splitlines()[3:5] == [
        "lineage: unknown: for some of what the weights have seen there is no list of videos",
        "how many videos of k400-val the weights have seen cannot be said",
    ]


def test_flags_win_over_the_recipe_and_json_has_the_whole_report(k710: Run, built: Path, untrained: Path) -> None:
    arguments = ("--view", "k400-val", "--from", untrained, "--data", built, "--clips", 1, "--crops", 3, "--json")
    code, out, _ = k710("evaluate", *arguments, *ALONE)
    report = json.loads(out)
    assert code == 0
    assert (report["test_clips"], report["test_crops"], report["test_views_from"]) == (1, 3, "--clips and --crops")


def test_partial_scores_that_are_not_used_are_said(k710: Run, built: Path, untrained: Path, tmp_path: Path) -> None:
    partial = tmp_path / "r.json.partial"
    partial.mkdir()
    (partial / "0123-00000000.parquet").write_bytes(b"of another evaluation")
    arguments = ("--view", "k400-val", "--from", untrained, "--data", built, "--out", tmp_path / "r.json")
    code, _, err = k710("evaluate", *arguments, *ALONE)
    assert code == 0
    assert f"not used: partial scores in {partial}" in err
    assert not partial.exists()
