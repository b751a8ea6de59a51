"""Learning rate, parameter groups, and a whole published trajectory through the loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import DataConfig, OptimConfig, Recipe, RuntimeConfig
from uniformerv2.data.augment import MEAN, STD
from uniformerv2.data.feed import Batch
from uniformerv2.training import engine
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import StepReport, train
from uniformerv2.training.job import Job
from uniformerv2.training.metrics import silent
from uniformerv2.training.optim import load_optimizer, make_optimizer, set_learning_rate
from uniformerv2.training.schedule import learning_rate
from uniformerv2.training.stopping import StopFlag


def test_the_learning_rate_equals_the_published_one(shared: Path) -> None:
    for case in json.loads((shared / "golden/uniformerv2/lr_schedule.json").read_text()):
        config = OptimConfig(base_lr=case["base_lr"], warmup_epochs=case["warmup"], epochs=case["epochs"])
        for epoch, expected in case["points"].items():
            assert learning_rate(config, float(epoch)) == pytest.approx(expected, rel=1e-9)


def test_vectors_do_not_decay_and_everything_else_does() -> None:
    model = UniFormerV2(UniFormerV2Config(image_size=32, width=16, layers=1, heads=2, global_layers=(0,)))
    decayed, plain = make_optimizer(model, OptimConfig()).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {"positional_embedding", "transformer.temporal_cls_token"} <= {names[id(p)] for p in decayed["params"]}
    assert {"class_embedding", "transformer.balance"} <= {names[id(p)] for p in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_every_layer_has_its_own_rate_and_the_last_ones_the_whole() -> None:
    model = UniFormerV2(UniFormerV2Config(image_size=32, width=16, layers=3, heads=2, global_layers=(2,)))
    optimizer = make_optimizer(model, OptimConfig(layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    set_learning_rate(optimizer, 1.0)
    rate = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(names)
    for beginning, expected in {
        "conv1.": 0.0625,
        "class_embedding": 0.0625,
        "positional_embedding": 0.0625,
        "ln_pre.": 0.0625,
        "transformer.resblocks.0.": 0.125,
        "transformer.resblocks.1.": 0.25,
        "transformer.resblocks.2.": 0.5,
        "transformer.dec.0.": 1.0,
        "transformer.dpe.0.": 1.0,
        "transformer.temporal_cls_token": 1.0,
        "transformer.balance": 1.0,
        "transformer.proj.": 1.0,
    }.items():
        assert {value for name, value in rate.items() if name.startswith(beginning)} == {expected}, beginning
    for group in optimizer.param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


def test_without_layer_decay_there_are_the_two_published_groups() -> None:
    model = UniFormerV2(UniFormerV2Config(image_size=32, width=16, layers=1, heads=2, global_layers=(0,)))
    groups = make_optimizer(model, OptimConfig()).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert not any("lr_share" in group for group in groups)


def test_an_optimiser_goes_on_with_its_own_way_to_compute() -> None:
    model = UniFormerV2(UniFormerV2Config(image_size=32, width=16, layers=1, heads=2, global_layers=(0,)))
    saved = make_optimizer(model, OptimConfig()).state_dict()
    saved["param_groups"] = [{**group, "fused": True, "lr": 0.25} for group in saved["param_groups"]]
    optimizer = make_optimizer(model, OptimConfig())
    load_optimizer(optimizer, saved)
    assert [(group["fused"], group["lr"]) for group in optimizer.param_groups] == [(None, 0.25)] * 2


def test_a_frozen_backbone_has_no_place_in_the_optimizer() -> None:
    config = UniFormerV2Config(image_size=32, width=16, layers=1, heads=2, global_layers=(0,), frozen_backbone=True)
    model = UniFormerV2(config)
    groups = make_optimizer(model, OptimConfig()).param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("case", ["a_kinetics", "b_ssv2"])
def test_the_loop_follows_the_published_trajectory(shared: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "golden/uniformerv2"
    golden = json.loads((folder / f"trajectory_{case}.json").read_text())
    tensors = load_file(folder / f"trajectory_{case}.safetensors")
    weights = load_file(folder / f"{case}.safetensors")
    model = UniFormerV2(_model_config(golden))
    model.load_official({k.removeprefix("state."): v for k, v in weights.items() if k.startswith("state.")})
    # The golden clips are normalised already.
    monkeypatch.setattr(engine, "normalise", lambda clips: clips.float())
    reports = _run(model, golden, list(zip(tensors["clips"], tensors["labels"], strict=True)))
    assert [r.lr for r in reports] == pytest.approx(golden["lr"], rel=1e-9)
    assert [r.loss for r in reports] == pytest.approx(golden["loss"], abs=2e-4)
    assert [r.grad_norm for r in reports] == pytest.approx(golden["grad_norm"], rel=2e-3)
    state = model.state_dict()
    for name, expected in tensors.items():
        if name.startswith("final."):
            torch.testing.assert_close(state[name.removeprefix("final.")], expected, atol=2e-4, rtol=2e-3)


def _model_config(golden: dict[str, object]) -> UniFormerV2Config:
    g = {k: v for k, v in golden.items() if k in ("width", "layers", "heads", "num_frames", "num_classes")}
    local = 0 if golden["no_lmhra"] else 2
    return UniFormerV2Config(
        image_size=48,
        patch_size=16,
        local_blocks=local,
        temporal_downsample=bool(golden["temporal_downsample"]),
        global_layers=tuple(golden["return_list"]),  # type: ignore[arg-type]
        dropout=0.0,
        **g,  # type: ignore[arg-type]
    )


def _run(
    model: UniFormerV2, golden: dict[str, object], steps: list[tuple[torch.Tensor, torch.Tensor]]
) -> list[StepReport]:
    optim = OptimConfig(epochs=4, base_lr=1e-3, warmup_epochs=1.0)
    recipe = Recipe(
        about="golden",
        model=model.config,
        optim=optim,
        data=DataConfig(global_batch=2, micro_batch=2),
        runtime=RuntimeConfig(threads=1),
    )
    job = Job(
        model=model,
        optimizer=make_optimizer(model, optim),
        recipe=recipe,
        batches=_batches(steps),
        accumulation=1,
        steps_per_epoch=3,
        num_clips=6,
        ranks=Ranks(device=torch.device("cpu")),
    )
    reports: list[StepReport] = []
    state = RunState(view_digest="", data_digest="", window=0, taken_out_digest="", global_batch=2)
    train(job, state, StopFlag(), reports.append, silent)
    return reports


def _batches(steps: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[Batch]:
    for clips, labels in steps:
        places = torch.arange(len(labels))
        yield Batch(clips=clips, labels=labels.long(), positions=places, repeats=torch.zeros_like(places), holes=())


def test_the_published_normalisation_is_used() -> None:
    assert (MEAN, STD) == (0.45, 0.225)
