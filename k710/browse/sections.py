"""Which pages a gallery has, what each is called and who stands on it: planned whole, made as they are asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from k710.browse.pairs import Kind, Pair, conflicts, near_duplicates, sides_of
from k710.browse.pool import NO_CLASS, PLANNED, Ints, Pool, ViewFacts
from k710.clips.outcomes import OK
from k710.errors import UsageError

_SAFE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
"""Names that are the same file on every disk; others go by their hash."""
NO_LABEL = "none"
"""What the clips without a class are asked for by."""


# One object each, equal to itself alone: a gallery asks for thousands of them tens of thousands of times.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Section:
    """A run of pages: the clips of a class in a view, those of one status, or pairs."""

    kind: Literal["class", "status", "conflicts", "near-duplicates"]
    """What it shows."""
    stem: str
    """Path of its pages up to their number."""
    items: int
    """Clips or pairs in it."""
    per_page: int
    """Clips or pairs of a page; the last may have fewer."""
    asked_by: tuple[str, ...]
    """The options of the command that makes it."""
    view: ViewFacts | None = None
    """Its view, of a class."""
    index: int = NO_CLASS
    """Its canonical class, of a class."""
    status: str = ""
    """Its status, of a status."""

    @property
    def num_pages(self) -> int:
        """Pages in all."""
        return -(-self.items // self.per_page)

    @property
    def pages(self) -> Iterator[Page]:
        """Its pages in order."""
        return (Page(section=self, number=number) for number in range(1, self.num_pages + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of a section."""

    section: Section
    """What it is a page of."""
    number: int
    """Which, from 1."""

    @property
    def path(self) -> str:
        """Its file, relative to the gallery."""
        return f"{self.section.stem}page-{self.number:04d}.html"

    @property
    def items(self) -> slice:
        """Which of the section's clips or pairs are on it."""
        start = (self.number - 1) * self.section.per_page
        return slice(start, min(start + self.section.per_page, self.section.items))


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which pages are wanted."""

    views: tuple[str, ...] = ()
    """Views, all pages of them, or of ``classes`` in them."""
    classes: tuple[str, ...] = ()
    """Classes by any of their names, in ``views`` or in every view; ``none``: clips without a label."""
    statuses: tuple[str, ...] = ()
    """Statuses whose clips are wanted, such as ``missing``."""
    keys: tuple[str, ...] = ()
    """Clips whose pages are wanted."""
    conflicts: bool = False
    """Whether rows of one video with different classes are wanted."""
    near_duplicates: bool = False
    """Whether clips that look the same are wanted."""
    everything: bool = False
    """Whether every page is wanted."""

    @property
    def is_nothing(self) -> bool:
        """Whether nobody said what."""
        return self == Asked()


@dataclass(kw_only=True, slots=True)
class Sections:
    """All sections of a gallery."""

    pool: Pool
    """The clips."""
    classes: dict[tuple[str, int], Section]
    """By view and canonical class."""
    statuses: dict[str, Section]
    """By status; none when nothing is known of bytes, and none of the clips that have them."""
    conflicts: Section
    """Pairs of rows."""
    near_duplicates: Section | None
    """Pairs of clips; None: the build has no such table."""
    kinds: list[Kind]
    """The conflicts by their two classes."""
    conflict_pairs: list[Pair] = field(repr=False)
    """What stands on the pages of conflicts."""
    near_pairs: list[Pair] = field(repr=False)
    """What stands on those of near-duplicates."""
    _by_stem: dict[str, Section] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_stem = {section.stem: section for section in self}

    def __iter__(self) -> Iterator[Section]:
        """Every section."""
        yield from self.classes.values()
        yield from self.statuses.values()
        yield self.conflicts
        if self.near_duplicates is not None:
            yield self.near_duplicates

    def page_at(self, path: str) -> Page | None:
        """The page of a file, relative to the gallery; None: no page is called so."""
        match = re.fullmatch(r"(.+?)page-([0-9]{4,8})\.html", path)
        section = self._by_stem.get(match[1]) if match else None
        if match is None or section is None:
            return None
        page = Page(section=section, number=int(match[2]))
        return page if page.path == path and 1 <= page.number <= section.num_pages else None

    def pairs(self, page: Page) -> list[Pair]:
        """The pairs of a page of pairs."""
        return (self.conflict_pairs if page.section.kind == "conflicts" else self.near_pairs)[page.items]

    def positions(self, page: Page) -> Ints:
        """The clips of a page, as positions in the pool."""
        section = page.section
        if section.view is not None:
            return self.pool.members.of(section.view.name, section.index)[page.items]
        if section.kind == "status":
            return self.pool.statuses[section.status][page.items]
        return sides_of(self.pairs(page))

    def asked(self, asked: Asked) -> list[Page]:
        """The pages that are asked for, in order.

        Raises:
            UsageError: a view, class, status or key is not in the build, or nothing of what is asked for.
        """
        found = list(self) if asked.everything else [*self._of_classes(asked), *self._of_kinds(asked)]
        pages = [page for section in found for page in section.pages]
        return list(dict.fromkeys([*pages, *self._of_keys(asked.keys)]))

    def within(self, clips: int) -> list[Page]:
        """Whole pages of together at most ``clips`` clips: of every section the first pages before the second ones."""
        by_class = sorted(self.classes.values(), key=lambda s: (s.index < 0, s.index))
        order = [self.conflicts, *([self.near_duplicates] if self.near_duplicates else [])]
        order += [*self.statuses.values(), *by_class]
        taken: list[Page] = []
        number, left = 1, clips
        while waiting := [section for section in order if section.num_pages >= number]:
            for section in waiting:
                page = Page(section=section, number=number)
                left -= page.items.stop - page.items.start
                if left < 0:
                    return taken
                taken.append(page)
            number += 1
        return taken

    def _of_classes(self, asked: Asked) -> list[Section]:
        if not asked.views and not asked.classes:
            return []
        known = [view.name for view in self.pool.views]
        for name in asked.views:
            if name not in known:
                raise UsageError(f"view {name!r} is not in the build", hint=f"it has {', '.join(known)}")
        wanted = [self._class(name) for name in asked.classes]
        found = [
            section
            for (view, index), section in self.classes.items()
            if (not asked.views or view in asked.views) and (not wanted or index in wanted)
        ]
        for name, index in zip(asked.classes, wanted, strict=True):
            if all(section.index != index for section in found):
                where = f" in {', '.join(asked.views)}" if asked.views else ""
                raise UsageError(f"no clips of class {name!r}{where}", hint="the gallery's index counts the clips")
        return found

    def _of_kinds(self, asked: Asked) -> list[Section]:
        found = []
        for status in dict.fromkeys(asked.statuses):
            if status not in self.statuses:
                has = f"it has {', '.join(self.statuses)}" if self.statuses else "it has none, or no shards yet"
                raise UsageError(f"no clips of status {status!r} without bytes in the build", hint=has)
            found.append(self.statuses[status])
        if asked.conflicts:
            found.append(self.conflicts)
        if asked.near_duplicates:
            if self.near_duplicates is None:
                raise UsageError("the build has no near_duplicates.parquet", hint="leave out --near-duplicates")
            found.append(self.near_duplicates)
        return found

    def _of_keys(self, keys: Sequence[str]) -> Iterator[Page]:
        places = self.pool.positions_of(keys)
        for key in keys:
            if key not in places:
                raise UsageError(f"clip {key!r} is not planned in the build", hint="a key is ID_START_END")
            row = self.pool.table.slice(places[key], 1).to_pylist()[0]
            for view, index in zip(row["views"], row["view_classes"], strict=True):
                section = self.classes.get((view, index))
                if section is None:
                    continue
                at = int(np.flatnonzero(self.pool.members.of(view, index) == places[key])[0])
                yield Page(section=section, number=at // section.per_page + 1)

    def _class(self, name: str) -> int:
        labels = self.pool.labels
        for taxonomy in (*labels.taxonomies, "k710"):
            index = labels.canonical(taxonomy, name)
            if index is not None:
                return index
        if name == NO_LABEL:
            return NO_CLASS
        near = dict.fromkeys(n for t in (*labels.taxonomies, "k710") for n in labels.nearest(t, name))
        raise UsageError(
            f"unknown class {name!r}",
            hint=f"did you mean {', '.join(list(near)[:3])}?" if near else f"{NO_LABEL}: clips without a label",
        )


def plan_sections(pool: Pool, per_page: int) -> Sections:
    """The sections of a build.

    Raises:
        FeedError: its exclusions or its near-duplicates cannot be read.
    """
    rows, kinds = conflicts(pool)
    near = near_duplicates(pool)
    return Sections(
        pool=pool,
        classes={(s.view.name, s.index): s for s in _class_sections(pool, per_page) if s.view is not None},
        statuses={
            status: Section(
                kind="status",
                stem=f"statuses/{file_name(status)}-",
                items=len(positions),
                per_page=per_page,
                asked_by=(f"--status={status}",),
                status=status,
            )
            for status, positions in pool.statuses.items()
            if status not in (OK, PLANNED)
        },
        conflicts=_pairs_section("conflicts", len(rows), per_page),
        near_duplicates=None if near is None else _pairs_section("near-duplicates", len(near), per_page),
        kinds=kinds,
        conflict_pairs=rows,
        near_pairs=near or [],
    )


def file_name(name: str) -> str:
    """``name`` where it is safe as part of a path on any disk, else ``x-`` and 16 hex digits of its hash."""
    if _SAFE.fullmatch(name) and ".." not in name and not name.startswith("x-"):
        return name
    return f"x-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def class_anchor(index: int) -> str:
    """What a class is called in paths and links: by its index, whatever its name holds."""
    return "class-none" if index == NO_CLASS else f"class-{index:04d}"


def _class_sections(pool: Pool, per_page: int) -> Iterable[Section]:
    for view in pool.views:
        for index in pool.members.classes_of(view.name):
            name = NO_LABEL if index == NO_CLASS else pool.class_name(view, index)
            yield Section(
                kind="class",
                stem=f"views/{file_name(view.name)}/{class_anchor(index)}-",
                items=len(pool.members.of(view.name, index)),
                per_page=per_page,
                asked_by=(f"--view={view.name}", f"--class={name}"),
                view=view,
                index=index,
            )


def _pairs_section(kind: Literal["conflicts", "near-duplicates"], items: int, per_page: int) -> Section:
    # Two clips an item.
    return Section(kind=kind, stem=f"{kind}/", items=items, per_page=max(1, per_page // 2), asked_by=(f"--{kind}",))
