"""What `k710 plan` says of each policy, against what a build under that policy gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from k710.errors import UsageError
from k710.list_stage import Inputs, Lists, plan_lists, read_lists
from k710.lists.annotations import ReadOptions
from k710.lists.policy import Policy, Selection
from k710.policies import (
    ENCODED_BYTES_PER_SECOND,
    NAMES,
    PolicyFigures,
    compare_policies,
    named_policies,
    plan_document,
)

HEADER = "label,youtube_id,time_start,time_end,split\n"
Row = tuple[int, int, str]

K400_TRAIN = [(n, 10, "yoga" if n % 2 else "archery") for n in range(12)]
K400_VAL = [(20, 10, "yoga"), (21, 10, "archery")]
K600_TRAIN = [*((n, 10, "yoga" if n % 2 else "archery") for n in range(6, 18)), (5, 90, "yoga"), (7, 10, "abseiling")]
# 1 and 2 are in the training list of the other release, 30 in the test list only.
K600_VAL = [(1, 10, "yoga"), (22, 10, "yoga")]
K600_TEST = [(2, 50, "archery"), (3, 10, "yoga"), (30, 10, "yoga")]
LISTS = {
    "k400_train": K400_TRAIN,
    "k400_val": K400_VAL,
    "k600_train": K600_TRAIN,
    "k600_val": K600_VAL,
    "k600_test": K600_TEST,
}


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Lists]:
    """Lists of ``(id number, start, class)``, read from official CSVs; segments are 10 s long."""

    def run(bad: str = "", **rows: Sequence[Row]) -> Lists:
        for place, members in rows.items():
            release, split = place.split("_")
            path = tmp_path / "annotations" / release / f"{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{label},video{n:06d},{start},{start + 10},{split}\n" for n, start, label in members]
            path.write_text(HEADER + "".join(lines) + (bad if place == "k400_train" else ""))
        options = ReadOptions(on_bad_row="report")
        return read_lists(Inputs(annotations=tmp_path / "annotations", options=options), silent)

    return run


def figures_of(
    lists: Lists, given: Policy | None = None, words: Sequence[str] = ("all",), views: Sequence[str] = ("default",)
) -> dict[str, PolicyFigures]:
    policies = named_policies(given or Policy(), words)
    specs = lists.view_specs(views)
    return {f.name: f for f in compare_policies(lists, specs, policies, clips_per_shard=4, progress=silent)}


def test_the_alternatives_differ_from_the_given_policy_in_one_respect() -> None:
    found = named_policies(Policy())
    assert list(found) == [
        "given",
        "protect-val",
        "protect-test",
        "protect-none",
        "leaks-drop-eval",
        "leaks-report",
        "unit-segment",
        "prefer-oldest",
        "conflicts-drop",
    ]
    plain = [dataclasses.asdict(p) for p in found.values()]
    assert [sum(p[f] != plain[0][f] for f in p) for p in plain] == [0, *[1] * 8]


def test_alternatives_to_other_choices_lead_back_to_the_defaults() -> None:
    found = named_policies(Policy(unit="segment", prefer=("k600",), conflicts="drop", leaks="report"))
    expected = {"unit-video", "prefer-newest", "prefer-oldest", "conflicts-keep", "leaks-drop-train"}
    assert expected <= set(found)
    assert not {"unit-segment", "conflicts-drop", "leaks-report", "protect-val-test"} & set(found)


def test_nothing_gives_way_where_nothing_is_protected() -> None:
    found = named_policies(Policy(protect=()))
    assert not [name for name in found if name.startswith("leaks-")]
    assert named_policies(Policy(leaks="drop-eval"))["protect-none"] == Policy(protect=())


def test_named_policies_are_compared_with_the_given_one_in_the_order_of_the_list() -> None:
    given = Policy(selection=Selection(per_class=3))
    assert list(named_policies(given, ["given"])) == ["given"]
    found = named_policies(given, ["unit-segment", "protect-none"])
    assert list(found) == ["given", "protect-none", "unit-segment"]
    assert found["unit-segment"] == dataclasses.replace(given, unit="segment")


@pytest.mark.parametrize("words", [["nothing"], ["all", "unit-clip"], []])
def test_a_policy_that_is_not_known_is_refused_with_those_that_are(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--policies") as error:
        named_policies(Policy(), words)
    assert all(name in error.value.hint for name in NAMES)


def test_each_policy_keeps_and_drops_what_its_build_would(read: Any) -> None:
    lists = read(**LISTS)
    specs = lists.view_specs(("default",))
    config = {"encode": {}, "clips_per_shard": 4}
    for name, figures in figures_of(lists).items():
        plan = plan_lists(lists, specs, figures.policy, clips_per_shard=4, config=config, progress=silent)
        documents = {d["name"]: d for d in plan.view_documents}
        audit = {v["view"]: v for v in plan.audit["views"]}
        for split, view in (("train", figures.train), ("val", figures.val)):
            assert view is not None
            document = documents[f"k710-{split}"]
            assert (view.clips, view.videos, view.classes) == tuple(document[n] for n in ("clips", "videos", "classes"))
            assert view.excluded == audit[f"k710-{split}"]["excluded"], name
        assert figures.shards == plan.lock["counts"]["shards"], name
        assert (figures.clips, figures.videos) == (plan.manifest.num_rows, plan.lock["counts"]["videos"]), name


def test_the_reasons_are_those_of_the_policy(read: Any) -> None:
    found = figures_of(read(**LISTS))
    excluded = {name: dict(f.train.excluded) for name, f in found.items() if f.train}
    assert excluded["given"]["held_out"] == 3
    assert excluded["protect-val"]["held_out"] == 1
    assert excluded["protect-test"]["held_out"] == 2
    assert "held_out" not in excluded["protect-none"]
    assert excluded["conflicts-drop"]["label_conflict"] == 3
    assert "other_segment" not in excluded["unit-segment"]
    assert found["leaks-drop-eval"].val is not None
    assert found["leaks-drop-eval"].val.excluded["in_train"] == 1


def test_leaks_that_are_left_are_told_by_whether_they_are_protected(read: Any) -> None:
    found = figures_of(read(**LISTS))
    left = {name: (f.leaks_protected, f.leaks_unprotected) for name, f in found.items()}
    assert left["given"] == (0, 0)
    assert left["protect-val"] == (0, 2)
    assert left["protect-test"] == (0, 1)
    assert left["protect-none"] == (0, 3)
    assert left["leaks-report"] == left["leaks-drop-eval"] == (3, 0)


def test_hours_bytes_and_days_follow_from_the_clips(read: Any) -> None:
    given = figures_of(read(**LISTS))["given"]
    assert given.hours == pytest.approx(given.clips * 10 / 3600)
    assert given.estimated_bytes == given.clips * 10 * ENCODED_BYTES_PER_SECOND
    assert given.download_days == pytest.approx(given.videos / 300 / 24)


def test_bad_rows_are_counted_with_the_reasons(read: Any) -> None:
    lists = read(bad="yoga,short,0,10,train\n", **LISTS)
    given = figures_of(lists, words=["given"])["given"]
    assert given.train is not None
    assert given.train.excluded["bad_row"] == 1


def test_rows_that_are_not_selected_are_counted_with_the_reasons(read: Any) -> None:
    given = Policy(selection=Selection(exclude_ids=("video000000",)))
    for figures in figures_of(read(**LISTS), given).values():
        assert figures.train is not None
        assert figures.train.excluded["not_selected"] == 1


def test_without_merged_views_only_the_pool_is_counted(read: Any) -> None:
    given = figures_of(read(**LISTS), words=["given"], views=["k400-val"])["given"]
    assert (given.train, given.val, given.clips, given.shards) == (None, None, 2, 1)
    assert (given.leaks_protected, given.leaks_unprotected) == (0, 0)


def test_a_preferred_release_that_is_not_there_is_refused(read: Any) -> None:
    with pytest.raises(UsageError, match="k700"):
        figures_of(read(**LISTS), Policy(prefer=("k700",)))


def test_the_document_is_json(read: Any) -> None:
    lists = read(**LISTS)
    document = json.loads(json.dumps(plan_document(lists, list(figures_of(lists).values()))))
    assert document["rows"] == sum(map(len, LISTS.values()))
    assert document["not_checked"] == ["k400:test"]
    given = document["policies"][0]
    assert (given["name"], given["policy"]["protect"]) == ("given", ["val", "test"])
    assert given["train"]["excluded"]["held_out"] == 3
