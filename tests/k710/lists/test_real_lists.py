"""The real Kinetics lists, against counts made by set arithmetic over the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from list_cases import FramedView, framed, rows_of

from k710.config import load_releases
from k710.lists.annotations import AnnotationList
from k710.lists.catalog import Catalog
from k710.lists.leakage import shared_videos
from k710.lists.manifest import lists_not_given
from k710.lists.policy import Policy
from k710.lists.views import ViewSpec, build_views
from k710.report.audit import audit_document

TRAIN = [ViewSpec(release="k710", split="train", taxonomy="k710")]
Views = dict[str, FramedView]


@pytest.fixture(scope="session")
def golden(shared: Path) -> Any:
    return json.loads((shared / "kinetics" / "golden_counts.json").read_text())


def ours(name: str) -> str:
    return name.replace("holdout_test", "holdout")


def test_rows_and_videos_of_every_list(real_lists: list[AnnotationList], golden: Any) -> None:
    assert {i.file.name: len(i.rows) for i in real_lists} == {ours(k): v for k, v in golden["rows"].items()}
    assert {i.file.name: len(i.rows["id"].unique()) for i in real_lists} == {
        ours(k): v for k, v in golden["ids"].items()
    }


def test_videos_shared_by_every_pair_of_lists(real_catalog: Catalog, golden: Any) -> None:
    expected = {frozenset(ours(k).split(" & ")): v for k, v in golden["shared_ids"].items()}
    assert len(expected) == 36
    assert {frozenset(pair): n for pair, n in shared_videos(real_catalog).items()} == expected


@pytest.mark.parametrize(
    ("protect", "expected"), [(("val", "test"), 442_889), (("val",), 443_381), (("test",), 444_041), ((), 444_565)]
)
def test_videos_left_in_training(
    real_catalog: Catalog, real_views: Views, protect: tuple[str, ...], expected: int
) -> None:
    policy = Policy(protect=protect)
    view = (
        real_views["k710-train"]
        if policy == Policy()
        else framed(real_catalog, build_views(real_catalog, TRAIN, policy)[0])
    )
    assert (len(view.members), view.members["id"].nunique()) == (expected, expected)


def test_union_of_the_val_lists(real_views: Views) -> None:
    members = real_views["k710-val"].members
    assert (len(members), members["id"].nunique()) == (71_047, 71_047)


@pytest.mark.parametrize(("view", "videos"), [("k600-train", 391_388), ("k400-train", 218_159)])
def test_videos_of_a_release_after_its_own_val_and_test(real_views: Views, view: str, videos: int) -> None:
    assert real_views[view].members["id"].nunique() == videos


def test_release_views_keep_several_segments_of_a_video(real_views: Views) -> None:
    assert len(real_views["k600-train"].members) == 392_216


def test_classes_in_training(real_views: Views, golden: Any) -> None:
    assert real_views["k710-train"].members["canonical"].nunique() == golden["classes_in_train"] == 618


def test_held_out_lists_stay_whole(real_views: Views, golden: Any) -> None:
    for name in ("k400-val", "k400-test", "k600-val", "k600-test", "k600-holdout", "k700-val", "k700-test"):
        assert (
            real_views[name].members["id"].nunique()
            == golden["ids"][name.replace("-", ":").replace("holdout", "holdout_test")]
        )


def test_no_training_video_stands_in_a_held_out_list(real_catalog: Catalog, real_views: Views) -> None:
    rows = rows_of(real_catalog)
    held_out = set(rows.loc[rows["split"] != "train", "id"])
    assert held_out.isdisjoint(real_views["k710-train"].members["id"])


def test_a_known_leak_is_out_of_training_and_says_which_row_holds_it_out(real_views: Views) -> None:
    view = real_views["k710-train"]
    assert "---QUuC4vJs" not in set(view.members["id"])
    rows = view.excluded[view.excluded["id"] == "---QUuC4vJs"]
    assert sorted(zip(rows["release"], rows["split"], rows["reason"], strict=True)) == [
        ("k400", "train", "held_out"),
        ("k600", "train", "held_out"),
    ]
    assert set(zip(rows["by_release"], rows["by_split"], strict=True)) == {("k700", "val")}


def test_every_source_row_of_every_view_is_in_it_or_excluded_once(real_catalog: Catalog, real_views: Views) -> None:
    columns = ["release", "split", "key"]
    rows = rows_of(real_catalog)
    for name, view in real_views.items():
        release, split = name.rsplit("-", 1)
        splits = ("test", "holdout") if name == "k710-test" else (split,)
        source = rows[rows["split"].isin(splits)]
        source = source if release == "k710" else source[source["release"] == release]
        accounted = pd.concat([view.members[columns], view.excluded[columns]])
        assert accounted.value_counts().sort_index().equals(source[columns].value_counts().sort_index()), name
        assert view.excluded["reason"].isin(["held_out", "same_clip", "other_segment"]).all()


def test_the_list_that_was_not_given_is_named(real_lists: list[AnnotationList]) -> None:
    releases = [load_releases()[name] for name in ("k400", "k600", "k700")]
    assert lists_not_given(releases, real_lists) == ["k700:train"]


@pytest.fixture(scope="session")
def audit(real_catalog: Catalog, real_views: Views) -> Any:
    return audit_document(real_catalog, [real_views["k710-train"].built], Policy(), ["k700:train"])


def test_the_statement_names_what_was_not_checked(audit: Any) -> None:
    assert audit["statement"] == "leak-free against the lists given (protected: val,test); not checked: k700:train."
    assert audit["not_checked"] == ["k700:train"]
    assert not [r for r in audit["remaining"] if r["protected"]]


def test_the_most_frequent_label_conflict_is_the_known_one(audit: Any) -> None:
    first = audit["conflicts"]["pairs"][0]
    assert (first["label"], first["winner"]) == ("baby waking up", "waking up")


@pytest.mark.parametrize(
    ("train", "held_out", "videos"),
    [("k600:train", "k600:val", 142), ("k600:train", "k600:test", 255), ("k400:train", "k600:val", 536)],
)
def test_the_leaks_of_the_lists_as_they_came_are_counted(audit: Any, train: str, held_out: str, videos: int) -> None:
    assert {(r["train"], r["held_out"]): r["videos"] for r in audit["leaks"]}[train, held_out] == videos
