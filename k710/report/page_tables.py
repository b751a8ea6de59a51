"""The tables of a page: one behind every figure, and those that need no figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from k710.pages.tables import Cell, Column, Table
from k710.report.damage import lost_for_good
from k710.report.words import reason_name
from k710.tables import compute

_LONG = 40
"""Rows from which on a table is searched and paged."""
_SHA256 = Column(label="SHA-256", kind="code")
_LEVELS = ("same_video", "overlapping_time", "same_bytes", "near_duplicate")


def flow_table(audit: Mapping[str, Any], kept: str) -> Table:
    """Behind the flow: per view and list the rows in, those kept and those lost by reason."""
    reasons = sorted({reason for flow in audit["flow"] for reason in flow["excluded"]})
    rows = [
        [flow["view"], flow["list"], flow["rows"], flow["clips"], *(flow["excluded"].get(r, 0) for r in reasons)]
        for flow in audit["flow"]
    ]
    header = (*_texts("view", "list"), *_counts("rows in", kept, *map(reason_name, reasons)))
    return _table("flow-table", "Rows of each list, by what became of them", header, rows)


def leak_table(audit: Mapping[str, Any]) -> Table:
    """Behind the matrix: each pair of a training and a held-out list that shares videos."""
    figures = {(pair["a"], pair["b"]): pair for pair in audit["pairs"]}
    videos = {entry["list"]: entry["videos"] for entry in audit["lists"]}
    rows: list[list[Cell]] = []
    for leak in sorted(audit["leaks"], key=lambda entry: -entry["videos"]):
        pair = figures[leak["train"], leak["held_out"]]
        rows.append(
            [
                leak["train"],
                leak["held_out"],
                leak["videos"],
                leak["videos"] / videos[leak["held_out"]],
                leak["train_rows"],
                pair["overlapping_videos"],
                pair["class_differs_videos"],
                "yes" if leak["own"] else "no",
            ]
        )
    header = (
        *_texts("training list", "held-out list"),
        *_counts("videos"),
        Column(label="part of the held-out list", kind="share"),
        *_counts("training rows", "videos with the same seconds", "videos with another class"),
        *_texts("of one release"),
    )
    return _table("leak-table", "Training and held-out lists that share videos, as the lists came", header, rows)


def remaining_table(audit: Mapping[str, Any]) -> Table:
    """What the training views of a build still share with held-out lists."""
    rows = [[r["view"], r["list"], r["videos"], "yes" if r["protected"] else "no"] for r in audit["remaining"]]
    header = (*_texts("training view", "held-out list"), *_counts("videos"), *_texts("must not be shared"))
    return _table("remaining-table", "Videos that training views share with held-out lists, as built", header, rows)


def damage_table(audit: Mapping[str, Any], kept: str) -> Table:
    """Every class of every training view: rows in, rows kept, rows lost by reason."""
    reasons = sorted({reason for view in audit["damage"] for row in view["classes"] for reason in row["lost"]})
    ordered = sorted(
        ((view["view"], row) for view in audit["damage"] for row in view["classes"]),
        key=lambda item: (-lost_for_good(item[1]) / item[1]["rows"], item[1]["name"], item[0]),
    )
    rows = [
        [
            row["name"],
            view,
            row["rows"],
            row["clips"],
            round(lost_for_good(row) / row["rows"], 4),
            *(row["lost"].get(reason, 0) for reason in reasons),
        ]
        for view, row in ordered
    ]
    header = (
        *_texts("class", "training view" if audit["views"] else "training list"),
        *_counts("rows in", kept),
        Column(label="lost with their bytes" if audit["views"] else "held out", kind="share"),
        *_counts(*map(reason_name, reasons)),
    )
    return _table("damage", "Classes by the part of their rows that is lost", header, rows, searchable=True)


def thin_table(audit: Mapping[str, Any], kept: str) -> Table:
    """The classes that have few clips."""
    ordered = sorted(audit["thin_classes"], key=lambda row: (row["clips"], -row["rows"], row["name"]))
    rows = [[row["name"], row["view"], row["rows"], row["clips"]] for row in ordered]
    header = (*_texts("class", "training view" if audit["views"] else "training list"), *_counts("rows in", kept))
    return _table("thin", f"Classes with fewer than {audit['min_per_class']:,} clips", header, rows)


def conflict_table(audit: Mapping[str, Any], leaks: pa.Table) -> Table:
    """Pairs of class names for one video: in the merged views of a build, else between the lists."""
    if audit["views"]:
        rows = [[pair["label"], pair["winner"], pair["rows"]] for pair in audit["conflicts"]["pairs"]]
        header = (*_texts("label set aside", "label kept"), *_counts("rows"))
    else:
        rows = [[*names, count] for names, count in _conflicts_between(leaks)]
        header = (*_texts("label in one list", "label in the other"), *_counts("pairs of rows"))
    return _table("conflicts", "Labels that lists give to one video", header, rows, searchable=True)


def views_table(audit: Mapping[str, Any]) -> Table:
    """The views of a build."""
    rows = [[v["view"], v["clips"], v["videos"], v["classes"], v["class_differs"]] for v in audit["views"]]
    header = (*_texts("view"), *_counts("clips", "videos", "classes", "rows with another class"))
    return _table("views-table", "Views of the build", header, rows)


def lists_table(audit: Mapping[str, Any]) -> Table:
    """The lists, and what each says of its own videos twice."""
    names = ("rows", "videos", "ids_twice", "ids_with_two_classes", "ids_with_two_segments", "duplicate_rows")
    rows = [
        [entry["list"], "held-out" if entry["held_out"] else "training", *(entry[n] for n in names)]
        for entry in audit["lists"]
    ]
    counts = ("rows", "videos", "ids twice", "with two classes", "with two segments", "rows repeated")
    return _table("lists-table", "Lists, and what each says twice", (*_texts("list", "side"), *_counts(*counts)), rows)


def shared_table(audit: Mapping[str, Any]) -> Table:
    """Videos that any two lists share, most first."""
    found = sorted((r for r in audit["shared_videos"] if r["videos"]), key=lambda r: (-r["videos"], r["lists"]))
    rows = [[*r["lists"], r["videos"]] for r in found]
    header = (*_texts("list", "other list"), *_counts("videos"))
    return _table("shared-table", "Videos that two lists share", header, rows)


def levels_table(audit: Mapping[str, Any]) -> Table:
    """How closely rows were compared."""
    rows: list[list[Cell]] = []
    for level in _LEVELS:
        facts = audit["levels"][level]
        said = "yes" if facts["checked"] else "not for some lists" if "lists_without_times" in facts else "no"
        why = f"without times: {', '.join(facts['lists_without_times'])}" if "lists_without_times" in facts else ""
        rows.append([level.replace("_", " "), said, why or facts.get("why", "")])
    return _table("levels-table", "What was compared", _texts("level", "checked", "why not"), rows)


def inputs_table(audit: Mapping[str, Any], lock: Mapping[str, Any] | None) -> Table:
    """Where every list is from, with its checksum."""
    if lock is not None:
        rows = [[name, facts["file"], facts["rows"], facts["sha256"]] for name, facts in lock["inputs"].items()]
        header = (*_texts("list", "file"), *_counts("rows"), _SHA256)
    else:
        rows = [
            [entry["list"], entry["source"], entry["dialect"] or entry["kind"], entry["release"], entry["sha256"]]
            for entry in audit.get("inputs", [])
        ]
        header = (*_texts("list", "from", "read as", "of release"), _SHA256)
    return _table("inputs-table", "What was given", header, rows)


def digests_table(lock: Mapping[str, Any]) -> Table:
    """The digests that pin a build."""
    rows: list[list[Cell]] = [[name.replace("_", " "), value] for name, value in sorted(lock["digests"].items())]
    rows.append(["class table", lock["class_table"]])
    rows += [[f"view {name}", facts["digest"]] for name, facts in sorted(lock["views"].items())]
    return _table("digests-table", "Digests of the build", (*_texts("of"), _SHA256), rows)


def settings_table(lock: Mapping[str, Any]) -> Table:
    """The settings that decided a build."""
    rows: list[list[Cell]] = [["k710", lock["k710"]]]
    if lock.get("ffmpeg"):
        rows.append(["ffmpeg", _plain(lock["ffmpeg"])])
    rows += [[name, value] for name, value in _flat(lock["config"])]
    return _table("settings-table", "Settings of the build", _texts("setting", "value"), rows)


def outcomes_table(audit: Mapping[str, Any]) -> Table | None:
    """What became of the clips; None where no clip was tried."""
    if not audit.get("clips"):
        return None
    rows = sorted(audit["clips"].items(), key=lambda item: (-item[1], item[0]))
    header = (*_texts("outcome"), *_counts("clips"))
    return _table("outcomes-table", "Clips by outcome", header, [[k.replace("_", " "), v] for k, v in rows])


def _table(
    id: str, caption: str, header: Sequence[Column], rows: Sequence[Sequence[Cell]], *, searchable: bool = False
) -> Table:
    columns = tuple(header)
    return Table(id=id, caption=caption, columns=columns, rows=rows, searchable=searchable or len(rows) > _LONG)


def _texts(*labels: str) -> tuple[Column, ...]:
    return tuple(Column(label=label) for label in labels)


def _counts(*labels: str) -> tuple[Column, ...]:
    return tuple(Column(label=label, kind="count") for label in labels)


def _conflicts_between(leaks: pa.Table) -> list[tuple[tuple[str, str], int]]:
    """Pairs of labels of row pairs whose classes differ, whichever list has which, most first."""
    rows = leaks.filter(compute.fill_null(leaks["class_differs"], False)).select(["a_label", "b_label"])
    counted: Counter[tuple[str, str]] = Counter()
    grouped = rows.group_by(["a_label", "b_label"], use_threads=False).aggregate([([], "count_all")])
    for entry in grouped.to_pylist():
        one, other = sorted((entry["a_label"] or "", entry["b_label"] or ""))
        counted[one, other] += entry["count_all"]
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings in settings as one list, such as ``encode.crf``."""
    for name, value in sorted(settings.items()):
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
