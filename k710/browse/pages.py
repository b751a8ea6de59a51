"""The HTML of a gallery: what stands on each page, put into the templates."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from k710 import __version__
from k710.browse.pairs import Pair, Side
from k710.browse.pool import NO_CLASS, PLANNED, Clip, ViewFacts
from k710.browse.sections import Page, Section, Sections, class_anchor, file_name
from k710.browse.sheets import Sheet
from k710.browse.told import Told
from k710.clips.outcomes import OK
from k710.pages.render import packaged_script, render

# A file that is opened from a disk has no origin, so 'self' alone would let no picture in.
_IMAGES = "'self' file: data:"
_DIGEST = re.compile(rb'data-page-digest="([0-9a-f]{64})"')
_HOME = "All views"
_NEAR_PAGES = 3
"""Page numbers to either side of a page that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A clip on a page."""

    clip: Clip
    """The clip."""
    sheet: Sheet
    """Its picture, or why there is none."""
    told: Told
    """Its source, and why it has no bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSide:
    """A side of a pair on a page."""

    side: Side
    """What it is."""
    tile: Tile | None
    """Its clip; None: it is not planned in the build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageLink:
    """A page number of a section."""

    number: int
    """The number; 0: a gap."""
    href: str
    """The page; empty: it is not made, or the one that is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionRow:
    """A section in a list of sections."""

    anchor: str
    """Name of its row."""
    title: str
    """What it shows."""
    also: str
    """Other names of its class, in words; empty: none."""
    items: int
    """Clips or pairs."""
    present: int
    """Clips with bytes."""
    num_pages: int
    """Pages."""
    made: int
    """Pages that can be followed."""
    href: str
    """Its first page, or the first that is made; empty: none is."""
    command: str
    """What makes all its pages."""


IsMade = Callable[[Page], bool]
"""Whether a page can be followed."""


class Pages:
    """The pages of one gallery as HTML; equal values give equal bytes."""

    def __init__(self, sections: Sections, *, title: str, command: Sequence[str]) -> None:
        """Take what stands on the pages; ``command`` is what makes the gallery, without the options of a section."""
        self._sections, self._pool = sections, sections.pool
        self._title, self._command = title, tuple(command)

    def clips(self, page: Page, tiles: Mapping[int, Tile], is_made: IsMade, digest: str) -> str:
        """A page of clips or of pairs; ``tiles`` by position in the pool."""
        section = page.section
        common = {
            "title": f"{self.title_of(section)}, page {page.number} of {section.num_pages} - {self._title}",
            "heading": self.title_of(section),
            "page": page,
            "links": _links(page, is_made),
            "crumbs": [(f"{_to_root(page.path)}index.html", _HOME), *self._up(section)],
            "command": self.command_for(section),
            "digest": digest,
            "home": _to_root(page.path),
        }
        if section.kind in ("class", "status"):
            shown = [tiles[int(at)] for at in self._sections.positions(page)]
            return self._render("clips", **common, tiles=shown, also=self._also(section.view, section.index))
        pairs = [(pair, _pair_sides(pair, tiles)) for pair in self._sections.pairs(page)]
        return self._render("pairs", **common, pairs=pairs)

    @property
    def index_paths(self) -> frozenset[str]:
        """Every index page."""
        own = (f"views/{file_name(view.name)}/index.html" for view in self._pool.views)
        return frozenset([*own, "conflicts/index.html", "index.html"])

    def indexes(self, is_made: IsMade, *, served: bool = False) -> dict[str, str]:
        """Every index page by its path, the first page of the gallery last; one that is served names no commands."""
        found = {}
        for view in self._pool.views:
            found[f"views/{file_name(view.name)}/index.html"] = self._view(view, is_made, served=served)
        found["conflicts/index.html"] = self._conflicts(is_made)
        found["index.html"] = self._front(is_made, served=served)
        return found

    def title_of(self, section: Section) -> str:
        """What a section shows, in words."""
        if section.view is not None:
            return f"{self._pool.class_name(section.view, section.index)} ({section.view.name})"
        words = {"conflicts": "Conflicts", "near-duplicates": "Near-duplicates"}
        return words.get(section.kind, f"Clips that are {section.status}")

    def command_for(self, section: Section | None, *more: str) -> str:
        """The command line that makes a section."""
        return _shell([*self._command, *(section.asked_by if section else ()), *more])

    def _view(self, view: ViewFacts, is_made: IsMade, *, served: bool) -> str:
        rows = [
            self._row(self._sections.classes[view.name, index], is_made, below=f"views/{file_name(view.name)}/")
            for index in self._pool.members.classes_of(view.name)
        ]
        return self._render(
            "view",
            title=f"{view.name} - {self._title}",
            view=view,
            rows=rows,
            served=served,
            has_index=self._pool.has_index,
            command=_shell([*self._command, f"--view={view.name}"]),
            crumbs=[("../../index.html", _HOME)],
            home="../../",
        )

    def _conflicts(self, is_made: IsMade) -> str:
        section = self._sections.conflicts
        kinds = []
        for kind in self._sections.kinds:
            page = Page(section=section, number=kind.first // section.per_page + 1)
            kinds.append((kind, page.number, page.path.removeprefix("conflicts/") if is_made(page) else ""))
        return self._render(
            "conflicts",
            title=f"Conflicts - {self._title}",
            kinds=kinds,
            row=self._row(section, is_made, below="conflicts/"),
            crumbs=[("../index.html", _HOME)],
            home="../",
        )

    def _front(self, is_made: IsMade, *, served: bool) -> str:
        pool, sections = self._pool, self._sections
        statuses = [
            (name, len(positions), self._row(sections.statuses[name], is_made) if name in sections.statuses else None)
            for name, positions in pool.statuses.items()
        ]
        views = [(view, f"views/{file_name(view.name)}/index.html", self._counts(view)) for view in pool.views]
        near = sections.near_duplicates
        return self._render(
            "index",
            title=self._title,
            heading=self._title,
            crumbs=[],
            num_clips=pool.num_clips,
            num_ok=len(pool.statuses.get(OK, ())),
            served=served,
            has_index=pool.has_index,
            statuses=statuses,
            views=views,
            classes=self._class_table(is_made),
            conflicts=self._row(sections.conflicts, is_made),
            near=None if near is None else self._row(near, is_made),
            command=_shell(self._command),
            k710=__version__,
            home="",
        )

    def _counts(self, view: ViewFacts) -> tuple[int, int, int]:
        """Classes, clips and clips with bytes of a view."""
        classes = self._pool.members.classes_of(view.name)
        members = [self._pool.members.of(view.name, index) for index in classes]
        return (
            sum(index != NO_CLASS for index in classes),
            sum(len(own) for own in members),
            sum(int(np.count_nonzero(self._pool.is_ok[own])) for own in members),
        )

    def _class_table(self, is_made: IsMade) -> list[tuple[str, str, list[tuple[int, str]]]]:
        """Each class with clips: its name, its other names, and per view the number of clips and where they are."""
        classes = self._sections.classes
        present = sorted({index for _, index in classes}, key=lambda index: (index < 0, index))
        table = []
        for index in present:
            cells = []
            for view in self._pool.views:
                section = classes.get((view.name, index))
                cells.append((section.items, self._target(section, is_made)) if section else (0, ""))
            name = "no label" if index == NO_CLASS else self._pool.labels.rows[index].name
            table.append((name, self._also(None, index), cells))
        return table

    def _target(self, section: Section, is_made: IsMade) -> str:
        """Where a class of a view is to be seen: its first page, else the line that says how to make it."""
        first = next(section.pages)
        assert section.view is not None
        return (
            first.path
            if is_made(first)
            else f"views/{file_name(section.view.name)}/index.html#{section_anchor(section)}"
        )

    def _row(self, section: Section, is_made: IsMade, *, below: str = "") -> SectionRow:
        made = [page for page in section.pages if is_made(page)]
        positions = self._pool.members.of(section.view.name, section.index) if section.view else np.array([], np.int64)
        return SectionRow(
            anchor=section_anchor(section),
            title=self._pool.class_name(section.view, section.index) if section.view else self.title_of(section),
            also=self._also(section.view, section.index),
            items=section.items,
            present=int(np.count_nonzero(self._pool.is_ok[positions])),
            num_pages=section.num_pages,
            made=len(made),
            href=made[0].path.removeprefix(below) if made else "",
            command=self.command_for(section),
        )

    def _also(self, view: ViewFacts | None, index: int) -> str:
        """Names of a class in the taxonomies that call it otherwise than ``view`` does."""
        if index == NO_CLASS:
            return ""
        row = self._pool.labels.rows[index]
        own = row.name if view is None else self._pool.class_name(view, index)
        others: dict[str, list[str]] = {}
        for taxonomy, name in row.names.items():
            if name != own:
                others.setdefault(name, []).append(taxonomy)
        return "; ".join(f"{name} ({', '.join(where)})" for name, where in others.items())

    def _up(self, section: Section) -> list[tuple[str, str]]:
        """The index that a section stands in, besides the first page: its address from there, and its name."""
        if section.view is not None:
            return [(f"index.html#{section_anchor(section)}", section.view.name)]
        return [("index.html", "Conflicts")] if section.kind == "conflicts" else []

    def _render(self, name: str, **values: Any) -> str:
        return render(
            f"browse/{name}.html",
            scripts=[packaged_script("browse.js")],
            image_sources=_IMAGES,
            gallery=f"k710 - {self._title}" if values["crumbs"] else "k710",
            status_class=status_class,
            **values,
        )


def section_anchor(section: Section) -> str:
    """Name of the line of a section in the index that it stands in."""
    return class_anchor(section.index) if section.view is not None else section.status or section.kind


def form_digest() -> str:
    """Digest of all that decides how a page looks: templates, style and scripts."""
    digest = hashlib.sha256(__version__.encode())
    root = resources.files("k710.pages")
    for folder in ("templates", "templates/browse", "assets"):
        for file in sorted((f for f in root.joinpath(folder).iterdir() if f.is_file()), key=lambda f: f.name):
            digest.update(f"{folder}/{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def as_bytes(html: str) -> bytes:
    """A page as it is stored; what is no character, as in names on a disk that are not UTF-8, is spelled out."""
    return html.encode(errors="backslashreplace")


def stored_digest(html: bytes) -> str:
    """The digest that a page of clips carries; empty: none."""
    match = _DIGEST.search(html)
    return match[1].decode() if match else ""


def status_class(status: str) -> str:
    """How a status is coloured."""
    return {OK: "good", PLANNED: "plain"}.get(status, "bad")


def _pair_sides(pair: Pair, tiles: Mapping[int, Tile]) -> list[PairSide]:
    return [PairSide(side=side, tile=tiles.get(side.position)) for side in pair.sides]


def _links(page: Page, is_made: IsMade) -> list[PageLink]:
    """Page numbers around ``page``, the first and the last, with gaps between them."""
    last = page.section.num_pages
    near = range(max(1, page.number - _NEAR_PAGES), min(last, page.number + _NEAR_PAGES) + 1)
    numbers = sorted({1, *near, last})
    links: list[PageLink] = []
    for before, number in zip([0, *numbers], numbers, strict=False):
        if number - before > 1:
            links.append(PageLink(number=0, href=""))
        other = Page(section=page.section, number=number)
        is_followed = number != page.number and is_made(other)
        links.append(PageLink(number=number, href=other.path.rpartition("/")[2] if is_followed else ""))
    return links


def _to_root(path: str) -> str:
    return "../" * path.count("/")


def _shell(words: Sequence[str]) -> str:
    """``words`` as a line for a POSIX shell."""

    return shlex.join(words)
