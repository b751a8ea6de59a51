"""The leak audit: what stands in more than one list, what was done about it, and what was not checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from k710.labels import LabelMap, load_labels
from k710.lists.catalog import Catalog, Mask
from k710.lists.dedupe import REASONS
from k710.lists.leakage import (
    RowPairs,
    list_figures,
    list_leaks,
    list_members,
    pair_figures,
    row_pairs,
    shared_videos,
)
from k710.lists.policy import Policy
from k710.lists.views import BuiltView
from k710.report.damage import MIN_PER_CLASS, list_damage, thin_classes, view_damage
from k710.report.flow import list_flows, view_flows

SCHEMA = "k710.audit/3"
_NEEDS_CLIPS = "clips are not compared with each other, only what lists say of them"
_NAMED = 8
_GAVE_WAY = ("same_clip", "other_segment", "label_conflict")


def audit_document(
    catalog: Catalog,
    views: Sequence[BuiltView],
    policy: Policy,
    not_checked: Sequence[str],
    *,
    labels: LabelMap | None = None,
    pairs: RowPairs | None = None,
    minimum: int = MIN_PER_CLASS,
    bad_rows: int = 0,
) -> dict[str, Any]:
    """The audit of a build as plain values, for ``audit.json``; ``statement`` is its first sentence.

    Args:
        catalog: every row of the lists.
        views: the views of the build.
        policy: what was to happen to leaks.
        not_checked: lists that were not given.
        labels: the class table; None for the packaged one.
        pairs: ``leakage.row_pairs`` of the catalog, when they are at hand.
        minimum: clips under which a class of a training view is named.
        bad_rows: rows that could not be used; a held-out one that names a video still holds it out.
    """
    remaining = remaining_leaks(catalog, views, policy)
    labels = load_labels() if labels is None else labels
    training = [view for view in views if view.spec.split == "train"]
    return {
        "statement": statement(
            policy, not_checked, [r for r in remaining if r["protected"]], bad_rows, trains=bool(training)
        ),
        "not_checked": list(not_checked),
        "bad_rows": bad_rows,
        "protect": list(policy.protect),
        "leaks_policy": policy.leaks,
        "remaining": remaining,
        "views": [_view_figures(catalog, view) for view in views],
        "flow": view_flows(catalog, views),
        "conflicts": conflicts(catalog, views),
        **_found_in_lists(catalog, pairs, None),
        **_damage([view_damage(catalog, view, labels) for view in training], minimum),
    }


def lists_document(
    catalog: Catalog,
    *,
    owners: Sequence[str],
    not_checked: Sequence[str] = (),
    pairs: RowPairs | None = None,
    labels: LabelMap | None = None,
    minimum: int = MIN_PER_CLASS,
) -> dict[str, Any]:
    """The audit of lists as they came, in the form of ``audit_document``; there are no views and nothing was removed.

    ``owners`` names per list of the catalog the release that it is of, which its name need not say.
    """
    found = _found_in_lists(catalog, pairs, owners)
    labels = load_labels() if labels is None else labels
    training = [i for i, name in enumerate(catalog.lists) if not name.is_held_out]
    return {
        "statement": lists_statement(catalog, found["leaks"], not_checked),
        "not_checked": list(not_checked),
        "protect": [],
        "leaks_policy": "report",
        "remaining": [],
        "views": [],
        "flow": list_flows(catalog),
        "conflicts": {"rows": 0, "pairs": []},
        **found,
        **_damage([list_damage(catalog, i, labels) for i in training], minimum),
    }


def statement(
    policy: Policy,
    not_checked: Sequence[str],
    leaking: Sequence[Mapping[str, Any]],
    bad_rows: int = 0,
    *,
    trains: bool = True,
) -> str:
    """What may be said of ``k710-train``, if ``trains``, with what it was not checked against."""
    checked = f"protected: {','.join(policy.protect)}" if policy.protect else "nothing was protected"
    if leaking:
        listed = ", ".join(f"{r['videos']:,} with {r['list']}" for r in leaking)
        said = f"NOT leak-free ({checked}): training views share videos with protected lists ({listed})"
        said += "; k710-val gave way and shares none with k710-train" if policy.leaks == "drop-eval" else ""
    elif not trains:
        said = "no training view was built, so nothing was checked for leaks"
    elif policy.protect:
        said = f"leak-free against the lists given ({checked})"
    else:
        said = f"not protected against leaks ({checked})"
    said += f"; {bad_rows:,} row{'s' * (bad_rows != 1)} could not be used (bad_rows.csv)" if bad_rows else ""
    return f"{said}; not checked: {', '.join(not_checked)}." if not_checked else f"{said}; every list was given."


def lists_statement(catalog: Catalog, leaks: Sequence[Mapping[str, Any]], not_checked: Sequence[str]) -> str:
    """What may be said of the training lists against the held-out lists that were given."""
    held_out = [str(name) for name in catalog.lists if name.is_held_out]
    if leaks:
        worst = sorted(leaks, key=lambda r: -r["videos"])
        told = "; ".join(_told(r) for r in worst[:3])
        more = f"; and {len(worst) - 3} more pairs of lists share videos" if len(worst) > 3 else ""
        said = f"NOT leak-free: {told}{more}"
    else:
        said = f"leak-free against the lists given: {_listed(held_out)}"
    return f"{said}; not checked: {_listed(not_checked)}." if not_checked else f"{said}."


def remaining_leaks(catalog: Catalog, views: Sequence[BuiltView], policy: Policy) -> list[dict[str, Any]]:
    """Overlap of each train view, as built, with each held-out list; ``protected`` where the policy forbids it."""
    members = list_members(catalog)
    found = []
    for view in (v for v in views if v.spec.split == "train"):
        seen = _videos_in(catalog, view)
        for name, listed in zip(catalog.lists, members, strict=True):
            count = int((seen & listed).sum())
            if not name.is_held_out or not count:
                continue
            own = view.spec.release == name.release
            protected = own or (view.spec.is_merged and name.split in policy.protected_splits)
            found.append({"view": view.spec.name, "list": str(name), "videos": count, "protected": protected})
    return found


def conflicts(catalog: Catalog, views: Sequence[BuiltView]) -> dict[str, Any]:
    """Rows of the merged views whose class differs from that of the row that won, by pair of names."""
    counted: dict[tuple[str, str], int] = {}
    gave_way = [i for i, reason in enumerate(REASONS) if reason in _GAVE_WAY]
    for view in (v for v in views if v.spec.is_merged):
        differs = view.class_differs(catalog) & np.isin(view.reasons, gave_way)
        mine, theirs = catalog.label[view.rows[differs]], catalog.label[view.by[differs]]
        codes, counts = np.unique(mine.astype(np.int64) << 32 | theirs, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            pair = catalog.names[code >> 32], catalog.names[code & 0xFFFFFFFF]
            counted[pair] = counted.get(pair, 0) + count
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return {
        "rows": sum(counted.values()),
        "pairs": [{"label": a, "winner": b, "rows": n} for (a, b), n in ranked],
    }


def _found_in_lists(catalog: Catalog, pairs: RowPairs | None, owners: Sequence[str] | None) -> dict[str, Any]:
    """What the lists alone say, whatever was built from them."""
    leaks = list_leaks(catalog, owners)
    named = ("train", "held_out", "videos", "train_rows")
    return {
        "schema": SCHEMA,
        "lists": [
            {**figures, "held_out": name.is_held_out}
            for figures, name in zip(list_figures(catalog), catalog.lists, strict=True)
        ],
        "levels": _levels(catalog),
        "shared_videos": [{"lists": [a, b], "videos": n} for (a, b), n in shared_videos(catalog).items()],
        "pairs": pair_figures(catalog, row_pairs(catalog) if pairs is None else pairs, owners),
        "leaks": leaks,
        "own_leaks": [{k: r[k] for k in named} for r in leaks if r["own"]],
    }


def _levels(catalog: Catalog) -> dict[str, Any]:
    """How closely rows were compared; bytes and pictures have their seat here and are not looked at by lists alone."""
    untimed = np.isnan(catalog.start_s) | np.isnan(catalog.end_s)
    codes = np.unique(catalog.list_code[untimed[catalog.clip]])
    timeless = [str(catalog.lists[i]) for i in codes]
    return {
        "same_video": {"checked": True},
        "overlapping_time": {"checked": not timeless, **({"lists_without_times": timeless} if timeless else {})},
        "same_bytes": {"checked": False, "why": _NEEDS_CLIPS},
        "near_duplicate": {"checked": False, "why": _NEEDS_CLIPS},
    }


def _damage(damage: list[dict[str, Any]], minimum: int) -> dict[str, Any]:
    return {"min_per_class": minimum, "damage": damage, "thin_classes": thin_classes(damage, minimum)}


def _listed(names: Sequence[str]) -> str:
    """The names, as many as a sentence can hold."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _told(leak: Mapping[str, Any]) -> str:
    own = ", a held-out list of its own release" if leak["own"] else ""
    videos = "1 video" if leak["videos"] == 1 else f"{leak['videos']:,} videos"
    return f"{videos} of {leak['train']} stand{'s' if leak['videos'] == 1 else ''} in {leak['held_out']}{own}"


def _view_figures(catalog: Catalog, view: BuiltView) -> dict[str, Any]:
    classes = catalog.canonical[view.members]
    counts = np.bincount(view.reasons, minlength=len(REASONS))
    return {
        "view": view.spec.name,
        "clips": len(view.members),
        "videos": int(_videos_in(catalog, view).sum()),
        "classes": int((np.bincount(classes[classes >= 0]) > 0).sum()),
        "excluded": {word: int(n) for word, n in sorted(zip(REASONS, counts, strict=True)) if n},
        "class_differs": int(view.class_differs(catalog).sum()),
    }


def _videos_in(catalog: Catalog, view: BuiltView) -> Mask:
    """Per video: whether a clip of it is in the view."""
    seen = np.zeros(catalog.num_videos, dtype=bool)
    seen[catalog.clip_video[catalog.clip[view.members]]] = True
    return seen
