"""Evaluation: numbers, coverage, lineage."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_build import clips_of_build, write_build

from k710.errors import CheckpointError, FeedError, UsageError
from k710.labels import load_labels
from uniformerv2.evaluate import EvaluateConfig, _scores, evaluate
from uniformerv2.finetune import FinetuneConfig, finetune
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.metrics import Progress, top_k_correct
from uniformerv2.weights.remap import HEAD_KEYS

IN_PROCESS = ("workers=0", "threads=1")


@pytest.fixture
def base(build: Path, recipe: str, tmp_path: Path) -> Path:
    config = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "base", overrides=("optim.epochs=1",))
    pretrain(config)
    return config.out


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


class _Echo(torch.nn.Module):
    """A model whose logits are the first pixels of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        return self.scale * clip_BCTHW.flatten(1)[:, :3]


def test_the_score_of_a_clip_is_the_mean_softmax_of_its_test_views() -> None:
    # One view is very sure of class 0, two are a little surer of class 1: the mean of the logits would say 0.
    logits_VK = torch.tensor([[9.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0]])
    ((position, scores_K),) = _scores(_Echo(), [(7, logits_VK.view(3, 3, 1, 1, 1))], 2)  # type: ignore[arg-type]
    assert position == 7
    torch.testing.assert_close(scores_K, logits_VK.softmax(dim=1).mean(dim=0))
    assert int(scores_K.argmax()) == 1
