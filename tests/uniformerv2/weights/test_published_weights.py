"""Published checkpoints load whole or not at all, and the message says what differs and what to do."""

from __future__ import annotations

import dataclasses
import itertools
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_states import TINY, as_mmaction2, assert_equal, random_state
from torch import nn

from k710.errors import CheckpointError
from uniformerv2 import UniFormerV2
from uniformerv2.weights import layouts
from uniformerv2.weights.files import read_weights
from uniformerv2.weights.positions import POSITIONS, resize_positions

PREFIXES = ("", "backbone.", "module.", "module.backbone.", "model.module.", "_orig_mod.module.backbone._orig_mod.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_stripped_and_reported(prefix: str) -> None:
    state = random_state(TINY)
    model = UniFormerV2(TINY)
    report = model.load_official({prefix + key: value for key, value in state.items()})
    assert report.prefix == prefix
    assert report.taken == tuple(state)
    assert (report.ignored, report.inflated, report.fresh) == ((), (), ())
    assert_equal(model.state_dict(), state)


@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.sampled_from(layouts.PREFIXES), max_size=5))
def test_any_combination_of_prefixes_is_stripped(parts: list[str]) -> None:
    prefix = "".join(parts)
    model = UniFormerV2(TINY)
    report = model.load_official({prefix + key: value for key, value in STATE.items()})
    assert report.prefix == prefix
    assert_equal(model.state_dict(), STATE)


@pytest.mark.parametrize("fusion", ["parallel", "hierarchical_kv", "hierarchical_q"])
def test_models_of_ours_that_were_never_published_load_as_strictly(fusion: Any) -> None:
    config = dataclasses.replace(TINY, fusion=fusion, global_layers=(0, 1), pre_norm=False)
    state, model = random_state(config), UniFormerV2(config)
    assert len(model.load_official(state).taken) == len(state)
    assert_equal(model.state_dict(), state)
    with pytest.raises(CheckpointError, match=f"fusion .*{fusion}"):
        UniFormerV2(dataclasses.replace(config, fusion="sequential")).load_official(state)


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
        ({"image_size": 48, "layers": 3}, "positional_embedding is (10, 32), the model has (5, 32)", "image_size=48"),
        ({"local_blocks": 0}, "22 missing", "local_blocks"),
        ({"local_blocks": 2}, "unexpected", "local_blocks"),
        ({"temporal_downsample": True}, "conv1.weight is (32, 3, 3, 16, 16)", "temporal_downsample"),
        ({"global_layers": (0, 1)}, "unexpected: transformer.dpe.1.weight", "global_layers"),
        ({"mlp_factor": 2.0}, "transformer.dec.0.mlp.c_fc.weight is (64, 32)", "mlp_factor"),
        ({"layers": 3}, "unexpected: transformer.resblocks.2", "layers"),
        ({"num_classes": 7, "layers": 3}, "unexpected", "model.layers=3, model.num_classes=7"),
        ({"width": 64, "heads": 4}, "class_embedding is (64,), the model has (32,)", "model.width=64"),
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


@pytest.mark.parametrize(("prefix", "mark"), [("", ""), ("module.", ""), ("", "_orig_mod."), ("_orig_mod.", "")])
def test_an_mmaction2_checkpoint_is_loaded_under_the_published_names(prefix: str, mark: str) -> None:
    state, model = random_state(TINY), UniFormerV2(TINY)
    theirs = {prefix + key: value for key, value in as_mmaction2(state, mark).items()}
    report = model.load_official({"meta": {"epoch": 1}, "state_dict": theirs})
    assert_equal(model.state_dict(), state)
    assert report.prefix == f"{prefix}backbone."
    assert ("cls_head.fc_cls.bias", "transformer.proj.2.bias") in report.renamed
    assert (f"backbone.{mark}transformer.norm.bias", "transformer.proj.0.bias") in report.renamed
    assert len(report.renamed) == (len(state) if mark else 4)
    assert [key for key, _ in report.ignored] == ["meta", "data_preprocessor.mean", "data_preprocessor.std"]
    assert all(reason for _, reason in report.ignored)


def test_an_mmaction2_checkpoint_is_held_to_the_same_strictness() -> None:
    theirs = as_mmaction2(random_state(TINY))
    theirs["cls_head.extra"] = theirs.pop("backbone.transformer.norm.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: transformer.proj.0.bias; 1 unexpected: cls_head.extra"):
        UniFormerV2(TINY).load_official(theirs)


@pytest.mark.parametrize("wrapper", ["model_state", "state_dict", "model", "module"])
def test_the_weights_are_found_in_what_trainers_wrap_around_them(wrapper: str) -> None:
    state, model = random_state(TINY), UniFormerV2(TINY)
    report = model.load_official({"epoch": 3, wrapper: {"module": state, "step": 4}})
    assert [key for key, _ in report.ignored] == ["epoch", f"{wrapper}/step"]
    assert_equal(model.state_dict(), state)


@pytest.mark.parametrize(
    ("taken", "left"), list(itertools.combinations(("model_state", "state_dict", "model", "module"), 2))
)
def test_of_two_wrappers_the_first_with_something_in_it_counts(taken: str, left: str) -> None:
    inside, found = {"a": 1}, {"b": 2}
    assert layouts.unwrap({left: found, taken: inside})[0] == inside
    assert layouts.unwrap({left: found, taken: {}})[0] == found


def test_a_checkpoint_that_holds_itself_is_unwrapped_only_so_often() -> None:
    inner: dict[str, Any] = {"x": 1}
    inner["model"] = inner
    assert layouts.unwrap(inner)[0] is inner


def test_the_mark_of_a_compiled_part_is_taken_out_and_reported() -> None:
    state, model = random_state(TINY), UniFormerV2(TINY)
    marked = {key.replace("resblocks.0.", "resblocks.0._orig_mod."): value for key, value in state.items()}
    report = model.load_official(marked)
    assert_equal(model.state_dict(), state)
    assert len(report.renamed) == sum("resblocks.0." in key for key in state)
    with pytest.raises(CheckpointError, match=r"has ln_pre\.bias twice"):
        UniFormerV2(TINY).load_official({**state, "ln_pre._orig_mod.bias": state["ln_pre.bias"]})


@pytest.mark.parametrize(("image_size", "grid"), [(64, (4, 4)), ((32, 96), (2, 6)), (16, (1, 1))])
def test_a_position_table_is_resized_to_the_grid_of_the_model(image_size: Any, grid: tuple[int, int]) -> None:
    source = dataclasses.replace(TINY, image_size=48)
    state, model = random_state(source), UniFormerV2(dataclasses.replace(TINY, image_size=image_size))
    report = model.load_official({f"backbone.{key}": value for key, value in state.items()})
    assert report.resized == (POSITIONS,)
    assert "1 resized" in str(report)
    assert torch.equal(model.positional_embedding[0], state[POSITIONS][0])
    assert_equal(model.state_dict(), {**state, POSITIONS: resize_positions(state[POSITIONS], grid)})


WIDE = dataclasses.replace(TINY, image_size=(16, 64))
"""1 x 4 patches: as many as 2 x 2."""


def test_a_position_table_that_fits_two_grids_is_refused_with_both() -> None:
    state, model = random_state(TINY), UniFormerV2(WIDE)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"4 rows .*, which fit 2x2 patches as well as the model's 1x4") as caught:
        model.load_official(state)
    assert "source_grid=(2, 2)" in caught.value.hint
    assert "source_grid=(1, 4)" in caught.value.hint
    assert_equal(model.state_dict(), before)


def test_the_grid_of_a_position_table_can_be_named() -> None:
    state = random_state(TINY)
    resized, same = UniFormerV2(WIDE), UniFormerV2(WIDE)
    assert resized.load_official(state, source_grid=(2, 2)).resized == (POSITIONS,)
    assert_equal(resized.state_dict(), {**state, POSITIONS: resize_positions(state[POSITIONS], (1, 4))})
    assert same.load_official(state, source_grid=(1, 4)).resized == ()
    assert_equal(same.state_dict(), state)
    square = UniFormerV2(TINY)
    assert square.load_official(state, source_grid=(4, 1)).resized == (POSITIONS,)
    assert torch.equal(square.positional_embedding, resize_positions(state[POSITIONS], (2, 2), source_grid=(4, 1)))


def test_positions_of_an_oblong_grid_load_into_a_model_of_that_grid_unasked() -> None:
    config = dataclasses.replace(TINY, image_size=(32, 48))
    state, model = random_state(config), UniFormerV2(config)
    assert model.load_official(state).resized == ()
    assert_equal(model.state_dict(), state)


@pytest.mark.parametrize("grid", [(3, 3), (0, 0), (-2, -2), (1, 2)])
def test_a_named_grid_must_be_that_of_the_position_table(grid: tuple[int, int]) -> None:
    with pytest.raises(CheckpointError, match=f"4 rows beside the class row, which are no {grid[0]}x{grid[1]} grid"):
        UniFormerV2(TINY).load_official(random_state(TINY), source_grid=grid)


def test_a_position_table_that_is_not_square_is_refused_with_the_reason() -> None:
    state, model = random_state(dataclasses.replace(TINY, image_size=(16, 48))), UniFormerV2(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="3 rows beside the class row, which make no square grid"):
        model.load_official(state)
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_finite_numbers_are_counted_and_the_first_is_named(bad: float) -> None:
    state, model = random_state(TINY), UniFormerV2(TINY)
    state["ln_pre.weight"][3:5] = bad
    state["transformer.proj.2.bias"][0] = bad
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"^3 values in 2 entries .* the first in ln_pre.weight \(2 of 32\)$"):
        model.load_official(state)
    assert_equal(model.state_dict(), before)


def test_a_value_that_only_a_wider_type_holds_is_refused() -> None:
    state = random_state(TINY)
    state["ln_pre.weight"] = torch.full((32,), 1e300, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="32 values in 1 entries"):
        UniFormerV2(TINY).load_official(state)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_float_type_is_taken_and_converted(dtype: torch.dtype) -> None:
    state, model = random_state(TINY), UniFormerV2(TINY)
    # Counters too: programs that halve a file halve all of it.
    model.load_official({key: value.to(dtype) for key, value in state.items()})
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert_equal(model.state_dict(), {key: value.to(dtype).to(value.dtype) for key, value in state.items()})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(32, dtype=torch.int64), "is of int64, the model has float numbers"),
        (torch.zeros(32, dtype=torch.int8), "is of int8"),
        (torch.zeros(32, dtype=torch.bool), "is of bool"),
        (torch.zeros(32, dtype=torch.complex64), "is of complex64"),
        (torch.zeros(32, device="meta"), "without values"),
        (torch.zeros(32).to_sparse(), "in sparse form"),
        ([0.0] * 32, "is a list, not a tensor"),
        (None, "is a NoneType, not a tensor"),
    ],
)
def test_entries_that_are_no_float_weights_are_refused(value: Any, said: str) -> None:
    model = UniFormerV2(TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"'ln_pre.weight' {said}|'ln_pre.weight' is a tensor {said}"):
        model.load_official({**random_state(TINY), "ln_pre.weight": value})
    assert_equal(model.state_dict(), before)


def test_a_counter_must_be_a_whole_number() -> None:
    name = "transformer.resblocks.0.lmhra1.pos_embed.0.num_batches_tracked"
    with pytest.raises(CheckpointError, match="is a counter"):
        UniFormerV2(TINY).load_official({**random_state(TINY), name: torch.tensor(1.5)})
    model = UniFormerV2(TINY)
    model.load_official({**random_state(TINY), name: torch.tensor(12, dtype=torch.int32)})
    assert model.state_dict()[name] == 12


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_state_dict_never_changes_the_model(data: st.DataObject) -> None:
    model, state = UniFormerV2(TINY), dict(random_state(TINY))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key in data.draw(st.lists(st.sampled_from(sorted(state)), min_size=1, max_size=4, unique=True)):
        value = state.pop(key)
        kind = data.draw(st.sampled_from(["lost", "renamed", "reshaped", "nan", "scalar", "text"]))
        if kind == "renamed":
            state[key + data.draw(st.text(max_size=3))] = value
        elif kind != "lost":
            made = {"reshaped": value[None], "nan": value.float() * torch.nan, "scalar": torch.tensor(1.0), "text": "x"}
            state[key] = made[kind]
    try:
        model.load_official(state)
    except CheckpointError:
        assert_equal(model.state_dict(), before)
    else:
        assert sorted(state) == sorted(before)


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
    with pytest.raises(CheckpointError, match=r"holds code \(torch.nn.modules.linear.Linear\)"):
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


STATE = random_state(TINY)


def test_a_model_without_memory_is_refused_and_a_compiled_one_is_filled() -> None:
    state = random_state(TINY)
    with torch.device("meta"):
        bare = UniFormerV2(TINY)
    with pytest.raises(ValueError, match="meta device"):
        bare.load_official(state)
    wrapped: Any = torch.compile(UniFormerV2(TINY), backend="eager")
    UniFormerV2.load_official(wrapped, state)
    assert_equal(dict(wrapped._orig_mod.state_dict()), state)
