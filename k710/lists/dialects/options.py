"""What a user says about lists that do not say it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from k710.errors import UsageError

COLUMNS = ("id", "start", "end", "label", "split", "is_cc", "path")
"""Our names of the columns that ``--columns`` can point at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How lists are read whose content alone does not tell."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours (``id``, ``start``, ``end``, ``label``, ``split``, ``is_cc``, ``path``) -> the file's column: its name in
    the header, or its number from 1 where no name is given (the file then has no header)."""
    on_bad_row: Literal["stop", "report"] = "stop"
    """``stop`` at the first kind of damage, or ``report``: leave bad rows out and list them."""
    class_order: str | None = None
    """Order of labels that are numbers: ``k400|k600|k700|k710`` or a published order (``uniformerv2_k400``, ...)."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise UsageError(f"--columns: unknown column {unknown[0]!r}", hint=f"known: {', '.join(COLUMNS)}")
        if self.columns and not {"id", "path"} & set(self.columns):
            raise UsageError("--columns: neither id nor path is named", hint="such as id=video,start=t0,end=t1,label=c")
        if self.on_bad_row not in ("stop", "report"):
            raise UsageError(f"--on-bad-row: expected stop or report, got {self.on_bad_row!r}")


DEFAULT_OPTIONS = ReadOptions()
"""Files say everything themselves, and bad rows stop."""


def parse_columns(text: str) -> dict[str, str]:
    """The mapping that ``id=video,start=t0`` stands for.

    Raises:
        UsageError: a part is not ``ours=theirs``, ours is unknown, or it is named twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        ours, sign, theirs = (p.strip() for p in part.partition("="))
        if not sign or not ours or not theirs:
            raise UsageError(f"--columns {text}: expected name=column, got {part!r}", hint="such as id=video,start=t0")
        if ours in found:
            raise UsageError(f"--columns {text}: {ours!r} is named twice")
        found[ours] = theirs
    ReadOptions(columns=found)  # raises for names that do not exist
    return found
