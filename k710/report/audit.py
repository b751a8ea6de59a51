"""The leak audit of a build: what stands in more than one list, what was done about it, and what was not checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from k710.lists.leakage import shared_videos
from k710.lists.views import MERGED, BuiltView, Policy

SCHEMA = "k710.audit/1"
_EXAMPLES = 5


def audit_document(
    catalog: pd.DataFrame, views: Sequence[BuiltView], policy: Policy, not_checked: Sequence[str]
) -> dict[str, Any]:
    """The audit as plain values, for ``audit.json``; ``statement`` is its first sentence."""
    lists = catalog.groupby(["release_order", "split_order", "release", "split"])["id"].agg(["size", "nunique"])
    shared = shared_videos(catalog)
    remaining = remaining_leaks(catalog, views, policy)
    return {
        "schema": SCHEMA,
        "statement": statement(policy, not_checked, [r for r in remaining if r["protected"]]),
        "lists": [
            {"list": f"{release}:{split}", "rows": int(size), "videos": int(ids)}
            for (_, _, release, split), size, ids in lists.itertuples()
        ],
        "not_checked": list(not_checked),
        "protect": list(policy.protect),
        "leaks_policy": policy.leaks,
        "shared_videos": [{"lists": [a, b], "videos": n} for (a, b), n in shared.items()],
        "leaks": leaks(catalog, shared),
        "remaining": remaining,
        "views": [_view_figures(view) for view in views],
        "conflicts": conflicts(views),
    }


def statement(policy: Policy, not_checked: Sequence[str], leaking: Sequence[Mapping[str, Any]]) -> str:
    """What may be said of ``k710-train``, with what it was not checked against."""
    checked = f"protected: {','.join(policy.protect)}" if policy.protect else "nothing was protected"
    if leaking:
        listed = ", ".join(f"{r['videos']:,} with {r['list']}" for r in leaking)
        said = f"NOT leak-free ({checked}): training views share videos with protected lists ({listed})"
    elif policy.protect:
        said = f"leak-free against the lists given ({checked})"
    else:
        said = f"not protected against leaks ({checked})"
    return f"{said}; not checked: {', '.join(not_checked)}." if not_checked else f"{said}; every list was given."


def leaks(catalog: pd.DataFrame, shared: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Each pair of a train list and a held-out list with videos in common, as the lists came, with some ids."""
    named = catalog["release"] + ":" + catalog["split"]
    ids = {name: set(rows) for name, rows in catalog.groupby(named)["id"]}
    found = []
    for (a, b), count in shared.items():
        train = [name for name in (a, b) if name.endswith(":train")]
        if count and len(train) == 1:
            held_out = b if train[0] == a else a
            examples = sorted(ids[a] & ids[b])[:_EXAMPLES]
            found.append({"train": train[0], "held_out": held_out, "videos": count, "examples": examples})
    order = list(ids)
    return sorted(found, key=lambda r: (order.index(r["train"]), order.index(r["held_out"])))


def remaining_leaks(catalog: pd.DataFrame, views: Sequence[BuiltView], policy: Policy) -> list[dict[str, Any]]:
    """Overlap of each train view, as built, with each held-out list; ``protected`` where the policy forbids it."""
    held_out = {
        (str(release), str(split)): set(rows)
        for (release, split), rows in catalog[catalog["split"] != "train"].groupby(["release", "split"])["id"]
    }
    found = []
    for view in views:
        if view.spec.split != "train":
            continue
        ids = set(view.members["id"])
        for (release, split), videos in held_out.items():
            count = len(ids & videos)
            own = view.spec.release == release
            protected = own or (view.spec.release == MERGED and split in policy.protected_splits)
            if count:
                name = f"{release}:{split}"
                found.append({"view": view.spec.name, "list": name, "videos": count, "protected": protected})
    return found


def conflicts(views: Sequence[BuiltView]) -> dict[str, Any]:
    """Rows of the merged views whose class differs from that of the row that won, by pair of names."""
    pairs: Counter[tuple[str, str]] = Counter()
    for view in views:
        if view.spec.release == MERGED:
            same = view.excluded[
                view.excluded["class_differs"] & view.excluded["reason"].isin(["same_clip", "other_segment"])
            ]
            pairs.update(zip(same["label"], same["by_label"], strict=True))
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return {
        "rows": sum(pairs.values()),
        "pairs": [{"label": a, "winner": b, "rows": n} for (a, b), n in ranked],
    }


def _view_figures(view: BuiltView) -> dict[str, Any]:
    members = view.members
    return {
        "view": view.spec.name,
        "clips": len(members),
        "videos": int(members["id"].nunique()),
        "classes": int(members.loc[members["canonical"] >= 0, "canonical"].nunique()),
        "excluded": {str(k): int(v) for k, v in view.excluded["reason"].value_counts().sort_index().items()},
        "class_differs": int(view.excluded["class_differs"].sum()) if len(view.excluded) else 0,
    }
