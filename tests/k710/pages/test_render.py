"""Pages as text: everything escaped, nothing undefined, equal values to equal bytes, and every file packaged."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template, UndefinedError

import k710.pages
from k710.pages.render import cell, environment, packaged_script, render, script
from k710.pages.tables import Column, Table

EVIL = "</script><!--<script>alert(1)</script>\u2028\"><img src=x onerror=alert(1)>'"


def page_with(table: Table) -> str:
    """A page with one table, through the macro that every page uses."""
    source = '{% from "macros.html" import data_table %}{{ data_table(table) }}'
    return environment().from_string(source).render(table=table)


@functools.cache
def data_of() -> Template:
    """A value as every page embeds it."""
    return environment().from_string("{{ value|tojson }}")


def table_of(*rows: list[str | int | float | None], **settings: object) -> Table:
    columns = (Column(label="name <b>"), Column(label="clips", kind="count"), Column(label="part", kind="share"))
    return Table(id="t", caption="caption <i>", columns=columns, rows=rows, **settings)  # type: ignore[arg-type]


def test_a_value_is_text_wherever_it_stands() -> None:
    page = render("base.html", title=EVIL)
    assert "<img" not in page
    assert page.count("<script>") == page.count("</script>") == 2


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render("base.html")


def test_equal_values_give_equal_pages() -> None:
    assert render("base.html", title="a") == render("base.html", title="a")


def test_the_policy_allows_just_the_scripts_of_the_page() -> None:
    extra = script("console.log(1)")
    page = render("base.html", title="a", scripts=[extra], image_sources="data: blob:")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    said = policy[1].replace("&#39;", "'")
    digests = [packaged_script("theme.js").digest, packaged_script("page.js").digest, extra.digest]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert f"default-src 'none'; script-src {allowed}; " in said
    assert "img-src data: blob:; media-src 'none'" in said
    assert "unsafe-eval" not in said
    assert re.findall(r"<script>(.*?)</script>", page, re.S)[-1] == extra.text


@pytest.mark.parametrize("text", ["a </SCRIPT b", "a <!-- b"])
def test_a_script_that_would_end_early_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must hold neither"):
        script(text)


def test_a_table_shows_counts_shares_and_what_is_not_known() -> None:
    page = page_with(table_of(["a", 12345, 0.125], ["b", None, 1]))
    assert re.findall(r'<td class="\w+">(.*?)</td>', page) == ["12,345", "12.5 %", "-", "100.0 %"]
    assert "name &lt;b&gt;" in page
    assert "caption &lt;i&gt;" in page


def test_a_long_table_shows_its_first_rows_and_carries_all_of_them() -> None:
    rows: list[list[str | int | float | None]] = [[f"{EVIL}{i}", i, i / 100] for i in range(100)]
    page = page_with(table_of(*rows, searchable=True, page_rows=10))
    assert page.count("<tr>") == 11
    data = re.search(r'<script type="application/json" id="t-rows">(.*?)</script>', page, re.S)
    assert data is not None
    assert json.loads(data[1]) == rows
    assert not re.search("[<>&'\u2028]", data[1])


@given(value=st.lists(st.none() | st.integers() | st.text()))
def test_data_in_a_page_is_the_same_again_and_cannot_end_its_element(value: object) -> None:
    text = data_of().render(value=value)
    assert json.loads(text) == value
    assert not re.search("[<>&'\u2028\u2029]", text)


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="table t: a row has not one value for each of 3 columns"):
        table_of(["a", 1])


def test_a_share_that_is_whole_is_per_cent_too() -> None:
    assert (cell(1, "share"), cell(1000), cell("x", "share"), cell(None)) == ("100.0 %", "1,000", "x", "-")


def test_every_file_of_the_pages_is_packaged() -> None:
    folder = Path(k710.pages.__file__).parent
    told = tomllib.loads((folder.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "k710.pages" in told["packages"]
    patterns = told["package-data"]["k710.pages"]
    files = [path.relative_to(folder) for path in folder.glob("*/**/*") if path.is_file() and path.suffix != ".pyc"]
    assert files
    assert [path for path in files if not any(PurePath(path).match(pattern) for pattern in patterns)] == []
