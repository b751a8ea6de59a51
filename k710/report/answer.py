"""What a page says first: leak-free or not, against which lists, and the three figures that back it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["yes", "no", "unknown"]
_MERGED_TRAIN = "k710-train"
_HEADLINES: dict[State, str] = {
    "yes": "Leak-free",
    "no": "Not leak-free",
    "unknown": "Not known",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number that the answer rests on."""

    value: int
    """How many."""
    label: str
    """Of what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of an audit."""

    state: State
    """``yes``: leak-free; ``no``: not; ``unknown``: nothing was protected, or a list could not be compared."""
    headline: str
    """The answer in a few words."""
    sentence: str
    """The audit's first sentence."""
    against: list[str]
    """The held-out lists that were given."""
    not_checked: list[str]
    """What was not given, or could not be compared."""
    figures: list[Figure]
    """Three of them."""


def answer_of(audit: Mapping[str, Any]) -> Answer:
    """The answer of an audit document."""
    state = _state(audit)
    said = audit["statement"]
    return Answer(
        state=state,
        headline=_headline(state, audit),
        sentence=said[:1].upper() + said[1:],
        against=[entry["list"] for entry in audit["lists"] if entry["held_out"]],
        not_checked=list(audit["not_checked"]),
        figures=_of_build(audit) if audit["views"] else _of_lists(audit),
    )


def training_views(audit: Mapping[str, Any]) -> list[str]:
    """The training views of a build, the merged one first; of an audit of lists the training lists."""
    views: list[str] = [entry["view"] for entry in audit["damage"]]
    return sorted(views, key=lambda view: view != _MERGED_TRAIN)


def _headline(state: State, audit: Mapping[str, Any]) -> str:
    if audit["views"] and not audit["damage"]:
        return "Nothing to check"
    if state == "unknown" and audit["views"]:
        return "Not protected against leaks"
    return _HEADLINES[state] + (" as far as checked" if state == "yes" and audit["not_checked"] else "")


def _state(audit: Mapping[str, Any]) -> State:
    if not audit["views"]:
        return "unknown" if audit.get("unchecked_lists") else "no" if audit["leaks"] else "yes"
    if not audit["damage"]:  # no training view
        return "unknown"
    if any(entry["protected"] for entry in audit["remaining"]):
        return "no"
    return "yes" if audit["protect"] else "unknown"


def _of_build(audit: Mapping[str, Any]) -> list[Figure]:
    main = next(iter(training_views(audit)), audit["views"][0]["view"])
    view = next(entry for entry in audit["views"] if entry["view"] == main)
    if not audit["damage"]:
        rows = sum(entry["clips"] for entry in audit["views"])
        return [
            Figure(value=0, label="training views"),
            Figure(value=len(audit["views"]), label="views that nothing is trained on"),
            Figure(value=rows, label="clips in them, some in several"),
        ]
    left = sum(entry["videos"] for entry in audit["remaining"] if entry["view"] == main and entry["protected"])
    removed = view["excluded"].get("held_out", 0)
    classes = f"{view['classes']:,} class{'' if view['classes'] == 1 else 'es'}"
    return [
        Figure(value=left, label=f"videos of protected lists left in {main}"),
        Figure(value=removed, label=f"rows kept out of {main} because a held-out list has their video"),
        Figure(value=view["clips"], label=f"clips in {main}, of {classes}"),
    ]


def _of_lists(audit: Mapping[str, Any]) -> list[Figure]:
    rows = sum(flow["rows"] for flow in audit["flow"])
    leaking = sum(flow["excluded"].get("held_out", 0) for flow in audit["flow"])
    return [
        Figure(value=leaking, label="training rows whose video a held-out list has"),
        Figure(value=rows, label="training rows compared"),
        Figure(value=len(audit["leaks"]), label="pairs of a training and a held-out list that share videos"),
    ]
