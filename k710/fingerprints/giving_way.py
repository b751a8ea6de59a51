"""Which clips leave a build without near-duplicates, and a policy without their videos."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from k710.fingerprints.leaks import is_leak
from k710.lists.policy import Policy
from k710.report.near_duplicates import NEAR_DUPLICATES
from k710.tables import read_table


def giving_way(
    table: pa.Table,
    protect: Collection[str],
    *,
    leaks: Literal["drop-train", "drop-eval", "report"] = "drop-train",
    inside: bool = False,
) -> dict[str, str]:
    """The clips that leave a build without near-duplicates, each with the clip that it looks like.

    Args:
        table: ``near_duplicates.parquet``; pairs of which one has left already count as they did then.
        protect: kinds of held-out lists that training must not see, as the build's policy has them.
        leaks: which side of a leak gives way.
        inside: whether of clips that one training view has and that look the same only one stays too, the one with the
            first key.
    """
    found: dict[str, str] = {}
    rows = [row for row in table.to_pylist() if not row["same_video"]]
    if leaks != "report":
        gone, stays = ("key_a", "key_b") if leaks == "drop-train" else ("key_b", "key_a")
        for row in rows:
            if is_leak(row, protect):
                found.setdefault(row[gone], row[stays])
    if inside:
        for row in sorted(rows, key=lambda row: sorted((row["key_a"], row["key_b"]))):
            kept, lost = sorted((row["key_a"], row["key_b"]))
            if row["kind"] == "train_train" and _share_a_view(row) and kept not in found:
                found.setdefault(lost, kept)
    return found


def without_near_duplicates(policy: Policy, path: Path) -> Policy:
    """``policy`` that leaves out the videos of clips that give way by ``near_duplicates.parquet`` at ``path``.

    A build takes and leaves whole videos: where both clips are of one video, it stays.

    Raises:
        FeedError: the table is missing, of another version, or damaged.
    """
    table = read_table(path, NEAR_DUPLICATES)
    ids = {row[f"key_{side}"]: row[f"id_{side}"] for row in table.to_pylist() for side in "ab"}
    leaking = _ids(giving_way(table, policy.protect, leaks=policy.leaks), ids)
    inside = _ids(giving_way(table, policy.protect, leaks=policy.leaks, inside=True), ids)
    held_out = leaking if policy.leaks == "drop-eval" else set()
    selection = replace(
        policy.selection,
        near_duplicates=tuple(inside - held_out),
        near_duplicates_held_out=tuple(held_out),
    )
    return replace(policy, selection=selection)


def gave_way(old: pa.Table | None, planned: Collection[str], gone: Collection[str]) -> list[dict[str, Any]]:
    """The pairs of an earlier table of which a build has left one clip out, so that the table still says why.

    Args:
        old: that table; None: there is none.
        planned: keys of the clips of the build.
        gone: ids of the videos that it leaves out as near-duplicates.
    """
    rows: Sequence[dict[str, Any]] = [] if old is None else old.to_pylist()
    return [{**row, "gave_way": True} for row in rows if not row["same_video"] and _has_left(row, planned, gone)]


def _has_left(row: Mapping[str, Any], planned: Collection[str], gone: Collection[str]) -> bool:
    return any(row[f"id_{side}"] in gone and row[f"key_{side}"] not in planned for side in "ab")


def _share_a_view(row: Mapping[str, Any]) -> bool:
    return bool(set(row["views_a"].split(",")) & set(row["views_b"].split(",")))


def _ids(gone: Mapping[str, str], ids: Mapping[str, str]) -> set[str]:
    return {ids[lost] for lost, kept in gone.items() if ids[lost] != ids[kept]}
