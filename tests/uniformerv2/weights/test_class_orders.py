"""Head rows go by class name: between any two lists of classes, from every published order, or not at all."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_states import TINY, as_mmaction2, random_state
from torch import Tensor

from k710.errors import CheckpointError, UsageError
from k710.labels import TAXONOMIES, load_labels
from uniformerv2.config import HeadConfig
from uniformerv2.training.classes import ClassTable, named_order
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.source import Source, head_rows, read_source, source_classes, start_model
from uniformerv2.weights.remap import HEAD_KEYS, select_rows

LABELS = load_labels()
SMALL = dataclasses.replace(TINY, width=8, heads=1, layers=1, global_layers=(0,), local_blocks=0)
ORDERS = ("canonical", "uniformerv2", "mmaction2")


def head_of(names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """A head whose every row is another one."""
    row_K = torch.arange(float(len(names)))
    return torch.stack([row_K, -row_K], dim=1), row_K / 7


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("target", TAXONOMIES)
def test_rows_gathered_to_a_release_and_back_are_the_same_rows(order: str, target: str) -> None:
    large = named_order(order, 710, LABELS)
    weight, bias = head_of(large.names)
    small = named_order(order, TAXONOMIES[target], LABELS)
    there = small.rows_from(large, LABELS)
    gathered = select_rows(weight, bias, there)
    theirs = ClassTable(taxonomy="k710", names=tuple(large.names[row] for row in there))
    back = theirs.rows_from(small, LABELS)
    assert back == list(range(TAXONOMIES[target]))
    again = select_rows(*gathered, back)
    assert torch.equal(again[0], weight[there])
    assert torch.equal(again[1], bias[there])


@settings(deadline=None, max_examples=60)
@given(
    order=st.sampled_from(ORDERS),
    taxonomy=st.sampled_from(["k400", "k600", "k700", "k710"]),
    data=st.data(),
)
def test_any_subset_in_any_order_is_gathered_by_name_and_found_again(
    order: str, taxonomy: str, data: st.DataObject
) -> None:
    source = named_order(order, len(LABELS.rows_for(taxonomy)), LABELS)
    picked = data.draw(st.lists(st.sampled_from(source.names), min_size=1, max_size=50, unique=True))
    subset = ClassTable(taxonomy=taxonomy, names=tuple(picked))
    rows = subset.rows_from(source, LABELS)
    assert [source.names[row] for row in rows] == picked
    gathered = select_rows(*head_of(source.names), rows)
    shuffled = data.draw(st.permutations(picked))
    again = ClassTable(taxonomy=taxonomy, names=tuple(shuffled)).rows_from(subset, LABELS)
    assert gathered[0][again][:, 0].tolist() == [source.names.index(name) for name in shuffled]


def test_the_published_orders_are_the_recorded_ones(shared: Path) -> None:
    with (shared / "kinetics/labels_uniformerv2_order.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    for taxonomy, size in {**TAXONOMIES, "k710": 710}.items():
        column = "uniformerv2_id" if taxonomy == "k710" else f"{taxonomy}_head_row"
        recorded = sorted((int(line[column]), int(line["canonical_id"])) for line in lines if line[column])
        rows = named_order("uniformerv2", size, LABELS).canonical_rows(LABELS)
        assert [(row, canonical) for canonical, row in rows.items()] == recorded


def test_the_order_of_mmaction2_is_alphabetical_for_a_release_and_its_own_for_k710(shared: Path) -> None:
    with (shared / "kinetics/labels.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert named_order("mmaction2", 710, LABELS).names == tuple(line["k710_name"] for line in lines)
    for taxonomy, size in TAXONOMIES.items():
        names = named_order("mmaction2", size, LABELS).names
        assert list(names) == sorted(line[f"{taxonomy}_name"] for line in lines if line[f"{taxonomy}_name"])


def saved(tmp_path: Path, num_classes: int, *, mmaction2: bool) -> tuple[Path, dict[str, Tensor]]:
    state = random_state(dataclasses.replace(SMALL, num_classes=num_classes))
    path = tmp_path / "weights.pyth"
    torch.save({"state_dict": as_mmaction2(state)} if mmaction2 else state, path)
    return path, state


@pytest.mark.parametrize("num_classes", [400, 600, 700, 710])
def test_the_class_order_of_an_mmaction2_checkpoint_is_known(tmp_path: Path, num_classes: int) -> None:
    path, _ = saved(tmp_path, num_classes, mmaction2=True)
    source = read_source(path)
    canonical = named_order("canonical", num_classes, LABELS)
    for order in ("", "canonical", "mmaction2"):
        assert source_classes(source, order, LABELS) == canonical


def test_an_mmaction2_checkpoint_of_k710_starts_a_k600_model_row_by_row(tmp_path: Path) -> None:
    path, state = saved(tmp_path, 710, mmaction2=True)
    config = dataclasses.replace(SMALL, num_classes=600)
    model = start_model(config, read_source(path), "k600", HeadConfig(), LABELS, seed=0)
    rows = LABELS.rows_for("k600")
    assert torch.equal(model.state_dict()[HEAD_KEYS[0]], state[HEAD_KEYS[0]][rows])
    assert torch.equal(model.state_dict()["transformer.proj.0.bias"], state["transformer.proj.0.bias"])


def test_a_checkpoint_of_another_model_is_named_as_it_is_on_disk(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, 710, mmaction2=True)
    config = dataclasses.replace(SMALL, num_classes=600, layers=2)
    with pytest.raises(CheckpointError, match="looks like an unpublished UniFormerV2, 710 classes") as caught:
        start_model(config, read_source(path), "k600", HeadConfig(), LABELS, seed=0)
    assert caught.value.hint == "build the model with model.layers=1, model.global_layers=[0]"


def test_a_checkpoint_of_another_frame_size_starts_a_model_with_its_positions_resized(tmp_path: Path) -> None:
    path, state = saved(tmp_path, 710, mmaction2=False)
    config = dataclasses.replace(SMALL, num_classes=400, image_size=48)
    head = HeadConfig(class_order="uniformerv2")
    model = start_model(config, read_source(path), "k400", head, LABELS, seed=0)
    assert model.positional_embedding.shape == (10, 8)
    assert torch.equal(model.positional_embedding[0], state["positional_embedding"][0])


def test_an_mmaction2_checkpoint_is_not_in_the_order_of_the_official_ones(tmp_path: Path) -> None:
    source = read_source(saved(tmp_path, 710, mmaction2=True)[0])
    with pytest.raises(UsageError, match="is one of mmaction2, whose heads are not in the order 'uniformerv2'"):
        head_rows(source, "k400", "uniformerv2", LABELS)


def test_the_classes_of_an_mmaction2_checkpoint_may_be_named_by_a_file(tmp_path: Path) -> None:
    source = read_source(saved(tmp_path, 710, mmaction2=True)[0])
    (tmp_path / "order.csv").write_text("name\n" + "".join(f'"{name}"\n' for name in LABELS.names[::-1]))
    table = source_classes(source, str(tmp_path / "order.csv"), LABELS)
    assert list(table.names) == LABELS.names[::-1]


@pytest.mark.parametrize("mmaction2", [True, False])
def test_a_head_of_no_release_has_no_known_order(tmp_path: Path, mmaction2: bool) -> None:
    source = read_source(saved(tmp_path, 339, mmaction2=mmaction2)[0])
    with pytest.raises(UsageError, match="a head of 339 classes is of no known taxonomy"):
        head_rows(source, "k400", "" if mmaction2 else "uniformerv2", LABELS)


def test_a_pyth_needs_its_class_order_named(tmp_path: Path) -> None:
    source = read_source(saved(tmp_path, 710, mmaction2=False)[0])
    with pytest.raises(CheckpointError, match="does not say which class") as caught:
        head_rows(source, "k400", "", LABELS)
    assert all(way in caught.value.hint for way in ("=canonical", "=uniformerv2", ".csv", "head.init=random"))
    assert head_rows(source, "k400", "uniformerv2", LABELS) != head_rows(source, "k400", "canonical", LABELS)


def test_an_order_of_another_number_of_classes_or_of_other_names_is_refused(tmp_path: Path) -> None:
    source, order = read_source(saved(tmp_path, 400, mmaction2=False)[0]), tmp_path / "order.csv"
    order.write_text("name\n" + "".join(f'"{name}"\n' for name in LABELS.taxonomy_names("k600")))
    with pytest.raises(UsageError, match="names 600 classes, the head has 400 rows"):
        head_rows(source, "k400", str(order), LABELS)
    # 400 names, but those of another release.
    order.write_text("name\n" + "".join(f'"{name}"\n' for name in LABELS.taxonomy_names("k600")[:400]))
    with pytest.raises(CheckpointError, match="k400 has no class"):
        head_rows(source, "k400", str(order), LABELS)
    with pytest.raises(UsageError, match=r"unknown head\.class_order 'alphabetical'"):
        head_rows(source, "k400", "alphabetical", LABELS)


@pytest.mark.parametrize("cut", ["709", "709,"])
def test_a_row_without_a_name_in_an_order_is_named(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "short.csv"
    rows = [f'{index},"{name}"' for index, name in enumerate(LABELS.names[:-1])]
    path.write_text("\n".join(["index,name", *rows, cut, ""]))
    with pytest.raises(UsageError, match=r"short\.csv row 711: no name"):
        named_order(str(path), 710, LABELS)


@pytest.mark.parametrize("row", [1, 3])
def test_a_row_that_is_no_csv_in_an_order_is_named(tmp_path: Path, row: int) -> None:
    lines = ["name", *LABELS.names]
    lines[row - 1] = "x" * 2**18
    path = tmp_path / "long.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match=rf"long\.csv row {row}: not a readable CSV \(field larger than"):
        named_order(str(path), 710, LABELS)


def test_a_name_that_no_class_has_comes_with_the_nearest_ones() -> None:
    names = ("absailing", *LABELS.taxonomy_names("k400")[1:])
    with pytest.raises(
        CheckpointError, match="row 0 of the checkpoint's class table is 'absailing', and k400 has no"
    ) as caught:
        ClassTable(taxonomy="k400", names=names).canonical_rows(LABELS)
    assert "'abseiling'" in caught.value.hint


def test_a_class_table_of_another_size_than_the_head_is_refused() -> None:
    state = dict(zip(HEAD_KEYS, head_of(("x",) * 5), strict=True))
    source = Source(state=state, sha256="", lineage=Lineage(), classes=ClassTable.of(LABELS, "k400"))
    with pytest.raises(CheckpointError, match="names 400 classes, its head has 5"):
        source_classes(source, "", LABELS)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((400, 2), None), r"no classifier \(transformer.proj.2.bias\)"),
        ((None, (400,)), r"no classifier \(transformer.proj.2.weight\)"),
        (((400, 2), (399,)), r"damaged: weight \(400, 2\), bias \(399,\)"),
        (((400,), (400,)), "damaged"),
        (((), ()), "damaged"),
        (((400, 2), ()), "damaged"),
        (((0, 2), (0,)), "damaged"),
    ],
)
def test_a_damaged_classifier_is_refused(shapes: tuple[tuple[int, ...] | None, ...], said: str) -> None:
    state = {key: torch.zeros(shape) for key, shape in zip(HEAD_KEYS, shapes, strict=True) if shape is not None}
    with pytest.raises(CheckpointError, match=said):
        source_classes(Source(state=state, sha256="", lineage=Lineage()), "uniformerv2", LABELS)


def test_clip_as_a_run_to_go_on_from_is_told_apart(tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.zeros(1), "logit_scale": torch.zeros(1)}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="looks like an image transformer") as caught:
        read_source(tmp_path / "clip.pt")
    assert "--init clip:PATH" in caught.value.hint
