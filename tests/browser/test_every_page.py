"""What every page promises, on the barest one: only its own scripts, nothing fetched, two themes, a skip link."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import Opened
from playwright.sync_api import Page

from k710.pages.render import render


@pytest.fixture
def bare(opened: Callable[..., Opened], tmp_path: Path) -> Opened:
    (tmp_path / "page.html").write_text(render("base.html", title="Bare"), encoding="utf-8")
    return opened(tmp_path / "page.html")


def test_no_other_script_runs_and_nothing_can_be_fetched(bare: Opened) -> None:
    page = bare.page
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"document.title = 1\">');"
        "const added = document.createElement('script'); added.textContent = 'document.title = 2';"
        "document.body.append(added);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=https://example.org/a.png>');"
    )
    sent = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert (sent, page.title()) == ("refused", "Bare")
    refused = " ".join(text for text in bare.said if "Content Security Policy" in text)
    for what in ("inline event handler", "inline script", "image", "connect"):
        assert re.search(what, refused, re.IGNORECASE), bare.said


def _theme_after_reload(page: Page) -> object:
    page.reload()
    return page.evaluate("document.documentElement.dataset.theme")


def test_the_chosen_theme_is_that_of_the_next_page_too(bare: Opened) -> None:
    page = bare.page
    page.locator("#theme").click()
    # The browser passes on what a page keeps in its own time: a reload at once may come before it.
    assert any(_theme_after_reload(page) == "dark" for _ in range(20))
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_the_first_stop_of_the_keyboard_leads_past_the_header(bare: Opened) -> None:
    bare.page.keyboard.press("Tab")
    bare.page.keyboard.press("Enter")
    assert bare.page.evaluate("document.activeElement.id") == "main"
    assert bare.said == []
