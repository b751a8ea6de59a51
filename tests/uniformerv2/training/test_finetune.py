"""Fine-tuning: the classifier by name, the right data, the lineage carried."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_build import clips_of_build, write_build

from k710.config import to_mapping
from k710.errors import AnswerIsNo, CheckpointError, UsageError
from k710.labels import load_labels
from uniformerv2.config import read_recipe, resolve_recipe
from uniformerv2.finetune import FinetuneConfig, _recipe, finetune
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.saves import newest_checkpoint_path

HEAD = ("transformer.proj.2.weight", "transformer.proj.2.bias")
IN_PROCESS = ("data.workers=0", "data.global_batch=4", "data.micro_batch=4")


@pytest.fixture
def base(build: Path, recipe: str, tmp_path: Path) -> Path:
    """A K710 model with random weights, as a run."""
    config = PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "base", overrides=("optim.epochs=1",))
    pretrain(config)
    return config.out


@pytest.fixture
def config(build: Path, base: Path, tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig(
        target="k400", source=base, data=str(build), out=tmp_path / "tuned", epochs=1, overrides=IN_PROCESS
    )


@pytest.mark.parametrize("target", ["k400", "k600", "k700"])
def test_zero_epochs_write_the_rows_of_the_target_bit_for_bit(config: FinetuneConfig, target: str) -> None:
    summary = finetune(replace(config, target=target, epochs=0))
    before, after = load_file(config.source / "model.safetensors"), load_file(summary.model)
    rows = load_labels().rows_for(target)
    for key in HEAD:
        assert torch.equal(after[key], before[key][rows])
    assert all(torch.equal(after[k], before[k]) for k in before if k not in HEAD)
    assert summary.view is None
    assert summary.lineage == "seen: k710-train (13 videos); not checked: k700:train"


def test_zero_epochs_need_no_build(config: FinetuneConfig, tmp_path: Path) -> None:
    summary = finetune(replace(config, epochs=0, data=str(tmp_path / "no-build")))
    assert summary.model.is_file()
    assert not summary.leaks_checked
    assert finetune(replace(config, epochs=0, data=str(tmp_path / "no-build"))).already_done


def test_training_uses_the_targets_own_view_and_adds_it_to_the_lineage(config: FinetuneConfig) -> None:
    summary = finetune(config)
    assert summary.view == "k400-train"
    assert (summary.leaks_checked, summary.not_checked) == (True, ("k700:train",))
    assert summary.lineage == "seen: k400-train (13 videos), k710-train (13 videos); not checked: k700:train"
    settings = json.loads((summary.out / "config.json").read_text())["settings"]
    assert settings["recipe"]["model"]["num_classes"] == 400
    assert settings["recipe"]["data"]["view"] == "k400-train"
    assert settings["recipe"]["model"]["width"] == 16


def test_a_target_without_a_train_view_asks_for_one(config: FinetuneConfig) -> None:
    with pytest.raises(UsageError, match="no train view of k700") as caught:
        finetune(replace(config, target="k700"))
    assert "--train-view" in caught.value.hint
    assert "k400-train" in caught.value.hint


def test_two_releases_of_one_taxonomy_need_the_view_named(
    config: FinetuneConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = [
        replace(c, views={n.replace("k400-train", "k400b-train"): k for n, k in c.views.items()}) if i % 2 else c
        for i, c in enumerate(clips_of_build())
    ]
    root = write_build(tmp_path / "two", clips, drawn)
    lock = json.loads((root / "k710.lock.json").read_text())
    lock["releases"]["k400b"] = "k400"
    (root / "k710.lock.json").write_text(json.dumps(lock))
    with pytest.raises(UsageError, match="2 train views of k400: k400-train, k400b-train"):
        finetune(replace(config, data=str(root)))
    assert finetune(replace(config, data=str(root), train_view="k400b-train")).view == "k400b-train"


def test_a_lineage_that_saw_the_targets_val_list_is_a_leak(
    config: FinetuneConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    clips = clips_of_build()
    clips.append(replace(clips[0], id="train000099", views={"k400-val": 0}))
    clips.append(replace(clips[0], id="extra000000", views={"k400-train": 1}))
    # What the base model was trained on is now in the val list of this build.
    moved = [replace(c, views={"k400-val": 0}) if c.id == "train000003" else c for c in clips]
    leaky = replace(config, data=str(write_build(tmp_path / "moved", moved, drawn)))
    with pytest.raises(AnswerIsNo, match="leak into k400: k710-train has 1 videos of k400:val"):
        finetune(leaky)
    assert finetune(replace(leaky, allow_leaks=True)).leaks_allowed


def test_a_bare_state_dict_needs_its_class_order_named(config: FinetuneConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    state = load_file(config.source / "model.safetensors")
    save_file(state, bare)
    model = json.loads((config.source / "config.json").read_text())["settings"]["recipe"]["model"]
    shape = tuple(f"model.{k}={json.dumps(v)}" for k, v in model.items() if k != "num_classes")
    start = replace(config, source=bare, epochs=0, recipe="tiny_cpu_finetune", overrides=shape)
    with pytest.raises(CheckpointError, match="does not say which class"):
        finetune(start)
    named = finetune(replace(start, overrides=(*shape, "head.class_order=uniformerv2")))
    assert named.lineage.startswith("lineage unknown")
    canonical = finetune(replace(start, out=tmp_path / "c", overrides=(*shape, "head.class_order=canonical")))
    assert torch.equal(load_file(canonical.model)[HEAD[0]], state[HEAD[0]][load_labels().rows_for("k400")])
    assert not torch.equal(load_file(canonical.model)[HEAD[0]], load_file(named.model)[HEAD[0]])


def test_a_random_head_is_asked_for(config: FinetuneConfig) -> None:
    summary = finetune(replace(config, epochs=0, overrides=("head.init=random",)))
    before, after = load_file(config.source / "model.safetensors"), load_file(summary.model)
    assert after[HEAD[0]].shape == (400, 16)
    assert not torch.equal(after[HEAD[0]], before[HEAD[0]][load_labels().rows_for("k400")])
    assert torch.equal(after["class_embedding"], before["class_embedding"])


def test_a_random_head_is_not_the_one_that_pretraining_began_with(
    config: FinetuneConfig, recipe: str, build: Path, tmp_path: Path
) -> None:
    """Features trained against those rows would still fit them, and the head would score far above chance."""
    untrained = tmp_path / "untrained"
    settings = ("seed=5", "optim.epochs=0", "optim.warmup_epochs=0")
    pretrain(PretrainConfig(recipe=recipe, data=str(build), out=untrained, overrides=settings))
    first = load_file(untrained / "model.safetensors")[HEAD[0]][:400]
    random = load_file(finetune(replace(config, epochs=0, overrides=("seed=5", "head.init=random"))).model)[HEAD[0]]
    matching = (first - random).abs().amax(dim=1) < 1e-6
    assert not matching.any()


def test_an_unfinished_run_is_no_start_but_its_checkpoint_is(config: FinetuneConfig) -> None:
    (config.source / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has not finished"):
        finetune(config)
    checkpoint = newest_checkpoint_path(config.source)
    assert finetune(replace(config, source=checkpoint, epochs=0)).lineage.startswith("seen: k710")


def test_a_checkpoint_that_names_no_recipe_asks_for_one(config: FinetuneConfig, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(config.source / "model.safetensors"), bare)
    with pytest.raises(UsageError, match="names no recipe"):
        finetune(replace(config, source=bare))


def test_a_missing_start_is_a_checkpoint_error(config: FinetuneConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run or checkpoint"):
        finetune(replace(config, source=tmp_path / "nowhere"))


def test_the_number_of_classes_is_the_targets_to_say(config: FinetuneConfig) -> None:
    with pytest.raises(UsageError, match="has the 400 classes of k400"):
        finetune(replace(config, overrides=(*config.overrides, "model.num_classes=12")))


def model_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "config.json").read_text())["settings"]["recipe"]["model"])


@pytest.mark.parametrize(
    ("setting", "theirs"),
    [
        ("model.heads=1", "model.heads=2"),
        ("model.global_layers=[0]", "'model.global_layers=[1]'"),
        ("model.fusion=hierarchical_q", "model.fusion=sequential"),
        ("model.gelu=exact", "model.gelu=quick"),
        ("model.norm_eps=1e-2", "model.norm_eps=1e-05"),
        ("model.pre_norm=false", "model.pre_norm=true"),
        ("model.width=32", "model.width=16"),
    ],
)
def test_a_setting_that_changes_what_the_weights_compute_is_refused(
    config: FinetuneConfig, setting: str, theirs: str
) -> None:
    with pytest.raises(UsageError) as caught:
        finetune(replace(config, epochs=0, overrides=(setting,)))
    name, _, value = theirs.strip("'").partition("=")
    asked = setting.partition("=")[2].replace("1e-2", "0.01")
    assert f"{name} is {asked} in --set and {value} in the run" in caught.value.message
    assert f"--set {theirs}" in caught.value.hint
    assert not config.folder.exists()


def test_a_recipe_of_another_model_is_refused_with_the_settings_that_make_it_fit(
    config: FinetuneConfig, tmp_path: Path
) -> None:
    values = 'about = "other blocks"\n[model]\nheads = 4\nglobal_layers = [0]\ndropout = 0.3\n[optim]\nepochs = 1\n'
    (tmp_path / "other.toml").write_text(values)
    other = replace(config, epochs=0, overrides=(), recipe=str(tmp_path / "other.toml"))
    with pytest.raises(UsageError, match=r"model.heads is 4 in recipe .*other.toml and 2 in the run") as caught:
        finetune(other)
    assert "--set model.heads=2 --set 'model.global_layers=[1]'" in caught.value.hint
    summary = finetune(replace(other, overrides=("model.heads=2", "model.global_layers=[1]")))
    assert model_of(summary.out) == model_of(config.source) | {"dropout": 0.3, "num_classes": 400}


def test_a_fine_tuned_model_computes_what_its_run_did(config: FinetuneConfig, recipe: str, tmp_path: Path) -> None:
    own = ("model.heads=4", "model.gelu=exact", "model.norm_eps=1e-3", "model.pre_norm=false", "optim.epochs=1")
    pretrained = tmp_path / "own"
    pretrain(PretrainConfig(recipe=recipe, data=config.data, out=pretrained, overrides=own))
    assert model_of(finetune(replace(config, source=pretrained, epochs=0)).out) == model_of(pretrained) | {
        "num_classes": 400
    }


def test_what_no_weight_depends_on_can_be_changed(config: FinetuneConfig) -> None:
    changes = {
        "num_frames": 4,
        "image_size": 48,
        "dropout": 0.4,
        "drop_path_backbone": 0.1,
        "drop_path_global": 0.2,
        "drop_path_mode": "official",
    }
    settings = tuple(f"model.{name}={value}" for name, value in changes.items())
    summary = finetune(replace(config, epochs=0, overrides=settings))
    assert model_of(summary.out) == model_of(config.source) | changes | {"num_classes": 400}


@pytest.mark.parametrize(
    ("pretrained_with", "settings"),
    [
        ("k710_b16", ()),
        ("k710_b16_parallel", ()),
        ("k710_l14", ()),
        ("k710_l14_336", ()),
        ("k710_l14_336_frozen", ()),
        ("k710_b16_local", ("model.global_layers=[]",)),
        ("tiny_cpu", ()),
    ],
)
def test_packaged_recipes_fit_the_runs_they_are_for(pretrained_with: str, settings: tuple[str, ...]) -> None:
    made_with = to_mapping(resolve_recipe(read_recipe(pretrained_with), (), where=pretrained_with))
    recipe = made_with["finetune_recipe"] or "b16_from_k710"
    tuned = _recipe(FinetuneConfig(target="k400", recipe=recipe, overrides=settings), {"recipe": made_with})
    changed = {"num_classes": 400, "num_frames": tuned.model.num_frames}
    assert to_mapping(tuned.model) == made_with["model"] | changed


def test_a_packaged_recipe_says_which_setting_fits_it_to_an_ablation() -> None:
    made_with = to_mapping(resolve_recipe(read_recipe("k710_b16_local"), (), where="k710_b16_local"))
    with pytest.raises(UsageError, match=r"global_layers is \[8,9,10,11\] in recipe b16_from_k710 and \[\]") as caught:
        _recipe(FinetuneConfig(target="k400", recipe="b16_from_k710"), {"recipe": made_with})
    assert "--set 'model.global_layers=[]'" in caught.value.hint


def test_micro_batches_are_as_many_as_asked_for(config: FinetuneConfig) -> None:
    with pytest.raises(UsageError, match="global_batch 4 does not divide into --accumulate 3"):
        finetune(replace(config, accumulate="3"))


def test_fewer_epochs_than_the_warm_up_name_what_to_set() -> None:
    with pytest.raises(UsageError, match="--epochs 1: the learning rate would still warm up, for 1 epochs") as caught:
        _recipe(FinetuneConfig(target="k400", recipe="b16_from_k710", epochs=1), {})
    assert caught.value.hint == "shorten that too: --set optim.warmup_epochs=0.2"
