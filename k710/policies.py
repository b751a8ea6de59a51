"""What other policies would make of the same lists, side by side, without building any of them: `k710 plan`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from k710.config import to_mapping
from k710.errors import UsageError
from k710.list_stage import Lists, Progress
from k710.lists.catalog import Catalog, Mask
from k710.lists.leakage import list_members
from k710.lists.manifest import exclusion_counts
from k710.lists.policy import Policy
from k710.lists.views import BuiltView, ViewSpec, build_views
from k710.shards.plan import assign_leaves

ENCODED_BYTES_PER_SECOND = 56_900
"""Bytes of one second under the default encode, for estimates: 569 kB for 10 s.

Measured on four real clips of 10 s at short side 256, crf 23, 3 B-frames and 16 frames between keyframes, with x264's
medium preset; in another measurement veryfast gave fewer bytes at the same crf. Four clips are few: an estimate.
"""
POLITE_VIDEOS_PER_HOUR = 300
"""Videos an hour that one polite downloader asks for: one every 12 seconds. A convention, not a measured limit."""
GIVEN = "given"
"""Name of the policy that the others are held against."""
_HOURS_PER_DAY = 24
_SECONDS_PER_HOUR = 3600
_MAX_VIEWS = 63

_ALTERNATIVES: dict[str, dict[str, Any]] = {
    "protect-val-test": {"protect": ("val", "test")},
    "protect-val": {"protect": ("val",)},
    "protect-test": {"protect": ("test",)},
    # As `k710 build --protect none` has it: there is nothing to give way to.
    "protect-none": {"protect": (), "leaks": "drop-train"},
    "leaks-drop-train": {"leaks": "drop-train"},
    "leaks-drop-eval": {"leaks": "drop-eval"},
    "leaks-report": {"leaks": "report"},
    "unit-video": {"unit": "video"},
    "unit-segment": {"unit": "segment"},
    "prefer-newest": {"prefer": ("newest",)},
    "prefer-oldest": {"prefer": ("oldest",)},
    "conflicts-keep": {"conflicts": "keep"},
    "conflicts-drop": {"conflicts": "drop"},
}

NAMES = (GIVEN, *_ALTERNATIVES)
"""Every policy that can be asked for by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedFigures:
    """A merged view under one policy."""

    clips: int
    """Clips in it."""
    videos: int
    """Videos that they are of."""
    classes: int
    """Canonical classes that they are of."""
    excluded: Mapping[str, int]
    """Rows of its lists that are not in it, by reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyFigures:
    """What one policy would give."""

    name: str
    """``given``, or what it has otherwise: ``protect-none``, ``unit-segment``, ..."""
    policy: Policy
    """All of it."""
    train: MergedFigures | None
    """``k710-train``; None when it is not among the views."""
    val: MergedFigures | None
    """``k710-val``; None when it is not among the views."""
    leaks_protected: int
    """Videos of ``k710-train`` that stand in a protected held-out list."""
    leaks_unprotected: int
    """Videos of ``k710-train`` that stand in held-out lists, none of them protected."""
    clips: int
    """Different clips of all views."""
    videos: int
    """Videos that they are of."""
    hours: float
    """Length of all clips; those without times count nothing."""
    estimated_bytes: int
    """Bytes of the shards under the default encode: an estimate."""
    shards: int
    """Tarballs that would be written."""
    download_days: float
    """Days to fetch every video at the polite rate."""


def named_policies(given: Policy, words: Sequence[str] = ("all",)) -> dict[str, Policy]:
    """The given policy, and those that ``words`` name: ``all`` that differ from it in one respect, ``given`` for none.

    Raises:
        UsageError: a word is no policy's name.
    """
    for word in words:
        if word not in ("all", *NAMES):
            raise UsageError(f"--policies: unknown policy {word!r}", hint=f"all, or some of {', '.join(NAMES)}")
    if not words:
        raise UsageError("--policies: no policies to compare", hint=f"all, or some of {', '.join(NAMES)}")
    found = {GIVEN: given}
    for name, change in _ALTERNATIVES.items():
        other = dataclasses.replace(given, **change)
        # Where nothing is protected, nothing gives way.
        differs = other != given and (bool(given.protect) or not name.startswith("leaks-"))
        if name in words or ("all" in words and differs):
            found[name] = other
    return found


def compare_policies(
    lists: Lists,
    specs: Sequence[ViewSpec],
    policies: Mapping[str, Policy],
    *,
    clips_per_shard: int,
    progress: Progress,
) -> list[PolicyFigures]:
    """What each of ``policies`` would give of ``lists``, in their order; nothing is written.

    Args:
        lists: as ``list_stage.read_lists`` gives them.
        specs: the views of the build.
        policies: by name, as ``named_policies`` gives them.
        clips_per_shard: most clips in one shard.
        progress: called with each policy that is done.

    Raises:
        UsageError: more views than one build can hold, or a policy names a release that is not there.
    """
    if len(specs) > _MAX_VIEWS:
        raise UsageError(f"a build holds at most {_MAX_VIEWS} views, got {len(specs)}", hint="name fewer with --views")
    catalog = lists.catalog
    members = list_members(catalog)
    hashes = catalog.trie_hashes(np.arange(catalog.num_videos))
    found: list[PolicyFigures] = []
    for name, policy in policies.items():
        progress("comparing policies", len(found), len(policies))
        views = {view.spec.name: view for view in build_views(catalog, specs, policy)}
        pool = _Pool(catalog, list(views.values()))
        train, val = (_merged(lists, views.get(f"k710-{split}")) for split in ("train", "val"))
        leaks = _leaks(catalog, views.get("k710-train"), policy, members)
        found.append(
            PolicyFigures(
                name=name,
                policy=policy,
                train=train,
                val=val,
                leaks_protected=leaks[0],
                leaks_unprotected=leaks[1],
                clips=len(pool.clips),
                videos=pool.num_videos,
                hours=pool.seconds / _SECONDS_PER_HOUR,
                estimated_bytes=round(pool.seconds * ENCODED_BYTES_PER_SECOND),
                shards=pool.num_shards(hashes, clips_per_shard),
                download_days=pool.num_videos / POLITE_VIDEOS_PER_HOUR / _HOURS_PER_DAY,
            )
        )
    progress("comparing policies", len(found), len(policies))
    return found


def plan_document(lists: Lists, figures: Sequence[PolicyFigures]) -> dict[str, Any]:
    """The figures as plain values, with what they were counted over."""
    return {
        "rows": len(lists.catalog),
        "bad_rows": lists.bad_rows.num_rows,
        "lists": [item.file.name for item in lists.lists],
        "not_checked": list(lists.not_checked),
        "encoded_bytes_per_second": ENCODED_BYTES_PER_SECOND,
        "polite_videos_per_hour": POLITE_VIDEOS_PER_HOUR,
        "policies": [to_mapping(f) for f in figures],
    }


class _Pool:
    """The clips that some view needs."""

    def __init__(self, catalog: Catalog, views: Sequence[BuiltView]) -> None:
        views_of = np.zeros(catalog.num_clips, dtype=np.int64)
        for bit, view in enumerate(views):
            views_of[catalog.clip[view.members]] |= 1 << bit
        self.clips = np.flatnonzero(views_of)
        self._views = views_of[self.clips]
        self._video = catalog.clip_video[self.clips]
        self.num_videos = int(_marked(catalog, self._video).sum())
        self.seconds = float(np.nansum(catalog.end_s[self.clips] - catalog.start_s[self.clips]))

    def num_shards(self, hashes: npt.NDArray[np.uint64], clips_per_shard: int) -> int:
        """Shards that hold them, by the rule of the build; ``hashes`` is per video."""
        sets, group = np.unique(self._views, return_inverse=True)
        # Any names will do: they only have to differ.
        leaves, _ = assign_leaves(hashes[self._video], group, list(map(str, sets.tolist())), clips_per_shard)
        return len(leaves)


def _merged(lists: Lists, view: BuiltView | None) -> MergedFigures | None:
    if view is None:
        return None
    catalog = lists.catalog
    classes = catalog.canonical[view.members]
    return MergedFigures(
        clips=len(view.members),
        videos=int(_marked(catalog, catalog.video[view.members]).sum()),
        classes=len(np.unique(classes[classes >= 0])),
        excluded=exclusion_counts(view, lists.bad_rows),
    )


def _leaks(catalog: Catalog, train: BuiltView | None, policy: Policy, members: Mask) -> tuple[int, int]:
    """Videos of the training view in protected held-out lists, and in none but unprotected ones."""
    if train is None:
        return 0, 0
    seen = _marked(catalog, catalog.video[train.members])
    protected, held = (np.zeros(catalog.num_videos, dtype=bool) for _ in range(2))
    for name, listed in zip(catalog.lists, members, strict=True):
        if name.is_held_out:
            held |= listed
        if name.is_held_out and name.split in policy.protected_splits:
            protected |= listed
    return int((seen & protected).sum()), int((seen & held & ~protected).sum())


def _marked(catalog: Catalog, videos: npt.NDArray[Any]) -> Mask:
    mask = np.zeros(catalog.num_videos, dtype=bool)
    mask[videos] = True
    return mask
