"""Runs that decode by torchcodec: the same batches, weights and scores as by PyAV, in workers that begin in any way."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same
from test_workers import clips_to_score, one_epoch, pixels, test_loader, train_clips, train_loader

from k710.errors import UsageError
from uniformerv2.data import torchcodec_frames
from uniformerv2.data.torchcodec_library import load
from uniformerv2.evaluate import EvaluateConfig, evaluate
from uniformerv2.pretrain import PretrainConfig, pretrain

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
BY_TORCHCODEC = "data.decoder=torchcodec"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def torchcodec() -> None:
    """Skips where it cannot be loaded."""
    try:
        load()
    except UsageError as error:
        pytest.skip(f"{error.message} ({error.hint})")


@pytest.fixture
def decoded(torchcodec: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of frames that torchcodec gave, of each clip in this process."""
    counts: list[int] = []
    right = torchcodec_frames.frames_of

    def counting(*arguments: Any) -> Any:
        frames = right(*arguments)
        counts.append(len(frames))
        return frames

    monkeypatch.setattr(torchcodec_frames, "frames_of", counting)
    return counts


def test_training_and_validation_by_torchcodec_give_the_weights_and_scores_of_pyav(
    build: Path, recipe: str, tmp_path: Path, decoded: list[int]
) -> None:
    config = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "pyav")
    common = ("optim.epochs=1", "validation.view=k710-val")
    pretrain(replace(config, overrides=common))
    assert not decoded
    pretrain(replace(config, out=tmp_path / "torchcodec", overrides=(*common, BY_TORCHCODEC)))
    # Two frames of each of 12 trained and 6 scored clips, and the probes.
    assert decoded.count(2) == 12 + 6
    assert_same(tmp_path / "pyav", tmp_path / "torchcodec")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("pyav", "torchcodec")]
    scores = [[json.loads(line).get("top1") for line in log] for log in logs]
    assert scores[0] == scores[1]
    assert any(score is not None for score in scores[0])


def test_evaluation_by_torchcodec_gives_the_scores_of_pyav(
    build: Path, recipe: str, tmp_path: Path, decoded: list[int]
) -> None:
    pretrain(PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run", overrides=("optim.epochs=0",)))
    config = EvaluateConfig(view="k710-val", source=tmp_path / "run", data=str(build), clips=2, crops=1)
    plain = evaluate(replace(config, overrides=("workers=0", "threads=1")))
    assert not decoded
    ours = evaluate(replace(config, overrides=("workers=0", "threads=1", "decoder=torchcodec")))
    assert decoded
    assert ours.predictions == plain.predictions
    assert (ours.settings["decoder"], plain.settings["decoder"]) == ("torchcodec", "pyav")


def require_equal_batches(build: Path, start: Any) -> None:
    """Fail unless workers that begin by ``start`` and decode by torchcodec give the batches of this process by PyAV."""
    clips, views = train_clips(build), clips_to_score(build)
    expected = pixels(train_loader(clips, one_epoch(), workers=0, pin=False))
    ours = dataclasses.replace(clips, decoder="torchcodec")
    apart = pixels(train_loader(ours, one_epoch(), workers=1, pin=False, start=start))
    assert len(expected) == 6
    assert all(torch.equal(a, b) for a, b in zip(expected, apart, strict=True))
    expected = pixels(test_loader(views, range(6), clips_per_batch=2, workers=0))
    ours_to_score = dataclasses.replace(views, decoder="torchcodec")
    apart = pixels(test_loader(ours_to_score, range(6), clips_per_batch=2, workers=1, start=start))
    assert all(torch.equal(a, b) for a, b in zip(expected, apart, strict=True))


PROGRAM = """
import sys
from pathlib import Path
import torch
from test_torchcodec_runs import require_equal_batches
from uniformerv2.data.torchcodec_check import require_decoder

if __name__ == "__main__":
    torch.set_num_threads(1)
    require_decoder("torchcodec")
    require_equal_batches(Path(sys.argv[1]), sys.argv[2])
    print("equal")
"""


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "start", ["fork", *(pytest.param(start, marks=pytest.mark.slow) for start in ("forkserver", "spawn"))]
)
def test_workers_that_begin_in_any_way_decode_by_torchcodec(build: Path, start: str, tmp_path: Path) -> None:
    # In a process that has checked the decoder and done nothing else, as a trainer has: a child forked from one that
    # has run other tests also has what their threads held.
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = [str(HERE), str(HERE.parents[2])]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(build), start],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("equal\n", 0), done.stderr


def test_a_run_whose_decoder_is_not_there_leaves_nothing_behind(
    build: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    config = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run", overrides=(BY_TORCHCODEC,))
    with pytest.raises(UsageError, match=r"data\.decoder=torchcodec: the package torchcodec is not installed"):
        pretrain(config)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_whose_decoder_is_not_there_says_so(
    build: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run", overrides=("optim.epochs=0",)))
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    config = EvaluateConfig(
        view="k710-val", source=tmp_path / "run", data=str(build), overrides=("decoder=torchcodec",)
    )
    with pytest.raises(UsageError, match=r"decoder=torchcodec: the package torchcodec is not installed") as info:
        evaluate(config)
    assert info.value.hint.endswith("--set decoder=pyav decodes without it")
