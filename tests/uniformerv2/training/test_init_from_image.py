"""`--init` with an image transformer: the weights decide the settings, which are recorded, and runs go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cli.main import run
from k710.errors import CheckpointError, UsageError
from uniformerv2.pretrain import INIT_KINDS, PretrainConfig, pretrain
from uniformerv2.weights.image_kinds import KINDS
from uniformerv2.weights.load_report import LoadReport

WIDTH = 16
MODEL = ("optim.epochs=0", "optim.warmup_epochs=0")
EXACT = {"gelu": "exact", "norm_eps": 1e-6, "pre_norm": False}


@pytest.fixture
def config(build: Path, recipe: str, tmp_path: Path) -> PretrainConfig:
    weights = save(tmp_path / "mae.pth", {"model": mae_state(), "epoch": 3})
    return PretrainConfig(recipe=recipe, data=str(build), out=tmp_path / "run", init=f"mae:{weights}", overrides=MODEL)


def save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def mae_state(layers: int = 2) -> dict[str, Tensor]:
    """An encoder of the size of the tests' recipe, for images of 48 pixels, and a bit of a decoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 10, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "decoder_pred.bias": (3,),
    }
    for i in range(layers):
        for name, shape in {
            "norm1": (WIDTH,),
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH,),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(1)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def recorded(config: PretrainConfig) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((config.out / "config.json").read_text())["settings"]
    return settings


def test_the_recorded_recipe_has_the_settings_of_the_source(config: PretrainConfig) -> None:
    pretrain(config)
    settings = recorded(config)
    assert {name: settings["recipe"]["model"][name] for name in EXACT} == EXACT
    assert settings["init"]["kind"] == "mae"
    weights = load_file(config.out / "model.safetensors")
    assert torch.equal(weights["class_embedding"], mae_state()["cls_token"].view(-1))
    assert "ln_pre.weight" not in weights


def test_the_report_is_handed_over_once(config: PretrainConfig) -> None:
    reports: list[LoadReport] = []
    pretrain(config, on_loaded=reports.append)
    assert [report.resized for report in reports] == [("positional_embedding",)]
    assert ("decoder_pred.bias", "the decoder of the pre-training") in reports[0].ignored


@pytest.mark.parametrize("devices", [1, 2])
def test_the_command_prints_the_report_once_on_stderr(
    config: PretrainConfig, capfd: pytest.CaptureFixture[str], devices: int
) -> None:
    flags = {"recipe": config.recipe, "data": config.data, "out": config.out, "init": config.init, "devices": devices}
    changes = [part for setting in MODEL for part in ("--set", setting)]
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    assert run(["pretrain", *arguments, *changes]) == 0
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("init: ")]
    assert lines[0] == "init: 27 taken (27 renamed, 1 resized, 1 inflated)"
    assert "init: 1 ignored: the decoder of the pre-training" in lines
    assert len(set(lines)) == len(lines)
    assert "init:" not in out


def test_a_random_start_has_nothing_to_report(config: PretrainConfig) -> None:
    reports: list[LoadReport] = []
    pretrain(replace(config, init=None), on_loaded=reports.append)
    assert reports == []


def test_a_run_goes_on(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=("optim.epochs=1",)))
    again = pretrain(replace(config, overrides=("optim.epochs=1",), resume=True))
    assert again.already_done


def test_settings_that_the_source_has_too_may_be_named(config: PretrainConfig) -> None:
    pretrain(replace(config, overrides=(*MODEL, "model.gelu=exact", "model.norm_eps=1e-6", "model.pre_norm=false")))
    assert recorded(config)["recipe"]["model"]["gelu"] == "exact"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.gelu=tanh", "model.gelu is 'tanh' in the recipe, the weights of kind mae need 'exact'"),
        ("model.gelu=quick", "model.gelu is 'quick' in the recipe, the weights of kind mae need 'exact'"),
        ("model.pre_norm=true", "model.pre_norm is True in the recipe, the weights of kind mae need False"),
        ("model.norm_eps=1e-4", "model.norm_eps is 0.0001 in the recipe, the weights of kind mae need 1e-06"),
    ],
)
def test_settings_that_differ_from_the_source_are_refused(config: PretrainConfig, setting: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        pretrain(replace(config, overrides=(*MODEL, setting)))
    assert caught.value.message == said
    assert not config.out.exists()


def test_a_default_that_the_recipe_file_names_is_asked_for_too(config: PretrainConfig) -> None:
    recipe = Path(config.recipe)
    recipe.write_text(recipe.read_text().replace("[model]", "[model]\ngelu = 'quick'"))
    with pytest.raises(UsageError, match=r"model\.gelu is 'quick' in the recipe"):
        pretrain(config)


def test_a_run_starts_from_a_run_with_the_settings_that_run_had(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(config)
    second = replace(config, init=f"run:{config.out}", out=tmp_path / "second")
    pretrain(second)
    model = recorded(second)["recipe"]["model"]
    assert {name: model[name] for name in EXACT} == EXACT
    a, b = (load_file(out / "model.safetensors") for out in (config.out, second.out))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("setting", ["heads=4", "global_layers=[0]", "fusion=hierarchical_q", "gelu=tanh"])
def test_what_a_run_computes_cannot_be_changed_by_starting_from_it(
    config: PretrainConfig, tmp_path: Path, setting: str
) -> None:
    settings = (*MODEL, "model.heads=2", "model.global_layers=[0, 1]", "model.fusion=hierarchical_kv")
    pretrain(replace(config, init=None, out=tmp_path / "first", overrides=settings))
    again = replace(config, init=f"run:{tmp_path / 'first'}", overrides=(*settings, f"model.{setting}"))
    with pytest.raises(UsageError, match=f"model.{setting.partition('=')[0]} is .* the weights of kind run need"):
        pretrain(again)
    pretrain(replace(again, overrides=settings))


def test_published_weights_need_the_published_settings(config: PretrainConfig, tmp_path: Path) -> None:
    pretrain(replace(config, init=None))
    bare = tmp_path / "official.safetensors"
    save_file(load_file(config.out / "model.safetensors"), bare)
    changes = (*MODEL, "model.gelu=exact", "head.class_order=canonical")
    other = replace(config, init=f"official:{bare}", out=tmp_path / "second", overrides=changes)
    with pytest.raises(UsageError, match="the weights of kind official need 'quick'"):
        pretrain(other)


WRONG: list[tuple[str, Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = [
    ("clip", lambda s: s, "the weights are not of kind clip, they look like mae"),
    (
        "mae",
        lambda s: s | {"decoder_x": torch.ones(1), "blocks.0.extra": torch.ones(1)},
        "unexpected: 'blocks.0.extra'",
    ),
    ("mae", lambda s: mae_state(layers=3), "is 16 wide with 3 layers and patches of 16, the model is 16 wide with 2"),
    ("mae", lambda s: s | {"pos_embed": torch.full((1, 10, WIDTH), torch.inf)}, "pos_embed has values that are not"),
]


@pytest.mark.parametrize(("kind", "change", "message"), WRONG)
def test_weights_that_do_not_fit_are_refused_with_their_path(
    config: PretrainConfig,
    tmp_path: Path,
    kind: str,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    path = save(tmp_path / "other.pth", dict(change(mae_state())))
    with pytest.raises(CheckpointError) as caught:
        pretrain(replace(config, init=f"{kind}:{path}"))
    assert caught.value.message.startswith(f"{path}: ")
    assert message in caught.value.message
    assert caught.value.hint


def test_every_kind_can_be_named_and_is_in_the_help_and_the_documentation() -> None:
    from cli.pretrain import INIT_HELP

    documentation = (Path(__file__).parents[3] / "docs/commands.md").read_text(encoding="utf-8")
    assert set(INIT_KINDS) == {"run", "official", *KINDS}
    assert all(f" {kind}" in INIT_HELP for kind in INIT_KINDS)
    assert all(f"`{kind}`" in documentation for kind in KINDS)
