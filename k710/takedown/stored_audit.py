"""The audit of a build whose tables changed: what speaks of the views is counted again, the rest is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.labels import LabelMap
from k710.lists.dedupe import REASONS
from k710.lists.policy import Policy
from k710.lists.views import ViewSpec
from k710.report.audit import statement
from k710.report.damage import thin_classes
from k710.report.flow import flows_of_tables
from k710.tables import compute

_GAVE_WAY = ("same_clip", "other_segment", "label_conflict")
_LEVELS = ("same_video", "overlapping_time", "same_bytes", "near_duplicate")


def audit_of_tables(
    audit: Mapping[str, Any],
    lock: Mapping[str, Any],
    specs: Sequence[ViewSpec],
    manifest: pa.Table,
    excluded: pa.Table,
    held_out: pa.Table,
    labels: LabelMap,
) -> dict[str, Any]:
    """``audit`` with its figures of the views by these tables; those of the lists, and ``clips``, are left as they are.

    Args:
        audit: the stored audit, of the same lists and views.
        lock: of the build.
        specs: its views.
        manifest: the planned clips.
        excluded: the rows that are in no view.
        held_out: the videos of every held-out list.
        labels: the class table of the build.
    """
    members = _Members(manifest)
    remaining = _remaining(audit["remaining"], members, held_out)
    counts = _counts(excluded)
    damage = [_damage(entry, counts, lock["releases"], labels) for entry in audit["damage"]]
    policy = Policy(protect=tuple(audit["protect"]), leaks=audit["leaks_policy"])
    return {
        **audit,
        "statement": statement(
            policy,
            audit["not_checked"],
            [r for r in remaining if r["protected"]],
            audit["bad_rows"],
            trains=any(spec.split == "train" for spec in specs),
        ),
        "remaining": remaining,
        "views": [_view_figures(spec.name, members, counts) for spec in specs],
        "flow": flows_of_tables(audit["flow"], excluded),
        "conflicts": _conflicts(excluded, [spec.name for spec in specs if spec.is_merged]),
        # The page lists both in this order, which JSON does not keep.
        "levels": dict(sorted(audit["levels"].items(), key=lambda item: _LEVELS.index(item[0]))),
        "damage": damage,
        "thin_classes": thin_classes(damage, audit["min_per_class"]),
    }


class _Members:
    """The clips of each view."""

    def __init__(self, manifest: pa.Table) -> None:
        views = manifest["views"].combine_chunks()
        self._views = compute.list_flatten(views)
        self._clips = compute.list_parent_indices(views).to_numpy()
        self._classes = compute.list_flatten(manifest["view_classes"].combine_chunks()).to_numpy()
        self._hashes = manifest["id_hash"].to_numpy()

    def of(self, view: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int16]]:
        """Per clip of a view the hash of its video, and its class."""
        own = compute.equal(self._views, view).to_numpy(zero_copy_only=False)
        return self._hashes[self._clips[own]], self._classes[own]


_Counts = Counter[tuple[str, str, str, str | None, bool]]
"""Excluded rows by view, reason, release, label, and whether their class differs."""


def _counts(excluded: pa.Table) -> _Counts:
    names = ["view", "reason", "release", "label", "class_differs"]
    grouped = excluded.select(names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    columns = [grouped[name].to_pylist() for name in (*names, "count_all")]
    return Counter({(v, r, e, b, d): n for v, r, e, b, d, n in zip(*columns, strict=True)})


def _remaining(old: Sequence[Mapping[str, Any]], members: _Members, held_out: pa.Table) -> list[dict[str, Any]]:
    """The overlaps that are left; a video less never makes one."""
    found = []
    for entry in old:
        release, _, split = entry["list"].rpartition(":")
        own = compute.and_(compute.equal(held_out["release"], release), compute.equal(held_out["split"], split))
        count = len(np.intersect1d(members.of(entry["view"])[0], held_out["id_hash"].filter(own).to_numpy()))
        if count:
            found.append({**entry, "videos": count})
    return found


def _view_figures(view: str, members: _Members, counts: _Counts) -> dict[str, Any]:
    hashes, classes = members.of(view)
    excluded: Counter[str] = Counter()
    differs = 0
    for (name, reason, _, _, class_differs), number in counts.items():
        if name == view:
            excluded[reason] += number
            differs += number * class_differs
    return {
        "view": view,
        "clips": len(hashes),
        "videos": len(np.unique(hashes)),
        "classes": len(np.unique(classes[classes >= 0])),
        "excluded": dict(sorted(excluded.items())),
        "class_differs": differs,
    }


def _conflicts(excluded: pa.Table, merged: Sequence[str]) -> dict[str, Any]:
    own = compute.and_(
        compute.and_(excluded["class_differs"], compute.is_in(excluded["view"], value_set=pa.array(merged))),
        compute.is_in(excluded["reason"], value_set=pa.array(_GAVE_WAY)),
    )
    rows = excluded.filter(own)
    counted = Counter(zip(rows["label"].to_pylist(), rows["by_label"].to_pylist(), strict=True))
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {
        "rows": counted.total(),
        "pairs": [{"label": a, "winner": b, "rows": n} for (a, b), n in ranked],
    }


def _damage(
    entry: Mapping[str, Any], counts: _Counts, taxonomies: Mapping[str, str], labels: LabelMap
) -> dict[str, Any]:
    """One view's classes: the rows stay, and those that are not lost for a reason are its clips."""
    lost: dict[int | str, Counter[str]] = {}
    for (view, reason, release, label, _), number in counts.items():
        if view == entry["view"] and label is not None and reason != "bad_row":
            known = labels.canonical(taxonomies[release], label)
            lost.setdefault(label if known is None else known, Counter())[reason] += number
    classes = []
    for row in entry["classes"]:
        own = lost.get(row["name"] if row["index"] is None else row["index"], Counter())
        reasons = {reason: own[reason] for reason in REASONS if own[reason]}
        classes.append({**row, "clips": row["rows"] - own.total(), "lost": reasons})
    return {**entry, "classes": classes}
