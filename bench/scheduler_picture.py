"""The picture of a simulated build on many machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from pictures import COLOURS, write_png
from plotly.subplots import make_subplots

_PANELS = (
    ("makespan_s", 60, "time to the index, min"),
    ("utilisation", 0.01, "workers' time in clips, %"),
    ("lost_s", 60, "work lost with nodes, core min"),
    ("writes_per_s", 1, "writes to a store in the busiest second (3,500 are taken)"),
)


def draw_runs(result: dict[str, Any], path: Path) -> None:
    """Write one panel for each figure, over the number of tasks, and one with the writes of each second."""
    figure = make_subplots(
        rows=3, cols=2, subplot_titles=[*(title for _, _, title in _PANELS), "writes per second to one prefix"],
        specs=[[{}, {}], [{}, {}], [{"colspan": 2}, None]], vertical_spacing=0.11, horizontal_spacing=0.09,
    )  # fmt: skip
    runs = result["runs"]
    for colour, case in zip(COLOURS, dict.fromkeys(run["case"] for run in runs), strict=False):
        own = [run for run in runs if run["case"] == case]
        labels = [str(run["tasks"]) if run["tasks"] else "Ray" for run in own]
        for number, (name, unit, _) in enumerate(_PANELS):
            if not any(run[name] for run in own):
                continue
            figure.add_trace(
                go.Scatter(
                    x=labels,
                    y=[run[name] / unit for run in own],
                    name=case,
                    legendgroup=case,
                    showlegend=number == 0,
                    mode="lines+markers",
                    line={"color": colour, "width": 2},
                ),
                row=number // 2 + 1,
                col=number % 2 + 1,
            )
    _draw_writes(figure, result)
    for row in (1, 2):
        figure.update_xaxes(type="category", title_text="tasks of the array", row=row)
        figure.update_yaxes(rangemode="tozero", row=row)
    least = {"annotation_text": "all work over all workers", "annotation_position": "bottom right"}
    figure.add_hline(y=result["least_s"] / 60, line={"dash": "dot", "color": "#555555"}, row=1, col=1, **least)
    figure.update_layout(
        legend={"orientation": "h", "y": 1.09},
        legend2={"orientation": "h", "y": 0.27, "x": 0.6},
        margin={"t": 110, "b": 60, "l": 70, "r": 30},
    )
    write_png(figure, path, width_px=1200, height_px=1120)


def _draw_writes(figure: go.Figure, result: dict[str, Any]) -> None:
    """Some numbers of tasks, second by second."""
    stored = [run for run in result["runs"] if run["writes_in"]]
    for run, colour in zip([stored[0], stored[len(stored) // 2], stored[-1]], COLOURS, strict=False):
        name = f"{run['tasks']} tasks"
        writes = _by_ten_seconds(run["writes_in"])
        minutes = [second / 6 for second in range(len(writes))]
        trace = go.Scatter(x=minutes, y=writes, name=name, mode="lines", legend="legend2")
        trace.update(line={"color": colour, "width": 1.5})
        figure.add_trace(trace, row=3, col=1)
    figure.update_xaxes(title_text="minutes from the start (means of 10 s)", row=3)


def _by_ten_seconds(seconds: list[int]) -> list[float]:
    return [sum(seconds[first : first + 10]) / 10 for first in range(0, len(seconds), 10)]
