"""From rows to clips: every row of a list is kept or lost once, in each view, and a takedown counts as a build does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_cases import A, B, C, D, Row, built, catalog, views, write_lists

from k710.build import BuildConfig, build
from k710.lists.dialects.options import ReadOptions
from k710.report.flow import list_flows, view_flows
from k710.takedown.forget import ForgetConfig, forget

LEAKY: list[Row] = [
    ("k400:train", A, 0, "yoga"),
    ("k400:train", B, 0, "yoga"),
    ("k400:train", D, 0, "zumba"),
    ("k400:val", A, 50, "zumba"),
    ("k600:train", B, 0, "yoga"),
    ("k600:train", D, 40, "zumba"),
    ("k600:test", C, 0, "yoga"),
]


def test_each_list_of_a_view_is_told_by_what_became_of_its_rows() -> None:
    found = catalog(LEAKY)
    flows = view_flows(found, views(found, "k710-train"))
    assert flows == [
        {"view": "k710-train", "list": "k400:train", "rows": 3, "clips": 0}
        | {"excluded": {"held_out": 1, "other_segment": 1, "same_clip": 1}},
        {"view": "k710-train", "list": "k600:train", "rows": 2, "clips": 2, "excluded": {}},
    ]


def test_lists_as_they_came_lose_what_held_out_lists_have() -> None:
    flow = {"view": "k400:train", "list": "k400:train", "rows": 3, "clips": 2, "excluded": {"held_out": 1}}
    assert list_flows(catalog(LEAKY))[0] == flow


def test_flows_add_up_to_the_views_and_their_bad_rows_count(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "lists", LEAKY)
    with (lists / "kinetics400" / "train.csv").open("a") as file:
        file.write("no such class,eeeeeeeeeee,0,10,train\n")
    options = ReadOptions(on_bad_row="report")
    build(BuildConfig(annotations=lists, out=tmp_path / "out", manifest_only=True, options=options, workers=1))
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert audit["bad_rows"] == 1
    for view in audit["views"]:
        own = [flow for flow in audit["flow"] if flow["view"] == view["view"]]
        assert sum(flow["clips"] for flow in own) == view["clips"]
        counted: dict[str, int] = {}
        for flow in own:
            assert flow["rows"] == flow["clips"] + sum(flow["excluded"].values())
            for reason, rows in flow["excluded"].items():
                counted[reason] = counted.get(reason, 0) + rows
        assert counted == view["excluded"]


@pytest.mark.parametrize("forgotten", [B, C])
def test_a_takedown_leaves_the_flow_and_the_page_of_a_build_without_the_video(tmp_path: Path, forgotten: str) -> None:
    first = built(tmp_path / "first", LEAKY)
    forget(ForgetConfig(out=first, ids=(forgotten,)))
    second = built(tmp_path / "second", LEAKY)
    (second / "forgotten.json").write_bytes((first / "forgotten.json").read_bytes())
    annotations = tmp_path / "second" / "annotations"
    build(BuildConfig(annotations=annotations, out=second, manifest_only=True, replan=True, workers=1))
    flows = [json.loads((out / "audit.json").read_text())["flow"] for out in (first, second)]
    assert flows[0] == flows[1]
    assert (first / "report" / "audit.html").read_bytes() == (second / "report" / "audit.html").read_bytes()
