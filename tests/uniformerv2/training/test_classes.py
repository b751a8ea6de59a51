"""Class tables: rows go by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from k710.errors import CheckpointError, UsageError
from k710.labels import load_labels
from uniformerv2.training.classes import ClassTable, named_order, taxonomy_of
from uniformerv2.training.lineage import Lineage
from uniformerv2.training.source import Source, head_rows
from uniformerv2.weights.remap import HEAD_KEYS

LABELS = load_labels()


def source_of(names: list[str] | None, taxonomy: str = "k710") -> Source:
    table = None if names is None else ClassTable(taxonomy=taxonomy, names=tuple(names))
    rows = 710 if names is None else len(names)
    state = {HEAD_KEYS[0]: torch.arange(rows)[:, None].float(), HEAD_KEYS[1]: torch.zeros(rows)}
    return Source(state=state, sha256="", lineage=Lineage(), classes=table)


@pytest.mark.parametrize("target", ["k400", "k600", "k700"])
def test_rows_are_found_by_name_whatever_their_order(target: str) -> None:
    backwards = LABELS.names[::-1]
    rows = head_rows(source_of(backwards), target, "", LABELS)
    assert [backwards[row] for row in rows] == [LABELS.names[c] for c in LABELS.rows_for(target)]


def test_a_release_head_is_found_under_its_own_names() -> None:
    names = LABELS.taxonomy_names("k700")[::-1]
    rows = head_rows(source_of(names, "k700"), "k700", "", LABELS)
    assert [names[row] for row in rows] == LABELS.taxonomy_names("k700")


def test_a_missing_class_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"lacks \d+ classes of k600"):
        head_rows(source_of(LABELS.taxonomy_names("k400"), "k400"), "k600", "", LABELS)


def test_an_unknown_order_is_refused_with_the_ways_to_name_it() -> None:
    with pytest.raises(CheckpointError, match="does not say which class") as caught:
        head_rows(source_of(None), "k400", "", LABELS)
    assert "head.class_order=canonical" in caught.value.hint
    assert "head.init=random" in caught.value.hint


def test_the_published_order_can_be_named() -> None:
    published = named_order("uniformerv2", 710, LABELS)
    rows = head_rows(source_of(None), "k400", "uniformerv2", LABELS)
    assert [published.names[row] for row in rows] == [LABELS.names[c] for c in LABELS.rows_for("k400")]
    assert sorted(rows) == list(range(400))
    assert rows != list(range(400))


@pytest.mark.parametrize("taxonomy", ["k400", "k600", "k700", "k710"])
def test_canonical_is_the_order_of_the_taxonomys_indices(taxonomy: str) -> None:
    names = LABELS.taxonomy_names(taxonomy)
    assert list(named_order("canonical", len(names), LABELS).names) == names


def test_a_taxonomy_is_told_by_its_number_of_classes() -> None:
    assert [taxonomy_of(size) for size in (400, 600, 700, 710, 174, 0)] == ["k400", "k600", "k700", "k710", "", ""]


def test_an_order_may_stand_in_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "order.csv"
    names = LABELS.names[::-1]
    path.write_text("name\n" + "".join(f'"{name}"\n' for name in names))
    assert list(named_order(str(path), 710, LABELS).names) == names
    with pytest.raises(UsageError, match="names 710 classes, the head has 400 rows"):
        named_order(str(path), 400, LABELS)


def test_a_checkpoint_with_a_table_takes_no_other_order() -> None:
    with pytest.raises(UsageError, match="its own class table"):
        head_rows(source_of(LABELS.names), "k400", "canonical", LABELS)


def test_a_wrong_or_doubled_name_is_a_checkpoint_error() -> None:
    foreign = "row 0 of the checkpoint's class table is 'juggling chainsaws', and k710 has no class of that name"
    with pytest.raises(CheckpointError, match=foreign):
        head_rows(source_of(["juggling chainsaws"]), "k400", "", LABELS)
    with pytest.raises(CheckpointError, match="rows 0 and 1 of the checkpoint's class table are both"):
        head_rows(source_of([LABELS.names[0]] * 2), "k400", "", LABELS)
