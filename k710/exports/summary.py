"""What an export wrote: as a record, and as the text that stands beside the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NO_AUDIT = "The build holds no audit: whether training views share videos with held-out ones is unknown."


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSummary:
    """What was exported of a view."""

    file: str
    """The file that lists it, or how the tool calls it."""
    clips: int
    """Clips that are listed."""
    planned: int
    """Clips of the view in the build."""
    left_out: Mapping[str, int]
    """The others, by reason."""
    order: str | None
    """Order of the class numbers; None: they stand in the shards."""
    origin: str | None
    """Who numbers so, and how that is known."""
    taxonomy: str | None
    """Whose classes are numbered."""
    digest: str
    """The view's digest in the build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """What an export wrote."""

    format: str
    """Its name."""
    build: str
    """What it is of."""
    out: Path
    """Its folder."""
    views: Mapping[str, ViewSummary]
    """By name."""
    extract: Path | None
    """Folder of the clips as files."""
    files_written: int
    """Clips that were written there."""
    files_kept: int
    """Clips that were there."""
    notes: tuple[str, ...]
    """What a user would not expect, and should know."""

    @property
    def num_clips(self) -> int:
        """Clips that are listed, one in two views twice."""
        return sum(view.clips for view in self.views.values())

    @property
    def left_out(self) -> dict[str, int]:
        """Clips that are not listed, by reason, over all views."""
        found: dict[str, int] = {}
        for view in self.views.values():
            for reason, number in view.left_out.items():
                found[reason] = found.get(reason, 0) + number
        return found


def reasons(left_out: Mapping[str, int]) -> str:
    """Clips that were left out, in words; empty when there are none."""
    return ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())


def readme(summary: ExportSummary, how: str, statement: str) -> str:
    """What the files are and how the tool is pointed at them, as Markdown."""
    views = summary.views.items()
    rows = [f"| {n} | {v.file} | {v.clips:,} | {reasons(v.left_out) or '-'} | {v.order or '-'} |" for n, v in views]
    orders = {v.order: v for _, v in views if v.order is not None}
    origins = [f"- `{name}`: {view.origin}." for name, view in orders.items()]
    numbers = ["## Class numbers", "\n".join(origins)] if origins else []
    parts = [
        f"# Export for {summary.format}",
        "Written by `k710 export`, which replaces these files when it is run again.",
        "| view | file | clips | left out | order of class numbers |\n|---|---|---|---|---|\n" + "\n".join(rows),
        *(f"Note: {note}." for note in summary.notes),
        "## How to read it",
        how,
        *numbers,
        "## Leaks",
        statement or NO_AUDIT,
    ]
    return "\n\n".join(parts) + "\n"
