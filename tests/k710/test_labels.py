"""The class table, against the published one, and what a damaged one is refused for."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from k710.config import manifests_folder
from k710.errors import InputError, UsageError
from k710.labels import TAXONOMIES, load_labels, published_order, read_labels


def published(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_table_has_710_classes_and_725_names() -> None:
    labels = load_labels()
    assert len(labels.rows) == len(set(labels.names)) == 710
    assert len({name for row in labels.rows for name in row.names.values()}) == 725


@pytest.mark.parametrize(("taxonomy", "size"), [("k400", 400), ("k600", 600), ("k700", 700), ("k710", 710)])
def test_every_class_of_a_taxonomy_has_a_row_of_its_own(taxonomy: str, size: int) -> None:
    rows = load_labels().rows_for(taxonomy)
    assert len(rows) == len(set(rows)) == size


def test_the_table_is_the_published_one(shared: Path) -> None:
    lines = published(shared / "kinetics" / "labels.csv")
    rows = load_labels().rows
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        own = {t: (row.names.get(t, ""), str(row.indices.get(t, ""))) for t in TAXONOMIES}
        values = list(line.values())
        assert values[:2] == [str(row.index), row.name]
        assert own == {t: (line[f"{t}_name"], line[f"{t}_id"]) for t in TAXONOMIES}


def test_the_first_400_are_the_k400_classes_in_alphabetical_order() -> None:
    assert load_labels().rows_for("k400") == list(range(400))
    names = load_labels().taxonomy_names("k400")
    assert names == sorted(names)


@pytest.mark.parametrize("taxonomy", ["k600", "k700"])
def test_indices_of_a_taxonomy_follow_its_names(taxonomy: str) -> None:
    names = load_labels().taxonomy_names(taxonomy)
    assert names == sorted(names)


def test_membership_of_classes_is_the_known_one() -> None:
    owners = [frozenset(row.names) for row in load_labels().rows]
    assert {
        "+".join(sorted(o)): owners.count(o) for o in set(owners)
    } == {"k400+k600+k700": 382, "k600+k700": 216, "k700": 92, "k400+k700": 10, "k400": 8, "k600": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("taxonomy", "name", "canonical"),
    [
        ("k400", "dying hair", "dyeing hair"),
        ("k600", "passing american football (not in game)", "passing American football (not in game)"),
    ],
)
def test_merged_names_lead_to_one_class(taxonomy: str, name: str, canonical: str) -> None:
    labels = load_labels()
    index = labels.canonical(taxonomy, name)
    assert index is not None
    assert labels.names[index] == canonical


def test_similar_names_that_are_two_classes_stay_two() -> None:
    labels = load_labels()
    assert labels.canonical("k700", "baby waking up") != labels.canonical("k700", "waking up")


def test_a_name_means_something_only_in_its_taxonomy() -> None:
    assert load_labels().canonical("k700", "dying hair") is None


def test_an_index_goes_to_its_taxonomy_and_back() -> None:
    labels = load_labels()
    for taxonomy in TAXONOMIES:
        for own, canonical in enumerate(labels.rows_for(taxonomy)):
            assert labels.index_in(taxonomy, canonical) == own


def test_the_published_head_order_is_the_known_one(shared: Path) -> None:
    lines = published(shared / "kinetics" / "labels_uniformerv2_order.csv")
    by_row = sorted(lines, key=lambda line: int(line["uniformerv2_id"]))
    assert published_order("uniformerv2_k710") == [int(line["canonical_id"]) for line in by_row]


@pytest.mark.parametrize("taxonomy", ["k400", "k600", "k700"])
def test_the_published_order_of_each_head_is_the_known_one(shared: Path, taxonomy: str) -> None:
    lines = published(shared / "kinetics" / "labels_uniformerv2_order.csv")
    rows = {
        int(line[f"{taxonomy}_head_row"]): int(line["canonical_id"]) for line in lines if line[f"{taxonomy}_head_row"]
    }
    assert published_order(f"uniformerv2_{taxonomy}") == [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("taxonomy", ["k400", "k600", "k700"])
def test_a_published_head_order_is_a_permutation_of_its_classes(taxonomy: str) -> None:
    order = published_order(f"uniformerv2_{taxonomy}")
    assert sorted(order) == sorted(load_labels().rows_for(taxonomy))


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown class order 'timesformer'"):
        published_order("timesformer")


def test_an_unknown_taxonomy_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown taxonomy 'k500'"):
        load_labels().rows_for("k500")


def test_nearest_names_are_those_of_the_taxonomy() -> None:
    assert load_labels().nearest("k600", "Dying Hair")[0] == "dyeing hair"
    assert load_labels().nearest("k400", "qqqqqqqq") == []


def _drop_last(lines: list[dict[str, str]]) -> None:
    lines.pop()


def _swap_two(lines: list[dict[str, str]]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def _repeat_name(lines: list[dict[str, str]]) -> None:
    lines[1]["name"] = lines[0]["name"]


def _repeat_index(lines: list[dict[str, str]]) -> None:
    lines[1]["k400_index"] = lines[0]["k400_index"]


def _repeat_own_name(lines: list[dict[str, str]]) -> None:
    lines[1]["k400_name"] = lines[0]["k400_name"]


def _rename(lines: list[dict[str, str]]) -> None:
    lines[0]["k400_name"] = "abseilling"


def _no_number(lines: list[dict[str, str]]) -> None:
    lines[0]["index"] = "zero"


def _merge_without_reason(lines: list[dict[str, str]]) -> None:
    next(line for line in lines if line["merged_because"])["merged_because"] = ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_last, "expected indices 0 to 709"),
        (_swap_two, "expected indices 0 to 709"),
        (_repeat_name, "two classes have one canonical name"),
        (_repeat_index, "indices of k400 are not 0 to 399"),
        (_repeat_own_name, "k400 has one name on two classes"),
        (_rename, "expected 725 distinct names"),
        (_no_number, "not a class table"),
        (_merge_without_reason, "must say why names were merged"),
    ],
)
def test_a_damaged_table_is_refused(
    tmp_path: Path, damage: Callable[[list[dict[str, str]]], None], message: str
) -> None:
    lines = published(manifests_folder() / "classes.csv")
    damage(lines)
    path = tmp_path / "classes.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    with pytest.raises(InputError, match=message):
        read_labels(path)
