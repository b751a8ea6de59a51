"""`k710 verify`."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson

if TYPE_CHECKING:
    from k710.verify import VerifySummary

_MOST_LINES = 20
"""Findings of a kind that are printed; --out and --json have all."""


class Decode(StrEnum):
    """How much of each clip is decoded."""

    ENDS = "ends"
    SAMPLE = "sample"
    FULL = "full"


Target = Annotated[
    str,
    typer.Argument(metavar="PATH", help="A build, also by its URL, a folder of videos or tars, or one of these."),
]
HowMuch = Annotated[
    Decode,
    typer.Option("--decode", help="First frame and last group of pictures, some in between too, or every frame."),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Decoding processes; default: one per core.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE.csv", help="File for one line per clip.")]


def verify(
    path: Target,
    decode: HowMuch = Decode.ENDS,
    workers: Workers = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Decode the clips of a build, of a folder or in tars, and say which are broken; exit with 1 if any is."""
    from k710 import verify as library
    from k710.config import to_mapping
    from k710.errors import AnswerIsNo

    from .progress import Stages

    config = library.VerifyConfig(
        path=library.place(path), mode=decode.value, workers=workers or os.cpu_count() or 1, out=out
    )
    with Stages() as stages:
        summary = library.verify(config, stages)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))
    if not summary.is_good:
        found = [_count(len(summary.bad), "bad clip")] if summary.bad else []
        found += [_count(len(summary.problems), "problem")] if summary.problems else []
        hint = (
            "`k710 build` with its arguments makes them again"
            if summary.kind == "build"
            else "--out FILE.csv lists every clip"
        )
        raise AnswerIsNo(_printable(f"{summary.path}: {' and '.join(found)}"), hint=hint)


def describe(summary: VerifySummary) -> str:
    """What was found, in some lines; the last one sums it up."""
    lines = _some([f"{c.status}: {_place(c.path, c.key)}: {c.reason}" for c in summary.bad])
    lines += _some(summary.problems) + _some([f"note: {remark}" for remark in summary.remarks])
    for what, names in (("black", summary.black), ("frozen", summary.frozen)):
        lines += _some([f"{what}: {name}" for name in names])
    good = summary.statuses.get("ok", 0)
    rest = [f"{num:,} {status}" for status, num in summary.statuses.items() if status != "ok"]
    rest += [f"{summary.without_bytes:,} without bytes"] if summary.without_bytes else []
    rest += [_count(len(summary.problems), "problem")] if summary.problems else []
    rest += [
        f"{len(names):,} {what}" for what, names in (("black", summary.black), ("frozen", summary.frozen)) if names
    ]
    told = f": {', '.join(rest)}" if rest else ""
    where = f" -> {summary.out}" if summary.out else ""
    return "\n".join([*lines, f"verified {good:,} of {summary.clips:,} clips{told}{where}"])


def _some(lines: list[str]) -> list[str]:
    left = len(lines) - _MOST_LINES
    return [
        *map(_printable, lines[:_MOST_LINES]),
        *([f"... and {left:,} more; --out lists every clip"] if left > 0 else []),
    ]


def _printable(line: str) -> str:
    """``line`` as one line: names on a disk may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _place(path: str, key: str) -> str:
    return f"{path}: {key}" if key else path


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
