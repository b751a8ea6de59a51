"""The words in which a page tells why a row is no clip."""

from __future__ import annotations

KEPT = "kept"

REASON_WORDS = {
    "bad_row": ("bad row", "could not be used"),
    "not_selected": ("not selected", "left out by the settings of the build, or forgotten"),
    "held_out": ("held out", "its video stands in a held-out list"),
    "in_train": ("in training", "its video is in the training view, and the held-out view gave way"),
    "near_duplicate": ("near-duplicate", "its clip looks like that of another video, which stayed"),
    "label_conflict": ("label conflict", "lists give its video different classes, and such videos were to be left out"),
    "same_clip": ("same clip", "another row is the very clip; only this row's label was set aside"),
    "other_segment": ("other segment", "another part of its video was kept"),
}
"""For each reason of ``dedupe.REASONS`` its name, and what is true of such a row."""


def reason_name(reason: str) -> str:
    """The name of a reason, as tables and figures show it."""
    return REASON_WORDS[reason][0] if reason in REASON_WORDS else reason.replace("_", " ")


def counted(number: int, noun: str) -> str:
    """``1 video``, ``2,000 videos``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
