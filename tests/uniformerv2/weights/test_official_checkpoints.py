"""What is exported has the published names and shapes, and comes back bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from golden_cases import recorded_config
from published_variants import ARCHITECTURES, config_of, meta_model
from small_states import TINY, assert_equal, random_state
from torch import Tensor

from k710.errors import CheckpointError, UsageError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.files import read_weights
from uniformerv2.weights.official import official_state_dict, save_official


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_export_has_the_recorded_names_and_shapes(shared: Path, name: str) -> None:
    recorded = json.loads((shared / f"golden/uniformerv2/keys_{name}.json").read_text())["keys"]
    model = meta_model(config_of(name))
    exported = [(key, list(value.shape)) for key, value in official_state_dict(model).items()]
    assert exported == [(f"backbone.{key}", shape) for key, shape in recorded.items()]


def filled(config: UniFormerV2Config) -> tuple[UniFormerV2, dict[str, Tensor]]:
    model, state = UniFormerV2(config), random_state(config)
    model.load_official(state)
    return model, state


@pytest.mark.parametrize("name", ["model.pyth", "model.pth", "model.safetensors"])
@pytest.mark.parametrize(
    "change",
    [{}, {"local_blocks": 0, "frozen_backbone": True}, {"local_blocks": 2, "temporal_downsample": True}],
    ids=["plain", "frozen", "local"],
)
def test_an_exported_file_comes_back_bit_for_bit(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    config = dataclasses.replace(TINY, **change)
    model, state = filled(config)
    save_official(model, tmp_path / name)
    content = read_weights(tmp_path / name)
    assert_equal(content, {f"backbone.{key}": value for key, value in state.items()})
    again = UniFormerV2(config)
    assert again.load_official(content).prefix == "backbone."
    assert_equal(again.state_dict(), state)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_exported_pyth_is_a_plain_dict_that_torch_reads_without_code(tmp_path: Path) -> None:
    model, state = filled(TINY)
    save_official(model, tmp_path / "model.pyth")
    content = torch.load(tmp_path / "model.pyth", weights_only=True)
    assert type(content) is dict
    assert list(content) == [f"backbone.{key}" for key in state]


@pytest.mark.parametrize("case", ["a_kinetics", "b_ssv2", "c3_frozen"])
def test_recorded_weights_of_the_published_code_survive_a_round_trip(shared: Path, tmp_path: Path, case: str) -> None:
    facts = json.loads((shared / f"golden/uniformerv2/{case}.json").read_text())
    tensors = safetensors.torch.load_file(shared / f"golden/uniformerv2/{case}.safetensors")
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    config = recorded_config(facts)
    model = UniFormerV2(config)
    model.load_official(state)
    save_official(model, tmp_path / "model.pyth")
    assert_equal(read_weights(tmp_path / "model.pyth"), {f"backbone.{key}": value for key, value in state.items()})


@pytest.mark.parametrize("name", ["model.pyth", "model.safetensors"])
def test_half_precision_is_written_as_it_is(tmp_path: Path, name: str) -> None:
    model, _ = filled(TINY)
    save_official(model.bfloat16(), tmp_path / name)
    assert read_weights(tmp_path / name)["backbone.conv1.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fusion": "parallel"}, "joined by fusion parallel, not sequential"),
        ({"fusion": "hierarchical_q"}, "joined by fusion hierarchical_q"),
        ({"pre_norm": False}, "no norm before the first layer"),
        ({"gelu": "exact"}, "its activation is gelu exact"),
        ({"norm_eps": 1e-6}, "its norms add 1e-06"),
        ({"image_size": (32, 48)}, "its frames are 2 x 3 patches"),
    ],
)
def test_a_model_that_the_published_code_lacks_is_not_exported(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    model = UniFormerV2(dataclasses.replace(TINY, **change))
    with pytest.raises(CheckpointError, match="has no published format: .*" + reason):
        save_official(model, tmp_path / "model.pyth")
    assert list(tmp_path.iterdir()) == []


def test_every_reason_against_an_export_is_named() -> None:
    model = UniFormerV2(dataclasses.replace(TINY, pre_norm=False, norm_eps=1e-6))
    with pytest.raises(CheckpointError, match=r"no norm before the first layer .*; its norms add"):
        official_state_dict(model)


def test_an_export_has_one_of_three_endings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.pyth, \.pth, \.safetensors"):
        save_official(UniFormerV2(TINY), tmp_path / "model.bin")


def test_an_export_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = filled(TINY)
    path = tmp_path / "model.pyth"
    save_official(model, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UsageError, match="cannot be written"):
        save_official(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pyth"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        save_official(UniFormerV2(TINY), tmp_path / "file" / "model.pyth")
