"""The ids behind each cell of the leak matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from k710.tables import compute

MAX_IDS = 500
"""Ids of one pair of lists that a page names; ``leaks.parquet`` has all."""
_MAX_TOTAL_CHARACTERS = 1_500_000
"""Of all ids of a page, which must stay small whatever the lists are; the pairs that share most come first."""
_KINDS = ("train_eval", "own_train_eval")


def ids_of_leaks(leaks: Sequence[Mapping[str, Any]], rows: pa.Table) -> dict[tuple[str, str], list[str]]:
    """The first ids that a training list and a held-out list share, in order of id, by the names of both.

    Args:
        leaks: the pairs of lists, as an audit has them.
        rows: ``leaks.parquet``.
    """
    rows = rows.filter(compute.is_in(rows["kind"], value_set=pa.array(_KINDS)))
    found: dict[tuple[str, str], list[str]] = {}
    left = _MAX_TOTAL_CHARACTERS
    for leak in sorted(leaks, key=lambda entry: -entry["videos"]):
        ids = _ids_of_pair(rows, leak["train"], leak["held_out"])
        size = sum(map(len, ids))
        found[leak["train"], leak["held_out"]] = ids if size <= left else []
        left -= size if size <= left else 0
    return found


def _ids_of_pair(rows: pa.Table, train: str, held_out: str) -> list[str]:
    for side, name in (("a", train), ("b", held_out)):
        release, _, split = name.rpartition(":")
        for column, value in ((f"{side}_release", release), (f"{side}_split", split)):
            rows = rows.filter(compute.equal(rows[column], value))
    ids: list[str] = compute.unique(rows["id"]).slice(0, MAX_IDS).to_pylist()
    return ids
