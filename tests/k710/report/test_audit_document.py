"""The audit document: what it says of leaks before and after, of classes, and of what was not compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from audit_cases import A, B, C, D, Row, catalog, views

from k710.labels import load_labels
from k710.lists.leakage import row_pairs
from k710.lists.policy import Policy
from k710.report.answer import answer_of
from k710.report.audit import audit_document, lists_document
from k710.report.markdown import audit_markdown

LEAKY: list[Row] = [
    ("k400:train", A, 0, "yoga"),
    ("k400:train", B, 0, "yoga"),
    ("k400:val", A, 50, "zumba"),
    ("k600:train", C, 0, "yoga"),
    ("k600:train", D, 0, "zumba"),
    ("k600:test", C, 0, "yoga"),
]


def document(rows: Sequence[Row], *words: str, policy: Policy | None = None, **settings: Any) -> dict[str, Any]:
    found = catalog(rows)
    policy = policy or Policy()
    return audit_document(found, views(found, *words, policy=policy), policy, ["k700:train"], **settings)


def test_the_document_is_plain_json_of_the_stated_schema() -> None:
    found = document(LEAKY)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["schema"] == "k710.audit/3"


def test_the_first_sentence_says_what_was_not_given() -> None:
    statement = "leak-free against the lists given (protected: val,test); not checked: k700:train."
    assert document(LEAKY)["statement"] == statement
    assert audit_markdown(document(LEAKY)).splitlines()[2] == "L" + statement[1:]


def test_leaks_that_are_only_reported_make_the_statement_a_no() -> None:
    found = document(LEAKY, policy=Policy(leaks="report"))
    assert found["statement"].startswith("NOT leak-free (protected: val,test): training views share videos")
    assert [(r["view"], r["list"], r["videos"]) for r in found["remaining"] if r["protected"]] == [
        ("k710-train", "k400:val", 1),
        ("k710-train", "k600:test", 1),
    ]


def test_without_a_training_view_nothing_is_called_leak_free() -> None:
    found = document(LEAKY, "k400-val")
    assert found["statement"].startswith("no training view was built, so nothing was checked for leaks; not checked")
    answer = answer_of(found)
    assert (answer.state, answer.headline) == ("unknown", "Nothing to check")
    assert [figure.value for figure in answer.figures] == [0, 1, 1]


def test_markup_in_names_is_no_markup_in_markdown() -> None:
    found = document(LEAKY)
    found["conflicts"] = {"rows": 1, "pairs": [{"label": "<script>alert(1)</script>", "winner": "yoga", "rows": 1}]}
    text = audit_markdown(found)
    assert "\\<script>alert(1)\\</script>" in text
    assert text.count("<script") == text.count("\\<script")


def test_protecting_nothing_is_said() -> None:
    found = document(LEAKY, policy=Policy(protect=()))
    assert found["statement"] == "not protected against leaks (nothing was protected); not checked: k700:train."


def test_a_training_row_that_its_own_release_holds_out_is_named_as_such() -> None:
    found = document([*LEAKY, ("k400:train", A, 20, "yoga")])
    assert found["own_leaks"] == [
        {"train": "k400:train", "held_out": "k400:val", "videos": 1, "train_rows": 2},
        {"train": "k600:train", "held_out": "k600:test", "videos": 1, "train_rows": 1},
    ]
    assert [r["own"] for r in found["leaks"]] == [True, True]
    assert "## Training rows that their own release holds out" in audit_markdown(found)


def test_the_levels_say_what_was_compared_and_what_was_not() -> None:
    levels = document(LEAKY)["levels"]
    assert list(levels) == ["same_video", "overlapping_time", "same_bytes", "near_duplicate"]
    assert [levels[n]["checked"] for n in levels] == [True, True, False, False]
    assert levels["same_bytes"]["why"]


def test_rows_in_are_the_clips_kept_and_the_rows_lost_by_reason() -> None:
    rows: list[Row] = [*LEAKY, ("k600:train", B, 0, "yoga"), ("k600:train", B, 30, "yoga")]
    (merged,) = [d for d in document(rows)["damage"] if d["view"] == "k710-train"]
    by_name = {row["name"]: row for row in merged["classes"]}
    assert by_name["yoga"] == {
        "index": load_labels().canonical("k400", "yoga"),
        "name": "yoga",
        "rows": 5,
        "clips": 1,
        "lost": {"held_out": 2, "same_clip": 1, "other_segment": 1},
    }
    assert by_name["zumba"] == by_name["zumba"] | {"rows": 1, "clips": 1, "lost": {}}


def test_the_damage_of_every_training_view_adds_up_to_its_rows() -> None:
    found = catalog(LEAKY)
    built = {v.spec.name: v for v in views(found)}
    for view in audit_document(found, list(built.values()), Policy(), [])["damage"]:
        rows = sum(row["rows"] for row in view["classes"])
        assert rows == len(built[view["view"]].members) + len(built[view["view"]].rows)
        assert all(row["rows"] == row["clips"] + sum(row["lost"].values()) for row in view["classes"])


def test_emptied_and_thin_classes_are_named() -> None:
    rows: list[Row] = [
        ("k400:train", A, 0, "zumba"),
        ("k400:val", A, 0, "zumba"),
        ("k400:train", B, 0, "yoga"),
    ]
    found = document(rows, "k710-train", minimum=1)
    assert [(r["view"], r["name"], r["rows"], r["clips"], r["emptied"]) for r in found["thin_classes"]] == [
        ("k710-train", "zumba", 1, 0, True)
    ]
    assert {r["name"] for r in document(rows, "k710-train", minimum=2)["thin_classes"]} == {"yoga", "zumba"}
    assert document(rows, minimum=0)["thin_classes"] == []
    assert document(rows)["min_per_class"] == 50
    assert "**emptied**" in audit_markdown(found)


def test_conflicts_are_pairs_of_class_names_of_the_merged_views() -> None:
    rows: list[Row] = [("k400:train", v, 0, "baby waking up") for v in (A, B)]
    rows += [("k600:train", v, 0, "waking up") for v in (A, B)]
    found = document(rows)
    assert found["conflicts"] == {"rows": 2, "pairs": [{"label": "baby waking up", "winner": "waking up", "rows": 2}]}


def test_view_figures_count_clips_videos_classes_and_reasons() -> None:
    figures = {v["view"]: v for v in document([*LEAKY, ("k600:train", D, 20, "zumba")])["views"]}
    assert figures["k710-train"] == {
        "view": "k710-train",
        "clips": 2,
        "videos": 2,
        "classes": 2,
        "excluded": {"held_out": 2, "other_segment": 1},
        "class_differs": 1,
    }
    assert figures["k600-train"]["clips"] == 2


def test_the_page_of_a_document_read_back_is_the_same_page() -> None:
    rows: list[Row] = [*LEAKY, ("k600:train", B, 0, "yoga"), ("k600:train", B, 30, "yoga")]
    found = document(rows) | {"clips": {"ok": 3, "missing": 1, "html": 1}}
    assert audit_markdown(json.loads(json.dumps(found, sort_keys=True))) == audit_markdown(found)


def test_many_lists_stay_readable() -> None:
    ids = [f"id{i:09d}" for i in range(40)]
    rng = np.random.default_rng(0)
    names = [f"{r}:{s}" for r in ("k400", "k600", "k700", "k700-2020") for s in ("train", "val", "test", "holdout")]
    rows: list[Row] = [(n, v, 0.0, "yoga") for n in names for v in rng.choice(ids, 20, replace=False)]
    text = audit_markdown(document(rows))
    widest = max(text.splitlines(), key=len)
    assert len(widest) < 300, widest
    assert len(text.splitlines()) < 300
    assert "more in `audit.json`" in text


def test_names_of_files_cannot_break_a_table() -> None:
    found = document(LEAKY)
    found["lists"][0]["list"] = "a|b\nc"
    found["shared_videos"] = [
        {"lists": [x["list"], y["list"]], "videos": 0} for x in found["lists"] for y in found["lists"]
    ]
    assert "| a\\|b c | 2 |" in audit_markdown(found)


def test_the_audit_of_lists_alone_has_no_views_and_says_what_would_be_lost() -> None:
    found = lists_document(catalog(LEAKY), owners=["k400", "k400", "k600", "k600"])
    assert found["statement"] == (
        "NOT leak-free: 1 video of k400:train stands in k400:val, a held-out list of its own release; "
        "1 video of k600:train stands in k600:test, a held-out list of its own release."
    )
    assert (found["views"], found["remaining"]) == ([], [])
    damage = {d["view"]: {r["name"]: (r["clips"], r["lost"]) for r in d["classes"]} for d in found["damage"]}
    assert damage == {
        "k400:train": {"yoga": (1, {"held_out": 1})},
        "k600:train": {"yoga": (0, {"held_out": 1}), "zumba": (1, {})},
    }
    assert "## Views" not in audit_markdown(found)


def test_a_long_statement_names_some_and_counts_the_rest() -> None:
    not_checked = [f"list {i}" for i in range(20)]
    found = lists_document(catalog(LEAKY[1:2] + LEAKY[2:3]), owners=["k400", "k400"], not_checked=not_checked)
    assert found["statement"].endswith("list 6, list 7 and 12 more.")
    assert found["not_checked"] == not_checked


@pytest.mark.parametrize("given", [True, False])
def test_pairs_at_hand_change_nothing(given: bool) -> None:
    found = catalog(LEAKY)
    pairs = row_pairs(found) if given else None
    assert audit_document(found, views(found), Policy(), ["k700:train"], pairs=pairs) == document(LEAKY)
