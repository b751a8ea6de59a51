"""`k710 audit`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from . import policy
from .options import DEFAULT_DATA, AsJson

if TYPE_CHECKING:
    from k710.lists.dialects.options import ReadOptions
    from k710.report.near_duplicates import ContentAudit

_SEVERAL = ("--train", "--eval")
"""Flags that take every word up to the next flag."""

Build = Annotated[str | None, typer.Argument(metavar="OUT", help="Folder or URL of the build; default: k710-data.")]
Data = Annotated[str | None, typer.Option("--data", help="Folder or URL of the build, as OUT.")]
Train = Annotated[
    list[str] | None,
    typer.Option(
        "--train",
        metavar="A [B ...]",
        help="Lists that are trained on: list files, folders of clips, shards, or builds as OUT or OUT:VIEW.",
    ),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option("--eval", metavar="C [D ...]", help="Lists that must not be trained on, in the same forms."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for leaks.parquet, audit.json, audit.md and report/audit.html of --train and --eval."
    ),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="File for the audit as a page of HTML.")]
MinPerClass = Annotated[
    int | None, typer.Option("--min-per-class", min=0, help="Clips under which a class is named; default: 50.")
]
FailOnLeak = Annotated[
    bool,
    typer.Option(
        "--fail-on-leak",
        help="Exit with 1 when videos that are trained on stand in a held-out list, or look like its clips.",
    ),
]


class Level(StrEnum):
    """What of a build is compared."""

    LISTS = "lists"
    CONTENT = "content"


HowFar = Annotated[
    Level, typer.Option("--level", help="Compare what lists say, or also what the clips of a build show.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Decoding processes of --level content; default: one per core.")
]


class SeveralValues(typer.core.TyperCommand):
    """A command whose ``--train`` and ``--eval`` may be followed by several words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse ``--train A B`` as ``--train A --train B``."""
        return super().parse_args(ctx, _repeated(args))


def audit(
    build: Build = None,
    data: Data = None,
    train: Train = None,
    held_out: HeldOut = None,
    out: Out = None,
    html: Html = None,
    columns: policy.Columns = None,
    on_bad_row: policy.OnBadRow = "stop",
    class_order: policy.ClassOrder = None,
    min_per_class: MinPerClass = None,
    level: HowFar = Level.LISTS,
    workers: Workers = None,
    fail_on_leak: FailOnLeak = False,
    as_json: AsJson = False,
) -> None:
    """Print what the lists of a build, or of --train and --eval, share, what was removed and what was not checked."""
    from k710.errors import UsageError
    from k710.objects.copies import folder_of_build, readable_build

    if train is None and held_out is None:
        changed = on_bad_row if on_bad_row != "stop" else None
        given = {"--out": out, "--columns": columns, "--on-bad-row": changed, "--class-order": class_order}
        if used := [flag for flag, value in given.items() if value is not None]:
            raise UsageError(
                f"{used[0]} is for --train and --eval", hint="k710 audit --train A [B ...] --eval C [D ...]"
            )
        if build is not None and data is not None:
            raise UsageError("the build is named twice, as OUT and by --data", hint="leave one out")
        place = build or data or str(DEFAULT_DATA)
        content = (
            _compare_clips(folder_of_build(place, "audit --level content"), workers) if level is Level.CONTENT else None
        )
        with readable_build(place) as folder:
            _audit_build(folder, min_per_class, html, content, fail_on_leak=fail_on_leak, as_json=as_json)
        return
    if level is Level.CONTENT:
        raise UsageError("--level content is for a build, whose clips are there", hint="k710 audit OUT --level content")
    if build is not None or data is not None:
        raise UsageError(
            "a build is audited by itself, or given to --train or --eval",
            hint="k710 audit OUT, or k710 audit --train A [B ...] --eval OUT",
        )
    _audit_lists(
        train or [],
        held_out or [],
        policy.read_options(columns, on_bad_row, class_order),
        out,
        html,
        min_per_class,
        fail_on_leak=fail_on_leak,
        as_json=as_json,
    )


def _compare_clips(folder: Path, workers: int | None) -> ContentAudit:
    from k710.fingerprints.content import ContentConfig, audit_content
    from k710.report.near_duplicates import DOCUMENT_FILE, TABLE_FILE

    from .progress import Stages

    with Stages() as stages:
        found = audit_content(ContentConfig(folder=folder, workers=workers or os.cpu_count() or 1), stages)
    typer.echo(f"wrote {TABLE_FILE}, {DOCUMENT_FILE} and report/audit.html -> {folder}", err=True)
    return found


def _audit_build(
    folder: Path,
    minimum: int | None,
    html: Path | None,
    content: ContentAudit | None,
    *,
    fail_on_leak: bool,
    as_json: bool,
) -> None:
    from k710.errors import AnswerIsNo
    from k710.fingerprints.content import with_content
    from k710.report.near_duplicates import read_content_audit
    from k710.report.stored import read_audit, stored_page

    stored = read_audit(folder, minimum)
    content = content or read_content_audit(folder)
    told = stored if content is None else with_content(stored, content)
    typer.echo(told.json_text if as_json else told.markdown, nl=False)
    if html is not None:
        _write_page(html, stored_page(folder, stored))
    if fail_on_leak and not stored.trains:
        raise AnswerIsNo(
            "whether training views leak is not known: this build has none", hint="see `k710 build --views`"
        )
    if fail_on_leak and stored.leaking:
        listed = "; ".join(f"{r['view']} shares {_videos(r['videos'])} with {r['list']}" for r in stored.leaking)
        raise AnswerIsNo(f"training views leak: {listed}", hint="build with --protect val,test and --leaks drop-train")
    if fail_on_leak and content is not None:
        _refuse_near_duplicates(content)


def _refuse_near_duplicates(content: ContentAudit) -> None:
    from k710.errors import AnswerIsNo
    from k710.report.near_duplicates import TABLE_FILE

    if content.leaking:
        listed = "; ".join(f"{' and '.join(r['views'])} in {r['pairs']:,} pairs" for r in content.leaking)
        raise AnswerIsNo(f"training views look like held-out ones: {listed}", hint=f"{TABLE_FILE} names every pair")
    if content.num_unread:
        raise AnswerIsNo(
            f"whether training views look like held-out ones is not known: {content.num_unread:,} clips were not read",
            hint="`k710 verify` names what is wrong with them; then the same again",
        )


def _audit_lists(
    train: Sequence[str],
    held_out: Sequence[str],
    options: ReadOptions,
    out: Path | None,
    html: Path | None,
    minimum: int | None,
    *,
    fail_on_leak: bool,
    as_json: bool,
) -> None:
    from k710.audits.lists import audit_lists
    from k710.errors import AnswerIsNo

    found = audit_lists(train, held_out, options=options, minimum=minimum, out=out)
    typer.echo(found.json_text if as_json else found.markdown, nl=False)
    if out is not None:
        typer.echo(f"wrote leaks.parquet, audit.json, audit.md and report/audit.html -> {out}", err=True)
    if html is not None:
        _write_page(html, found.page)
    if fail_on_leak and found.leaking:
        listed = "; ".join(f"{r['train']} shares {_videos(r['videos'])} with {r['held_out']}" for r in found.leaking)
        raise AnswerIsNo(f"training lists leak: {listed}", hint="leaks.parquet, by --out, names every pair of rows")
    if fail_on_leak and found.unchecked_lists:
        raise AnswerIsNo(
            f"whether training lists leak is not known; not checked: {'; '.join(found.unchecked_lists)}",
            hint="YouTube ids are only found among YouTube ids; --columns id=NAME says which column holds the ids",
        )


def _write_page(path: Path, page: str) -> None:
    from k710.report.page import write_page

    write_page(path, page)
    typer.echo(f"wrote the page -> {path}", err=True)


def _videos(count: int) -> str:
    return f"{count:,} video{'' if count == 1 else 's'}"


def _repeated(words: Sequence[str]) -> list[str]:
    """``words`` with the flag written again before each further word that belongs to it."""
    flag: str | None = None
    found: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*found, *words[place:]]
        if word.startswith("-") and word != "-":
            flag = word.partition("=")[0]
            flag = flag if flag in _SEVERAL else None
        elif flag is not None and found[-1] != flag:
            found.append(flag)
        found.append(word)
    return found
