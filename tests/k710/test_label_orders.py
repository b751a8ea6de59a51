"""The published orders and the index lists between them, and which of them a label file is in."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.class_names.orders import (
    all_orders,
    class_facts,
    class_order,
    distinct_orders,
    fold,
    index_map,
    map_orders,
    order_rows,
    summarise,
)
from k710.config import manifests_folder
from k710.errors import UsageError
from k710.labels import TAXONOMIES, load_labels, published_order, read_labels

ORDERS = sorted(order.name for order in all_orders())
LABELS = load_labels()


def shared_table(shared: Path, name: str) -> list[dict[str, str]]:
    with (shared / "kinetics" / name).open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_known_orders_are_these() -> None:
    own = {"k710", *TAXONOMIES}
    assert set(ORDERS) == own | {f"{p}_{t}" for p in ("mmaction2", "uniformerv2", "videomaev2") for t in own}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_has_every_class_of_its_taxonomy_once(name: str) -> None:
    order = class_order(name)
    assert sorted(order.canonical) == sorted(LABELS.rows_for(order.taxonomy))
    assert sorted(order.names(LABELS)) == sorted(LABELS.taxonomy_names(order.taxonomy))
    assert order.origin


def test_mmaction2_numbers_k710_as_the_published_table_does(shared: Path) -> None:
    lines = shared_table(shared, "labels.csv")
    assert class_order("mmaction2_k710").names(LABELS) == [line["k710_name"] for line in lines]


@pytest.mark.parametrize("name", ["mmaction2_k400", "mmaction2_k600", "mmaction2_k700", "videomaev2_k400"])
def test_these_orders_are_alphabetical(name: str) -> None:
    names = class_order(name).names(LABELS)
    assert names == sorted(names)


def test_uniformer_numbers_begin_as_its_lists_do() -> None:
    assert class_order("uniformerv2_k400").names(LABELS)[:2] == ["riding a bike", "marching"]
    assert class_order("uniformerv2_k400").names(LABELS)[341] == "abseiling"
    assert class_order("uniformerv2_k600").names(LABELS)[:2] == ["feeding fish", "poking bellybutton"]


def test_both_k710_orders_differ_in_the_first_400_rows_only() -> None:
    theirs = class_order("uniformerv2_k710").canonical
    assert sorted(theirs[:400]) == list(range(400))
    assert theirs[400:] == tuple(range(400, 710))
    assert class_order("uniformerv2_k400").canonical == theirs[:400]


@pytest.mark.parametrize("taxonomy", ["k710", "k600", "k700"])
def test_videomae_v2_follows_uniformer_but_for_k400(taxonomy: str) -> None:
    assert class_order(f"videomaev2_{taxonomy}").canonical == tuple(published_order(f"uniformerv2_{taxonomy}"))
    assert class_order("videomaev2_k400").canonical != class_order("uniformerv2_k400").canonical


def test_the_short_names_mean_the_table_itself() -> None:
    assert class_order("canonical") == class_order("k710")
    for taxonomy in ("k710", *TAXONOMIES):
        assert list(class_order(taxonomy).canonical) == LABELS.rows_for(taxonomy)


def test_equal_orders_stand_together() -> None:
    assert set(distinct_orders().values()) == {
        ("k710", "mmaction2_k710"),
        ("k400", "mmaction2_k400", "videomaev2_k400"),
        ("k600", "mmaction2_k600"),
        ("k700", "mmaction2_k700"),
        ("uniformerv2_k710", "videomaev2_k710"),
        ("uniformerv2_k400",),
        ("uniformerv2_k600", "videomaev2_k600"),
        ("uniformerv2_k700", "videomaev2_k700"),
    }


def test_an_unknown_order_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown class order 'timesformer'") as caught:
        class_order("timesformer")
    assert "uniformerv2_k600" in caught.value.hint


def test_the_index_lists_are_the_published_ones(shared: Path) -> None:
    lines = shared_table(shared, "labels_uniformerv2_order.csv")
    for taxonomy in TAXONOMIES:
        column = f"{taxonomy}_head_row"
        rows = sorted((int(x[column]), int(x["uniformerv2_id"])) for x in lines if x[column])
        source, target = map_orders(f"uniformerv2_k710:uniformerv2_{taxonomy}")
        assert index_map(source, target) == [row for _, row in rows]


def test_k400_is_the_first_400_rows_in_each_project_of_its_own() -> None:
    for project in ("mmaction2", "uniformerv2"):
        assert index_map(*map_orders(f"{project}_k710:{project}_k400")) == list(range(400))
    assert index_map(*map_orders("uniformerv2_k710:k400")) != list(range(400))


@given(st.sampled_from(ORDERS), st.sampled_from(ORDERS))
def test_an_index_list_and_the_one_back_return_to_each_class(a: str, b: str) -> None:
    source, target = class_order(a), class_order(b)
    there, back = index_map(source, target), index_map(target, source)
    assert len(there) == len(target.canonical)
    for place, row in enumerate(there):
        if row is not None:
            assert back[row] == place
    assert there.count(None) - back.count(None) == len(target.canonical) - len(source.canonical)


@pytest.mark.parametrize("pair", ["k710", "k710:", ":k400", "k710:k400:k600", ""])
def test_an_index_list_is_between_two_orders(pair: str) -> None:
    with pytest.raises(UsageError, match="expected two orders"):
        map_orders(pair)


def test_the_summary_has_the_known_figures() -> None:
    summary = summarise(LABELS)
    assert (summary.num_classes, summary.num_names, summary.sizes) == (710, 725, TAXONOMIES)
    assert len(summary.merges) == 15
    assert all(merged.because for merged in summary.merges)
    assert [(g.taxonomies, g.num_classes) for g in summary.membership] == [
        (("k400", "k600", "k700"), 382),
        (("k600", "k700"), 216),
        (("k700",), 92),
        (("k400", "k700"), 10),
        (("k400",), 8),
        (("k600",), 2),
    ]
    assert summary.membership[-1].names == ("chopping vegetables", "bull fighting")


@pytest.mark.parametrize("name", ["dying hair", "dyeing hair", "Dyeing_Hair ", '"dying hair"'])
def test_a_class_is_found_by_any_of_its_names(name: str) -> None:
    (facts,) = class_facts(LABELS, name)
    assert (facts.index, facts.names["k400"], facts.names["k600"]) == (108, "dying hair", "dyeing hair")
    assert (facts.rows["k600"], facts.rows["uniformerv2_k400"]) == (157, 246)
    assert facts.merged_because == "shared videos: 326"


def test_a_class_has_no_row_where_it_does_not_stand() -> None:
    (facts,) = class_facts(LABELS, "bull fighting")
    assert (facts.rows["k710"], facts.rows["k400"], facts.rows["k700"]) == (709, None, None)


def test_an_unknown_class_comes_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no taxonomy has a class 'absailing'") as caught:
        class_facts(LABELS, "absailing")
    assert "'abseiling'" in caught.value.hint


def test_the_rows_of_an_order_name_the_class_in_both_ways() -> None:
    row = order_rows(LABELS, "k400")[108]
    assert (row.index, row.name, row.canonical_index, row.canonical_name) == (108, "dying hair", 108, "dyeing hair")


@given(st.sampled_from(sorted(LABELS.all_names)))
def test_folding_forgets_spelling_only(name: str) -> None:
    assert fold(f' "{name.upper().replace(" ", "_")}" ') == fold(name)


def test_no_two_classes_are_one_when_folded() -> None:
    classes = {(fold(name), row.index) for row in LABELS.rows for name in (row.name, *row.names.values())}
    assert len({name for name, _ in classes}) == len(classes)


def test_a_users_table_has_its_own_orders_and_the_published_ones_of_the_same_classes(tmp_path: Path) -> None:
    with (manifests_folder() / "classes.csv").open(newline="", encoding="utf-8") as handle:
        lines = [x for x in csv.DictReader(handle) if x["k400_name"]]
    kept = ("index", "name", "k400_index", "k400_name", "merged_because")
    with (tmp_path / "own.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, kept, extrasaction="ignore")
        writer.writeheader()
        # Another canonical order: the last class first.
        writer.writerows({**x, "index": i, "merged_because": ""} for i, x in enumerate(reversed(lines)))
    labels = read_labels(tmp_path / "own.csv")
    names = {order.name for order in all_orders(labels)}
    assert names == {"canonical", "k400", "mmaction2_k400", "uniformerv2_k400", "videomaev2_k400"}
    own = class_order("uniformerv2_k400", labels)
    assert own.names(labels) == class_order("uniformerv2_k400").names(LABELS)
    assert own.canonical == tuple(399 - index for index in class_order("uniformerv2_k400").canonical)
    with pytest.raises(UsageError, match="unknown class order 'k710'"):
        class_order("k710", labels)


def test_a_users_table_with_other_classes_has_no_published_order(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("index,name,k400_index,k400_name,merged_because\n0,archery,0,archery,\n")
    labels = read_labels(tmp_path / "own.csv")
    assert [order.name for order in all_orders(labels)] == ["canonical", "k400"]
    assert summarise(labels).orders[0].same_as == ()
