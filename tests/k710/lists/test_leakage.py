"""What lists share, row against row: planted cases, laws against a count by hand, and the real lists."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710 import schema
from k710.errors import InputError
from k710.labels import load_labels
from k710.lists.catalog import Catalog, ListName, build_catalog
from k710.lists.leakage import leak_table, list_figures, list_leaks, pair_figures, row_pairs, shared_videos
from k710.lists.rows import LIST_ROWS
from k710.tables import read_table, write_table

A, B, C = "aaaaaaaaaaa", "bbbbbbbbbbb", "-cccccccccc"
Row = tuple[str, str, float | None, str | None]


def catalog(*rows: Row) -> Catalog:
    """Rows of ``release:split``, id, start (10 s long; None: no times) and label; the releases in order of name."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    classes = load_labels().canonical_of("k700")
    tables = {
        name: [
            {
                "id": video,
                "start_s": start,
                "end_s": None if start is None else start + 10,
                "label": label,
                "canonical": -1 if label is None else classes.get(label, -1),
                "is_cc": None,
            }
            for _, video, start, label in members
        ]
        for name, members in grouped.items()
    }
    ages = {release: age for age, release in enumerate(sorted({name.split(":")[0] for name in grouped}))}
    named = [
        (ListName(release=name.split(":")[0], split=name.split(":")[1]), pa.Table.from_pylist(t, schema=LIST_ROWS))
        for name, t in tables.items()
    ]
    return build_catalog(named, ages)


def leaks_of(*rows: Row) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = leak_table(catalog(*rows)).to_pylist()
    return found


def test_a_pair_of_rows_says_both_rows_and_what_they_have_in_common() -> None:
    (leak,) = leaks_of(("k400:train", A, 3, "yoga"), ("k600:val", A, 8, "zumba"))
    assert leak == {
        "level": "same_video",
        "kind": "train_eval",
        "a_release": "k400",
        "a_split": "train",
        "b_release": "k600",
        "b_split": "val",
        "id": A,
        "a_start_s": 3.0,
        "a_end_s": 13.0,
        "a_label": "yoga",
        "a_class": load_labels().canonical("k700", "yoga"),
        "b_start_s": 8.0,
        "b_end_s": 18.0,
        "b_label": "zumba",
        "b_class": load_labels().canonical("k700", "zumba"),
        "overlap_s": 5.0,
        "class_differs": True,
    }


def test_the_training_list_comes_first_whatever_the_age_of_the_releases() -> None:
    (leak,) = leaks_of(("k400:val", A, 0, "yoga"), ("k700:train", A, 0, "yoga"))
    assert (leak["a_release"], leak["b_release"], leak["kind"]) == ("k700", "k400", "train_eval")


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("k400:train", "k400:val", "own_train_eval"),
        ("k400:train", "k600:test", "train_eval"),
        ("k400:val", "k600:test", "eval_eval"),
        ("k400:train", "k600:train", "train_train"),
        ("k400:val", "k400:test", "eval_eval"),
    ],
)
def test_the_kind_of_a_pair_says_what_its_lists_are_to_each_other(first: str, second: str, kind: str) -> None:
    (leak,) = leaks_of((first, A, 0, "yoga"), (second, A, 0, "yoga"))
    assert leak["kind"] == kind


def test_lists_whose_names_do_not_say_their_release_may_be_told_it() -> None:
    found = catalog(("fork:train", A, 0, "yoga"), ("k400:test", A, 0, "yoga"))
    assert leak_table(found, owners=["k400", "k400"])["kind"].to_pylist() == ["own_train_eval"]
    assert [r["own"] for r in list_leaks(found, ["k400", "k400"])] == [True]
    assert [r["own"] for r in list_leaks(found)] == [False]


@pytest.mark.parametrize(
    ("start", "other", "overlap"), [(0, 0, 10.0), (0, 4.5, 5.5), (0, 10, 0.0), (50, 0, 0.0), (None, 0, None)]
)
def test_overlap_is_in_seconds_and_unknown_without_times(
    start: float | None, other: float, overlap: float | None
) -> None:
    (leak,) = leaks_of(("k400:train", A, start, None), ("k600:val", A, other, None))
    assert leak["overlap_s"] == overlap


@pytest.mark.parametrize(
    ("label", "other", "differs"),
    [
        ("yoga", "yoga", False),
        ("yoga", "zumba", True),
        ("a class of mine", "a class of mine", False),
        ("a class of mine", "another one", True),
        ("yoga", "a class of mine", None),
        ("yoga", None, None),
        (None, None, None),
    ],
)
def test_classes_are_compared_where_both_are_known(label: str | None, other: str | None, differs: bool | None) -> None:
    (leak,) = leaks_of(("k400:train", A, 0, label), ("k600:val", A, 0, other))
    assert leak["class_differs"] is differs


def test_rows_of_one_list_are_no_pair_but_figures_of_the_list() -> None:
    rows: list[Row] = [
        ("k600:train", A, 0, "yoga"),
        ("k600:train", A, 0, "yoga"),
        ("k600:train", A, 0, "zumba"),
        ("k600:train", B, 0, "yoga"),
        ("k600:train", B, 30, "yoga"),
        ("k600:train", C, 5, None),
    ]
    assert leaks_of(*rows) == []
    assert list_figures(catalog(*rows)) == [
        {
            "list": "k600:train",
            "rows": 6,
            "videos": 3,
            "ids_twice": 2,
            "ids_with_two_classes": 1,
            "ids_with_two_segments": 1,
            "duplicate_rows": 1,
        }
    ]


def test_an_unlabelled_row_does_not_make_a_second_class() -> None:
    figures = list_figures(catalog(("k600:train", A, 0, "yoga"), ("k600:train", A, 0, None)))
    assert figures[0]["ids_with_two_classes"] == 0


def test_names_that_no_table_knows_are_classes_of_their_own() -> None:
    figures = list_figures(catalog(("mine:train", A, 0, "one"), ("mine:train", A, 0, "two")))
    assert figures[0]["ids_with_two_classes"] == 1


def test_an_empty_list_has_figures_and_no_pairs() -> None:
    empty = build_catalog([(ListName(release="k400", split="train"), LIST_ROWS.empty_table())])
    assert list_figures(empty)[0]["rows"] == 0
    assert leak_table(empty).schema == schema.LEAKS
    assert (pair_figures(empty), list_leaks(empty), shared_videos(empty)) == ([], [], {})


def test_figures_of_two_lists_count_rows_and_videos() -> None:
    (figures,) = pair_figures(
        catalog(
            ("k600:train", A, 0, "yoga"),
            ("k600:train", A, 5, "zumba"),
            ("k600:val", A, 0, "yoga"),
            ("k600:train", B, 0, "yoga"),
            ("k600:val", B, 50, "yoga"),
        )
    )
    assert figures == {
        "a": "k600:train",
        "b": "k600:val",
        "kind": "own_train_eval",
        "videos": 2,
        "row_pairs": 3,
        "same_segment": 1,
        "overlapping_row_pairs": 2,
        "overlapping_videos": 1,
        "disjoint_row_pairs": 1,
        "overlap_s": 15.0,
        "class_differs_row_pairs": 1,
        "class_differs_videos": 1,
        "classes_compared_row_pairs": 3,
        "same_segment_classes_compared": 1,
        "same_segment_class_differs": 0,
    }


def test_two_lists_without_times_share_no_segment_that_is_known() -> None:
    (figures,) = pair_figures(catalog(("k400:train", A, None, None), ("k600:val", A, None, None)))
    assert (figures["videos"], figures["same_segment"], figures["disjoint_row_pairs"]) == (1, 0, 0)


def test_equal_ids_of_two_kinds_are_two_videos() -> None:
    rows = pa.Table.from_pylist(
        [{"id": A, "start_s": 0, "end_s": 1, "label": None, "canonical": -1, "is_cc": None}], schema=LIST_ROWS
    )
    other = ListName(release="ssv2", split="val", id_kind="opaque")
    found = build_catalog([(ListName(release="k400", split="train"), rows), (other, rows)], {"k400": 0, "ssv2": 1})
    assert shared_videos(found) == {("k400:train", "ssv2:val"): 0}
    assert len(row_pairs(found)) == 0


def test_a_video_in_very_many_rows_is_refused_before_its_pairs_are_made() -> None:
    rows = [("k400:train", A, float(i), None) for i in range(100)] + [
        ("k600:val", A, float(i), None) for i in range(100)
    ]
    with pytest.raises(InputError, match=rf"10,000 pairs of rows .* video {A} alone stands in 200 rows"):
        row_pairs(catalog(*rows), limit=9_999)
    assert len(row_pairs(catalog(*rows), limit=10_000)) == 10_000


def test_a_hundred_thousand_rows_of_one_video_in_each_of_two_lists_are_refused() -> None:
    name = [ListName(release=r, split="train") for r in ("k400", "k600")]
    size = 100_000
    rows = pa.table(
        {
            "id": pa.repeat(A, size),
            "start_s": pa.array(range(size), pa.float64()),
            "end_s": pa.array(range(1, size + 1), pa.float64()),
            "label": pa.nulls(size, pa.string()),
            "canonical": pa.repeat(pa.scalar(-1, pa.int16()), size),
            "is_cc": pa.nulls(size, pa.bool_()),
        }
    )
    with pytest.raises(InputError, match="10,000,000,000 pairs"):
        leak_table(build_catalog([(n, rows) for n in name]))


rows_of_lists = st.lists(
    st.tuples(
        st.sampled_from(["k400:train", "k400:val", "k600:train", "k600:holdout", "k700:test", "k700:train"]),
        st.sampled_from([A, B, C]),
        st.sampled_from([None, 0.0, 5.0, 30.0]),
        st.sampled_from([None, "yoga", "zumba", "a class of mine"]),
    ),
    max_size=25,
)


@given(rows=rows_of_lists)
@settings(max_examples=60, deadline=None)
def test_every_pair_of_rows_of_two_lists_with_one_video_is_there_once(rows: list[Row]) -> None:
    found = Counter(
        frozenset(
            Counter(
                (f"{p[f'{s}_release']}:{p[f'{s}_split']}", p["id"], p[f"{s}_start_s"], p[f"{s}_label"]) for s in "ab"
            ).items()
        )
        for p in leaks_of(*rows)
    )
    by_hand = Counter(
        frozenset(Counter((rows[i], rows[j])).items())
        for i in range(len(rows))
        for j in range(i)
        if rows[i][0] != rows[j][0] and rows[i][1] == rows[j][1]
    )
    assert found == by_hand


@given(rows=rows_of_lists)
@settings(max_examples=40, deadline=None)
def test_the_figures_are_those_of_the_table(rows: list[Row]) -> None:
    table = leaks_of(*rows)
    for figures in pair_figures(catalog(*rows)):
        own = [p for p in table if f"{p['a_release']}:{p['a_split']}" == figures["a"]]
        own = [p for p in own if f"{p['b_release']}:{p['b_split']}" == figures["b"]]
        assert figures["row_pairs"] == len(own)
        assert figures["videos"] == len({p["id"] for p in own})
        assert figures["overlapping_row_pairs"] == sum((p["overlap_s"] or 0) > 0 for p in own)
        assert figures["disjoint_row_pairs"] == sum(p["overlap_s"] == 0 for p in own)
        differing = len({p["id"] for p in own if p["class_differs"]})
        # Nothing is known of classes that no pair of rows has: that is no zero.
        compared = any(p["class_differs"] is not None for p in own)
        assert figures["class_differs_videos"] == (differing if compared else None)
        assert math.isclose(figures["overlap_s"], sum(p["overlap_s"] or 0 for p in own))


@given(rows=rows_of_lists, seed=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_changes_no_leak(rows: list[Row], seed: Any) -> None:
    shuffled = sorted(rows, key=lambda _: seed.random())
    assert leaks_of(*shuffled) == leaks_of(*rows)


@given(rows=rows_of_lists)
@settings(max_examples=30, deadline=None)
def test_pairs_are_in_order_of_lists_and_id(rows: list[Row]) -> None:
    places = ["k400:train", "k600:train", "k700:train", "k400:val", "k600:holdout", "k700:test"]
    table = leaks_of(*rows)
    order = [
        (
            *(places.index(f"{p[f'{s}_release']}:{p[f'{s}_split']}") for s in "ab"),
            p["id"],
            math.inf if p["a_start_s"] is None else p["a_start_s"],
        )
        for p in table
    ]
    assert order == sorted(order)


def test_the_table_is_written_and_read_under_its_name(tmp_path: Path) -> None:
    table = leak_table(catalog(("k400:train", A, 0, "yoga"), ("k400:val", A, None, None)))
    write_table(tmp_path / "leaks.parquet", table, schema.LEAKS)
    assert read_table(tmp_path / "leaks.parquet", schema.LEAKS).to_pylist() == table.to_pylist()


# The real lists.


@pytest.fixture(scope="session")
def real_leaks(real_catalog: Catalog) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = leak_table(real_catalog).to_pylist()
    return table


@pytest.fixture(scope="session")
def real_figures(real_catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    return {(f["a"], f["b"]): f for f in pair_figures(real_catalog)}


def test_the_videos_of_all_36_pairs_of_real_lists_are_the_known_ones(
    real_catalog: Catalog, real_figures: Any, shared: Path
) -> None:
    golden = json.loads((shared / "kinetics" / "golden_counts.json").read_text())["shared_ids"]
    known = {frozenset(k.replace("holdout_test", "holdout").split(" & ")): n for k, n in golden.items()}
    assert len(known) == 36
    assert {frozenset(pair): n for pair, n in shared_videos(real_catalog).items()} == known
    assert {frozenset(pair): f["videos"] for pair, f in real_figures.items()} == {k: n for k, n in known.items() if n}


def test_kinetics_400_and_600_disagree_on_the_known_videos(real_figures: Any, real_leaks: Any) -> None:
    figures = real_figures["k400:train", "k600:train"]
    assert (figures["row_pairs"], figures["class_differs_row_pairs"], figures["class_differs_videos"]) == (
        165_407,
        416,
        411,
    )
    assert (figures["same_segment"], figures["overlapping_row_pairs"], figures["disjoint_row_pairs"]) == (
        165_354,
        165_373,
        34,
    )
    labels = Counter(
        (p["a_label"], p["b_label"])
        for p in real_leaks
        if p["class_differs"] and p["kind"] == "train_train" and p["a_release"] == "k400"
    )
    assert labels["baby waking up", "waking up"] == 363


def test_a_known_video_stands_in_two_training_lists_and_a_held_out_one(real_leaks: Any) -> None:
    found = [p for p in real_leaks if p["id"] == "---QUuC4vJs"]
    assert [(f"{p['a_release']}:{p['a_split']}", f"{p['b_release']}:{p['b_split']}", p["kind"]) for p in found] == [
        ("k400:train", "k600:train", "train_train"),
        ("k400:train", "k700:val", "train_eval"),
        ("k600:train", "k700:val", "train_eval"),
    ]


def test_kinetics_600_train_names_videos_of_its_own_held_out_lists(real_catalog: Catalog, real_figures: Any) -> None:
    own = {r["held_out"]: (r["videos"], r["train_rows"]) for r in list_leaks(real_catalog) if r["own"]}
    assert own == {"k600:val": (142, 146), "k600:test": (255, 263), "k600:holdout": (1, 1)}
    assert real_figures["k600:train", "k600:val"]["kind"] == "own_train_eval"
    # Never the same seconds under the same name: other parts of the video, nearly all with another class.
    assert real_figures["k600:train", "k600:val"]["same_segment"] == 0


def test_kinetics_600_train_has_the_known_videos_in_several_rows(real_catalog: Catalog) -> None:
    figures = {f["list"]: f for f in list_figures(real_catalog)}
    assert figures["k600:train"] == {
        "list": "k600:train",
        "rows": 392_622,
        "videos": 391_782,
        "ids_twice": 823,
        "ids_with_two_classes": 813,
        "ids_with_two_segments": 823,
        "duplicate_rows": 0,
    }
    assert [figures[n]["ids_twice"] for n in ("k600:val", "k700:val", "k700:test", "k400:train")] == [6, 54, 298, 0]
