"""The cases that real Kinetics lists and folders hold and that a build must get right, each as a planted video."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Plant:
    """One planted video."""

    kind: str
    """Case that it is an instance of."""
    segments: tuple[tuple[str, ...], ...]
    """For each segment, the lists it stands in, as ``k600:val``; ``!`` marks a list that says another class."""
    layout: str = "timed"
    """How its file lies on disk: ``timed``, or ``original`` for one file with all segments."""
    file: str = "ok"
    """What becomes of its file, as in ``Clip``."""


def _leak(lists: str) -> Plant:
    return Plant(kind="leak", segments=(tuple(lists.split()),))


def _broken(file: str, lists: str) -> Plant:
    return Plant(kind="broken_file", segments=(tuple(lists.split()),), file=file)


PLANTS = (
    _leak("k400:train k600:val"),
    _leak("k400:train k600:test"),
    _leak("k400:train k700:val"),
    _leak("k400:train k700:test"),
    _leak("k600:train k400:val"),
    _leak("k600:train k400:test"),
    _leak("k600:train k700:val"),
    _leak("k600:train k700:test"),
    _leak("k700:train k400:val"),
    _leak("k700:train k600:test"),
    # The real id ---QUuC4vJs stands like this.
    _leak("k400:train k600:train k700:val"),
    _leak("k600:train k400:test k700:val"),
    _leak("k700:train k400:val k600:test"),
    # Leaks of a release into itself; the real Kinetics-600 has 397.
    _leak("k400:train k400:val"),
    _leak("k600:train k600:test"),
    _leak("k700:train k700:val k700:test"),
    # A leak is decided by video: here the segments differ.
    Plant(kind="leak_by_other_segment", segments=(("k600:train",), ("k400:val",))),
    Plant(kind="two_segments", segments=(("k400:train",), ("k700:train",))),
    Plant(kind="two_segments", segments=(("k600:train",), ("k600:train",)), layout="original"),
    Plant(kind="two_classes", segments=(("k400:train!", "k600:train"),)),
    Plant(kind="two_classes", segments=(("k600:val!", "k700:val"),)),
    Plant(kind="val_and_test", segments=(("k400:val", "k700:test"),)),
    _broken("missing", "k400:train k600:train k700:train"),
    _broken("missing", "k400:val k600:val"),
    _broken("truncated", "k400:train k600:train"),
    _broken("unreadable", "k600:train k700:train"),
    _broken("empty_file", "k400:train k600:train k700:train"),
    _broken("html", "k400:train k700:train"),
)
"""Few enough to leave what a model learns from the rest as it is, and each once in every data set."""
