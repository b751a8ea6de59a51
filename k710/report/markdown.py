"""The audit as Markdown: the statement first, then the tables that back it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def audit_markdown(audit: Mapping[str, Any]) -> str:
    """``audit.md`` for a document of ``audit.audit_document``, with the clips' outcomes when it has them."""
    sections = [
        f"# Audit\n\n{_sentence(audit['statement'])}",
        _section("Lists", ["list", "rows", "videos"], [[r["list"], r["rows"], r["videos"]] for r in audit["lists"]]),
        _leaks(audit["leaks"]),
        _remaining(audit["remaining"]),
        _views(audit["views"]),
        _shared(audit),
        _conflicts(audit["conflicts"]),
    ]
    if "clips" in audit:
        sections.append(_section("Clips", ["outcome", "clips"], [[k, v] for k, v in audit["clips"].items()]))
    return "\n\n".join(sections) + "\n"


def _sentence(statement: str) -> str:
    return statement[:1].upper() + statement[1:]


def _leaks(leaks: Sequence[Mapping[str, Any]]) -> str:
    if not leaks:
        return "## Leaks in the lists as they came\n\nNone."
    rows = [[r["train"], r["held_out"], r["videos"], ", ".join(f"`{i}`" for i in r["examples"])] for r in leaks]
    return _section("Leaks in the lists as they came", ["train list", "held-out list", "videos", "for example"], rows)


def _remaining(remaining: Sequence[Mapping[str, Any]]) -> str:
    title = "## Overlap of the training views, as built\n\n"
    if not remaining:
        return title + "None with any list given."
    rows = [[r["view"], r["list"], r["videos"], "**yes**" if r["protected"] else "no"] for r in remaining]
    return title + _table(["view", "held-out list", "videos", "protected"], rows)


def _views(views: Sequence[Mapping[str, Any]]) -> str:
    reasons = sorted({reason for v in views for reason in v["excluded"]})
    rows = [
        [
            v["view"],
            v["clips"],
            v["videos"],
            v["classes"],
            *(v["excluded"].get(r, 0) for r in reasons),
            v["class_differs"],
        ]
        for v in views
    ]
    return _section(
        "Views", ["view", "clips", "videos", "classes", *(f"excluded: {r}" for r in reasons), "class differs"], rows
    )


def _shared(audit: Mapping[str, Any]) -> str:
    names = [r["list"] for r in audit["lists"]]
    counts = {frozenset(r["lists"]): r["videos"] for r in audit["shared_videos"]}
    own = {r["list"]: r["videos"] for r in audit["lists"]}
    rows = [[f"**{a}**", *(own[a] if a == b else counts[frozenset((a, b))] for b in names)] for a in names]
    return _section("Videos that two lists share", ["", *names], rows)


def _conflicts(conflicts: Mapping[str, Any]) -> str:
    title = "## Class conflicts in the merged views\n\n"
    if not conflicts["rows"]:
        return title + "None."
    shown = conflicts["pairs"][:20]
    rest = f"\n\n{len(conflicts['pairs']) - 20} more pairs in `audit.json`." if len(conflicts["pairs"]) > 20 else ""
    return (
        title
        + _table(["label set aside", "label kept", "rows"], [[p["label"], p["winner"], p["rows"]] for p in shown])
        + rest
    )


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"## {title}\n\n{_table(header, rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    body = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    right = [all(isinstance(row[i], int) for row in rows) for i in range(len(header))]
    rule = ["---:" if r else "---" for r in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(header), rule, *body])
