"""Clips to look at side by side: rows of one video with different classes, and clips that look the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k710 import schema
from k710.browse.pool import Pool
from k710.errors import FeedError
from k710.labels import MERGED
from k710.segments import clip_key
from k710.tables import compute, table_from_bytes

EXCLUDED_FILE = "excluded.parquet"
NEAR_DUPLICATES_FILE = "near_duplicates.parquet"
"""A build may hold it: a row for each pair of clips that look the same, with the columns ``key_a`` and ``key_b``."""

_GAVE_WAY = ("same_clip", "other_segment", "label_conflict")
"""Reasons for which a row gave way to another one of its video; those of the audit's conflicts."""
_CONFLICT_COLUMNS = [
    "view", "id", "key", "release", "split", "start_s", "end_s", "label", "reason", "class_differs",
    "by_release", "by_split", "by_start_s", "by_end_s", "by_label",
]  # fmt: skip
_MOST_COLUMNS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of two clips."""

    key: str
    """Its key."""
    position: int
    """Where it stands in the pool; -1: it is not planned."""
    title: str
    """What it is in the pair, such as ``kept``."""
    label: str = ""
    """The class name of its row; empty where no row is meant."""
    row: str = ""
    """The row in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two clips and what they have to do with each other."""

    heading: str
    """The pair in a line."""
    facts: tuple[str, ...]
    """More of it, a line each."""
    sides: tuple[Side, Side]
    """The clip that gave way and the one that was kept; or the two that look the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How often rows of one class gave way to rows of another."""

    label: str
    """Class name of the row that gave way."""
    winner: str
    """Class name of the row that was kept."""
    rows: int
    """How many rows."""
    first: int
    """Position of the first of them among all pairs."""


def conflicts(pool: Pool) -> tuple[list[Pair], list[Kind]]:
    """Rows of the merged views that gave way to a row of another class, the most frequent two classes first.

    Raises:
        FeedError: the table of exclusions cannot be read.
    """
    data, url = pool.store.read(EXCLUDED_FILE), pool.store.url(EXCLUDED_FILE)
    table = table_from_bytes(data, schema.EXCLUDED, _CONFLICT_COLUMNS, where=url)
    merged = pa.array([view.name for view in pool.views if view.release == MERGED], pa.string())
    differs = compute.and_(table["class_differs"], compute.is_in(table["reason"], value_set=pa.array(_GAVE_WAY)))
    rows = table.filter(compute.and_(differs, compute.is_in(table["view"], value_set=merged))).to_pylist()
    counts = Counter((row["label"], row["by_label"]) for row in rows)
    rows.sort(key=lambda r: (-counts[r["label"], r["by_label"]], r["label"], r["by_label"], r["view"], r["key"]))
    kinds: dict[tuple[str, str], Kind] = {}
    for at, row in enumerate(rows):
        names = (row["label"], row["by_label"])
        kinds.setdefault(names, Kind(label=names[0], winner=names[1], rows=counts[names], first=at))
    kept = [clip_key(row["id"], row["by_start_s"], row["by_end_s"]) for row in rows]
    places = pool.positions_of([row["key"] for row in rows] + kept)
    pairs = [_conflict(row, key, places) for row, key in zip(rows, kept, strict=True)]
    return pairs, list(kinds.values())


def near_duplicates(pool: Pool) -> list[Pair] | None:
    """The pairs of ``near_duplicates.parquet`` in its order; None: the build has no such file.

    Columns besides the two keys, such as a score, are shown under their names.

    Raises:
        FeedError: the file is there and is no such table.
    """
    if not pool.store.exists(NEAR_DUPLICATES_FILE):
        return None
    table = _near_table(pool.store.read(NEAR_DUPLICATES_FILE), pool.store.url(NEAR_DUPLICATES_FILE))
    more = [name for name in table.column_names if name not in ("key_a", "key_b")][:_MOST_COLUMNS]
    rows = table.select(["key_a", "key_b", *more]).to_pylist()
    places = pool.positions_of([row[name] for row in rows for name in ("key_a", "key_b")])
    return [_near(row, more, places) for row in rows]


def sides_of(pairs: Sequence[Pair]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of the clips of ``pairs`` that are planned, each once, in the order in which they are met."""
    met = dict.fromkeys(side.position for pair in pairs for side in pair.sides if side.position >= 0)
    return np.array(list(met), dtype=np.int64)


def _near_table(data: bytes, url: str) -> pa.Table:
    hint = "it needs the columns key_a and key_b, with a clip key in each row; or take it out of the build"
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise FeedError(f"{url}: not a readable parquet file ({error})", hint=hint) from error
    for name in ("key_a", "key_b"):
        if table.column_names.count(name) != 1:
            raise FeedError(f"{url}: no column {name}, or several", hint=hint)
        if not (pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)):
            raise FeedError(f"{url}: column {name} holds {table[name].type}, not text", hint=hint)
        if table[name].null_count:
            raise FeedError(f"{url}: column {name} has empty rows", hint=hint)
    return table


def _conflict(row: Mapping[str, Any], kept: str, places: Mapping[str, int]) -> Pair:
    same = row["key"] == kept
    lost = Side(
        key=row["key"],
        position=places.get(row["key"], -1),
        title="gave way",
        label=row["label"],
        row=f"{row['release']}:{row['split']}, {_times(row['start_s'], row['end_s'])}",
    )
    won = Side(
        key=kept,
        position=places.get(kept, -1),
        title="kept" if row["reason"] != "label_conflict" else "not kept either",
        label=row["by_label"],
        row=f"{row['by_release']}:{row['by_split']}, {_times(row['by_start_s'], row['by_end_s'])}",
    )
    what = "one clip, two classes" if same else "two segments of one video"
    return Pair(
        heading=f"{row['label']} / {row['by_label']}",
        facts=(f"{row['view']}: {what} ({row['reason']})",),
        sides=(lost, won),
    )


def _near(row: Mapping[str, Any], more: Sequence[str], places: Mapping[str, int]) -> Pair:
    first, second = (
        Side(key=row[name], position=places.get(row[name], -1), title=f"clip {name[-1]}") for name in ("key_a", "key_b")
    )
    facts = tuple(f"{name}: {_shown(row[name])}" for name in more if row[name] is not None)
    return Pair(heading=f"{first.key} / {second.key}", facts=facts, sides=(first, second))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:200]


def _times(start_s: float, end_s: float) -> str:
    return f"{start_s:g} to {end_s:g} s"
