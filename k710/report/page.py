"""The audit as a page that stands alone: the answer, the figures that back it, and tables behind them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.errors import FeedError
from k710.pages.render import Script, packaged_script, render, script
from k710.report import page_tables
from k710.report.answer import answer_of, training_views
from k710.report.figures import MAX_LISTS, Spec, balance_figure, flow_figure, label, leak_figure
from k710.report.leak_ids import MAX_IDS, ids_of_leaks
from k710.report.look_alikes import look_alikes
from k710.report.near_duplicates import ContentAudit, read_content_audit
from k710.report.words import KEPT, REASON_WORDS, counted
from k710.shards.index import LOCK_FILE
from k710.tables import read_table

PAGE_BEGINS = b'<!doctype html>\n<html lang="en">\n<head>\n<meta name="generator" content="k710">'
"""First bytes of every page."""
PAGE_FILE = Path("report", "audit.html")
"""Where a build and ``k710 audit --out`` have the page, under their folder."""
LEAKS_FILE = "leaks.parquet"


def audit_page(
    audit: Mapping[str, Any],
    leaks: pa.Table,
    lock: Mapping[str, Any] | None = None,
    content: ContentAudit | None = None,
) -> str:
    """The page of an audit; equal values give equal bytes.

    Args:
        audit: ``audit.json``.
        leaks: ``leaks.parquet``.
        lock: of the build; None for an audit of lists.
        content: what of its clips looks the same; None where that is not known.
    """
    if content is not None:
        audit = {**audit, "levels": {**audit["levels"], **content.document["levels"]}}
    kept = "clips kept" if audit["views"] else "not held out"
    figures = _figures(audit, kept)
    cells, figures["leaks"] = _leak_matrix(audit, ids_of_leaks(audit["leaks"], leaks))
    figures["names"] = {"train": _shown(audit, held_out=False), "held_out": _shown(audit, held_out=True)}
    return render(
        "audit.html",
        scripts=(_plotly(), packaged_script("audit.js")),
        title="Leak audit",
        answer=answer_of(audit),
        audit=audit,
        figures=figures,
        cells=cells,
        max_ids=MAX_IDS,
        kept=kept,
        reasons=_reasons(audit),
        tables=_tables(audit, leaks, lock, kept),
        lock=lock,
        alike=look_alikes(content),
    )


def write_build_page(out: Path, audit: Mapping[str, Any]) -> None:
    """Write the page of a build into its folder, from its audit, lock and leaks; without the leaks there is no page."""
    path = out / PAGE_FILE
    lock = json.loads((out / LOCK_FILE).read_bytes())
    try:
        leaks = read_table(out / LEAKS_FILE, schema.LEAKS)
    except FeedError:
        # Not the time to refuse: a takedown must go through in a build that somebody has thinned out.
        path.unlink(missing_ok=True)
        return
    page = audit_page(audit, leaks, lock, _content(out)).encode()
    # Megabytes: a build that changed nothing need not write them again.
    if not path.is_file() or path.read_bytes() != page:
        atomic.write_bytes(path, page)


def write_stored_page(out: Path) -> None:
    """Write the page of a build anew, from what lies in its folder; without an audit there is none."""
    path = out / "audit.json"
    if path.is_file():
        write_build_page(out, json.loads(path.read_bytes()))


def _content(out: Path) -> ContentAudit | None:
    """The content audit that fits the build; a damaged one must not keep a build from its page."""
    try:
        return read_content_audit(out)
    except FeedError:
        return None


def write_page(path: Path, page: str) -> None:
    """Replace the page at ``path``, of ``--html``; another file, or one that cannot be written, is a ``UsageError``."""
    atomic.require_replaceable(path, "--html", begins=PAGE_BEGINS, what="a page of k710")
    with atomic.writable(path.parent):
        atomic.write_text(path, page)


def _tables(audit: Mapping[str, Any], leaks: pa.Table, lock: Mapping[str, Any] | None, kept: str) -> dict[str, Any]:
    return {
        "flow": page_tables.flow_table(audit, kept),
        "leaks": page_tables.leak_table(audit),
        "remaining": page_tables.remaining_table(audit),
        "damage": page_tables.damage_table(audit, kept),
        "thin": page_tables.thin_table(audit, kept),
        "conflicts": page_tables.conflict_table(audit, leaks),
        "views": page_tables.views_table(audit),
        "lists": page_tables.lists_table(audit),
        "shared": page_tables.shared_table(audit),
        "levels": page_tables.levels_table(audit),
        "inputs": page_tables.inputs_table(audit, lock),
        "digests": None if lock is None else page_tables.digests_table(lock),
        "settings": None if lock is None else page_tables.settings_table(lock),
        "outcomes": page_tables.outcomes_table(audit),
    }


def _figures(audit: Mapping[str, Any], kept: str) -> dict[str, Any]:
    """Flow by view and class balance by training view; those of an audit of lists flow together."""
    ordered = training_views(audit)
    flows: dict[str, list[Mapping[str, Any]]] = {view: [] for view in ordered} if audit["views"] else {}
    for flow in audit["flow"]:
        flows.setdefault(flow["view"] if audit["views"] else "training lists", []).append(flow)
    damage = {entry["view"]: entry["classes"] for entry in audit["damage"]}
    return {
        "flow": [[view, flow_figure(own, kept)] for view, own in flows.items() if any(flow["rows"] for flow in own)],
        "balance": [[view, balance_figure(damage[view], kept)] for view in ordered if damage[view]],
    }


def _leak_matrix(
    audit: Mapping[str, Any], ids: Mapping[tuple[str, str], list[str]]
) -> tuple[list[dict[str, Any]], Spec | None]:
    """The pairs of lists with their ids, most first, each with its place in the figure; None without a pair."""
    sides = {entry["list"]: entry for entry in audit["lists"]}
    trains, held_outs = _shown(audit, held_out=False), _shown(audit, held_out=True)
    told, cells = {}, []
    for leak in sorted(audit["leaks"], key=lambda entry: -entry["videos"]):
        pair = leak["train"], leak["held_out"]
        shares = [leak["videos"] / sides[name]["videos"] for name in pair]
        facts = f"{shares[1]:.2%} of {label(pair[1])}, {shares[0]:.2%} of {label(pair[0])}"
        rows = counted(leak["train_rows"], "training row")
        told[pair] = {
            "videos": leak["videos"],
            "share": shares[1],
            "told": f"{label(pair[0])} and {label(pair[1])}<br>{counted(leak['videos'], 'video')}, {rows}<br>{facts}",
        }
        shown = pair[0] in trains and pair[1] in held_outs
        place = [trains.index(pair[0]), held_outs.index(pair[1])] if shown else None
        cells.append(
            {"train": pair[0], "held_out": pair[1], "videos": leak["videos"], "ids": ids[pair], "place": place}
        )
    return cells, leak_figure(trains, held_outs, told) if cells else None


def _shown(audit: Mapping[str, Any], *, held_out: bool) -> list[str]:
    """The lists of one side of the matrix in their order; of very many those that share most."""
    names = [entry["list"] for entry in audit["lists"] if entry["held_out"] == held_out]
    shared = dict.fromkeys(names, 0)
    for leak in audit["leaks"]:
        shared[leak["held_out" if held_out else "train"]] += leak["videos"]
    largest = set(sorted(names, key=lambda name: -shared[name])[:MAX_LISTS])
    return [name for name in names if name in largest]


def _reasons(audit: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The reasons that occur, by name, with what each means."""
    found = {reason for flow in audit["flow"] for reason in flow["excluded"]} - {KEPT}
    return [words for reason, words in REASON_WORDS.items() if reason in found]


@functools.cache
def _plotly() -> Script:
    # Not needed until a page is made, and slow to read.
    from plotly.offline import get_plotlyjs

    return script(get_plotlyjs())
