"""Figures of measurements as PNG files on a light ground, drawn by plotly in Debian's chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go

COLOURS = ("#1f5fa8", "#c8501e", "#2e7d4f", "#7a4fa3", "#8a6d1f")
_INK, _GRID = "#222222", "#dddddd"


def write_png(figure: go.Figure, path: Path, *, width_px: int, height_px: int) -> None:
    """Write a figure; ends the program where there is no chromium."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium")
    if found is None:
        sys.exit("no chromium: apt-get install chromium")
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="white",
        plot_bgcolor="white",
        width=width_px,
        height=height_px,
        font={"family": "DejaVu Sans, sans-serif", "size": 13, "color": _INK},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, linecolor=_INK, ticks="outside")
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, linecolor=_INK, ticks="outside")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "figure.html"
        page.write_text(figure.to_html(include_plotlyjs=True, config={"staticPlot": True}))
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width_px, "height": height_px})
        opened.goto(page.as_uri())
        opened.wait_for_selector(".plotly .main-svg")
        opened.locator(".plotly").first.screenshot(path=str(path))
        browser.close()
