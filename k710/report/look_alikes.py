"""What the page says of clips that look the same: how many pairs there are, where they lie, and the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k710.pages.tables import Cell, Column, Table
from k710.report.near_duplicates import ContentAudit

MAX_PAIRS = 1000
"""Pairs that the page lists; the parquet file has all."""

LIMITS = (
    "Measured on copies of short real and drawn clips: of those made smaller, cropped by 5 % in the middle, encoded at "
    "crf 35 or begun a second later, 96 to 100 of 100 were found (of further drawn ones 89 to 100), and no other pair "
    "was taken for one (5,103 of other scenes, 204 of the same); large logos and crops at one side are often missed, "
    "and so are copies that share less than half of the shorter clip."
)
"""What was measured of the method, in a sentence."""

_KINDS = {
    "own_train_eval": "training and held-out view of one release",
    "train_eval": "training view and a held-out view of another release",
    "train_train": "inside training views",
    "eval_eval": "inside held-out views",
}
_SHORT_KINDS = {
    "own_train_eval": "training, own held-out",
    "train_eval": "training, other held-out",
    "train_train": "training",
    "eval_eval": "held-out",
}
_FOUND_BY = {
    "rest": "the same pictures",
    "motion": "what moves in them",
    "still": "still pictures",
    "drift": "frames around the same time",
}

_NOTES = {"same_bytes": "same file", "mirrored": "mirrored", "gave_way": "one gave way"}


def look_alikes(content: ContentAudit | None) -> dict[str, Any] | None:
    """The content audit as the template takes it; None where the build has none."""
    if content is None:
        return None
    document = content.document
    return {
        "statement": _sentence(document["statement"]),
        "leaks": sum(row["pairs"] for row in content.leaking),
        "pairs": document["pairs"],
        "groups": document["groups"],
        "clips": document["clips"],
        "same_video_pairs": document["same_video_pairs"],
        "gave_way_pairs": document["gave_way_pairs"],
        "not_compared": list(document["not_compared"].items()),
        "kinds": _kinds_table(document),
        "between": _between_table(document),
        "listed": _pairs_table(content),
        "max_pairs": MAX_PAIRS,
        "limits": LIMITS,
    }


def _kinds_table(document: Mapping[str, Any]) -> Table:
    kinds = document["kinds"]
    rows: list[list[Cell]] = [[words, kinds[kind]] for kind, words in _KINDS.items() if kind in kinds]
    columns = (Column(label="where"), Column(label="pairs", kind="count"))
    return Table(
        id="look-alike-kinds", caption="Pairs of clips that look the same, by kind", columns=columns, rows=rows
    )


def _between_table(document: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = [
        [*row["views"], row["pairs"], *row["clips"], "yes" if row["protected"] else "no"] for row in document["between"]
    ]
    columns = (
        Column(label="view"),
        Column(label="other view"),
        Column(label="pairs", kind="count"),
        Column(label="clips of the view", kind="count"),
        Column(label="clips of the other", kind="count"),
        Column(label="must not be"),
    )
    caption = "Pairs of clips that look the same, by the views that list them"
    return Table(id="look-alike-views", caption=caption, columns=columns, rows=rows)


def _pairs_table(content: ContentAudit) -> Table:
    counted = [row for row in content.table.to_pylist() if not row["same_video"]]
    columns = (
        Column(label="clip", kind="code"),
        Column(label="other clip", kind="code"),
        Column(label="kind"),
        Column(label="views"),
        Column(label="other views"),
        Column(label="seconds shared"),
        Column(label="offset in s"),
        Column(label="told by"),
    )
    rows = [_pair(row) for row in counted[:MAX_PAIRS]]
    caption = "Clips that look the same, pair by pair"
    return Table(id="look-alike-pairs", caption=caption, columns=columns, rows=rows, searchable=len(rows) > 1)


def _pair(row: Mapping[str, Any]) -> list[Cell]:
    notes = [words for name, words in _NOTES.items() if row[name]]
    return [
        row["key_a"],
        row["key_b"],
        _SHORT_KINDS.get(row["kind"], row["kind"]),
        row["views_a"].replace(",", ", "),
        row["views_b"].replace(",", ", "),
        f"{row['frames'] / 10:.1f}",
        f"{row['offset_s']:.1f}",
        ", ".join([_FOUND_BY.get(row["found_by"], row["found_by"]), *notes]),
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
