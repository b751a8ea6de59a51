"""Kept features of a frozen backbone: they change the time of a run, and no bit of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import assert_close, assert_same, stop_at
from small_build import TINY_RECIPE, clips_of_build, write_build

from k710.errors import StoppedOnPurposeError, UsageError
from k710.shards.index import ShardIndex
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import Recipe, read_recipe, resolve_recipe
from uniformerv2.data.samples import TrainClips
from uniformerv2.models.uniformerv2 import Features
from uniformerv2.models.uniformerv2_config import BACKBONE_NAMES
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training import feature_plan
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.feature_plan import FEATURE_FOLDER, HEADER_BYTES, feature_bytes, feature_store
from uniformerv2.training.feature_store import DamagedFeaturesError, FeatureStore
from uniformerv2.training.flops import count_macs
from uniformerv2.training.source import new_model

KEPT = (
    "model.frozen_backbone=true",
    "model.local_blocks=0",
    "model.global_layers=[0,1]",
    "data.feature_views=2",
    "data.repeats=2",
    "optim.epochs=3",
    "optim.label_smoothing=0.1",
    "optim.ema_decay=0.9",
    "augment.brightness=0.2",
    "runtime.checkpoint_every=100",
)
"""Nine steps: three epochs of two draws, twelve of the thirteen clips in each, two samples a clip."""
NEW = "runtime.keep_features=false"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes]) -> PretrainConfig:
    """A run that keeps features; every test gives it a folder of its own."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("features")
    data = write_build(folder / "data", clips_of_build(), drawn)
    (folder / "tiny.toml").write_text(TINY_RECIPE)
    return PretrainConfig(recipe=str(folder / "tiny.toml"), data=str(data), out=folder / "runs", overrides=KEPT)


@pytest.fixture(scope="module")
def anew(config: PretrainConfig) -> Path:
    """The same run, with every feature computed in every epoch."""
    pretrain(run := another(config, "anew", NEW))
    return run.out


@pytest.fixture
def kept(config: PretrainConfig, request: pytest.FixtureRequest) -> PretrainConfig:
    """The run in a folder of this test's."""
    return another(config, request.node.name)


def another(config: PretrainConfig, name: str, *settings: str, **changes: Any) -> PretrainConfig:
    return replace(config, out=config.out / name, overrides=(*config.overrides, *settings), **changes)


def entries(run: PretrainConfig) -> list[Path]:
    return sorted((run.out / FEATURE_FOLDER).glob("*/*.safetensors"))


def store_in(run: PretrainConfig) -> FeatureStore:
    return FeatureStore(folder=run.out / FEATURE_FOLDER, digest="", clips=())


def stop(run: PretrainConfig, step: int) -> None:
    with pytest.raises(StoppedOnPurposeError):
        pretrain(run, on_progress=stop_at(step))


def told_by(run: PretrainConfig) -> list[str]:
    """What a run says."""
    said: list[str] = []
    pretrain(run, on_progress=lambda progress: said.extend(progress.said))
    return said


def test_kept_features_change_no_bit_and_are_computed_once(
    kept: PretrainConfig, anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    decoded: list[tuple[int, int]] = []
    features_of, clip_of = UniFormerV2.features, TrainClips.__getitem__

    def features(model: UniFormerV2, clip_BCTHW: torch.Tensor) -> Features:
        computed.append(len(clip_BCTHW))
        return features_of(model, clip_BCTHW)

    def clip(clips: TrainClips, item: tuple[int, int]) -> Any:
        decoded.append(item)
        return clip_of(clips, item)

    monkeypatch.setattr(UniFormerV2, "features", features)
    monkeypatch.setattr(TrainClips, "__getitem__", clip)
    (said,) = told_by(kept)
    assert_same(anew, kept.out)
    assert_same(anew, kept.out, "model_ema.safetensors")
    # Two draws of twelve or thirteen clips, two samples each: every epoch leaves another clip out.
    assert set(computed) == {1}
    assert len(computed) == len(entries(kept)) in (48, 50)
    assert len(decoded) == len(set(decoded)) == len(computed) // 2
    assert {draw for draw, _ in decoded} == {0, 1}
    assert not (anew / FEATURE_FOLDER).exists()
    assert said.startswith("features: ")
    assert said.endswith("13 clips x 2 draws x 2 repeats")


def test_workers_that_skip_what_is_kept_change_no_bit(kept: PretrainConfig, anew: Path) -> None:
    pretrain(another(kept, "", "data.workers=2"))
    assert_same(anew, kept.out)


def test_a_run_goes_on_without_the_features_that_it_had(kept: PretrainConfig, anew: Path) -> None:
    stop(kept, 5)
    assert entries(kept), "features are written while the run goes"
    shutil.rmtree(kept.out / FEATURE_FOLDER)
    pretrain(kept)
    assert_same(anew, kept.out)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_with_the_features_that_it_has(kept: PretrainConfig, anew: Path) -> None:
    for step in (1, 4, 6):
        stop(kept, step)
    pretrain(kept)
    assert_same(anew, kept.out)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def test_damaged_features_are_computed_again_counted_and_said(kept: PretrainConfig, anew: Path) -> None:
    stop(kept, 4)
    for number, path in enumerate(entries(kept)):
        (_cut, _flip, _empty)[number % 3](path)
    leftover = entries(kept)[0].with_name(".a.safetensors.x.partial")
    leftover.write_bytes(b"of a killed run")
    said: list[str] = []
    summary = pretrain(kept, on_progress=lambda progress: said.extend(progress.said))
    told = [sentence for sentence in said if sentence.endswith("computed again")]
    assert len(told) == len(set(told)) > 0
    assert all(str(kept.out / FEATURE_FOLDER) in sentence for sentence in told)
    assert summary.said == (f"{len(told)} files of features were damaged and computed again",)
    assert not leftover.exists()
    assert_same(anew, kept.out)


def test_damaged_features_of_a_clip_that_is_lost_are_a_hole(
    kept: PretrainConfig, tmp_path: Path, drawn: list[bytes]
) -> None:
    data = write_build(tmp_path / "data", clips_of_build(), drawn)
    settings = ("data.max_hole_fraction=1", "data.repeats=1", "data.feature_views=1")
    run = another(kept, "", *settings, data=str(data))
    stop(run, 3)  # and saved after the fourth
    write_build(data, clips_of_build(), [b"no video".ljust(len(video)) for video in drawn])
    for path in entries(run):
        _flip(path)
    assert pretrain(run).holes == 5 * 4


@pytest.mark.slow
def test_holes_stay_holes(kept: PretrainConfig, tmp_path: Path, drawn: list[bytes]) -> None:
    clips = [replace(c, data=b"no video") if c.id == "train000002" else c for c in clips_of_build()]
    kept = replace(kept, data=str(write_build(tmp_path / "data", clips, drawn)))
    without = another(kept, "anew", NEW)
    assert pretrain(kept).holes == pretrain(without).holes > 0
    assert_same(kept.out, without.out)
    logs = [(run.out / "log.jsonl").read_text().splitlines() for run in (kept, without)]
    holes = [[json.loads(line)["holes"] for line in log] for log in logs]
    assert holes[0] == holes[1]


@pytest.mark.slow
def test_epochs_beyond_the_draws_repeat_them(kept: PretrainConfig, anew: Path) -> None:
    pretrain(another(kept, "", NEW, "data.feature_views=3"))
    with pytest.raises(AssertionError):
        assert_close(anew, kept.out)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_half_precision_is_kept_as_it_is(kept: PretrainConfig, precision: str) -> None:
    run = another(kept, "", f"runtime.precision={precision}")
    pretrain(run)
    pretrain(without := another(run, "anew", NEW))
    assert_same(run.out, without.out)
    features = store_in(run).read(path := entries(run)[0])
    assert features is not None
    tensors = (*features.seen_BTLC, features.class_BC)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {t.dtype for t in tensors} == {dtype}
    expected = feature_bytes(resolve_recipe(read_recipe(run.recipe), run.overrides, where="").model, dtype)
    assert sum(t.nbytes for t in tensors) == expected
    assert path.stat().st_size <= expected + HEADER_BYTES


def test_a_b16_clip_takes_ten_megabytes_in_half_precision() -> None:
    assert feature_bytes(UniFormerV2Config.variant("b16"), torch.bfloat16) == 2 * 768 * (4 * 8 * 197 + 1) == 9684480


def test_what_is_kept_is_not_counted_as_computed() -> None:
    macs = count_macs(replace(UniFormerV2Config.variant("b16"), frozen_backbone=True))
    backbone = 2 * (macs.patches + macs.attention + macs.mlp + macs.temporal)
    assert macs.training_flops == backbone + macs.flops_behind_features


class _Room(NamedTuple):
    free: int


def test_a_disk_that_is_too_small_is_refused_before_the_first_step(
    kept: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_plan.shutil, "disk_usage", lambda _: _Room(free=1000))
    with pytest.raises(UsageError, match=r"features would take .* and 1\.0 kB are free") as caught:
        pretrain(kept)
    assert "data.feature_views" in caught.value.hint
    assert not entries(kept)


@pytest.mark.slow
def test_a_run_that_has_only_to_write_its_weights_needs_no_room(
    kept: PretrainConfig, anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(kept)
    (kept.out / "model.safetensors").unlink()
    shutil.rmtree(kept.out / FEATURE_FOLDER)
    monkeypatch.setattr(feature_plan.shutil, "disk_usage", lambda _: _Room(free=0))
    pretrain(kept)
    assert_same(anew, kept.out)


@pytest.mark.slow
def test_features_that_are_there_need_no_room(kept: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(another(kept, "", "optim.epochs=2"))
    names = [path.name for path in entries(kept)]
    shutil.move(kept.out / FEATURE_FOLDER, kept.out.with_name("moved"))
    shutil.rmtree(kept.out)
    stop(kept, 1)
    shutil.rmtree(kept.out / FEATURE_FOLDER)
    shutil.move(kept.out.with_name("moved"), kept.out / FEATURE_FOLDER)
    monkeypatch.setattr(feature_plan.shutil, "disk_usage", lambda _: _Room(free=20_000))
    pretrain(kept)
    assert set(names) <= {path.name for path in entries(kept)}


def test_a_disk_that_fills_up_ends_the_keeping_and_not_the_run(
    kept: PretrainConfig, anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FeatureStore.write

    def full(store: FeatureStore, path: Path, features: Features) -> None:
        if path.name > "8":
            raise OSError(28, "No space left on device", str(path))
        write(store, path, features)

    monkeypatch.setattr(FeatureStore, "write", full)
    told = [sentence for sentence in told_by(kept) if "no more features are kept" in sentence]
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert_same(anew, kept.out)


@pytest.mark.slow
def test_two_processes_keep_what_one_would(kept: PretrainConfig, anew: Path) -> None:
    pretrain(kept)
    pretrain(two := another(kept, "two", devices=2))
    assert_close(anew, two.out)
    assert [path.name for path in entries(two)] == [path.name for path in entries(kept)]


def _resolved(config: PretrainConfig, *settings: str) -> Recipe:
    return resolve_recipe(read_recipe(config.recipe), (*config.overrides, *settings), where="tiny")


@pytest.mark.parametrize(
    ("setting", "needed"),
    [
        ("model.frozen_backbone=false", r"model\.frozen_backbone = true, got false"),
        ("model.drop_path_backbone=0.1", r"model\.drop_path_backbone = 0\.0, got 0\.1"),
        ("augment.mixup=0.8", r"augment\.mixup = 0\.0, got 0\.8"),
        ("augment.cutmix=1.0", r"augment\.cutmix = 0\.0, got 1\.0"),
        ("runtime.sharding=fsdp", r"runtime\.sharding = none, got fsdp"),
    ],
)
def test_what_would_make_kept_features_wrong_is_refused_by_name(
    config: PretrainConfig, setting: str, needed: str
) -> None:
    with pytest.raises(UsageError, match=rf"data\.feature_views 2 needs {needed}"):
        _resolved(config, setting)


def test_streamed_clips_have_no_place_to_be_kept_by(config: PretrainConfig) -> None:
    streamed = replace(config, stream=("a.tar",), stream_clips=8)
    with pytest.raises(UsageError, match=r"data\.feature_views 2 and --stream exclude each other"):
        pretrain(streamed)


def _names(config: PretrainConfig, *settings: str) -> list[str]:
    """The files of the first sample of every clip under other settings."""
    recipe = _resolved(config, *settings)
    model = new_model(recipe.model, recipe.seed)
    view = ShardIndex(config.data).view(recipe.data.view)
    store = feature_store(Path(), recipe, view, model, Ranks(device=torch.device("cpu")))
    return [store.path(position, 0, 0).name for position in range(len(view))]


@pytest.mark.parametrize(
    "setting",
    ["seed=4", "augment.brightness=0.3", "data.sampling=dense", "runtime.precision=bf16", "model.image_size=48"],
)
def test_what_changes_features_changes_their_names(config: PretrainConfig, setting: str) -> None:
    assert not set(_names(config)) & set(_names(config, setting))


def test_what_changes_no_feature_keeps_their_names(config: PretrainConfig) -> None:
    others = ("optim.base_lr=1e-4", "data.micro_batch=4", "data.feature_views=3", "data.repeats=1")
    assert _names(config) == _names(config, *others)


def test_other_weights_of_the_backbone_have_other_files(config: PretrainConfig) -> None:
    recipe, view = _resolved(config), ShardIndex(config.data).view("k710-train")
    names = []
    for parameter in ("transformer.resblocks.0.ln_1.bias", "transformer.proj.2.bias"):
        model = new_model(recipe.model, recipe.seed)
        with torch.no_grad():
            model.get_parameter(parameter)[0] += 1e-3
        store = feature_store(Path(), recipe, view, model, Ranks(device=torch.device("cpu")))
        names.append(store.path(0, 0, 0).name)
    assert names[0] != _names(config)[0] == names[1]


@settings(max_examples=40, deadline=None)
@given(first=st.tuples(*[st.integers(0, 3)] * 3), second=st.tuples(*[st.integers(0, 3)] * 3))
def test_every_sample_has_a_file_of_its_own(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    store = FeatureStore(folder=Path("features"), digest="d", clips=("a 1", "b 2", "c 3", "d 4"))
    assert (store.path(*first) == store.path(*second)) == (first == second)


def test_a_file_under_another_name_is_damaged(tmp_path: Path) -> None:
    store = FeatureStore(folder=tmp_path, digest="d", clips=("a",))
    one, other = store.path(0, 0, 0), store.path(0, 1, 0)
    features = Features(seen_BTLC=(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)), class_BC=torch.ones(1, 4))
    store.write(one, features)
    back = store.read(one)
    assert back is not None
    assert torch.equal(back.seen_BTLC[0], features.seen_BTLC[0])
    assert torch.equal(back.seen_BTLC[1], features.seen_BTLC[1])
    assert torch.equal(back.class_BC, features.class_BC)
    assert store.read(other) is None
    other.parent.mkdir(exist_ok=True)
    shutil.copy(one, other)
    with pytest.raises(DamagedFeaturesError, match="damaged"):
        store.read(other)


def test_a_frozen_backbone_in_train_mode_draws_nothing() -> None:
    model = UniFormerV2(
        UniFormerV2Config(
            image_size=32,
            patch_size=16,
            width=16,
            layers=2,
            heads=2,
            num_frames=2,
            global_layers=(1,),
            frozen_backbone=True,
            dropout=0.5,
            drop_path_global=0.5,
        )
    ).train()
    assert all(p.requires_grad != n.startswith(BACKBONE_NAMES) for n, p in model.named_parameters())
    torch.nn.init.normal_(model.transformer.temporal_cls_token)
    clip = torch.randn(1, 3, 2, 32, 32)
    one, two = model.features(clip), model.features(clip)
    assert torch.equal(one.seen_BTLC[0], two.seen_BTLC[0])
    assert not torch.equal(model.classify(one), model.classify(two)), "what trains does draw"


SCRIPT = """
import sys
from pathlib import Path
from uniformerv2.pretrain import PretrainConfig, pretrain
if __name__ == "__main__":
    recipe, data, out = sys.argv[1:4]
    pretrain(PretrainConfig(recipe=recipe, data=data, out=Path(out), overrides=tuple(sys.argv[4:])))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_while_features_are_written_change_no_bit(config: PretrainConfig, tmp_path: Path, workers: int) -> None:
    settings = ("optim.epochs=40", "data.feature_views=20", "runtime.checkpoint_every=2")
    whole = another(config, f"whole{workers}", *settings, NEW)
    pretrain(whole)
    killed = another(config, f"killed{workers}", *settings, f"data.workers={workers}")
    rng = random.Random(workers)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), config.recipe, config.data, str(killed.out), *killed.overrides]
    for number in range(5):
        process = subprocess.Popen(command, start_new_session=True)
        try:
            _wait_until_written(process, killed, len(entries(killed)) + rng.randrange(40, 120))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.returncode == -signal.SIGKILL, f"the run ended by itself before kill {number + 1}"
        if number == 2:
            shutil.rmtree(killed.out / FEATURE_FOLDER)
    subprocess.run(command, check=True)
    assert_same(whole.out, killed.out)
    assert not list(killed.out.rglob("*.partial"))


def _wait_until_written(process: subprocess.Popen[bytes], config: PretrainConfig, number: int) -> None:
    """Until there are so many files and one is being written."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and len(entries(config)) < number:
        time.sleep(0.002)
    while time.monotonic() < deadline and process.poll() is None:
        if any((config.out / FEATURE_FOLDER).glob("*/.*.partial")):
            return
