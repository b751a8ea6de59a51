"""The figures of a page, as plotly reads them: flow of rows, leak matrix, class balance.

Colours are names of the page's style (``--chart-1``, with ``/0.4`` for opacity), so that they follow its theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k710.report.words import KEPT, counted, reason_name

MAX_LISTS = 30
"""Lists on each side of the leak matrix; those that share most are shown."""
_MAX_FLOWS = 12
_MAX_LABEL = 40
_REASON_COLOURS = {
    KEPT: "--chart-1",
    "held_out": "--chart-2",
    "same_clip": "--chart-3",
    "other_segment": "--chart-4",
    "label_conflict": "--chart-5",
}
_OTHER_COLOUR = "--chart-6"

Spec = dict[str, Any]
"""``data`` and ``layout`` of a plotly figure."""


def label(text: str) -> str:
    """``text`` as plotly shows it letter by letter: it would read some markup; long names are cut."""
    cut = text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def flow_figure(flows: Sequence[Mapping[str, Any]], kept: str) -> Spec:
    """A Sankey diagram from lists to what became of their rows.

    Args:
        flows: entries of an audit's ``flow``, one per list.
        kept: what the rows that are not lost are called.
    """
    flows = _largest_flows(flows)
    outcomes = _outcomes(flows)
    places = {outcome: len(flows) + place for place, outcome in enumerate(outcomes)}
    links: dict[str, list[Any]] = {"source": [], "target": [], "value": [], "color": [], "customdata": []}
    for place, flow in enumerate(flows):
        for outcome, rows in _parts(flow).items():
            name = kept if outcome == KEPT else reason_name(outcome)
            told = f"{label(flow['list'])}, {name}: {counted(rows, 'row')} ({rows / flow['rows']:.1%})"
            values = (place, places[outcome], rows, f"{_colour(outcome)}/0.4", told)
            for key, value in zip(links, values, strict=True):
                links[key].append(value)
    totals = [(label(flow["list"]), flow["rows"]) for flow in flows]
    totals += [(kept if o == KEPT else reason_name(o), sum(_parts(f).get(o, 0) for f in flows)) for o in outcomes]
    nodes = {
        "label": [f"{name}  {rows:,}" for name, rows in totals],
        "color": [*["--muted"] * len(flows), *map(_colour, outcomes)],
        "customdata": [f"{name}: {counted(rows, 'row')}" for name, rows in totals],
        "hovertemplate": "%{customdata}<extra></extra>",
        "pad": 22,
        "thickness": 14,
        "line": {"width": 0},
    }
    sankey = {
        "type": "sankey",
        "arrangement": "fixed",
        "node": nodes,
        "link": {**links, "hovertemplate": "%{customdata}<extra></extra>"},
    }
    height = 130 + 46 * max(len(flows), len(outcomes))
    return {"data": [sankey], "layout": {"height": height, "margin": {"l": 8, "r": 8, "t": 16, "b": 16}}}


def leak_figure(trains: Sequence[str], held_outs: Sequence[str], cells: Mapping[tuple[str, str], Any]) -> Spec:
    """A heat map of training lists by held-out lists: colour by the part of the held-out list, text by count.

    Args:
        trains: training lists, from the top.
        held_outs: held-out lists, from the left.
        cells: per pair that shares videos its ``videos``, ``share`` (of the held-out list) and ``told``.
    """
    none = {"videos": 0, "share": 0.0}
    rows = [[cells.get((t, h), none) for h in held_outs] for t in trains]
    told = [
        [cells[t, h]["told"] if (t, h) in cells else f"{label(t)} and {label(h)} share no video" for h in held_outs]
        for t in trains
    ]
    heat = {
        "type": "heatmap",
        "x": list(range(len(held_outs))),
        "y": list(range(len(trains))),
        "z": [[round(100 * cell["share"], 4) for cell in row] for row in rows],
        "zmin": 0,
        "text": [[f"{cell['videos']:,}" for cell in row] for row in rows],
        "texttemplate": "%{text}",
        "customdata": told,
        "hovertemplate": "%{customdata}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
        "colorscale": [[0, "--heat-0"], [0.5, "--heat-1"], [1, "--heat-2"]],
        "colorbar": {"title": {"text": "% of the<br>held-out list"}, "thickness": 12, "ticksuffix": " %"},
    }
    layout = {
        "height": 150 + 40 * len(trains),
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": {**_names(held_outs), "side": "top", "tickangle": 0 if len(held_outs) < 8 else -90},
        "yaxis": {**_names(trains), "autorange": "reversed"},
    }
    return {"data": [heat], "layout": layout}


def balance_figure(classes: Sequence[Mapping[str, Any]], kept: str) -> Spec:
    """Rows in and rows kept, under that name, of every class of a training view, the class with most rows first."""
    ordered = sorted(classes, key=lambda row: (-row["rows"], -row["clips"], row["name"]))
    lines = []
    for key, name, colour in (("rows", "rows in", "--chart-3"), ("clips", kept, "--chart-1")):
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": list(range(1, len(ordered) + 1)),
                "y": [row[key] for row in ordered],
                "customdata": [label(row["name"]) for row in ordered],
                "line": {"shape": "hvh", "width": 1.2, "color": colour},
                "fill": "tozeroy",
                "fillcolor": f"{colour}/0.35",
                "hovertemplate": f"%{{customdata}}: %{{y:,}} {name}<extra></extra>",
            }
        )
    layout = {
        "height": 340,
        "margin": {"l": 8, "r": 8, "t": 36, "b": 8},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "classes, by rows in"}, "automargin": True, "fixedrange": True, "zeroline": False},
        "yaxis": {"rangemode": "tozero", "automargin": True, "fixedrange": True, "zeroline": False, "tickformat": ","},
    }
    return {"data": lines, "layout": layout}


def _names(names: Sequence[str]) -> dict[str, Any]:
    """An axis of places with names: the names alone might be taken for dates or numbers."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [label(name) for name in names],
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
    }


def _parts(flow: Mapping[str, Any]) -> dict[str, int]:
    return {outcome: rows for outcome, rows in {KEPT: flow["clips"], **flow["excluded"]}.items() if rows}


def _outcomes(flows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What became of the rows, the kept ones first, then by number."""
    totals: dict[str, int] = {}
    for flow in flows:
        for outcome, rows in _parts(flow).items():
            totals[outcome] = totals.get(outcome, 0) + rows
    return sorted(totals, key=lambda outcome: (outcome != KEPT, -totals[outcome], outcome))


def _colour(outcome: str) -> str:
    return _REASON_COLOURS.get(outcome, _OTHER_COLOUR)


def _largest_flows(flows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The flows with rows; of very many the largest, with the others as one."""
    filled = [flow for flow in flows if flow["rows"]]
    if len(filled) <= _MAX_FLOWS:
        return filled
    ordered = sorted(filled, key=lambda flow: -flow["rows"])
    rest = ordered[_MAX_FLOWS - 1 :]
    excluded: dict[str, int] = {}
    for flow in rest:
        for reason, rows in flow["excluded"].items():
            excluded[reason] = excluded.get(reason, 0) + rows
    merged = {
        "list": f"{len(rest):,} more lists",
        "rows": sum(flow["rows"] for flow in rest),
        "clips": sum(flow["clips"] for flow in rest),
        "excluded": excluded,
    }
    return [*ordered[: _MAX_FLOWS - 1], merged]
