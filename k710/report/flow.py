"""From the rows of each list to the clips of each view: how many are kept, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.lists.catalog import SPLIT_ORDER, Catalog
from k710.lists.dedupe import REASONS
from k710.lists.views import BuiltView
from k710.tables import compute

_BAD_ROW = "bad_row"


def view_flows(catalog: Catalog, views: Sequence[BuiltView], bad_rows: pa.Table | None = None) -> list[dict[str, Any]]:
    """For each view and each of its source lists: rows in, clips kept, and the rows lost by reason.

    Args:
        catalog: every row of the lists.
        views: the views of the build.
        bad_rows: ``BAD_ROWS`` of the lists; None: there are none.
    """
    bad = _bad_rows_per_list(bad_rows)
    found = []
    for view in views:
        size = len(catalog.lists)
        kept = np.bincount(catalog.list_code[view.members], minlength=size)
        codes = catalog.list_code[view.rows].astype(np.int64) * len(REASONS) + view.reasons
        lost = np.bincount(codes, minlength=size * len(REASONS)).reshape(size, len(REASONS))
        for i, name in enumerate(catalog.lists):
            if view.spec.draws_on(name.release, name.split):
                reasons = {word: int(n) for word, n in zip(REASONS, lost[i], strict=True) if n}
                if str(name) in bad:
                    reasons[_BAD_ROW] = reasons.get(_BAD_ROW, 0) + bad[str(name)]
                found.append(_flow(view.spec.name, str(name), int(kept[i]), reasons))
    return found


def list_flows(catalog: Catalog) -> list[dict[str, Any]]:
    """The same for training lists as they came, if the videos of every held-out list left them."""
    held_out = np.zeros(catalog.num_videos, dtype=bool)
    held_out[catalog.video[catalog.split_mask(SPLIT_ORDER[1:])]] = True
    found = []
    for i, name in enumerate(catalog.lists):
        if not name.is_held_out:
            rows = catalog.list_rows(i)
            lost = int(held_out[catalog.video[rows]].sum())
            kept = rows.stop - rows.start - lost
            found.append(_flow(str(name), str(name), kept, {"held_out": lost} if lost else {}))
    return found


def flows_of_tables(flows: Sequence[Mapping[str, Any]], excluded: pa.Table) -> list[dict[str, Any]]:
    """``flows`` with their rows lost by this table: the rows in stay, and those that are not lost are the clips."""
    names = ["view", "release", "split", "reason"]
    grouped = excluded.select(names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    columns: list[npt.NDArray[Any] | list[Any]] = [grouped[name].to_pylist() for name in (*names, "count_all")]
    lost: dict[tuple[str, str], dict[str, int]] = {}
    for view, release, split, reason, count in zip(*columns, strict=True):
        lost.setdefault((view, f"{release}:{split}"), {})[reason] = count
    found = []
    for flow in flows:
        own = lost.get((flow["view"], flow["list"]), {})
        found.append(_flow(flow["view"], flow["list"], flow["rows"] - sum(own.values()), own))
    return found


def _bad_rows_per_list(bad_rows: pa.Table | None) -> dict[str, int]:
    if bad_rows is None or not bad_rows.num_rows:
        return {}
    counted = compute.value_counts(compute.binary_join_element_wise(bad_rows["release"], bad_rows["split"], ":"))
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def _flow(view: str, name: str, kept: int, lost: Mapping[str, int]) -> dict[str, Any]:
    ordered = {word: lost[word] for word in sorted(lost)}
    return {"view": view, "list": name, "rows": kept + sum(lost.values()), "clips": kept, "excluded": ordered}
