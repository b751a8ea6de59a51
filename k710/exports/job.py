"""What a format is: the tool that reads it, what that tool needs, and the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from k710.exports.folder import ExportFolder

if TYPE_CHECKING:
    from k710.exports.clips import Build, ExportView

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""
Unlabelled = Literal["refused", "whole views", "single clips"]
"""What may stand in a format without a class: nothing, all clips of a view or none, or any clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The files of clips, for tools that read files."""

    root: Path | None
    """Folder that holds them all; None: they are where they are, and named by absolute paths."""
    paths: Mapping[str, str]
    """Clip key -> its path, relative to ``root`` or absolute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportJob:
    """What the writer of a format is given."""

    build: Build
    """The build."""
    views: tuple[ExportView, ...]
    """What is listed of each view."""
    folder: ExportFolder
    """Where it writes."""
    files: Files | None
    """The clips' files, for a format that reads files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What the writer of a format did."""

    files: Mapping[str, str]
    """View -> the file that lists it, or how the tool calls it, relative to the folder."""
    how: str
    """How the tool is pointed at it; Markdown."""
    notes: tuple[str, ...] = field(default=())
    """What a user would not expect, and should know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A form that other tools read."""

    summary: str
    """What `k710 export NAME` does, in a sentence."""
    reads: Literal["files", "shards", "lists"]
    """What the tool reads besides the export: files of clips, our shards, or nothing."""
    write: Callable[[ExportJob], Written]
    """Writes it."""
    check: Callable[[Files], None] | None = None
    """Refuses files that the tool cannot read, before anything is written."""
    order: str | None = None
    """Order of the class numbers, with ``{taxonomy}``; None: the numbers stand in the shards, so none is chosen."""
    by_name: bool = False
    """Whether classes stand in it by name and not by number."""
    unlabelled: Unlabelled = "refused"
    """What may stand in it without a class."""
    planned: bool = False
    """Whether a clip may stand in it without bytes."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The options that it takes besides those of every format."""
        taken = {
            "target": self.order is not None,
            "order": self.order is not None and not self.by_name,
            "extract": self.reads == "files",
            "planned": self.planned,
        }
        return tuple(flag for flag, is_taken in taken.items() if is_taken)
