"""`k710 lineage`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import policy
from .options import AsJson

if TYPE_CHECKING:
    from k710.audits.sources import GivenList
    from k710.lists.dialects.options import ReadOptions
    from uniformerv2.lineage import LineageSummary
    from uniformerv2.training.lineage import Hashes

Against = Annotated[
    list[str] | None,
    typer.Option("--against", help="Build, OUT:VIEW, or list whose seen videos are counted; repeatable."),
]
Add = Annotated[
    list[str] | None,
    typer.Option("--add", help="List, or OUT:VIEW, that the weights have seen too; repeatable, needs --out."),
]


def lineage(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Run folder or weights file.")],
    against: Against = None,
    add: Add = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Say that with --add the lineage is all that the weights have seen.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="New .safetensors file for the weights with what --add names.")
    ] = None,
    columns: policy.Columns = None,
    on_bad_row: policy.OnBadRow = "stop",
    as_json: AsJson = False,
) -> None:
    """Print which videos a model's weights have seen, or write the weights with lists that their lineage lacks."""
    from k710.config import to_mapping
    from k710.errors import UsageError
    from uniformerv2.lineage import add_to_lineage, lineage_of

    if (out is None) != (not add) or (complete and not add):
        raise UsageError("--add and --out go together", hint="k710 lineage CKPT --add LIST --out NEW.safetensors")
    options = policy.read_options(columns, on_bad_row, None)
    counted = _lists(against or (), options, for_training=False)
    if add and out is not None:
        seen = _lists(add, options, for_training=True)
        summary = add_to_lineage(checkpoint, out, seen, complete=complete, against=counted)
    else:
        summary = lineage_of(checkpoint, against=counted)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary, written=out is not None))


def describe(summary: LineageSummary, *, written: bool) -> str:
    """A lineage in a few lines."""
    lines = [summary.statement]
    lines += [f"  {name}: {count:,} videos" for name, count in summary.views.items()]
    if len(summary.views) > 1:
        lines.append(f"  together: {summary.videos:,} videos")
    least = "" if summary.known else "at least "
    lines += [f"{one.name}: {least}{one.seen:,} of {one.videos:,} videos seen" for one in summary.against]
    if written:
        lines.append(f"done added {summary.added:,} videos -> {summary.checkpoint}")
    return "\n".join(lines)


def _lists(words: Sequence[str], options: ReadOptions, *, for_training: bool) -> dict[str, Hashes]:
    """Hashes of the videos of each list that ``words`` stand for; of a build that is only looked at, held-out lists."""
    import numpy as np

    from k710.audits.id_kinds import parts_of
    from k710.audits.sources import read_given
    from k710.labels import load_labels
    from k710.shards.index import LOCK_FILE
    from uniformerv2.lineage import hashed, held_out_lists

    found: dict[str, Hashes] = {}
    for word in words:
        if not for_training and (Path(word) / LOCK_FILE).is_file():
            found |= {f"{word} {name}": ids for name, ids in held_out_lists(word).items()}
            continue
        given = read_given(word, options, load_labels(), for_training=for_training)
        for note in (*given.notes, *(f"not taken: {what}" for what in given.not_checked)):
            typer.echo(f"note: {note}", err=True)
        for one in given.lists:
            # What is kept in a file is named by the list, what is only shown by what the user wrote.
            name = _name(word, one) if for_training else word if len(given.lists) == 1 else f"{word} {one.title}"
            for part in parts_of([one]):
                ids = hashed(part.rows["id"].to_pylist(), part.name.id_kind)
                found[name] = np.union1d(found[name], ids) if name in found else ids
    return found


def _name(word: str, given: GivenList) -> str:
    """A list's name without the folders that it lies in."""
    path = Path(word)
    if path.is_file():
        return f"{given.owner}/{path.name}" if given.owner else path.name
    view = word.rpartition(":")[2] if given.kind == "build" and not path.exists() else ""
    return view or f"{given.title}:{given.split}"
