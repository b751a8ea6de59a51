"""The picture of builds of many tiny clips: memory and the cost of a clip over how many are done."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from pictures import COLOURS, write_png
from plotly.subplots import make_subplots

_MOST_POINTS = 400
_COSTS = (("main_cpu_ms", "CPU of the writer, ms a clip"), ("workers_cpu_ms", "CPU of the workers, ms a clip"))
_MEMORY = (("main_bytes", "memory of the writer, MB"), ("workers_bytes", "memory of all workers, MB"))


def draw(results: Sequence[Path], path: Path) -> None:
    """Write the picture of builds whose JSON files these are, with their CSV files beside them."""
    titles = [title for _, title in (*_MEMORY, *_COSTS)]
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles, vertical_spacing=0.16, horizontal_spacing=0.09)
    for colour, result in zip(COLOURS, results, strict=False):
        document = json.loads(result.read_bytes())
        name = f"{document['clips']:,} clips, {document['encode']}"
        line = {"color": colour, "width": 2}
        with result.with_suffix(".csv").open(newline="") as handle:
            rows = [row for row in csv.DictReader(handle) if row["run"] != "again" and int(row["clips"])]
        rows = rows[:: max(1, len(rows) // _MOST_POINTS)]
        for column, (field, _) in enumerate(_MEMORY):
            for run in dict.fromkeys(row["run"] for row in rows):
                own = _at_work([row for row in rows if row["run"] == run])
                clips = [int(row["clips"]) for row in own]
                trace = go.Scatter(x=clips, y=[int(row[field]) / 1e6 for row in own], mode="lines", line=line)
                trace.update(name=name, legendgroup=name, showlegend=column == 0 and run == "build")
                figure.add_trace(trace, row=1, col=column + 1)
        windows = document["windows"]
        for column, (field, _) in enumerate(_COSTS):
            clips, costs = [w["clips"] for w in windows], [w[field] for w in windows]
            trace = go.Scatter(x=clips, y=costs, mode="lines+markers", line=line)
            trace.update(name=name, legendgroup=name, showlegend=False)
            figure.add_trace(trace, row=2, col=column + 1)
    figure.update_xaxes(title_text="clips with an outcome on the disk", tickformat=",d", rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.12}, margin={"t": 100, "b": 60, "l": 70, "r": 30})
    write_png(figure, path, width_px=1200, height_px=820)


def _at_work(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows from the first clip of a run to its last: before them are lists and ledger, after them is the index."""
    first, last = rows[0]["clips"], rows[-1]["clips"]
    return [row for row in rows if row["clips"] != first][: 1 - sum(row["clips"] == last for row in rows) or None]
