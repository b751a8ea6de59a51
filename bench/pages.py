"""The audit page of a build: its size, how long it takes to make, how soon it can be used, and what it looks like.

usage: python bench/pages.py BUILD [--rounds N] [--pictures DIR] [--readme FILE] [--json FILE]

  BUILD       what `k710 build` wrote; its page is made anew, in a fresh process each round, import and all
  --rounds    how often each is measured; the median counts (default 3)
  --pictures  folder for the whole page at 1280 and 400 pixels, light and dark
  --readme    file for the head of the page at 1280 pixels, light

Needs Debian's chromium. Exits with 1 when a mark is missed: 8 MB, 20 s, 3 s from opening the file to all figures drawn.
`drawn_cpu_s` is what the browser worked for that, whatever else the machine did.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

MAX_BYTES = 8_000_000
MAX_MAKE_S = 20.0
MAX_DRAWN_S = 3.0
WIDTHS_PX = (1280, 400)
README_HEIGHT_PX = 1455
_FADE_MS = 900
"""Flows fade in; a picture waits for them."""
_MAKE = """
import json, sys
from pathlib import Path
from k710.report.page import PAGE_FILE, write_build_page
out = Path(sys.argv[1])
(out / PAGE_FILE).unlink(missing_ok=True)
write_build_page(out, json.loads((out / "audit.json").read_bytes()))
"""
_WATCH = """
new MutationObserver(() => {
  if (document.documentElement?.dataset.drawn) window.drawnMs ??= performance.now();
}).observe(document, { attributes: true, childList: true, subtree: true });
"""


def main() -> int:
    """Measure, write pictures, print what was found; 1 when a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    page = arguments.build / "report" / "audit.html"
    make_s = statistics.median(_make_s(arguments.build) for _ in range(arguments.rounds))
    with _chromium() as browser:
        drawn = [_drawn_s(browser, page) for _ in range(arguments.rounds)]
        if arguments.pictures:
            _write_pictures(browser, page, arguments.pictures)
        if arguments.readme:
            _write_head(browser, page, arguments.readme)
    drawn_s, drawn_cpu_s = (statistics.median(column) for column in zip(*drawn, strict=True))
    found = {
        "rows": json.loads((arguments.build / "k710.lock.json").read_bytes())["counts"]["rows"],
        "size_bytes": page.stat().st_size,
        "make_s": round(make_s, 2),
        "drawn_s": round(drawn_s, 2),
        "drawn_cpu_s": round(drawn_cpu_s, 2),
    }
    print(json.dumps(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(found["size_bytes"] > MAX_BYTES or make_s > MAX_MAKE_S or drawn_s > MAX_DRAWN_S)


def _make_s(build: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", _MAKE, str(build)], check=True)
    return time.perf_counter() - start


@contextmanager
def _chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium")
    if found is None:
        sys.exit("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def _opened(browser: Any, page: Path, width_px: int, scheme: str) -> Iterator[Any]:
    """The page with all its figures drawn, in a browser without a network."""
    context = browser.new_context(
        viewport={"width": width_px, "height": 900}, color_scheme=scheme, offline=True, reduced_motion="reduce"
    )
    opened = context.new_page()
    opened.add_init_script(_WATCH)
    opened.goto(page.absolute().as_uri())
    opened.wait_for_selector("html[data-drawn=yes]")
    yield opened
    context.close()


def _drawn_s(browser: Any, page: Path) -> tuple[float, float]:
    """Seconds from opening the file until figures are drawn and tables can be searched, by clock and by CPU."""
    with _opened(browser, page, WIDTHS_PX[0], "light") as opened:
        session = opened.context.new_cdp_session(opened)
        session.send("Performance.enable")
        metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
        return float(opened.evaluate("window.drawnMs")) / 1000, float(metrics["ProcessTime"])


def _write_pictures(browser: Any, page: Path, folder: Path) -> None:
    for width_px in WIDTHS_PX:
        for scheme in ("light", "dark"):
            with _opened(browser, page, width_px, scheme) as opened:
                if opened.locator("#leak-cell").count():
                    opened.select_option("#leak-cell", index=1)
                opened.wait_for_timeout(_FADE_MS)
                _write_png(opened.screenshot(full_page=True), folder / f"audit-{width_px}-{scheme}.png")


def _write_head(browser: Any, page: Path, path: Path) -> None:
    with _opened(browser, page, WIDTHS_PX[0], "light") as opened:
        opened.set_viewport_size({"width": WIDTHS_PX[0], "height": README_HEIGHT_PX})
        opened.wait_for_timeout(_FADE_MS)
        _write_png(opened.screenshot(), path)


def _write_png(data: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(data)).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
