"""A gallery of a build in a folder: the indexes always, the other pages as they are asked for; goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from k710 import atomic
from k710.browse.contact_sheets import SheetSettings
from k710.browse.folder import GALLERY_FOLDER, clear_partials, held_gallery, require_place
from k710.browse.pages import Pages, Tile, as_bytes, form_digest, stored_digest
from k710.browse.pairs import NEAR_DUPLICATES_FILE
from k710.browse.pool import Ints, Pool
from k710.browse.sections import Asked, Page, Section, Sections, plan_sections
from k710.browse.sheets import Sheet, Sheets, Task
from k710.browse.told import LEDGER_FILE, Told, read_told
from k710.browse.unchanged import AsRead
from k710.errors import UsageError
from k710.store import Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""An address as a path has it, which takes two slashes for one."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BrowseConfig:
    """Which gallery, and which of its pages are wanted."""

    build: str
    """The build: a folder or an fsspec URL."""
    out: Path | None = None
    """Folder of the gallery; None: ``browse`` in a build that is a folder."""
    asked: Asked = field(default_factory=Asked)
    """Pages to make; when nothing is asked for, as many as ``budget`` allows."""
    budget: int = 2000
    """Most clips on the pages that are made when nothing is asked for."""
    per_page: int = 60
    """Most clips of a page; of pairs there are half as many."""
    sheet: SheetSettings = field(default_factory=SheetSettings)
    """What is drawn of a clip."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that decode."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        if not 1 <= self.per_page <= 500:
            raise UsageError(f"per_page must be between 1 and 500, got {self.per_page}")
        if self.budget < 0:
            raise UsageError(f"budget must be at least 0, got {self.budget}")
        if self.out is not None and _URL.match(str(self.out)):
            raise UsageError(f"--out {self.out}: not a folder", hint="a gallery is written to a local folder")

    @property
    def folder(self) -> Path:
        """Where the gallery goes.

        Raises:
            UsageError: the build is not a folder, and nobody said where.
        """
        if self.out is not None:
            return self.out
        store = Store(self.build)
        if not store.is_local:
            raise UsageError(f"{self.build}: a gallery cannot be written there", hint="give --out DIR, a local folder")
        return Path(store.root) / GALLERY_FOLDER


@dataclass(frozen=True, kw_only=True, slots=True)
class BrowseSummary:
    """What a run did."""

    out: Path
    """Where the gallery is."""
    index: Path
    """The page to begin with."""
    pages: int
    """Pages of clips and pairs that are there now."""
    written: int
    """Those that this run wrote."""
    planned: int
    """Pages there would be with all."""
    sheets: int
    """Clips that this run drew."""
    not_drawn: dict[str, str]
    """Keys of clips on the written pages that have bytes and cannot be drawn, with the reason."""
    asked: list[Path]
    """The pages that hold the keys, or the first pages of what was asked for; at most 20."""


def browse(config: BrowseConfig, progress: Progress | None = None) -> BrowseSummary:
    """Bring the gallery up to date with its build, and make the pages that are asked for.

    Raises:
        UsageError: what is asked for is not in the build, or the folder is no gallery or cannot be written.
        FeedError: no build there, a damaged one, or one that changes meanwhile.
    """
    gallery = Gallery(config)
    wanted = gallery.wanted(config.asked)
    with gallery.held():
        summary = gallery.update(wanted, progress or _silent)
        gallery.read.require_same()
        return summary


class Gallery:
    """The pages of a build, and those of them that are in a folder."""

    def __init__(self, config: BrowseConfig) -> None:
        """Read the build and plan its pages.

        Raises:
            UsageError: the gallery may not go where it should.
            FeedError: no build there, or a damaged one.
        """
        self.out, self._config = config.folder, config
        store = Store(config.build)
        self.read = AsRead(store)
        require_place(self.out, Path(store.root) if store.is_local else None)
        self.pool = Pool(config.build)
        self.sections: Sections = plan_sections(self.pool, config.per_page)
        self.sheets = Sheets(self.out, self.pool.store, config.sheet)
        self.pages = Pages(self.sections, title=f"Clips of {_name(config.build)}", command=_command(config))
        self._identity = self._digest_of_all()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder of the gallery, for the build as it was read.

        Raises:
            UsageError: it is no gallery, cannot be written, or another run holds it.
            FeedError: the build has changed since.
        """
        with held_gallery(self.out):
            # A takedown may have come between; from here on it is refused where the gallery is in the build.
            self.read.require_same()
            yield

    def read_again(self) -> Gallery:
        """The same gallery of the build as it is now."""
        return Gallery(self._config)

    def wanted(self, asked: Asked) -> list[Page]:
        """The pages that are asked for; of nothing, the first ones within the budget."""
        return self.sections.within(self._config.budget) if asked.is_nothing else self.sections.asked(asked)

    def update(self, wanted: Sequence[Page], progress: Progress) -> BrowseSummary:
        """Make ``wanted``, bring what is there up to date, and remove what the build does not have any more."""
        there = self._pages_there()
        self._write_indexes(frozenset(there))
        every = dict.fromkeys([*wanted, *there])
        needed = {page: self._names(self.sections.positions(page)) for page in every}
        drawn_before = self.sheets.there()
        digests = self._digests(every)
        stale = [
            page
            for page in every
            if there.get(page) != digests[page] or any(name not in drawn_before for name in needed[page].values())
        ]
        run = _Run(self, progress, every=frozenset(every), digests=digests)
        run.make(stale, needed)
        if len(every) > len(there):
            self._write_indexes(frozenset(every))
        self.sheets.sweep({name for names in needed.values() for name in names.values()})
        return BrowseSummary(
            out=self.out,
            index=self.out / "index.html",
            pages=len(every),
            written=len(stale),
            planned=sum(section.num_pages for section in self.sections),
            sheets=run.drawn,
            not_drawn=run.not_drawn,
            asked=[self.out / page.path for page in wanted[:20]],
        )

    def html(self, page: Page, is_made: Callable[[Page], bool], digest: str) -> str:
        """A page whose sheets are drawn."""
        return self._html(page, is_made, digest, self.told([page]))[0]

    def told(self, pages: Iterable[Page]) -> dict[str, Told]:
        """What the ledger tells of the clips of ``pages``."""
        places = [self.sections.positions(page) for page in pages]
        positions = np.unique(np.concatenate(places)) if places else np.array([], dtype=np.int64)
        keys = [str(key) for key in self.pool.table["key"].take(positions).to_pylist()]
        return read_told(self.pool.store, self.pool.lock, keys)

    def draw(self, page: Page) -> None:
        """Draw the sheets that a page needs and that are not there."""
        tasks = [task for task in self.tasks([page]) if self.sheets.shown(task.name) is None]
        for _ in self.sheets.draw(tasks, workers=min(self._config.workers, max(1, len(tasks)))):
            pass

    def tasks(self, pages: Iterable[Page]) -> Iterable[Task]:
        """The sheets of the clips of ``pages``, each once."""
        seen: set[str] = set()
        for page in pages:
            positions = self.sections.positions(page)
            for where in self.pool.bytes_at(positions):
                name = self.sheets.name(where) if where is not None else ""
                if where is not None and name not in seen:
                    seen.add(name)
                    yield Task(name=name, where=where)

    def write(self, page: Page, is_made: Callable[[Page], bool], digest: str, told: dict[str, Told]) -> list[Tile]:
        """Write a page; its clips."""
        html, tiles = self._html(page, is_made, digest, told)
        atomic.write_bytes(self.out / page.path, as_bytes(html))
        return tiles

    @property
    def workers(self) -> int:
        """Processes that decode."""
        return self._config.workers

    def _html(
        self, page: Page, is_made: Callable[[Page], bool], digest: str, told: dict[str, Told]
    ) -> tuple[str, list[Tile]]:
        positions = self.sections.positions(page)
        names = self._names(positions)
        tiles = {}
        for at, clip in zip(positions.tolist(), self.pool.clips_at(positions), strict=True):
            sheet = self.sheets.shown(names[at]) if at in names else None
            tiles[at] = Tile(clip=clip, sheet=sheet or Sheet(), told=told.get(clip.key, Told()))
        # A page with a picture that may come another time carries no digest, and is made again by the next run.
        is_final = all(tile.sheet.is_final for tile in tiles.values())
        return self.pages.clips(page, tiles, is_made, digest if is_final else "unfinished"), list(tiles.values())

    def _names(self, positions: Ints) -> dict[int, str]:
        """The name of each clip's sheet by its position; those without bytes are left out."""
        places = zip(positions.tolist(), self.pool.bytes_at(positions), strict=True)
        return {at: self.sheets.name(where) for at, where in places if where is not None}

    def _pages_there(self) -> dict[Page, str]:
        """The pages on the disk with the digest that each carries; files that are no page of this build are removed."""
        clear_partials(self.out)
        found: dict[Page, str] = {}
        for pattern in ("views/*/*.html", "statuses/*.html", "conflicts/*.html", "near-duplicates/*.html"):
            for path in sorted(self.out.glob(pattern)):
                page = self.sections.page_at(path.relative_to(self.out).as_posix())
                if page is not None:
                    found[page] = stored_digest(path.read_bytes())
                elif path.name != "index.html" or not self._is_index(path):
                    path.unlink()
        for folder in self.out.glob("views/*"):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return found

    def _is_index(self, path: Path) -> bool:
        return path.relative_to(self.out).as_posix() in self.pages.index_paths

    def _write_indexes(self, made: frozenset[Page]) -> None:
        for path, html in self.pages.indexes(made.__contains__).items():
            target, data = self.out / path, as_bytes(html)
            if not target.is_file() or target.read_bytes() != data:
                atomic.write_bytes(target, data)

    def _digests(self, pages: Iterable[Page]) -> dict[Page, str]:
        """What each page should carry: it depends on the build, the settings and which pages it can link to."""
        numbers: dict[Section, list[int]] = {}
        for page in pages:
            numbers.setdefault(page.section, []).append(page.number)
        found = {}
        for section, own in numbers.items():
            text = json.dumps([self._identity, section.stem, sorted(own)])
            digest = hashlib.sha256(text.encode()).hexdigest()
            found.update({Page(section=section, number=number): digest for number in own})
        return found

    def _digest_of_all(self) -> str:
        store, config = self.pool.store, self._config
        digest = hashlib.sha256(self.pool.index_bytes + self.pool.manifest_bytes)
        for name in (LEDGER_FILE, NEAR_DUPLICATES_FILE):
            if store.exists(name):
                with store.open(name) as stream:
                    while data := stream.read(1 << 20):
                        digest.update(data)
        settings = [config.per_page, config.sheet.frames, config.sheet.height_px, list(_command(config))]
        parts = [self.pool.lock["digests"], self.pool.lock["class_table"], settings, form_digest(), digest.hexdigest()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Run:
    """The making of some pages: sheets by workers, and each section's pages when its last sheet is there."""

    def __init__(
        self, gallery: Gallery, progress: Progress, *, every: frozenset[Page], digests: dict[Page, str]
    ) -> None:
        self._gallery, self._progress = gallery, progress
        self._every, self._digests = every, digests
        self._told: dict[str, Told] = {}
        self._written = self._total = 0
        self.drawn = 0
        self.not_drawn: dict[str, str] = {}

    def make(self, pages: Sequence[Page], needed: dict[Page, dict[int, str]]) -> None:
        """Draw what ``pages`` need and is not there, and write them."""
        self._total, self._told = len(pages), self._gallery.told(pages)
        by_section: dict[Section, list[Page]] = {}
        for page in pages:
            by_section.setdefault(page.section, []).append(page)
        there = {
            name for page in pages for name in needed[page].values() if self._gallery.sheets.shown(name) is not None
        }
        missing = {s: {n for p in own for n in needed[p].values()} - there for s, own in by_section.items()}
        for section in [section for section in by_section if not missing[section]]:
            self._write(by_section.pop(section))
        users: dict[str, list[Section]] = {}
        for section in by_section:
            for name in missing[section]:
                users.setdefault(name, []).append(section)
        total = len(users)
        tasks = (t for t in self._gallery.tasks(p for own in by_section.values() for p in own) if t.name in users)
        for name in self._gallery.sheets.draw(tasks, workers=self._gallery.workers):
            self.drawn += 1
            self._progress("contact sheets", self.drawn, total)
            for section in users[name]:
                missing[section].discard(name)
                if not missing[section]:
                    # All at once: they link to each other.
                    self._write(by_section[section])

    def _write(self, pages: Sequence[Page]) -> None:
        if self._gallery.pool.store.is_local:  # elsewhere it costs a request, and is looked at when all is done
            self._gallery.read.require_same()
        for page in pages:
            tiles = self._gallery.write(page, self._every.__contains__, self._digests[page], self._told)
            self.not_drawn.update((t.clip.key, t.sheet.reason) for t in tiles if t.sheet.reason)
            self._written += 1
            self._progress("pages", self._written, self._total)


def _command(config: BrowseConfig) -> tuple[str, ...]:
    """The command that goes on with this gallery, without what is asked for."""
    # A folder that begins with a dash would be read as an option.
    words = ["k710", "browse", f"./{config.build}" if config.build.startswith("-") else config.build]
    defaults = BrowseConfig(build=config.build)
    words += [f"--out={config.out}"] if config.out is not None else []
    words += [f"--per-page={config.per_page}"] if config.per_page != defaults.per_page else []
    words += [f"--frames={config.sheet.frames}"] if config.sheet.frames != defaults.sheet.frames else []
    return tuple(words)


def _name(build: str) -> str:
    """What a build is called in titles: the last part of its path."""
    store = Store(build)
    root = str(Path(store.root).resolve()) if store.is_local else store.root
    return root.rstrip("/").rpartition("/")[2] or root


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""
