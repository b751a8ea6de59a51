"""Evaluation: numbers, coverage, lineage."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import rewrite, stop_at
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_build import TINY_RECIPE, clips_of_build, write_build

from k710.errors import CheckpointError, FeedError, StoppedOnPurposeError, UsageError
from k710.labels import load_labels
from k710.tables import read_table
from uniformerv2.evaluate import EvaluateConfig, evaluate
from uniformerv2.finetune import FinetuneConfig, finetune
from uniformerv2.lineage import add_to_lineage, hashed
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.report import (
    CLASSES_KEY,
    CONFUSION,
    SCORES,
    EvaluationReport,
    Prediction,
    class_scores,
    top_confusions,
)
from uniformerv2.training.metrics import Progress, top_k_correct
from uniformerv2.weights.remap import HEAD_KEYS

IN_PROCESS = ("workers=0", "threads=1")


@pytest.fixture(scope="module")
def trained(drawn: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "tiny.toml"
    recipe.write_text(TINY_RECIPE + "[test]\nclips = 2\ncrops = 1\n")
    data = write_build(folder / "data", clips_of_build(), drawn)
    pretrain(PretrainConfig(recipe=str(recipe), data=str(data), out=folder / "run", overrides=("optim.epochs=1",)))
    return folder / "run"


@pytest.fixture
def base(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "base"))


@pytest.fixture
def config(build: Path, base: Path) -> EvaluateConfig:
    return EvaluateConfig(view="k400-val", source=base, data=str(build), clips=2, crops=3, overrides=IN_PROCESS)


def test_a_report_has_the_score_and_how_to_get_it_again(config: EvaluateConfig, tmp_path: Path) -> None:
    report = evaluate(replace(config, out=tmp_path / "report.json"))
    written = json.loads((tmp_path / "report.json").read_text())
    assert (report.clips_scored, report.clips_listed, report.chance) == (6, 6, 0.25)
    assert report.top1 == sum(p.predicted == p.label for p in report.predictions) / 6
    assert [c.clips for c in report.classes] == [2, 2, 1, 1]
    assert report.seen_statement == "the weights have seen 0 videos of k400-val"
    assert written["checkpoint_sha256"] == report.checkpoint_sha256
    assert {"schema_version", "data_digest", "view_digest", "versions", "model", "settings"} <= written.keys()
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()


def test_an_evaluation_repeats_bit_for_bit_with_workers_and_other_batches(config: EvaluateConfig) -> None:
    first = evaluate(config)
    again = evaluate(replace(config, overrides=("workers=2", "threads=1", "test_views_per_batch=6")))
    assert first.predictions == again.predictions


def test_the_views_own_training_data_is_counted_as_seen(config: EvaluateConfig) -> None:
    report = evaluate(replace(config, view="k710-train"))
    assert report.seen_videos == 13
    assert (report.clips_scored, report.clips_listed, report.clips_without_bytes) == (13, 14, 1)


def test_weights_without_a_lineage_file_say_so(config: EvaluateConfig) -> None:
    (config.source / "model.lineage.parquet").unlink()
    report = evaluate(config)
    assert report.seen_videos is None
    assert "lineage unknown" in report.seen_statement
    assert "lineage unknown" in report.lineage


def test_a_lineage_of_other_weights_is_refused(config: EvaluateConfig) -> None:
    (config.source / "model.lineage.parquet").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="digests differ"):
        evaluate(config)


def test_a_view_without_classes_cannot_be_scored(config: EvaluateConfig) -> None:
    with pytest.raises(UsageError, match="k600-holdout has no classes"):
        evaluate(replace(config, view="k600-holdout"))


def test_a_release_model_refuses_a_view_with_other_classes(
    config: EvaluateConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    clips[-3] = replace(clips[-3], views={"k710-val": 705})
    data = str(write_build(tmp_path / "more", clips, drawn))
    tuned = finetune(FinetuneConfig(target="k400", source=config.source, data=data, out=tmp_path / "t", epochs=0))
    with pytest.raises(UsageError, match="view k710-val has 1 clips of classes that k400 lacks"):
        evaluate(replace(config, data=data, source=tuned.out, view="k710-val"))
    report = evaluate(replace(config, data=data, source=tuned.out, view="k400-val"))
    assert report.taxonomy == "k400"
    assert report.any_of_top1 is None


def test_any_of_is_scored_on_views_of_several_releases(config: EvaluateConfig) -> None:
    report = evaluate(replace(config, view="k710-val"))
    assert report.any_of_top1 is not None
    assert report.any_of_top1 >= report.top1


def test_a_clip_that_fails_is_named_and_not_scored(config: EvaluateConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    clips = [replace(c, data=b"no video") if c.id == "valid000002" else c for c in clips_of_build()]
    holed = replace(config, data=str(write_build(tmp_path / "holed", clips, drawn)))
    with pytest.raises(FeedError, match="1 of 6 clips could not be read"):
        evaluate(replace(holed, overrides=("workers=2", "threads=1")))
    assert multiprocessing.active_children() == []
    report = evaluate(replace(holed, overrides=(*IN_PROCESS, "max_hole_fraction=0.5")))
    assert [key for key, _ in report.failed] == ["valid000002_000000_000010"]
    assert report.clips_scored == 5


@pytest.mark.parametrize("order", ["shuffled", "reversed"])
def test_frames_can_come_in_another_order(config: EvaluateConfig, order: str) -> None:
    report = evaluate(replace(config, overrides=(*IN_PROCESS, f"frame_order={order}")))
    assert report.settings["frame_order"] == order
    assert report.clips_scored == 6


def test_bare_weights_need_a_model_and_a_class_order(config: EvaluateConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(config.source / "model.safetensors"), bare)
    with pytest.raises(CheckpointError, match="does not say which class"):
        evaluate(replace(config, source=bare))
    with pytest.raises(CheckpointError, match="does not say what model"):
        evaluate(replace(config, source=bare, overrides=(*IN_PROCESS, "head.class_order=canonical")))


def test_no_new_classifier_is_offered_to_an_evaluation(config: EvaluateConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    state = load_file(config.source / "model.safetensors")
    save_file(state, bare)
    with pytest.raises(CheckpointError, match="does not say which class") as caught:
        evaluate(replace(config, source=bare))
    assert "--set head.class_order=canonical" in caught.value.hint
    assert "or start a new classifier" not in caught.value.hint
    save_file({name: tensor for name, tensor in state.items() if name not in HEAD_KEYS}, bare)
    with pytest.raises(CheckpointError, match="has no classifier") as caught:
        evaluate(replace(config, source=bare))
    assert "or start a new classifier" not in caught.value.hint


def test_an_evaluation_has_no_setting_for_a_new_classifier(config: EvaluateConfig) -> None:
    with pytest.raises(UsageError, match="unknown setting 'init'"):
        evaluate(replace(config, overrides=(*IN_PROCESS, "head.init=random")))


def test_a_recipe_without_a_model_is_said_to_be_one(config: EvaluateConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(config.source / "model.safetensors"), bare)
    named = (*IN_PROCESS, "head.class_order=canonical", "recipe=tiny_cpu_finetune")
    with pytest.raises(UsageError, match=r"tiny_cpu_finetune: has no \[model\] table") as caught:
        evaluate(replace(config, source=bare, overrides=named))
    assert "k710_b16" in caught.value.hint
    assert "tiny_cpu_finetune" not in caught.value.hint


def test_a_recipe_is_refused_when_the_checkpoint_says_its_model(config: EvaluateConfig, recipe: str) -> None:
    for name in (recipe, "k710_l14"):
        with pytest.raises(UsageError, match=r"the checkpoint says (itself )?what model it is of") as caught:
            evaluate(replace(config, overrides=(*IN_PROCESS, f"recipe={name}")))
        assert f"leave --set recipe={name} out" in caught.value.hint


def test_frames_that_are_not_square_are_refused(config: EvaluateConfig, recipe: str, tmp_path: Path) -> None:
    bare, wide = tmp_path / "bare.safetensors", tmp_path / "wide.toml"
    save_file(load_file(config.source / "model.safetensors"), bare)
    wide.write_text(Path(recipe).read_text().replace("image_size = 32", "image_size = [48, 64]"))
    named = (*IN_PROCESS, "head.class_order=canonical", f"recipe={wide}")
    with pytest.raises(UsageError, match=r"evaluation takes square frames, got model.image_size \(48, 64\)"):
        evaluate(replace(config, source=bare, overrides=named))


def test_bare_weights_in_a_named_order_are_scored_in_the_order_of_the_classes(
    config: EvaluateConfig, recipe: str, tmp_path: Path
) -> None:
    state = load_file(config.source / "model.safetensors")
    table, published = load_labels(), tmp_path / "published.safetensors"
    order = [row.name for row in table.rows][::-1]
    for key in HEAD_KEYS:
        state[key] = state[key].flip(0)
    save_file(state, published)
    (tmp_path / "order.csv").write_text("name\n" + "".join(f'"{name}"\n' for name in order))
    named = (f"head.class_order={tmp_path / 'order.csv'}", f"recipe={recipe}")
    assert evaluate(replace(config, source=published, overrides=(*IN_PROCESS, *named))).predictions == (
        evaluate(config).predictions
    )


def test_progress_counts_clips(config: EvaluateConfig) -> None:
    seen: list[Progress] = []
    evaluate(config, on_progress=seen.append)
    assert (seen[-1].stage, seen[-1].step, seen[-1].total_steps) == ("evaluate", 6, 6)


def test_top_k_counts_the_class_among_the_k_best() -> None:
    scores_BK = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    labels_B = torch.tensor([2, 0])
    assert top_k_correct(scores_BK, labels_B, 1).tolist() == [False, True]
    assert top_k_correct(scores_BK, labels_B, 2).tolist() == [True, True]


def same(report: EvaluationReport) -> dict[str, Any]:
    """All of a report but its time."""
    return report.to_json() | {"seconds": 0}


def test_the_test_views_are_those_of_the_recipe_of_the_weights(config: EvaluateConfig) -> None:
    said = evaluate(replace(config, clips=None, crops=None))
    assert (said.test_clips, said.test_crops, said.test_views_from) == (2, 1, "the recipe of the weights")
    flag = evaluate(replace(config, clips=None, crops=3))
    assert (flag.test_clips, flag.test_crops) == (2, 3)
    assert flag.test_views_from == "--crops and the recipe of the weights"
    assert evaluate(config).test_views_from == "--clips and --crops"


def test_frames_are_chosen_as_in_the_training_of_the_weights(config: EvaluateConfig) -> None:
    path = config.source / "model.safetensors"
    tables = [scored(config, "sparse", "sparse")]
    with safe_open(path, framework="pt") as handle:
        header = json.loads(handle.metadata()["uniformerv2"])
    for stride in (2, 5):
        header["config"]["recipe"]["data"] |= {"sampling": "dense", "stride": stride}
        save_file(load_file(path), path, metadata={"uniformerv2": json.dumps(header)})
        tables.append(scored(config, f"dense{stride}", f"dense, stride {stride}"))
    assert not any(a.equals(b) for a, b in zip(tables, [*tables[1:], tables[0]], strict=True))


def scored(config: EvaluateConfig, name: str, sampling: str) -> Any:
    """The table of scores of an evaluation whose frames were chosen by ``sampling``."""
    path = config.source / f"{name}.parquet"
    assert evaluate(replace(config, scores=path)).frame_sampling == sampling
    return read_table(path, SCORES)


def test_weights_that_say_no_test_views_get_those_of_the_named_recipe(
    config: EvaluateConfig, recipe: str, tmp_path: Path
) -> None:
    bare, named = tmp_path / "bare.safetensors", tmp_path / "named.toml"
    save_file(load_file(config.source / "model.safetensors"), bare)
    named.write_text(Path(recipe).read_text() + "[test]\nclips = 3\ncrops = 1\n")
    asked = replace(config, source=bare, clips=None, crops=None)
    for path, expected in ((named, (3, 1, f"recipe {named}")), (Path(recipe), (4, 3, "the default"))):
        overrides = (*IN_PROCESS, "head.class_order=canonical", f"recipe={path}")
        report = evaluate(replace(asked, overrides=overrides))
        assert (report.test_clips, report.test_crops, report.test_views_from) == expected


@pytest.mark.slow
def test_two_processes_give_the_same_report_and_the_same_scores(config: EvaluateConfig, tmp_path: Path) -> None:
    config = replace(config, overrides=(*IN_PROCESS, "device=cpu", "test_views_per_batch=6"))
    one = evaluate(replace(config, scores=tmp_path / "one.parquet"))
    seen: list[Progress] = []
    two = evaluate(replace(config, devices=2, scores=tmp_path / "two.parquet"), on_progress=seen.append)
    assert same(one) == same(two)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert (seen[-1].step, seen[-1].total_steps) == (6, 6)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_too(config: EvaluateConfig, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, *script_of(config, tmp_path, out="two.json")], check=True, timeout=200)
    alone = evaluate(replace(config, overrides=(*IN_PROCESS, "test_views_per_batch=6")))
    assert json.loads((tmp_path / "two.json").read_text()) | {"seconds": 0} == same(alone)


def script_of(config: EvaluateConfig, tmp_path: Path, *, out: str) -> list[str]:
    """Arguments of a Python that evaluates one clip at a time and saves after each."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom k710.errors import StoppedOnPurposeError\n"
        "from uniformerv2.evaluate import EvaluateConfig, evaluate\n"
        "if __name__ == '__main__':\n"
        "    view, source, data, out, *settings = sys.argv[1:]\n"
        "    stops = [int(s[5:]) for s in settings if s.startswith('stop=')]\n"
        "    overrides = tuple(s for s in settings if not s.startswith('stop='))\n"
        "    def stop(progress):\n"
        "        if stops and progress.step == 1:\n"
        "            os.killpg(0, stops[0])\n"
        "    try:\n"
        "        evaluate(EvaluateConfig(view=view, source=Path(source), data=data, clips=2, crops=3, out=Path(out),\n"
        "                                overrides=overrides), on_progress=stop)\n"
        "    except StoppedOnPurposeError as error:\n"
        "        sys.exit(print(error, file=sys.stderr) or error.exit_code)\n"
    )
    overrides = (*IN_PROCESS, "test_views_per_batch=6")
    return [str(script), config.view, str(config.source), config.data, str(tmp_path / out), *overrides]


class _KilledError(Exception):
    """Stands for whatever ends a process."""


def ended_after(clips: int) -> Callable[[Progress], None]:
    def progress(progress: Progress) -> None:
        if progress.step >= clips and progress.clips_per_s is not None:
            raise _KilledError

    return progress


@pytest.fixture
def saving(config: EvaluateConfig, tmp_path: Path) -> EvaluateConfig:
    """Scores one clip at a time, and saves after each."""
    overrides = (*IN_PROCESS, "test_views_per_batch=6", "save_every_s=0")
    return replace(config, out=tmp_path / "report.json", scores=tmp_path / "scores.parquet", overrides=overrides)


def test_an_evaluation_that_was_ended_goes_on_to_the_same_report(saving: EvaluateConfig, tmp_path: Path) -> None:
    whole = evaluate(replace(saving, out=tmp_path / "whole.json", scores=tmp_path / "whole.parquet"))
    with pytest.raises(_KilledError):
        evaluate(saving, on_progress=ended_after(3))
    assert [path.name for path in tmp_path.glob("report.json*")] == ["report.json.partial"]
    seen: list[Progress] = []
    went_on = evaluate(saving, on_progress=seen.append)
    assert seen[0].said == ("goes on: 3 of 6 clips were scored before",)
    assert seen[1].step > 3
    assert same(went_on) == same(whole)
    assert (tmp_path / "scores.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_two_processes_go_on_from_what_one_has_scored(saving: EvaluateConfig) -> None:
    whole = evaluate(replace(saving, out=None, scores=None))
    with pytest.raises(_KilledError):
        evaluate(saving, on_progress=ended_after(3))
    seen: list[Progress] = []
    assert same(evaluate(replace(saving, devices=2), on_progress=seen.append)) == same(whole)
    assert seen[0].said == ("goes on: 3 of 6 clips were scored before",)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_report(saving: EvaluateConfig, tmp_path: Path) -> None:
    whole = evaluate(replace(saving, out=None, scores=None))
    partial = tmp_path / "report.json.partial"
    process = subprocess.Popen([sys.executable, *script_of(saving, tmp_path, out="report.json"), "save_every_s=0"])
    deadline = time.monotonic() + 60
    while not list(partial.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert list(partial.glob("*.parquet"))
    assert not (tmp_path / "report.json").exists()
    assert same(evaluate(replace(saving, scores=None))) == same(whole)
    assert not partial.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_an_evaluation_keeps_what_is_scored(
    saving: EvaluateConfig, tmp_path: Path, number: signal.Signals
) -> None:
    # The last setting of a name counts.
    changes = ["workers=1", "save_every_s=600", f"stop={int(number)}"]
    process = subprocess.Popen(
        [sys.executable, *script_of(saving, tmp_path, out="report.json"), *changes],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, said = process.communicate(timeout=100)
    assert "stopped after" in said
    assert "is kept in" in said
    assert process.returncode == 75
    assert list((tmp_path / "report.json.partial").glob("*.parquet"))


def said_to(notes: list[str]) -> Callable[[Progress], None]:
    return lambda progress: notes.extend(progress.said)


@pytest.mark.parametrize("change", [{"clips": 1}, {"source": "other"}, {"view": "k710-val"}])
def test_partial_scores_of_another_evaluation_are_not_used_and_this_is_said(
    saving: EvaluateConfig, change: dict[str, Any], tmp_path: Path
) -> None:
    if "source" in change:
        change = {"source": other_weights(saving.source, tmp_path / "other")}
    with pytest.raises(_KilledError):
        evaluate(saving, on_progress=ended_after(3))
    notes: list[str] = []
    changed = evaluate(replace(saving, **change), on_progress=said_to(notes))
    partial = tmp_path / "report.json.partial"
    assert notes == [f"not used: partial scores in {partial}, of other weights, another view or other settings"]
    assert same(changed) == same(evaluate(replace(saving, **change)))


def other_weights(run: Path, out: Path) -> Path:
    """The run with a classifier that is turned upside down."""
    shutil.copytree(run, out)
    path = out / "model.safetensors"
    rewrite(path, {k: v.flip(0) if k in HEAD_KEYS else v for k, v in load_file(path).items()})
    return out


def test_a_damaged_partial_file_is_said_and_its_clips_are_scored_again(saving: EvaluateConfig, tmp_path: Path) -> None:
    with pytest.raises(_KilledError):
        evaluate(saving, on_progress=ended_after(3))
    first = min((tmp_path / "report.json.partial").iterdir())
    first.write_bytes(first.read_bytes()[:40])
    notes: list[str] = []
    report = evaluate(saving, on_progress=said_to(notes))
    assert notes[0].startswith(f"not used: {first}: not a readable parquet file")
    assert notes[1] == "goes on: 2 of 6 clips were scored before"
    assert report.clips_scored == 6


def test_clips_that_could_not_be_read_are_tried_again_when_an_evaluation_goes_on(
    saving: EvaluateConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    holed = [replace(c, data=b"n" * len(drawn[2])) if c.id == "valid000002" else c for c in clips]
    data = write_build(tmp_path / "holed", holed, drawn)
    with pytest.raises(FeedError, match="1 of 6 clips could not be read"):
        evaluate(replace(saving, data=str(data)))
    write_build(data, clips, drawn)
    assert evaluate(replace(saving, data=str(data))).clips_scored == 6


def test_scores_have_the_probability_of_every_class(config: EvaluateConfig, tmp_path: Path) -> None:
    report = evaluate(replace(config, scores=tmp_path / "scores.parquet"))
    table = read_table(tmp_path / "scores.parquet", SCORES)
    scores_NK = np.array(table["scores"].to_pylist(), dtype=np.float32)
    assert scores_NK.shape == (6, 710)
    np.testing.assert_allclose(scores_NK.sum(axis=1), 1, atol=1e-5)
    assert table["key"].to_pylist() == [p.key for p in report.predictions]
    assert scores_NK.argmax(axis=1).tolist() == [p.predicted for p in report.predictions]
    assert json.loads(table.schema.metadata[CLASSES_KEY])[0] == load_labels().rows[0].name


def test_the_confusion_matrix_counts_every_clip_once(config: EvaluateConfig, tmp_path: Path) -> None:
    report = evaluate(replace(config, confusion=tmp_path / "confusion.parquet"))
    table = read_table(tmp_path / "confusion.parquet", CONFUSION).to_pylist()
    assert sum(row["clips"] for row in table) == 6
    assert sum(row["clips"] for row in table if row["label"] == row["predicted"]) == report.top1 * 6
    wrong = {(row["label"], row["predicted"]): row["clips"] for row in table if row["label"] != row["predicted"]}
    assert {(c.label, c.predicted): c.clips for c in report.confusions} == wrong


def prediction(label: int, predicted: int, rank: int) -> Prediction:
    return Prediction(key="k", label=label, predicted=predicted, rank=rank, any_of=False)


def test_the_pairs_that_are_confused_most_come_first() -> None:
    scored = [prediction(0, 2, 2), prediction(1, 0, 9), prediction(1, 0, 3), prediction(0, 0, 1), prediction(0, 1, 2)]
    assert [(c.label_name, c.predicted_name, c.clips) for c in top_confusions(scored, "xyz", 2)] == [
        ("y", "x", 2),
        ("x", "y", 1),
    ]


def test_classes_have_both_scores_and_what_was_taken_for_them() -> None:
    x, y = class_scores([prediction(0, 0, 1), prediction(0, 1, 5), prediction(1, 0, 6)], "xyz")
    assert (x.name, x.clips, x.top1, x.top5, x.predicted) == ("x", 2, 0.5, 1.0, 2)
    assert (y.name, y.clips, y.top1, y.top5, y.predicted) == ("y", 1, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": "s.csv"}, "--scores .*s.csv: is written as Parquet"),
        ({"out": "s.parquet", "scores": "s.parquet"}, "two of --out, --scores are one file"),
        ({"scores": "other.parquet"}, "--scores .*other.parquet: exists and is not a table of scores"),
        ({"confusion": "base/model.lineage.parquet"}, "--confusion .*: is a file of the weights or of their run"),
        ({"scores": "other.parquet/s.parquet"}, "--scores .*s.parquet: cannot be written"),
    ],
)
def test_files_that_cannot_be_are_refused_before_anything_is_scored(
    config: EvaluateConfig, change: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "other.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match=said):
        evaluate(
            replace(config, **{name: tmp_path / path for name, path in change.items()}),
            on_progress=lambda _: pytest.fail("something was scored"),
        )


def test_an_older_table_of_scores_is_replaced(config: EvaluateConfig, tmp_path: Path) -> None:
    files = replace(config, scores=tmp_path / "s.parquet", confusion=tmp_path / "c.parquet", out=tmp_path / "r.json")
    evaluate(files)
    evaluate(files)
    with pytest.raises(UsageError, match=r"c.parquet: exists and is not a table of scores"):
        evaluate(replace(config, scores=tmp_path / "c.parquet"))


def test_scores_that_are_not_finite_are_an_error_and_are_not_kept(saving: EvaluateConfig, tmp_path: Path) -> None:
    path = saving.source / "model.safetensors"
    state = load_file(path)
    signs = torch.randn(state[HEAD_KEYS[0]].shape, generator=torch.Generator().manual_seed(0)).sign()
    state[HEAD_KEYS[0]] = signs * torch.finfo(torch.float32).max
    rewrite(path, state)
    with pytest.raises(CheckpointError, match="scores of clip valid000000_000000_000010 are not finite"):
        evaluate(saving)
    assert not list(tmp_path.glob("*.partial"))


def test_weights_that_are_not_finite_are_refused_by_name(config: EvaluateConfig) -> None:
    path = config.source / "model.safetensors"
    state = load_file(path)
    state[HEAD_KEYS[1]][3] = torch.nan
    rewrite(path, state)
    with pytest.raises(CheckpointError, match=f"NaN or infinite, the first in {HEAD_KEYS[1]}"):
        evaluate(config)


def test_a_model_file_with_a_flipped_bit_is_refused(config: EvaluateConfig) -> None:
    path = config.source / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged: its weights are not those"):
        evaluate(config)


def test_a_model_file_from_before_there_was_a_digest_is_read(config: EvaluateConfig) -> None:
    path = config.source / "model.safetensors"
    before = evaluate(config)
    rewrite(path, load_file(path))
    assert evaluate(config).predictions == before.predictions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_an_evaluation_that_is_told_to_stop_keeps_what_is_scored(
    saving: EvaluateConfig, tmp_path: Path, number: signal.Signals
) -> None:
    saving = replace(saving, overrides=(*saving.overrides[:-1], "save_every_s=600"))
    is_interrupt = number == signal.SIGINT
    error = KeyboardInterrupt if is_interrupt else StoppedOnPurposeError
    said = None if is_interrupt else r"stopped after \d of 6 clips; what was scored is kept in .*report.json.partial"
    with pytest.raises(error, match=said):
        evaluate(saving, on_progress=stop_at(1, number))
    seen: list[Progress] = []
    evaluate(saving, on_progress=seen.append)
    assert seen[0].said[0].startswith("goes on: ")


def test_half_precision_is_only_used_when_asked_for(config: EvaluateConfig) -> None:
    full = evaluate(config)
    half = evaluate(replace(config, overrides=(*IN_PROCESS, "precision=bf16")))
    assert (full.settings["precision"], half.settings["precision"]) == ("fp32", "bf16")
    assert half.clips_scored == 6


def test_any_model_file_of_a_run_can_be_scored(config: EvaluateConfig, tmp_path: Path) -> None:
    average = config.source / "model_ema.safetensors"
    shutil.copy(config.source / "model.safetensors", average)
    shutil.copy(config.source / "model.lineage.parquet", config.source / "model_ema.lineage.parquet")
    report = evaluate(replace(config, source=average))
    assert report.checkpoint == "model_ema.safetensors"
    assert report.seen_videos == 0
    assert report.predictions == evaluate(config).predictions


def test_of_an_unknown_lineage_the_known_part_is_counted(config: EvaluateConfig, tmp_path: Path) -> None:
    (config.source / "model.lineage.parquet").unlink()
    added = tmp_path / "added.safetensors"
    add_to_lineage(config.source, added, {"list": hashed(["valid000001", "valid000004"])})
    report = evaluate(replace(config, source=added))
    assert (report.seen_videos, report.seen_at_least) == (None, 2)
    assert report.seen_statement.endswith("cannot be said; those that are known are 2")
