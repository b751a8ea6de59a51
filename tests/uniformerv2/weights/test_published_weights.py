"""Published checkpoints load whole or not at all, and the message says what differs and what to do."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.published import read_weights

TINY = UniFormerV2Config(
    image_size=32, width=32, layers=2, heads=2, num_frames=4, num_classes=5, local_blocks=1, global_layers=(1,)
)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.backbone.", "backbone.module."])
def test_prefixes_are_stripped_and_reported(prefix: str) -> None:
    state = random_state(TINY)
    model = UniFormerV2(TINY)
    report = model.load_official({prefix + key: value for key, value in state.items()})
    assert report.prefix == prefix
    assert report.taken == tuple(state)
    assert (report.ignored, report.inflated, report.fresh) == ((), (), ())
    assert_equal(model.state_dict(), state)


def test_a_training_checkpoint_gives_its_model_state() -> None:
    state = random_state(TINY)
    model = UniFormerV2(TINY)
    report = model.load_official({"epoch": 3, "model_state": state, "optimizer_state": {}, "cfg": "A: 1"})
    assert [key for key, _ in report.ignored] == ["epoch", "optimizer_state", "cfg"]
    assert_equal(model.state_dict(), state)


def test_arrays_and_half_precision_are_taken() -> None:
    state = random_state(TINY)
    model = UniFormerV2(TINY)
    model.load_official({key: value.numpy() for key, value in state.items()})
    assert_equal(model.state_dict(), state)
    model.load_official({key: value.half() if value.is_floating_point() else value for key, value in state.items()})
    assert model.conv1.weight.dtype == torch.float32
    assert torch.equal(model.conv1.weight, state["conv1.weight"].half().float())


def test_a_frozen_model_stays_frozen_when_it_is_filled() -> None:
    config = dataclasses.replace(TINY, local_blocks=0, frozen_backbone=True)
    model = UniFormerV2(config)
    model.load_official(random_state(config))
    assert not model.conv1.weight.requires_grad


@pytest.mark.parametrize(
    ("change", "names", "hint"),
    [
        ({"num_classes": 7}, "2 of another shape: transformer.proj.2.weight is (7, 32), the model has (5, 32)", "rows"),
        ({"image_size": 48}, "positional_embedding is (10, 32), the model has (5, 32)", "image_size"),
        ({"local_blocks": 0}, "22 missing", "local_blocks"),
        ({"local_blocks": 2}, "unexpected", "local_blocks"),
        ({"temporal_downsample": True}, "conv1.weight is (32, 3, 3, 16, 16)", "temporal_downsample"),
        ({"global_layers": (0, 1)}, "unexpected: transformer.dpe.1.weight", "global_layers"),
        ({"mlp_factor": 2.0}, "transformer.dec.0.mlp.c_fc.weight is (64, 32)", "mlp_factor"),
        ({"layers": 3}, "unexpected: transformer.resblocks.2", "layers"),
        ({"num_classes": 7, "layers": 3}, "unexpected", "configuration"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(change: dict[str, Any], names: str, hint: str) -> None:
    model = UniFormerV2(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        model.load_official(random_state(dataclasses.replace(TINY, **change)))
    assert names in caught.value.message
    assert hint in caught.value.hint
    assert_equal(model.state_dict(), before)


def test_one_missing_key_and_one_unexpected_key_are_both_named() -> None:
    state = random_state(TINY)
    state["transformer.extra"] = state.pop("ln_pre.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: ln_pre.bias; 1 unexpected: transformer.extra"):
        UniFormerV2(TINY).load_official(state)


def test_a_checkpoint_of_a_frozen_model_is_told_apart() -> None:
    plain = dataclasses.replace(TINY, local_blocks=0)
    state = random_state(dataclasses.replace(plain, frozen_backbone=True))
    with pytest.raises(CheckpointError, match=r"1 missing: transformer.balance") as caught:
        UniFormerV2(plain).load_official(state)
    assert "frozen_backbone" in caught.value.hint


def test_an_mmaction2_checkpoint_is_recognised() -> None:
    state = {f"backbone.{key}": value for key, value in random_state(TINY).items()}
    for name in ("weight", "bias"):
        state[f"cls_head.fc_cls.{name}"] = state.pop(f"backbone.transformer.proj.2.{name}")
    with pytest.raises(CheckpointError) as caught:
        UniFormerV2(TINY).load_official(state)
    assert "mmaction2" in caught.value.hint


def test_something_that_is_no_state_dict_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'model' is a dict, not a tensor"):
        UniFormerV2(TINY).load_official({"model": {}})
    with pytest.raises(CheckpointError, match="missing"):
        UniFormerV2(TINY).load_official({})


def test_every_file_format_is_read(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(2, 3), "b": torch.arange(3)}
    torch.save(state, tmp_path / "new.pyth")
    torch.save(state, tmp_path / "old.pyth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "plain.safetensors")
    for name in ("new.pyth", "old.pyth", "plain.safetensors"):
        assert_equal(read_weights(tmp_path / name), state)


def test_a_torchscript_archive_is_read(tmp_path: Path) -> None:
    linear = nn.Linear(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(linear), tmp_path / "clip.pt")
    assert_equal(read_weights(tmp_path / "clip.pt"), dict(linear.state_dict()))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"path": nn.Linear(1, 1)}, tmp_path / "code.pyth")
    with pytest.raises(CheckpointError, match="or one that holds code"):
        read_weights(tmp_path / "code.pyth")


def test_a_missing_file_and_a_file_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pyth: no such file"):
        read_weights(tmp_path / "absent.pyth")
    torch.save([1, 2], tmp_path / "list.pyth")
    with pytest.raises(CheckpointError, match="holds a list, not a state dict"):
        read_weights(tmp_path / "list.pyth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["new.pyth", "old.pyth", "plain.safetensors"])
def test_damaged_files_are_read_or_refused_as_checkpoints(tmp_path: Path, name: str) -> None:
    state, path = {"a.weight": torch.randn(2, 3)}, tmp_path / name
    if name == "plain.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "new.pyth")
    whole, dice, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(whole[: dice.randint(0, len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(dice.randint(0, 3)):
            if damaged:
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(read_weights(path), Mapping)
        except CheckpointError:
            refused += 1
    assert 0 < refused < 150


def random_state(config: UniFormerV2Config) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = UniFormerV2(config).state_dict()
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone() + 7
        for key, value in state.items()
    }


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(actual) == sorted(expected)
    for key, value in expected.items():
        assert torch.equal(actual[key], value), key
