"""What each policy keeps and drops, on lists small enough to read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k710.errors import UsageError
from k710.lists.policy import Policy, Selection

A, B, C = "aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"


def key(video: str, start_s: int) -> str:
    return f"{video}_{start_s:06d}_{start_s + 10:06d}"


def test_a_unit_of_segments_keeps_every_segment_of_a_training_video(plan: Any) -> None:
    rows = [("k400:train", A, 3), ("k600:train", A, 3), ("k600:train", A, 40)]
    planned = plan(rows, policy=Policy(unit="segment"))
    assert planned.keys("k710-train") == [key(A, 3), key(A, 40)]
    assert planned.excluded("k710-train") == [("k400:train", key(A, 3), "same_clip", "k600:train")]


def test_a_unit_of_segments_still_drops_leaks_by_video(plan: Any) -> None:
    planned = plan([("k600:train", A, 3), ("k600:train", A, 40), ("k700:val", A, 90)], policy=Policy(unit="segment"))
    assert planned.keys("k710-train") == []
    assert [row[2] for row in planned.excluded("k710-train")] == ["held_out", "held_out"]


@pytest.mark.parametrize(
    ("prefer", "start_s"),
    [(("newest",), 3), (("oldest",), 1), (("k400", "k600", "k700"), 1), (("k600",), 2), (("k600", "k400"), 2)],
)
def test_the_preferred_release_wins(plan: Any, prefer: tuple[str, ...], start_s: int) -> None:
    rows = [("k400:train", A, 1), ("k600:train", A, 2), ("k700:train", A, 3)]
    assert plan(rows, policy=Policy(prefer=prefer)).keys("k710-train") == [key(A, start_s)]


def test_releases_that_are_not_named_follow_newest_first(plan: Any) -> None:
    rows = [("k400:train", A, 1), ("k700:train", A, 3), ("k600:val", B, 1)]
    assert plan(rows, policy=Policy(prefer=("k600",))).keys("k710-train") == [key(A, 3)]


def test_a_preferred_release_that_is_not_built_is_refused(plan: Any) -> None:
    with pytest.raises(UsageError, match="--prefer names 'k600', which is not among the releases"):
        plan([("k400:train", A, 1)], policy=Policy(prefer=("k600",)))


@pytest.mark.parametrize("prefer", [(), ("newest", "k400"), ("k400", "k400")])
def test_an_order_of_preference_that_means_nothing_is_refused(prefer: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="prefer must be"):
        Policy(prefer=prefer)


def test_dropping_conflicts_takes_every_row_of_a_video_in_two_classes(plan: Any) -> None:
    rows = [("k400:train", A, 3, "abseiling"), ("k600:train", A, 3, "zumba"), ("k600:train", B, 3, "zumba")]
    planned = plan(rows, policy=Policy(conflicts="drop"))
    assert planned.keys("k710-train") == [key(B, 3)]
    assert {row[2] for row in planned.excluded("k710-train")} == {"label_conflict"}
    assert planned.keys("k400-train") == [key(A, 3)]


def test_two_names_of_one_class_and_a_row_without_a_class_are_no_conflict(plan: Any) -> None:
    rows = [("k400:train", A, 3, "dying hair"), ("k600:train", A, 3, "dyeing hair")]
    assert plan(rows, policy=Policy(conflicts="drop")).keys("k710-train") == [key(A, 3)]


def test_with_segments_as_units_two_classes_of_two_segments_are_no_conflict(plan: Any) -> None:
    rows = [("k600:train", A, 3, "abseiling"), ("k600:train", A, 40, "zumba")]
    assert len(plan(rows, policy=Policy(conflicts="drop", unit="segment")).keys("k710-train")) == 2
    assert plan(rows, policy=Policy(conflicts="drop")).keys("k710-train") == []


def test_a_held_out_row_is_no_party_to_a_conflict(plan: Any) -> None:
    rows = [("k400:train", A, 3, "abseiling"), ("k600:train", A, 3, "zumba"), ("k700:val", A, 3)]
    reasons = [row[2] for row in plan(rows, policy=Policy(conflicts="drop")).excluded("k710-train")]
    assert reasons == ["held_out", "held_out"]


def test_a_row_that_is_not_selected_still_holds_its_video_out(plan: Any) -> None:
    rows = [("k400:train", A, 3, "abseiling"), ("k400:train", B, 3, "abseiling"), ("k600:val", A, 3, "zumba")]
    planned = plan(rows, policy=Policy(selection=Selection(classes=(0,))))
    assert planned.keys("k710-train") == [key(B, 3)]
    assert [row[:3] for row in planned.excluded("k710-val")] == [("k600:val", key(A, 3), "not_selected")]


def test_excluded_classes_leave_rows_without_a_class(plan: Any) -> None:
    rows = [("k600:holdout", A, 3, None), ("k600:test", B, 3, "abseiling")]
    planned = plan(rows, "k710-test", policy=Policy(selection=Selection(exclude_classes=(0,))))
    assert planned.keys("k710-test") == [key(A, 3)]


def test_chosen_classes_leave_out_rows_without_a_class(plan: Any) -> None:
    rows = [("k600:holdout", A, 3, None), ("k600:test", B, 3, "abseiling")]
    planned = plan(rows, "k710-test", policy=Policy(selection=Selection(classes=(0,))))
    assert planned.keys("k710-test") == [key(B, 3)]


def test_only_rows_that_a_list_marks_are_creative_commons(plan: Any) -> None:
    rows = [
        ("k400:train", A, 3, "abseiling", 13, True),
        ("k400:train", B, 3, "abseiling", 13, False),
        ("k600:train", C, 3),
    ]
    planned = plan(rows, policy=Policy(selection=Selection(only_cc=True)))
    assert planned.keys("k710-train") == [key(A, 3)]


def test_excluded_videos_are_in_no_view(plan: Any) -> None:
    rows = [("k400:train", A, 3), ("k400:train", B, 3), ("k400:val", C, 3)]
    planned = plan(rows, policy=Policy(selection=Selection(exclude_ids=(A, C))))
    assert [planned.keys(v) for v in ("k710-train", "k400-train", "k710-val", "k400-val")] == [
        [key(B, 3)],
        [key(B, 3)],
        [],
        [],
    ]


def test_a_video_that_looks_like_another_leaves_training_and_stays_held_out(plan: Any) -> None:
    rows = [("k400:train", A, 3), ("k400:train", B, 3), ("k600:val", A, 3), ("k600:train", C, 3)]
    planned = plan(rows, policy=Policy(protect=(), selection=Selection(near_duplicates=(A, C))))
    assert [planned.keys(v) for v in ("k710-train", "k400-train", "k600-train")] == [[key(B, 3)], [key(B, 3)], []]
    assert planned.keys("k710-val") == planned.keys("k600-val") == [key(A, 3)]
    assert [row[:3] for row in planned.excluded("k710-train")] == [
        ("k400:train", key(A, 3), "near_duplicate"),
        ("k600:train", key(C, 3), "near_duplicate"),
    ]


def test_a_held_out_video_that_gives_way_still_holds_itself_out(plan: Any) -> None:
    rows = [("k400:train", A, 3), ("k400:train", B, 3), ("k400:val", A, 3)]
    planned = plan(rows, policy=Policy(selection=Selection(near_duplicates_held_out=(A,))))
    assert planned.keys("k710-val") == planned.keys("k400-val") == []
    assert planned.keys("k710-train") == planned.keys("k400-train") == [key(B, 3)]
    assert [row[2] for row in planned.excluded("k710-val")] == ["near_duplicate"]


def test_a_forgotten_video_is_in_no_view_and_still_holds_its_twin_out(plan: Any) -> None:
    rows = [("k400:train", A, 3), ("k400:train", B, 3), ("k600:val", A, 3)]
    hashes = tuple(int(h) for h in plan(rows).catalog.video_hashes(np.array([0])))
    planned = plan(rows, policy=Policy(selection=Selection(forgotten=hashes)))
    assert planned.keys("k710-val") == planned.keys("k600-val") == []
    assert planned.keys("k710-train") == [key(B, 3)]


MANY = [("k400:train", f"{n:011d}", 3, name) for n in range(20) for name in (("abseiling", "zumba")[n % 2],)]


def drawn(plan: Any, number: int, seed: int = 0) -> set[str]:
    selection = Selection(per_class=number, seed=seed)
    return set(plan(MANY, policy=Policy(selection=selection)).keys("k710-train"))


def test_a_draw_has_so_many_clips_of_each_class(plan: Any) -> None:
    planned = plan(MANY, policy=Policy(selection=Selection(per_class=3)))
    assert planned.views["k710-train"].members["label"].value_counts().to_dict() == {"abseiling": 3, "zumba": 3}
    assert len(planned.excluded("k710-train")) == 14
    assert {row[2] for row in planned.excluded("k710-train")} == {"not_selected"}


def test_a_larger_draw_holds_the_smaller_one(plan: Any) -> None:
    assert drawn(plan, 2) < drawn(plan, 5) < drawn(plan, 10)


def test_another_seed_draws_others(plan: Any) -> None:
    assert drawn(plan, 2, seed=0) != drawn(plan, 2, seed=1)


def test_the_rows_that_lost_to_an_undrawn_clip_are_not_selected_either(plan: Any) -> None:
    rows = [*MANY, *((("k600:train", *row[1:])) for row in MANY)]
    planned = plan(rows, policy=Policy(selection=Selection(per_class=1)))
    reasons = [row[2] for row in planned.excluded("k710-train")]
    assert sorted(set(reasons)) == ["not_selected", "same_clip"]
    assert (reasons.count("same_clip"), reasons.count("not_selected")) == (2, 36)


def test_a_draw_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        Selection(per_class=0)
