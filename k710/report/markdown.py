"""The audit as Markdown: the statement first, then the tables that back it, none longer than a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k710.report.damage import lost_for_good

_MAX_MATRIX = 12
"""Lists up to which the shared videos are a square table; more would not fit on any page."""
_MAX_ROWS = 40
_LEVELS = ("same_video", "overlapping_time", "same_bytes", "near_duplicate")
"""From the coarsest on: a document that was read from JSON has lost this order."""
_NUM_WORST = 20
_NUM_EXAMPLES = 3
_UNKNOWN = "-"
"""What stands in a table where a number is not known."""
_MIN_FOR_HINT = 10
_NEARLY_ALL = 0.9
"""Part of the compared pairs of rows with different classes that makes a wrong class order likely."""


def audit_markdown(audit: Mapping[str, Any]) -> str:
    """``audit.md`` for a document of ``report.audit``, with the clips' outcomes when it has them."""
    sections = [
        f"# Audit\n\n{_sentence(audit['statement'])}",
        _leaks(audit),
        _own_leaks(audit["own_leaks"]),
        _remaining(audit),
        _views(audit["views"]),
        _inputs(audit),
        _lists(audit),
        _shared(audit),
        _levels(audit["levels"]),
        _damage(audit),
        _thin(audit),
        _conflicts(audit),
        _clips(audit),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _sentence(statement: str) -> str:
    return statement[:1].upper() + statement[1:]


def _leaks(audit: Mapping[str, Any]) -> str:
    title = "Leaks in the lists as they came"
    if not audit["leaks"]:
        return f"## {title}\n\nNone."
    figures = {(p["a"], p["b"]): p for p in audit["pairs"]}
    rows = [
        [
            leak["train"],
            leak["held_out"],
            leak["videos"],
            leak["train_rows"],
            *(
                figures[leak["train"], leak["held_out"]][k]
                for k in ("overlapping_videos", "same_segment", "class_differs_videos")
            ),
            ", ".join(f"`{i}`" for i in leak["examples"][:_NUM_EXAMPLES]),
        ]
        for leak in sorted(audit["leaks"], key=lambda leak: -leak["videos"])
    ]
    header = [
        "train list",
        "held-out list",
        "videos",
        "train rows",
        "same seconds",
        "same segment (row pairs)",
        "other class",
        "for example",
    ]
    notes = _class_notes([figures[leak["train"], leak["held_out"]] for leak in audit["leaks"]])
    return "\n\n".join([_section(title, header, rows), *notes])


def _class_notes(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know of the column of classes."""
    notes = []
    if any(pair["class_differs_videos"] is None for pair in pairs):
        notes.append(f"`{_UNKNOWN}`: no two rows have classes that can be compared.")
    for pair in pairs:
        # Audits of earlier versions do not have these figures.
        compared, differing = (pair.get(f"same_segment_{k}", 0) for k in ("classes_compared", "class_differs"))
        if not compared:
            compared, differing = pair.get("classes_compared_row_pairs", 0), pair["class_differs_row_pairs"] or 0
        if compared >= _MIN_FOR_HINT and differing >= _NEARLY_ALL * compared:
            what = f"{differing:,} of {compared:,} pairs of rows of {pair['a']} and {pair['b']} have different classes"
            notes.append(f"{what}: the order of the class numbers is probably wrong (`--class-order`).")
    return notes


def _own_leaks(own: Sequence[Mapping[str, Any]]) -> str:
    if not own:
        return ""
    rows = [[r["train"], r["held_out"], r["train_rows"], r["videos"]] for r in own]
    return _section(
        "Training rows that their own release holds out", ["train list", "held-out list", "train rows", "videos"], rows
    )


def _remaining(audit: Mapping[str, Any]) -> str:
    if not audit["views"]:
        return ""
    title = "Overlap of the training views, as built"
    if not audit["remaining"]:
        return f"## {title}\n\nNone with any list given."
    rows = [[r["view"], r["list"], r["videos"], "**yes**" if r["protected"] else "no"] for r in audit["remaining"]]
    return _section(title, ["view", "held-out list", "videos", "protected"], rows)


def _views(views: Sequence[Mapping[str, Any]]) -> str:
    if not views:
        return ""
    reasons = sorted({reason for v in views for reason in v["excluded"]})
    rows = [
        [
            *(v[k] for k in ("view", "clips", "videos", "classes")),
            *(v["excluded"].get(r, 0) for r in reasons),
            v["class_differs"],
        ]
        for v in views
    ]
    header = ["view", "clips", "videos", "classes", *(f"excluded: {r}" for r in reasons), "class differs"]
    return _section("Views", header, rows)


def _inputs(audit: Mapping[str, Any]) -> str:
    if "inputs" not in audit:
        return ""
    rows = [
        [
            r["list"],
            r["source"],
            f"{r['dialect']} list".strip() if r["kind"] == "list" else r["kind"],
            r["release"] or "",
        ]
        for r in audit["inputs"]
    ]
    return _section("What was given", ["list", "from", "read as", "of release"], rows)


def _lists(audit: Mapping[str, Any]) -> str:
    names = ("rows", "videos", "ids_twice", "ids_with_two_classes", "ids_with_two_segments", "duplicate_rows")
    header = ["list", "rows", "videos", "ids twice", "with two classes", "with two segments", "rows repeated"]
    table = _section("Lists", header, [[r["list"], *(r[n] for n in names)] for r in audit["lists"]])
    bad = audit.get("bad_rows", 0)
    return f"{table}\n\n{bad:,} more row{'' if bad == 1 else 's'} could not be used." if bad else table


def _shared(audit: Mapping[str, Any]) -> str:
    title = "Videos that two lists share"
    names = [r["list"] for r in audit["lists"]]
    if len(names) > _MAX_MATRIX:
        found = sorted((r for r in audit["shared_videos"] if r["videos"]), key=lambda r: -r["videos"])
        return _section(title, ["list", "list", "videos"], [[*r["lists"], r["videos"]] for r in found])
    counts = {frozenset(r["lists"]): r["videos"] for r in audit["shared_videos"]}
    own = {r["list"]: r["videos"] for r in audit["lists"]}
    rows = [[f"**{_cell(a)}**", *(own[a] if a == b else counts[frozenset((a, b))] for b in names)] for a in names]
    return _section(title, ["", *names], rows)


def _levels(levels: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for level in _LEVELS:
        facts = levels[level]
        said = "yes" if facts["checked"] else "not for lists without times" if "lists_without_times" in facts else "no"
        why = ", ".join(facts.get("lists_without_times", [])) or facts.get("why", "")
        lines.append([level.replace("_", " "), said, why])
    return _section("What was compared", ["level", "checked", ""], lines)


def _damage(audit: Mapping[str, Any]) -> str:
    classes = [
        (lost_for_good(row) / row["rows"], view["view"], row)
        for view in audit["damage"]
        for row in view["classes"]
        if lost_for_good(row)
    ]
    if not classes:
        return ""
    worst = sorted(classes, key=lambda item: (-item[0], item[1], item[2]["name"]))[:_NUM_WORST]
    rows = [
        [view, row["name"], row["rows"], row["clips"], ", ".join(f"{k} {n:,}" for k, n in _most_first(row["lost"]))]
        for _, view, row in worst
    ]
    return _section(
        "Classes that lose the largest part of their rows",
        ["training list", "class", "rows in", "clips kept", "rows lost by reason"],
        rows,
        total=len(classes),
    )


def _thin(audit: Mapping[str, Any]) -> str:
    title = f"Classes with fewer than {audit['min_per_class']:,} clips"
    if not audit["thin_classes"]:
        return f"## {title}\n\nNone."
    ordered = sorted(audit["thin_classes"], key=lambda r: (r["clips"], -r["rows"]))
    rows = [[r["view"], r["name"], r["rows"], r["clips"], "**emptied**" if r["emptied"] else ""] for r in ordered]
    header = ["training list", "class", "rows in", "clips kept", ""]
    return _section(title, header, rows[:_NUM_WORST], total=len(rows))


def _conflicts(audit: Mapping[str, Any]) -> str:
    if not audit["views"]:
        return ""
    title = "Class conflicts in the merged views"
    pairs = audit["conflicts"]["pairs"]
    if not pairs:
        return f"## {title}\n\nNone."
    rows = [[p["label"], p["winner"], p["rows"]] for p in pairs[:_NUM_WORST]]
    return _section(title, ["label set aside", "label kept", "rows"], rows, total=len(pairs))


def _clips(audit: Mapping[str, Any]) -> str:
    if "clips" not in audit:
        return ""
    return _section("Clips", ["outcome", "clips"], [[k, v] for k, v in _most_first(audit["clips"])])


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], total: int = 0) -> str:
    """A table under its title; what it leaves out of ``total`` rows, or past a page, is counted below it."""
    shown = rows[:_MAX_ROWS]
    hidden = max(total, len(rows)) - len(shown)
    rest = f"\n\n{hidden:,} more in `audit.json`." if hidden else ""
    return f"## {title}\n\n{_table(header, shown)}{rest}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    body = [[_UNKNOWN if v is None else f"{v:,}" if isinstance(v, int) else _cell(str(v)) for v in row] for row in rows]
    right = [bool(rows) and all(row[i] is None or isinstance(row[i], int) for row in rows) for i in range(len(header))]
    rule = ["---:" if r else "---" for r in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [[_cell(h) for h in header], rule, *body])


def _cell(text: str) -> str:
    """``text`` as it can stand in a table: names of people's files may hold anything."""
    return " ".join(text.replace("|", "\\|").replace("<", "\\<").split())
