"""`k710 export` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
MODEL = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "global_layers": "[0]", "local_blocks": 0}
NO_TRAINING = ("optim.epochs=0", "optim.warmup_epochs=0", *(f"model.{name}={value}" for name, value in MODEL.items()))


@pytest.fixture(scope="module")
def finished(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its initial weights."""
    from cli.main import run

    out = tmp_path_factory.mktemp("runs") / "pretrain"
    settings = [word for setting in NO_TRAINING for word in ("--set", setting)]
    assert run(["pretrain", "--data", str(built), "--out", str(out), *settings]) == 0
    return out


def test_a_run_becomes_an_onnx_file_and_the_summary_says_how_close_it_is(
    k710: Run, finished: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "model.onnx"
    code, said, err = k710("export", "--from", finished, "--out", out)
    assert (code, err) == (0, "")
    assert "clips of 3 x 8 x 32 x 32 to 710 classes, in batches of any size" in said
    assert "largest difference of logits from the model, batches of 1 and 2: " in said
    assert said.splitlines()[-1].startswith("done ONNX of ")
    assert f"MB -> {out}" in said
    facts = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert len(json.loads(facts["classes"])) == 710


def test_a_machine_reads_what_was_written(k710: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pyth"
    code, said, _ = k710("export", "--from", finished, "--out", out, "--json")
    summary = json.loads(said)
    assert code == 0
    assert (summary["out"], summary["size_bytes"]) == (str(out), out.stat().st_size)
    assert summary["largest_difference"] == 0
    code, _, err = k710("export", "--from", finished, "--out", out)
    assert code == 2
    assert "hint: give another --out, or replace it with --force" in err


def test_a_missing_run_ends_with_6_and_an_unknown_suffix_with_2(k710: Run, tmp_path: Path) -> None:
    code, _, err = k710("export", "--from", tmp_path / "none", "--out", tmp_path / "model.pt2")
    assert code == 6
    assert "no such run or checkpoint" in err
    code, _, err = k710("export", "--out", tmp_path / "model.tflite")
    assert code == 2
    assert "the suffix says the format" in err
