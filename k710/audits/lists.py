"""The leak audit of anybody's lists: training lists against held-out lists, nothing built and nothing removed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.audits.sources import GivenList, read_given
from k710.errors import UsageError
from k710.labels import LabelMap, load_labels
from k710.lists.catalog import ListName, build_catalog
from k710.lists.dialects.options import ReadOptions
from k710.lists.leakage import leak_table, row_pairs
from k710.report.audit import lists_document
from k710.report.damage import MIN_PER_CLASS
from k710.report.markdown import audit_markdown
from k710.shards.index import LOCK_FILE
from k710.tables import write_table


@dataclass(frozen=True, kw_only=True, slots=True)
class ListsAudit:
    """What training lists share with held-out lists."""

    document: dict[str, Any]
    """``audit.json``."""
    leaks: pa.Table
    """``leaks.parquet``: each pair of rows of two lists that name one video."""

    @property
    def json_text(self) -> str:
        """The document as it is written."""
        return json.dumps(self.document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def markdown(self) -> str:
        """The document for people."""
        return audit_markdown(self.document)

    @property
    def leaking(self) -> list[dict[str, Any]]:
        """Training lists and held-out lists with videos in common."""
        leaks: list[dict[str, Any]] = self.document["leaks"]
        return leaks


def audit_lists(
    train: Sequence[str | Path],
    held_out: Sequence[str | Path],
    *,
    options: ReadOptions | None = None,
    labels: LabelMap | None = None,
    minimum: int | None = None,
    out: Path | None = None,
) -> ListsAudit:
    """Compare training lists with held-out lists, each a list file, clips, shards, a build or ``OUT:VIEW``.

    Args:
        train: what is trained on.
        held_out: what must not be in it.
        options: how to read lists that do not say it themselves.
        labels: the class table; None for the packaged one.
        minimum: clips under which a class of a training list, without the leaked videos, is named; None for 50.
        out: folder for ``leaks.parquet``, ``audit.json`` and ``audit.md``; None: nothing is written.

    Raises:
        UsageError: no list for one of the sides, nothing where a word points, or ``out`` cannot be written.
        InputError: a list is wrong, a folder has nothing that names a video, or there are too many pairs of rows.
        FeedError: a build or a shard is damaged.
    """
    _check_words(train, held_out, out)
    options, labels = options or ReadOptions(), labels or load_labels()
    lists: list[GivenList] = []
    not_checked: list[str] = []
    for words, for_training in ((train, True), (held_out, False)):
        for word in words:
            given = read_given(str(word), options, labels, for_training=for_training)
            lists += given.lists
            not_checked += given.not_checked
    names = _distinct_names(lists)
    not_checked += [_unusable(g.num_bad_rows, n) for g, n in _pairs(lists, names) if g.num_bad_rows]
    not_checked += _other_ids(lists, names)
    ages = {name.release: place for place, name in reversed(list(enumerate(names)))}
    catalog = build_catalog([(n, g.rows) for g, n in _pairs(lists, names)], ages)
    # Lists of no known release are nobody's own but their own.
    by_name = {str(n): g.owner or f"{n} alone" for g, n in _pairs(lists, names)}
    owners = [by_name[str(name)] for name in catalog.lists]
    pairs = row_pairs(catalog)
    document = lists_document(
        catalog,
        owners=owners,
        not_checked=not_checked,
        pairs=pairs,
        labels=labels,
        minimum=MIN_PER_CLASS if minimum is None else minimum,
    )
    document["inputs"] = [_input(g, n) for g, n in _pairs(lists, names)]
    audit = ListsAudit(document=document, leaks=leak_table(catalog, pairs, owners))
    if out is not None:
        _write(out, audit)
    return audit


def _check_words(train: Sequence[str | Path], held_out: Sequence[str | Path], out: Path | None) -> None:
    for words, flag in ((train, "--train"), (held_out, "--eval")):
        if not words:
            raise UsageError(f"no list after {flag}", hint="k710 audit --train A [B ...] --eval C [D ...]")
        twice = [w for i, w in enumerate(map(str, words)) if w in map(str, words[:i])]
        if twice:
            raise UsageError(f"{flag}: {twice[0]} is given twice", hint="give each once")
    if out is not None and (out / LOCK_FILE).exists():
        raise UsageError(f"{out}: holds a build, whose audit this would replace", hint="--out takes another folder")


def _pairs(lists: Sequence[GivenList], names: Sequence[ListName]) -> list[tuple[GivenList, ListName]]:
    return list(zip(lists, names, strict=True))


def _distinct_names(lists: Sequence[GivenList]) -> list[ListName]:
    """A name for each list: its title and split, numbered from the second list of one name on."""
    seen: dict[str, int] = {}
    names = []
    for given in lists:
        key = f"{given.title}:{given.split}"
        seen[key] = seen.get(key, 0) + 1
        title = given.title if seen[key] == 1 else f"{given.title}#{seen[key]}"
        names.append(ListName(release=title, split=given.split, id_kind=given.id_kind))
    return names


def _unusable(count: int, name: ListName) -> str:
    return f"{count:,} row{'s' if count > 1 else ''} of {name} that could not be used"


def _other_ids(lists: Sequence[GivenList], names: Sequence[ListName]) -> list[str]:
    """Training lists whose ids are of a kind that no held-out list has: they could not be found in one."""
    kinds = {g.id_kind for g in lists if g.split != "train"}
    return [
        f"{n} (no held-out list has ids of its kind)"
        for g, n in _pairs(lists, names)
        if g.split == "train" and g.id_kind not in kinds
    ]


def _input(given: GivenList, name: ListName) -> dict[str, Any]:
    return {
        "list": str(name),
        "source": given.source,
        "kind": given.kind,
        "dialect": given.dialect,
        "sha256": given.sha256,
        "release": given.owner,
        "bad_rows": given.num_bad_rows,
    }


def _write(out: Path, audit: ListsAudit) -> None:
    with atomic.writable(out):
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "leaks.parquet", audit.leaks, schema.LEAKS)
        atomic.write_text(out / "audit.json", audit.json_text)
        atomic.write_text(out / "audit.md", audit.markdown)
