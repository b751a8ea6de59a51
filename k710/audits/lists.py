"""The leak audit of anybody's lists: training lists against held-out lists, nothing built and nothing removed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.audits.id_kinds import Unchecked, parts_of, unchecked
from k710.audits.sources import Given, GivenList, read_given
from k710.errors import UsageError
from k710.labels import LabelMap, load_labels
from k710.lists.catalog import build_catalog
from k710.lists.dialects.options import ReadOptions
from k710.lists.leakage import leak_table, row_pairs
from k710.report.audit import lists_document
from k710.report.damage import MIN_PER_CLASS
from k710.report.markdown import audit_markdown
from k710.report.page import LEAKS_FILE, PAGE_FILE, audit_page
from k710.shards.index import LOCK_FILE
from k710.tables import write_table

_SHOWN = 8


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
    def page(self) -> str:
        """The document as a page of HTML."""
        return audit_page(self.document, self.leaks)

    @property
    def leaking(self) -> list[dict[str, Any]]:
        """Training lists and held-out lists with videos in common."""
        leaks: list[dict[str, Any]] = self.document["leaks"]
        return leaks

    @property
    def unchecked_lists(self) -> list[str]:
        """Lists that could not be compared with any of the other side: whether they leak is not known."""
        lists: list[str] = self.document["unchecked_lists"]
        return lists


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
        out: folder for ``leaks.parquet``, ``audit.json``, ``audit.md`` and ``report/audit.html``; None: nothing is
            written.

    Raises:
        UsageError: no list for one of the sides, nothing where a word points, or ``out`` cannot be written.
        InputError: a list is wrong, a folder has nothing that names a video, or there are too many pairs of rows.
        FeedError: a build or a shard is damaged.
    """
    _check_words(train, held_out, out)
    options, labels = options or ReadOptions(), labels or load_labels()
    given = _read_all(train, held_out, options, labels)
    parts = parts_of(given.lists)
    names = [next(str(part.name) for part in parts if part.place == place) for place in range(len(given.lists))]
    other_kinds = unchecked(parts)
    named = list(zip(given.lists, names, strict=True))
    not_checked = given.not_checked + [_unusable(g.num_without_id, n) for g, n in named if g.num_without_id]
    not_checked += other_kinds.parts
    notes = given.notes + [_id_alone(num, n) for g, n in named if (num := g.num_bad_rows - g.num_without_id)]
    ages = {part.name.release: place for place, part in reversed(list(enumerate(parts)))}
    catalog = build_catalog([(part.name, part.rows) for part in parts], ages, unique_keys=False)
    # Lists of no known release are nobody's own but their own.
    by_name = {str(p.name): given.lists[p.place].owner or f"{names[p.place]} alone" for p in parts}
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
    document["statement"] = _statement(document["statement"], not_checked, other_kinds, notes)
    document["not_checked"] = other_kinds.lists + not_checked
    document |= {"unchecked_lists": other_kinds.lists, "notes": notes, "inputs": [_input(g, n) for g, n in named]}
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


def _read_all(
    train: Sequence[str | Path], held_out: Sequence[str | Path], options: ReadOptions, labels: LabelMap
) -> Given:
    whole = Given(lists=[])
    # Whoever names one file on both sides can only mean that its rows say which is which.
    both = {str(w) for w in train} & {str(w) for w in held_out}
    for words, for_training in ((train, True), (held_out, False)):
        for word in map(str, words):
            given = read_given(word, options, labels, for_training=for_training, by_split=word in both)
            whole.lists.extend(given.lists)
            whole.not_checked.extend(given.not_checked)
            whole.notes.extend(given.notes)
    return whole


def _unusable(count: int, name: str) -> str:
    return f"{count:,} row{'s' if count > 1 else ''} of {name} that could not be used"


def _id_alone(count: int, name: str) -> str:
    return (
        f"{count:,} bad row{'s' if count > 1 else ''} of {name} {'were' if count > 1 else 'was'} compared by id alone"
    )


def _statement(said: str, not_checked: Sequence[str], other_kinds: Unchecked, notes: Sequence[str]) -> str:
    """The first sentence, which begins with the lists that could not be checked at all."""
    said = said.removesuffix(".")
    if other_kinds.lists:
        # Nothing is leak-free of which nothing was compared.
        rest = f"; nor {_few(not_checked)}" if not_checked else ""
        rest = rest if other_kinds.nothing_compared else f"; of what was compared: {said}"
        said = f"NOT CHECKED: {_few(other_kinds.lists)}{rest}"
    return f"{said}; note: {'; '.join(notes)}." if notes else f"{said}."


def _few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _input(given: GivenList, name: str) -> dict[str, Any]:
    return {
        "list": name,
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
        # No page of another time beside what follows, should the disk be full.
        (out / PAGE_FILE).unlink(missing_ok=True)
        write_table(out / LEAKS_FILE, audit.leaks, schema.LEAKS)
        atomic.write_text(out / "audit.json", audit.json_text)
        atomic.write_text(out / "audit.md", audit.markdown)
        atomic.write_text(out / PAGE_FILE, audit.page)
