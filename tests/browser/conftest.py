"""One headless Chromium for every test here, without a network, and pages that record what they say and ask for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Opened, missing

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these on one worker: a browser for each would take longer than the tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser; skipped where there is none."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        missing("no Chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright: pip install -e '.[dev]'")
    with sync_playwright() as playwright:
        # No sandbox: the tests may run as root in a container.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a file as a page of its own, ``light`` or ``dark``, in a browser that is offline."""
    contexts = []

    def opens(path: Path, *, scheme: str = "light", width_px: int = 1280) -> Opened:
        context = browser.new_context(
            viewport={"width": width_px, "height": 900}, color_scheme=scheme, reduced_motion="reduce", offline=True
        )
        contexts.append(context)
        found = Opened(page=context.new_page())
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        found.page.on("dialog", lambda dialog: (found.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.set_default_timeout(20_000)
        found.page.goto(path.absolute().as_uri())
        return found

    yield opens
    for context in contexts:
        context.close()
