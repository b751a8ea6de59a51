"""`k710 export model` as a user runs it."""

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
    code, said, err = k710("export", "model", "--from", finished, "--out", out)
    assert (code, err) == (0, "")
    assert "clips of 3 x 8 x 32 x 32 to 710 classes, in batches of any size" in said
    assert "largest difference of logits from the model, batches of 1 and 2: " in said
    assert said.splitlines()[-1].startswith("done ONNX of ")
    assert f"MB -> {out}" in said
    facts = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert len(json.loads(facts["classes"])) == 710


def test_a_machine_reads_what_was_written(k710: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pyth"
    code, said, _ = k710("export", "model", "--from", finished, "--out", out, "--json")
    summary = json.loads(said)
    assert code == 0
    assert (summary["out"], summary["size_bytes"]) == (str(out), out.stat().st_size)
    assert summary["largest_difference"] == 0
    code, _, err = k710("export", "model", "--from", finished, "--out", out)
    assert code == 2
    assert "hint: give another --out, or replace it with --force" in err


def test_a_recipe_beside_a_run_that_says_its_model_is_refused(k710: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pyth"
    code, _, err = k710("export", "model", "--from", finished, "--out", out, "--set", "recipe=k710_b16")
    assert code == 2
    assert "the checkpoint says itself what model it is of" in err
    assert "hint: leave --set recipe=k710_b16 out" in err
    assert not out.exists()


def test_the_summary_says_when_nobody_knows_how_clips_are_made(k710: Run, finished: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    state = load_file(finished / "model.safetensors")
    other = {key: value[:174].clone() if ".proj.2." in key else value for key, value in state.items()}
    torch.save(other, tmp_path / "ssv2.pyth")
    recipe = tmp_path / "recipe.toml"
    lines = [f"{name} = {value}" for name, value in MODEL.items()]
    recipe.write_text("\n".join(["[model]", *lines, "heads = 2", "num_frames = 8", "temporal_downsample = true"]))
    flags = ("--out", tmp_path / "model.pth", "--set", f"recipe={recipe}")
    code, said, err = k710("export", "model", "--from", tmp_path / "ssv2.pyth", *flags)
    assert (code, err) == (0, "")
    assert "how its clips were made (colours, frames, size) is unknown" in said
    code, said, _ = k710("export", "model", "--from", finished, "--out", tmp_path / "own.pth")
    assert "unknown" not in said


def test_a_missing_run_ends_with_6_and_an_unknown_suffix_with_2(k710: Run, tmp_path: Path) -> None:
    code, _, err = k710("export", "model", "--from", tmp_path / "none", "--out", tmp_path / "model.pt2")
    assert code == 6
    assert "no such run or checkpoint" in err
    code, _, err = k710("export", "model", "--out", tmp_path / "model.tflite")
    assert code == 2
    assert "the suffix says the format" in err


def test_nothing_is_written_over_the_files_of_a_run(k710: Run, finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    out = finished / "model.safetensors"
    code, _, err = k710("export", "model", "--from", finished, "--out", out, "--force")
    assert code == 2
    assert "is a file of the weights or of their run" in err
    assert {path: path.read_bytes() for path in finished.iterdir()} == before
