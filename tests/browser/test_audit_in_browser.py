"""The audit page in a browser: it stands alone, figures are drawn, tables and cells work, and all text is text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from browsing import Opened

from k710.audits.lists import audit_lists
from k710.build import BuildConfig, build

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
NAMES = [SCRIPT, IMAGE, "<b>bold</b> & %{x} $x$", "</script><!--\u2028", "plain"]
SHARED = 620
"""Videos of the cell with most: more than a page names."""


def write_list(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    split = path.stem if path.stem in ("val", "test") else "train"
    quoted = [f'"{label.replace(chr(34), chr(34) * 2)}",{video},0,10,{split}\n' for label, video in rows]
    path.write_text("label,youtube_id,time_start,time_end,split\n" + "".join(quoted), encoding="utf-8")
    return path


def ids(start: int, stop: int) -> list[str]:
    return [f"id{number:09d}" for number in range(start, stop)]


@pytest.fixture(scope="session")
def marked_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of lists whose names and classes are markup; the first cell has more ids than a page names."""
    folder = tmp_path_factory.mktemp("lists")
    rows = [(NAMES[i % len(NAMES)], video) for i, video in enumerate(ids(0, 1000))]
    train = write_list(folder / "<img src=x onerror=alert(1)>.csv", rows)
    other = write_list(folder / "other.csv", [(NAMES[0], video) for video in ids(5000, 5010)])
    held_out = write_list(folder / "held <b>out.csv", [("plain", video) for video in ids(0, SHARED)])
    little = write_list(folder / "little.csv", [("plain", video) for video in [*ids(990, 1010), *ids(5000, 5002)]])
    audit_lists([train, other], [held_out, little], out=folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of lists that leak, conflict and repeat; no clips are made."""
    folder = tmp_path_factory.mktemp("build")
    k400 = [(("yoga", "zumba")[i % 2], video) for i, video in enumerate(ids(0, 300))]
    for name, rows in {
        "kinetics400/train": k400,
        "kinetics400/val": [("yoga", video) for video in ids(290, 330)],
        "kinetics600/train": [("yoga", video) for video in ids(200, 500)],
        "kinetics600/test": [("zumba", video) for video in ids(480, 520)],
    }.items():
        write_list(folder / "annotations" / f"{name}.csv", rows)
    build(BuildConfig(annotations=folder / "annotations", out=folder / "out", manifest_only=True, workers=1))
    return folder / "out"


@pytest.fixture(scope="session")
def lists_page(opened: Callable[..., Opened], marked_up: Path) -> Opened:
    return drawn(opened(marked_up / "report" / "audit.html"))


@pytest.fixture(scope="session")
def build_page(opened: Callable[..., Opened], built: Path) -> Opened:
    return drawn(opened(built / "report" / "audit.html"))


def drawn(found: Opened) -> Opened:
    found.page.wait_for_selector("html[data-drawn=yes]")
    return found


def heat_cell(page: Any, row: int, column: int) -> tuple[float, float]:
    """Where a cell of the leak matrix is on the screen."""
    page.locator("#leak-figure").scroll_into_view_if_needed()
    box = page.locator("#leak-figure .nsewdrag").bounding_box()
    rows, columns = page.evaluate(
        "(f => [f.data[0].y.length, f.data[0].x.length])(document.getElementById('leak-figure'))"
    )
    return box["x"] + box["width"] * (column + 0.5) / columns, box["y"] + box["height"] * (row + 0.5) / rows


def listed_ids(page: Any) -> list[str]:
    return [str(text) for text in page.locator("#leak-ids li").all_text_contents()]


def test_the_page_draws_its_figures_in_silence_and_asks_for_nothing(build_page: Opened, lists_page: Opened) -> None:
    for found, path in ((build_page, "out/report/audit.html"), (lists_page, "out/report/audit.html")):
        page = found.page
        assert [url for url in found.requests if not url.startswith("data:")] == [page.url]
        assert page.url.endswith(path)
        assert page.locator("#flow-figure .sankey-link").count() >= 3
        assert page.locator("#leak-figure .heatmaplayer image").count() == 1
        assert page.locator("#balance-figure .scatterlayer .trace").count() == 2
        assert found.said == []


def test_the_first_words_are_the_answer_and_three_figures(build_page: Opened, lists_page: Opened) -> None:
    assert build_page.page.locator("h1").inner_text() == "✓ Leak-free as far as checked"
    assert build_page.page.locator(".sentence").inner_text().startswith("Leak-free against the lists given (protected")
    assert build_page.page.locator(".card .value").all_inner_texts() == ["0", "70", "440"]
    assert lists_page.page.locator("h1").inner_text() == "✗ Not leak-free"
    assert lists_page.page.locator(".card .value").all_inner_texts() == ["632", "1,010", "3"]


def test_another_view_is_drawn_when_it_is_chosen(build_page: Opened) -> None:
    page = build_page.page
    page.select_option("#flow-view", label="k400-val")
    build_page.until("document.getElementById('flow-figure').data[0].node.label[0].startsWith('k400:val')")
    page.select_option("#flow-view", label="k710-train")
    page.select_option("#balance-view", label="k600-train")
    build_page.until("document.getElementById('balance-figure').data[0].y.length === 1")
    page.select_option("#balance-view", label="k710-train")


def test_the_search_finds_rows_by_any_of_their_words(lists_page: Opened) -> None:
    page = lists_page.page
    every = page.locator("#damage tbody tr").count()
    page.locator("#damage-search").focus()
    page.keyboard.type("PLAIN onerror")
    rows = page.locator("#damage tbody tr")
    assert rows.count() == 1
    assert rows.locator("th").inner_text() == "plain"
    assert page.locator("[data-table=damage] .table-count").inner_text() == f"1 rows found of {every}"
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert rows.count() == every


def test_a_header_sorts_by_mouse_and_by_keyboard(lists_page: Opened) -> None:
    page = lists_page.page
    head = page.locator("#damage thead th").nth(2)

    def shown() -> list[int]:
        return [
            int(text.replace(",", "")) for text in page.locator("#damage tbody tr td:nth-child(3)").all_inner_texts()
        ]

    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), shown()) == ("descending", sorted(shown(), reverse=True))
    page.keyboard.press("Enter")
    assert (head.get_attribute("aria-sort"), shown()) == ("ascending", sorted(shown()))


def test_a_click_on_a_cell_lists_its_first_ids(lists_page: Opened, marked_up: Path) -> None:
    page = lists_page.page
    page.mouse.click(*heat_cell(page, 0, 0))
    found = listed_ids(page)
    table = pq.read_table(marked_up / "leaks.parquet").to_pylist()
    both = sorted(row["id"] for row in table if row["b_release"] == "held <b>out")
    assert (len(both), len(found)) == (SHARED, 500)
    assert found == both[:500]
    assert page.locator("#leak-ids-title").inner_text().endswith("first 500 of 620 ids")


def test_a_cell_is_chosen_with_the_keyboard(lists_page: Opened) -> None:
    page = lists_page.page
    page.select_option("#leak-cell", "0")
    page.locator("#leak-figure").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator("#leak-spoken").inner_text() == "other:train and little:val: 2 videos"
    page.keyboard.press("Enter")
    assert listed_ids(page) == ids(5000, 5002)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#leak-ids").is_hidden()


def test_a_cell_is_chosen_from_the_list_of_pairs(lists_page: Opened) -> None:
    page = lists_page.page
    page.select_option("#leak-cell", label="<img src=x onerror=alert(1)>:train and little:val (10)")
    assert listed_ids(page) == ids(990, 1000)


def test_markup_in_names_is_text_everywhere(lists_page: Opened) -> None:
    page = lists_page.page
    cells = page.locator("#damage tbody th").all_text_contents()
    assert set(NAMES) <= set(cells)
    assert {SCRIPT, IMAGE} <= set(page.locator("#conflicts tbody").inner_text().replace("\t", "\n").split("\n"))
    assert any(
        text.startswith("<img src=x onerror=alert(1)>") for text in page.locator(".node-label").all_text_contents()
    )
    page.mouse.move(*heat_cell(page, 0, 0))
    page.wait_for_selector("#leak-figure .hovertext")
    assert "<img src=x onerror=alert(1)>:train and held <b>out:val" in page.locator(".hovertext").text_content()
    hovered = set()
    page.locator("#balance-figure").scroll_into_view_if_needed()
    box = page.locator("#balance-figure .nsewdrag").bounding_box()
    for place in range(5):
        page.mouse.move(box["x"] + box["width"] * (place + 0.02) / 4.04, box["y"] + box["height"] * 0.1)
        page.wait_for_timeout(80)
        hovered.update(page.locator("#balance-figure .hovertext").all_text_contents())
    for name in (SCRIPT, IMAGE, "<b>bold</b> & %{x} $x$"):
        assert any(text.startswith(name) for text in hovered), hovered
    assert (
        page.locator("img, body script:not([type]) ~ b, main b, main script:not([type='application/json'])").count()
        == 0
    )
    assert [text for text in lists_page.said if "dialog" in text] == []


def test_an_accessibility_check_has_no_serious_finding(build_page: Opened) -> None:
    page = build_page.page
    page.evaluate("document.querySelectorAll('details').forEach((block) => (block.open = true))")
    page.select_option("#leak-cell", "0")
    assert build_page.serious_findings() == []
    page.emulate_media(color_scheme="dark")
    assert build_page.serious_findings("color-contrast") == []
    page.emulate_media(color_scheme="light")


def test_bad_news_can_be_read_in_both_themes(lists_page: Opened) -> None:
    page = lists_page.page
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        assert lists_page.serious_findings("color-contrast", within=".answer") == []


def test_a_phone_needs_no_sideways_scrolling(lists_page: Opened, build_page: Opened) -> None:
    for found in (build_page, lists_page):
        found.page.set_viewport_size({"width": 400, "height": 800})
        found.until("document.querySelector('#flow-figure svg').clientWidth < 400")
        assert found.overflow_px() == 0
        found.page.set_viewport_size({"width": 1280, "height": 900})


def test_the_button_changes_the_theme_and_the_figures_with_it(build_page: Opened) -> None:
    page = build_page.page

    def colours() -> list[str]:
        return [
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate("document.getElementById('flow-figure').data[0].textfont.color"),
        ]

    light = colours()
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Light"
    dark = colours()
    assert all(a != b for a, b in zip(light, dark, strict=True))
    page.locator("#theme").click()
    assert colours() == light


def test_paper_gets_the_light_colours_and_no_buttons(build_page: Opened) -> None:
    page = build_page.page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#theme").is_hidden()
    assert page.locator("[data-table=damage] .table-tools").is_hidden()
    page.emulate_media(media="screen", color_scheme="light")
