"""The audit page without a browser: what it says, what its figures hold, and when it is written."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from audit_cases import A, B, C, D, Row, built, catalog, views, write_lists
from hypothesis import given
from hypothesis import strategies as st

from k710.audits.lists import ListsAudit, audit_lists
from k710.errors import FeedError, UsageError
from k710.lists.leakage import leak_table
from k710.lists.policy import Policy
from k710.pages.render import render
from k710.report.answer import answer_of
from k710.report.audit import audit_document
from k710.report.figures import MAX_LISTS, balance_figure, flow_figure, label, leak_figure
from k710.report.leak_ids import MAX_IDS, ids_of_leaks
from k710.report.page import _shown, audit_page, write_build_page, write_page
from k710.report.stored import read_audit, stored_page
from k710.takedown.forget import ForgetConfig, forget

LEAKY: list[Row] = [
    ("k400:train", A, 0, "yoga"),
    ("k400:train", B, 0, "yoga"),
    ("k400:val", A, 50, "zumba"),
    ("k600:train", B, 0, "zumba"),
    ("k600:train", C, 0, "yoga"),
    ("k600:test", D, 0, "yoga"),
]
EVIL = '"><img src=x onerror=alert(1)></script><!--'


def document(rows: list[Row] = LEAKY, policy: Policy | None = None) -> dict[str, Any]:
    found = catalog(rows)
    policy = policy or Policy()
    return audit_document(found, views(found, policy=policy), policy, ["k700:train"])


def page(rows: list[Row] = LEAKY, policy: Policy | None = None) -> str:
    return audit_page(document(rows, policy), leak_table(catalog(rows)))


def audited(tmp_path: Path, train: list[Row], held_out: list[Row]) -> ListsAudit:
    lists = write_lists(tmp_path, [*train, *held_out])
    names = [
        [str(lists / f"{n.replace('k', 'kinetics').replace(':', '/')}.csv") for n in dict.fromkeys(r[0] for r in rows)]
        for rows in (train, held_out)
    ]
    return audit_lists(*names)


def data(text: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def validated(spec: dict[str, Any]) -> None:
    """A figure that plotly itself takes, once our names of colours are replaced."""
    import plotly.graph_objects as go

    text = re.sub(r'"--[a-z0-9-]+(/[0-9.]+)?"', '"#123456"', json.dumps(spec))
    go.Figure(json.loads(text))


@pytest.mark.parametrize(
    ("policy", "state", "headline", "figures"),
    [
        (Policy(), "yes", "Leak-free as far as checked", [0, 1, 2]),
        (Policy(leaks="report"), "no", "Not leak-free", [1, 0, 3]),
        (Policy(protect=()), "unknown", "Not protected against leaks", [0, 0, 3]),
    ],
)
def test_the_answer_of_a_build(policy: Policy, state: str, headline: str, figures: list[int]) -> None:
    found = answer_of(document(policy=policy))
    assert (found.state, found.headline) == (state, headline)
    assert [figure.value for figure in found.figures] == figures
    assert (found.against, found.not_checked) == (["k400:val", "k600:test"], ["k700:train"])
    assert found.sentence.lower() == document(policy=policy)["statement"].lower()


def test_the_answer_of_lists(tmp_path: Path) -> None:
    leaky = answer_of(audited(tmp_path / "a", LEAKY[:2], LEAKY[2:3]).document)
    assert (leaky.state, leaky.headline) == ("no", "Not leak-free")
    assert [(f.value, f.label) for f in leaky.figures][:2] == [
        (1, "training rows whose video a held-out list has"),
        (2, "training rows compared"),
    ]
    clean = answer_of(audited(tmp_path / "b", LEAKY[:2], LEAKY[5:]).document)
    assert (clean.state, clean.headline) == ("yes", "Leak-free")


def test_lists_that_cannot_be_compared_are_no_yes(tmp_path: Path) -> None:
    lists = write_lists(tmp_path, LEAKY[:2])
    (tmp_path / "other.csv").write_text("label,youtube_id,time_start,time_end,split\nyoga,not-an-id,0,10,val\n")
    found = answer_of(audit_lists([lists / "kinetics400" / "train.csv"], [tmp_path / "other.csv"]).document)
    assert (found.state, found.headline) == ("unknown", "Not known")


def test_every_figure_is_one_that_plotly_takes() -> None:
    figures = data(page(), "figures")
    assert next(name for name, _ in figures["flow"]) == "k710-train"
    assert {name for name, _ in figures["balance"]} == {"k400-train", "k600-train", "k710-train"}
    for spec in [figures["leaks"], *(spec for name in ("flow", "balance") for _, spec in figures[name])]:
        validated(spec)


def test_the_flow_carries_every_row() -> None:
    flows = [flow for flow in document()["flow"] if flow["view"] == "k710-train"]
    links = flow_figure(flows, "clips kept")["data"][0]["link"]
    assert sum(links["value"]) == sum(flow["rows"] for flow in flows) == 4
    assert links["customdata"] == [
        "k400:train, held out: 1 row (50.0%)",
        "k400:train, same clip: 1 row (50.0%)",
        "k600:train, clips kept: 2 rows (100.0%)",
    ]


def test_many_lists_flow_as_the_largest_and_the_rest() -> None:
    flows = [{"list": f"l{i}", "rows": 10 + i, "clips": 9 + i, "excluded": {"held_out": 1}} for i in range(40)]
    spec = flow_figure(flows, "not held out")["data"][0]
    assert len(spec["node"]["label"]) == 12 + 2
    assert any(text.startswith("29 more lists") for text in spec["node"]["label"])
    assert sum(spec["link"]["value"]) == sum(flow["rows"] for flow in flows)


@given(text=st.text(max_size=40))
def test_a_name_in_a_figure_is_the_name_again_where_markup_is_read(text: str) -> None:
    assert html.unescape(label(text)) == text
    assert not set("<>") & set(label(text))


def test_names_in_figures_are_shown_letter_by_letter_and_cut() -> None:
    assert label("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert label("x" * 100) == "x" * 39 + "…"


def test_the_matrix_tells_counts_and_shares(tmp_path: Path) -> None:
    found = audited(tmp_path, LEAKY[:2], LEAKY[2:3])
    figure = data(found.page, "figures")["leaks"]["data"][0]
    assert (figure["z"], figure["text"]) == ([[100.0]], [["1"]])
    assert figure["customdata"] == [
        ["k400:train and k400:val<br>1 video, 1 training row<br>100.00% of k400:val, 50.00% of k400:train"]
    ]
    assert data(found.page, "cells") == [
        {"train": "k400:train", "held_out": "k400:val", "videos": 1, "ids": [A], "place": [0, 0]}
    ]


def test_a_cell_names_its_first_ids_and_large_ids_give_way_to_the_size_of_the_page() -> None:
    ids = [f"{i:011d}" for i in range(MAX_IDS + 20)]
    rows: list[Row] = [(name, video, 0, "yoga") for video in ids for name in ("k400:train", "k600:val")]
    rows += [("k400:val", ids[3], 0, "yoga")]
    found = catalog(rows)
    leaks = document(rows)["leaks"]
    assert ids_of_leaks(leaks, leak_table(found)) == {
        ("k400:train", "k600:val"): ids[:MAX_IDS],
        ("k400:train", "k400:val"): [ids[3]],
    }
    table = leak_table(found)
    long = table.set_column(table.schema.get_field_index("id"), "id", [[f"{'x' * 4000}{i}" for i in range(len(table))]])
    assert sorted(map(len, ids_of_leaks(leaks, long).values())) == [0, 1]


def test_of_very_many_lists_the_matrix_shows_those_that_share_most() -> None:
    names = [f"l{i}" for i in range(MAX_LISTS + 5)]
    audit = {
        "lists": [{"list": name, "held_out": name == "h"} for name in ("h", *names)],
        "leaks": [{"train": name, "held_out": "h", "videos": i} for i, name in enumerate(names)],
    }
    assert _shown(audit, held_out=False) == names[5:]
    assert _shown(audit, held_out=True) == ["h"]


def test_the_largest_matrix_is_a_figure_that_can_be_drawn() -> None:
    names = [f"l{i}" for i in range(MAX_LISTS)]
    cells = {(n, "h"): {"videos": i, "share": i / 100, "told": n} for i, n in enumerate(names)}
    validated(leak_figure(names, ["h"], cells))


def test_the_balance_is_ordered_by_rows() -> None:
    rows = [{"name": n, "rows": r, "clips": c} for n, r, c in (("a", 1, 1), ("<b>", 5, 2), ("c", 3, 0))]
    before, after = balance_figure(rows, "kept")["data"]
    assert (before["y"], after["y"], after["customdata"]) == ([5, 3, 1], [2, 0, 1], ["&lt;b&gt;", "c", "a"])


def test_lists_without_a_leak_have_no_matrix(tmp_path: Path) -> None:
    text = audited(tmp_path, LEAKY[:2], LEAKY[5:]).page
    assert "No training list shares a video with a held-out list." in text
    assert data(text, "figures")["leaks"] is None


def test_the_name_of_a_class_or_list_cannot_end_the_data(tmp_path: Path) -> None:
    path = tmp_path / '"><img src=x>.csv'
    quoted = EVIL.replace('"', '""')
    path.write_text(f'label,youtube_id,time_start,time_end,split\n"{quoted}",{A},0,10,train\n')
    held_out = write_lists(tmp_path, LEAKY[2:3]) / "kinetics400" / "val.csv"
    text = audit_lists([path], [held_out]).page
    assert data(text, "damage-rows")[0][0] == EVIL
    assert text.count("</script>") == text.count("<script")
    assert "<img" not in text.replace("&lt;img", "")


def test_a_build_writes_its_page_and_the_same_again(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    written = out / "report" / "audit.html"
    before = written.stat().st_mtime_ns
    write_build_page(out, json.loads((out / "audit.json").read_text()))
    assert written.stat().st_mtime_ns == before
    assert stored_page(out, read_audit(out)) == written.read_text(encoding="utf-8")
    assert "Classes with fewer than 7 clips" in stored_page(out, read_audit(out, minimum=7))


def test_a_page_names_the_inputs_and_digests_of_its_build(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    lock = json.loads((out / "k710.lock.json").read_text())
    text = (out / "report" / "audit.html").read_text(encoding="utf-8")
    for value in (*(entry["sha256"] for entry in lock["inputs"].values()), *lock["digests"].values()):
        assert value in text


def test_a_takedown_goes_through_without_the_leaks_and_leaves_no_stale_page(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    (out / "leaks.parquet").unlink()
    forget(ForgetConfig(out=out, ids=(C,)))
    assert not (out / "report" / "audit.html").exists()
    with pytest.raises(FeedError, match=r"leaks\.parquet: no such file"):
        stored_page(out, read_audit(out))


def test_a_takedown_in_a_build_of_an_older_version_says_what_to_do(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    audit = json.loads((out / "audit.json").read_text())
    (out / "audit.json").write_text(json.dumps(audit | {"schema": "k710.audit/2"}))
    with pytest.raises(FeedError, match=r"this version reads k710\.audit/3") as caught:
        forget(ForgetConfig(out=out, ids=(C,)))
    assert "--replan" in caught.value.hint
    assert (out / "forgotten.json").exists()


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    path.write_text("label,youtube_id\n")
    with pytest.raises(UsageError, match=r"--html .*val\.csv: exists and is not a page"):
        write_page(path, render("base.html", title="audit"))
    assert path.read_text() == "label,youtube_id\n"
    write_page(tmp_path / "audit.html", render("base.html", title="one"))
    write_page(tmp_path / "audit.html", render("base.html", title="another"))
    assert "another" in (tmp_path / "audit.html").read_text()


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_page(tmp_path / "file" / "audit.html", "")
    with pytest.raises(UsageError, match="a folder"):
        write_page(tmp_path, "")


def test_leaks_of_the_page_are_those_of_the_table(tmp_path: Path) -> None:
    out = built(tmp_path, LEAKY)
    cells = data((out / "report" / "audit.html").read_text(encoding="utf-8"), "cells")
    table = pq.read_table(out / "leaks.parquet").to_pylist()
    held_out = {
        (f"{r['a_release']}:{r['a_split']}", f"{r['b_release']}:{r['b_split']}", r["id"])
        for r in table
        if "eval" in r["kind"]
    }
    assert {(cell["train"], cell["held_out"], i) for cell in cells for i in cell["ids"]} == held_out
