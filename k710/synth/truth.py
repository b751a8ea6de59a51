"""What a build of a toy Kinetics must find, by set arithmetic on the plan alone; nothing of ``k710.lists`` is used.

The rules are those of the default policies: val and test lists are protected, train gives way, one clip per video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from k710.segments import Segment
from k710.synth.casting import RELEASES, Role, cast
from k710.synth.plan import Clip, SynthConfig

SCHEMA = "k710.synth.truth"
VERSION = 1
HELD_OUT = ("val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of one list."""

    release: str
    """``k400``, ``k600`` or ``k700``."""
    split: str
    """``train``, ``val`` or ``test``."""
    segment: Segment
    """Video id and time range."""
    label: str | None
    """Official name of the class in this release; None where the list has no label column."""
    status: str
    """What a build must make of the clip's file, as in ``Clip``."""


def rows_of(plan: Sequence[Clip]) -> list[Row]:
    """Every row of every list, in the order of the plan."""
    return [
        Row(
            release=place.release,
            split=place.split,
            segment=clip.segment,
            label=place.label,
            status=clip.status,
        )
        for clip in plan
        for place in clip.places
    ]


def truth_of(config: SynthConfig, plan: Sequence[Clip]) -> dict[str, Any]:
    """The content of ``truth.json``."""
    rows = rows_of(plan)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "config": asdict(config),
        "classes": [_class(role) for role in cast(config.num_classes)],
        "planted": _planted(plan),
        "leaks": leaks_in(rows),
        "lists": dict(sorted(Counter(f"{r.release}:{r.split}" for r in rows).items())),
        "views": {name: _counts(members) for name, members in views_of(rows).items()},
        "views_on_request": {"k710-test": _counts(_test_view(rows))},
        "files_expected_to_fail": [
            {"path": f"videos/{c.path}", "key": c.segment.key, "status": c.status} for c in plan if c.status != "ok"
        ],
        "clips": [_clip(clip) for clip in plan],
    }


def views_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each default view."""
    held_out = {r.segment.id for r in rows if r.split in HELD_OUT}
    views = {
        "k710-train": _one_per_video(r for r in rows if r.split == "train" and r.segment.id not in held_out),
        "k710-val": _one_per_video(r for r in rows if r.split == "val"),
    }
    for release in RELEASES:
        lists = {s: [r for r in rows if (r.release, r.split) == (release, s)] for s in ("train", *HELD_OUT)}
        own = {r.segment.id for s in HELD_OUT for r in lists[s]}
        views[f"{release}-train"] = [r for r in lists["train"] if r.segment.id not in own]
        views[f"{release}-val"], views[f"{release}-test"] = lists["val"], lists["test"]
    return views


def leaks_in(rows: Sequence[Row]) -> dict[str, Any]:
    """Videos that stand in a train list and in a held-out list of any release: in all, by pair of lists, and which."""
    lists: dict[str, set[str]] = {f"{r}:{s}": set() for r in RELEASES for s in ("train", *HELD_OUT)}
    for row in rows:
        lists[f"{row.release}:{row.split}"].add(row.segment.id)
    pairs = {
        f"{train} & {held}": lists[train] & lists[held]
        for train in lists
        for held in lists
        if train.endswith(":train") and not held.endswith(":train")
    }
    ids = sorted(set().union(*pairs.values()))
    return {"total": len(ids), "pairs": {name: len(found) for name, found in pairs.items()}, "ids": ids}


def _test_view(rows: Sequence[Row]) -> list[Row]:
    in_val = {r.segment.id for r in rows if r.split == "val"}
    return _one_per_video(r for r in rows if r.split == "test" and r.segment.id not in in_val)


def _one_per_video(rows: Iterable[Row]) -> list[Row]:
    """The newest release's row of each video, then the earliest segment."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: (-RELEASES.index(r.release), r.segment.start_s, r.segment.end_s)):
        best.setdefault(row.segment.id, row)
    return list(best.values())


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "clips": len({r.segment.key for r in rows}),
        "usable_clips": len({r.segment.key for r in rows if r.status == "ok"}),
        "videos": len({r.segment.id for r in rows}),
        "ids": sorted({r.segment.id for r in rows}),
    }


def _class(role: Role) -> dict[str, Any]:
    return {
        "index": role.index,
        "name": role.name,
        "names": dict(role.names),
        "kind": role.kind,
        "partner": role.partner,
        "family": role.family,
        "backward": role.backward,
    }


def _clip(clip: Clip) -> dict[str, Any]:
    return {
        "id": clip.segment.id,
        "key": clip.segment.key,
        "class": clip.role.index,
        # A planted clip of an order class is drawn in one direction only; the base still is its own.
        "base": f"{clip.base.family}/{clip.base.number}",
        "backward": clip.base.backward,
        "path": f"videos/{clip.path}",
        "layout": clip.layout,
        "status": clip.status,
        "lists": _lists(clip),
        "form": asdict(clip.form),
    }


def _lists(clip: Clip) -> dict[str, str | None]:
    return {p.list_name: p.label for p in clip.places}


def _planted(plan: Sequence[Clip]) -> dict[str, list[dict[str, Any]]]:
    """Per case, the videos that are one: ``id``, and ``segments`` with the label in each list."""
    videos: dict[str, list[Clip]] = {}
    for clip in plan:
        videos.setdefault(clip.segment.id, []).append(clip)
    return {case: [_video(v) for v in videos.values() if is_one(v)] for case, is_one in _CASES.items()}


def _video(clips: Sequence[Clip]) -> dict[str, Any]:
    return {
        "id": clips[0].segment.id,
        "segments": [{"key": c.segment.key, "path": f"videos/{c.path}", "lists": _lists(c)} for c in clips],
    }


def _plant_is(kind: str) -> Callable[[Sequence[Clip]], bool]:
    return lambda clips: clips[0].plant == kind


def _releases(clips: Sequence[Clip]) -> set[str]:
    return {p.release for c in clips for p in c.places}


def _only(release: str) -> Callable[[Sequence[Clip]], bool]:
    return lambda clips: _releases(clips) == {release}


def _ends(file: str) -> Callable[[Sequence[Clip]], bool]:
    return lambda clips: clips[0].file == file


def _leaks(clips: Sequence[Clip]) -> bool:
    splits = {p.split for c in clips for p in c.places}
    return "train" in splits and len(splits) > 1


def _leaks_at_home(clips: Sequence[Clip]) -> bool:
    lists = {p.list_name for c in clips for p in c.places}
    return any(f"{r}:train" in lists and not lists.isdisjoint(f"{r}:{s}" for s in HELD_OUT) for r in RELEASES)


def _looks_like_a_number(clips: Sequence[Clip]) -> bool:
    return clips[0].segment.id.replace("e", "").isdigit()


_CASES: Mapping[str, Callable[[Sequence[Clip]], bool]] = {
    "in_two_releases": lambda clips: len(_releases(clips)) == 2,
    "in_three_releases": lambda clips: len(_releases(clips)) == 3,
    "only_k400": _only("k400"),
    "only_k600": _only("k600"),
    "only_k700": _only("k700"),
    "leak": _leaks,
    "leak_into_own_release": _leaks_at_home,
    "leak_by_other_segment": _plant_is("leak_by_other_segment"),
    "two_segments": lambda clips: len(clips) > 1,
    "two_classes": lambda clips: len({p.role.index for c in clips for p in c.places}) > 1,
    "val_and_test": lambda clips: set(HELD_OUT) <= {p.split for c in clips for p in c.places},
    "id_begins_with_dash": lambda clips: clips[0].segment.id.startswith("-"),
    "id_begins_with_underscore": lambda clips: clips[0].segment.id.startswith("_"),
    "id_looks_like_a_number": _looks_like_a_number,
    "missing_file": _ends("missing"),
    "truncated_file": _ends("truncated"),
    "unreadable_file": _ends("unreadable"),
    "empty_file": _ends("empty_file"),
    "html_file": _ends("html"),
    "whole_video": lambda clips: clips[0].layout == "original",
    "untimed_clip": lambda clips: clips[0].layout == "untimed",
    "timed_clip_in_class_folder": lambda clips: clips[0].layout == "folder",
}
