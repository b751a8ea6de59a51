"""Which rows make up each view, and why each of the others does not, on lists small enough to read."""

from __future__ import annotations

from typing import Any

import pytest

from k710.errors import InputError, UsageError
from k710.lists.policy import Policy

A, B, C = "aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"


def key(video: str, start_s: int) -> str:
    return f"{video}_{start_s:06d}_{start_s + 10:06d}"


def test_the_newest_release_wins(plan: Any) -> None:
    planned = plan([("k400:train", A, 1), ("k600:train", A, 2), ("k700:train", A, 3)])
    assert planned.keys("k710-train") == [key(A, 3)]


def test_the_2020_release_is_newer_than_k700(plan: Any) -> None:
    assert plan([("k700-2020:train", A, 9), ("k700:train", A, 3)]).keys("k710-train") == [key(A, 9)]


def test_in_one_release_the_earliest_segment_wins(plan: Any) -> None:
    assert plan([("k600:train", A, 7), ("k600:train", A, 3)]).keys("k710-train") == [key(A, 3)]


def test_of_two_segments_with_one_start_the_shorter_wins(plan: Any) -> None:
    planned = plan([("k600:train", A, 7, "abseiling", 17), ("k600:train", A, 7, "abseiling", 12)])
    assert planned.keys("k710-train") == [f"{A}_000007_000012"]


def test_of_two_names_the_first_by_code_point_wins(plan: Any) -> None:
    names = ("massaging person's head", "massaging back", "passing American football (in game)")
    planned = plan([("k600:train", A, 7, name) for name in names])
    assert planned.labels("k710-train") == ["massaging back"]


def test_upper_case_comes_before_lower_case(plan: Any) -> None:
    planned = plan(
        [
            ("k600:train", A, 1, "passing American football (in game)"),
            ("k600:train", A, 1, "passing american football (not in game)"),
        ]
    )
    assert planned.labels("k710-train") == ["passing American football (in game)"]


def test_another_segment_of_a_video_is_excluded_against_the_winner(plan: Any) -> None:
    planned = plan([("k600:train", A, 7), ("k600:train", A, 3)])
    assert planned.excluded("k710-train") == [("k600:train", key(A, 7), "other_segment", "k600:train")]


def test_the_winners_own_clip_in_another_list_is_the_same_clip(plan: Any) -> None:
    planned = plan([("k400:train", A, 3), ("k700:train", A, 3)])
    assert planned.excluded("k710-train") == [("k400:train", key(A, 3), "same_clip", "k700:train")]


def test_a_class_that_differs_is_a_column_and_not_a_reason(plan: Any) -> None:
    planned = plan([("k400:train", A, 3, "baby waking up"), ("k600:train", A, 3, "waking up")])
    (row,) = planned.views["k710-train"].excluded.itertuples()
    assert (row.reason, row.class_differs, row.label, row.by_label) == (
        "same_clip",
        True,
        "baby waking up",
        "waking up",
    )


def test_two_names_of_one_class_do_not_differ(plan: Any) -> None:
    planned = plan([("k400:train", A, 3, "dying hair"), ("k600:train", A, 3, "dyeing hair")])
    assert planned.views["k710-train"].excluded["class_differs"].tolist() == [False]


def test_a_row_without_a_label_differs_from_none(plan: Any) -> None:
    planned = plan([("k600:test", A, 3, "abseiling"), ("k700:test", A, 3, None)], "k710-test")
    assert planned.views["k710-test"].excluded["class_differs"].tolist() == [False]


def test_two_identical_rows_are_one_clip_and_one_exclusion(plan: Any) -> None:
    planned = plan([("k600:train", A, 3), ("k600:train", A, 3)])
    for view in ("k710-train", "k600-train"):
        assert planned.keys(view) == [key(A, 3)]
        assert planned.excluded(view) == [("k600:train", key(A, 3), "same_clip", "k600:train")]


def test_a_key_repeated_in_one_list_is_the_same_clip_in_its_release_view_too(plan: Any) -> None:
    planned = plan([("k600:val", A, 3, "waking up"), ("k600:val", A, 3, "abseiling")])
    assert planned.labels("k600-val") == ["abseiling"]
    assert planned.excluded("k600-val") == [("k600:val", key(A, 3), "same_clip", "k600:val")]


def test_release_views_keep_every_segment_of_a_video(plan: Any) -> None:
    planned = plan([("k600:train", A, 7), ("k600:train", A, 3)])
    assert planned.keys("k600-train") == [key(A, 3), key(A, 7)]


@pytest.mark.parametrize("held_out", ["k400:val", "k600:test", "k600:holdout", "k700:val"])
def test_a_video_of_any_held_out_list_never_reaches_training(plan: Any, held_out: str) -> None:
    planned = plan([("k400:train", A, 3), ("k400:train", B, 3), (held_out, A, 3)])
    assert planned.keys("k710-train") == [key(B, 3)]
    assert planned.excluded("k710-train") == [("k400:train", key(A, 3), "held_out", held_out)]


def test_a_leak_is_decided_by_video_and_not_by_segment(plan: Any) -> None:
    planned = plan([("k400:train", A, 3), ("k700:val", A, 100)])
    assert planned.keys("k710-train") == []


@pytest.mark.parametrize(
    ("holders", "named"),
    [
        (["k400:test", "k700:val"], "k700:val"),
        (["k600:holdout", "k700:test"], "k700:test"),
        (["k700:val", "k400:val"], "k400:val"),
        (["k700-2020:val", "k700:val"], "k700:val"),
    ],
)  # fmt: skip
def test_the_holder_is_named_by_split_and_then_release(plan: Any, holders: list[str], named: str) -> None:
    planned = plan([("k600:train", A, 3), *((name, A, 3) for name in holders)])
    assert planned.excluded("k710-train")[0][3] == named


def test_of_two_holders_in_one_list_the_earlier_is_named(plan: Any) -> None:
    planned = plan([("k600:train", A, 3), ("k600:val", A, 50), ("k600:val", A, 40)])
    (row,) = planned.views["k710-train"].excluded.itertuples()
    assert (row.by_start_s, row.by_end_s) == (40, 50)


def test_held_out_comes_before_same_clip(plan: Any) -> None:
    planned = plan([("k400:train", A, 3), ("k600:train", A, 3), ("k700:val", A, 3)])
    assert [row[2] for row in planned.excluded("k710-train")] == ["held_out", "held_out"]


def test_a_release_view_loses_only_its_own_held_out_videos(plan: Any) -> None:
    planned = plan([("k600:train", A, 3), ("k600:train", B, 3), ("k600:test", A, 30), ("k400:val", B, 3)])
    assert planned.keys("k600-train") == [key(B, 3)]
    assert planned.excluded("k600-train") == [("k600:train", key(A, 3), "held_out", "k600:test")]


@pytest.mark.parametrize("leaks", ["drop-train", "drop-eval", "report"])
@pytest.mark.parametrize("protect", [(), ("val",), ("val", "test")])
def test_release_views_do_not_depend_on_the_policy(plan: Any, leaks: Any, protect: tuple[str, ...]) -> None:
    rows = [("k600:train", A, 3), ("k600:train", B, 3), ("k600:test", A, 3), ("k600:val", A, 3)]
    planned = plan(rows, policy=Policy(protect=protect, leaks=leaks))
    assert planned.keys("k600-train") == [key(B, 3)]
    assert planned.keys("k600-val") == [key(A, 3)]


LEAKY = [
    ("k400:train", A, 3),
    ("k400:train", B, 3),
    ("k400:train", C, 3),
    ("k700:val", A, 3),
    ("k700:test", B, 3),
    ("k600:holdout", C, 3, None),
]


@pytest.mark.parametrize(
    ("protect", "left"),
    [((), [A, B, C]), (("val",), [B, C]), (("test",), [A]), (("val", "test"), [])],
)
def test_protect_chooses_the_lists_and_holdout_counts_as_test(plan: Any, protect: Any, left: list[str]) -> None:
    planned = plan(LEAKY, policy=Policy(protect=protect))
    assert planned.keys("k710-train") == [key(video, 3) for video in left]


def test_report_leaves_leaks_in_both_views(plan: Any) -> None:
    planned = plan(LEAKY, policy=Policy(leaks="report"))
    assert planned.keys("k710-train") == [key(A, 3), key(B, 3), key(C, 3)]
    assert planned.keys("k710-val") == [key(A, 3)]


def test_drop_eval_takes_leaks_from_the_merged_val_view_only(plan: Any) -> None:
    planned = plan([*LEAKY, ("k700:val", "ddddddddddd", 3)], policy=Policy(leaks="drop-eval"))
    assert planned.keys("k710-train") == [key(A, 3), key(B, 3), key(C, 3)]
    assert planned.keys("k710-val") == [key("ddddddddddd", 3)]
    assert planned.excluded("k710-val") == [("k700:val", key(A, 3), "in_train", "k400:train")]
    assert planned.keys("k700-val") == [key(A, 3), key("ddddddddddd", 3)]


@pytest.mark.parametrize("leaks", ["drop-train", "drop-eval", "report"])
def test_lists_without_any_training_rows_can_be_built(plan: Any, leaks: Any) -> None:
    planned = plan([("k700:val", A, 3)], policy=Policy(leaks=leaks))
    assert planned.keys("k710-val") == [key(A, 3)]
    assert sorted(planned.views) == ["k700-val", "k710-val"]


def test_the_merged_val_view_has_one_clip_per_video_by_the_same_rule(plan: Any) -> None:
    planned = plan([("k400:val", A, 3), ("k600:val", A, 9), ("k600:val", A, 7)])
    assert planned.keys("k710-val") == [key(A, 7)]


def test_the_merged_test_view_is_test_and_holdout_without_the_videos_of_val(plan: Any) -> None:
    rows = [("k400:val", A, 3), ("k600:test", A, 50), ("k600:test", B, 3), ("k600:holdout", C, 3, None)]
    planned = plan(rows, "k710-test")
    assert planned.keys("k710-test") == [key(B, 3), key(C, 3)]
    assert planned.excluded("k710-test") == [("k600:test", key(A, 50), "held_out", "k400:val")]


def test_default_views_are_train_and_val_of_everything(plan: Any) -> None:
    planned = plan([("k400:train", A, 3), ("k400:test", B, 3), ("k600:val", C, 3)])
    assert sorted(planned.views) == ["k400-train", "k600-val", "k710-train", "k710-val"]


def test_a_holdout_list_gives_a_view_without_classes(plan: Any) -> None:
    planned = plan([("k600:holdout", A, 3, None)], "k600-holdout")
    assert planned.keys("k600-holdout") == [key(A, 3)]
    assert planned.views["k600-holdout"].members["canonical"].tolist() == [-1]


def test_the_2020_release_has_views_of_its_own_and_the_k700_classes(plan: Any) -> None:
    planned = plan([("k700-2020:train", A, 3), ("k700-2020:val", B, 3)], "default")
    assert planned.keys("k700-2020-train") == [key(A, 3)]
    assert planned.views["k700-2020-val"].spec.taxonomy == "k700"


@pytest.mark.parametrize("word", ["k999-train", "k600-val", "k710-test", "k710", ""])
def test_a_view_that_the_lists_cannot_give_is_refused_with_those_they_can(plan: Any, word: str) -> None:
    with pytest.raises(UsageError, match=f"unknown view '{word}'") as caught:
        plan([("k400:train", A, 3)], word)
    assert "k710-train, k400-train" in caught.value.hint


def test_an_unknown_kind_of_protected_list_is_refused() -> None:
    with pytest.raises(ValueError, match="protect must be val, test, both or none, got 'train'"):
        Policy(protect=("train",))


@pytest.mark.parametrize("protect", [("test", "val"), ("val", "test", "val")])
def test_the_order_of_protected_lists_means_nothing(protect: tuple[str, ...]) -> None:
    assert Policy(protect=protect) == Policy()


def test_ids_that_differ_only_in_case_are_two_videos(plan: Any) -> None:
    planned = plan([("k400:train", "AAAAAAAAAAA", 3), ("k700:val", A, 3)])
    assert planned.keys("k710-train") == [key("AAAAAAAAAAA", 3)]


def test_fractions_of_seconds_give_keys_in_milliseconds(plan: Any) -> None:
    planned = plan([("k400:train", A, 3.5, "abseiling", 10), ("k400:train", B, 3)])
    assert planned.keys("k710-train") == [f"{A}_000003500_000010000", key(B, 3)]


def test_opaque_ids_are_made_safe_in_keys_and_stay_whole_in_rows(plan: Any) -> None:
    planned = plan([("k400:train", "v/ü 1", 3)])
    assert planned.keys("k710-train") == ["v___1_000003_000013"]
    assert planned.catalog.ids.to_pylist() == ["v/ü 1"]


def test_two_ids_with_one_key_are_refused(plan: Any) -> None:
    with pytest.raises(InputError, match="two clips would have the key v_1_000003_000013: videos 'v 1' and 'v/1'"):
        plan([("k400:train", "v/1", 3), ("k400:train", "v 1", 3)])
