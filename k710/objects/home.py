"""A build in an object store: a folder of this machine stands for it, in which nothing lies that could be lost.

The run writes into the folder as a build in a folder does. What is committed goes to the store at once: clips and lines
of the ledger after each batch, shards when they are packed, and the rest when the run publishes it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from k710 import atomic
from k710.claims import CLAIMS_FOLDER, TakenError
from k710.errors import FeedError, K710Error, UsageError
from k710.home import HeldClaim, Home, KeptClaims, LocalHome
from k710.objects.claims import WORK_ID_FILE, NoClaims, ObjectClaims
from k710.objects.objects import Objects
from k710.objects.parts import LedgerParts, parts_in, pull_ledgers, put_merged
from k710.objects.protocols import objects_at
from k710.objects.s3 import S3Objects
from k710.objects.shelf import ObjectShelf, unclaimed
from k710.objects.small import FOLDERS, is_marker, is_small
from k710.processes import GUARD_FILE, only_writer
from k710.shards.index import INDEX_FILE, LOCK_FILE
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.shelf import CACHE_FOLDER
from k710.takedown.forgotten import FORGOTTEN_FILE

_FIRST_COME = (CLAIMS_FOLDER, FORGOTTEN_FILE)
"""What may lie there before the first build."""


class ObjectHome:
    """A build in an object store."""

    poll_s = 2.0

    def __init__(self, url: str, work: Path, objects: Objects, *, who: str) -> None:
        """``work`` is held by this process; ``who`` names the run among those that write ledgers."""
        self.url, self.out = url, work
        self._objects = objects
        self._who = who
        self._parts = LedgerParts(objects, who)
        self._shelf = ObjectShelf(objects, work, self._parts)
        self.shelf = self._shelf
        """Its shards and waiting clips."""
        self.claims: KeptClaims = NoClaims()
        """Who writes to it."""
        if isinstance(objects, S3Objects):
            self.claims = ObjectClaims(objects, CLAIMS_FOLDER, work)
        self._same: dict[str, str] = {}

    def look(self) -> None:
        """See that no objects of others lie there, and get the lock and what is forgotten."""
        there = self._objects.listed()
        strange = sorted(p for p in there if p.partition("/")[0] not in _FIRST_COME)
        if strange and LOCK_FILE not in there:
            raise UsageError(
                f"{self.url}: not empty and not a build (it has {strange[0]})", hint="--out takes a new place"
            )
        for name in (LOCK_FILE, FORGOTTEN_FILE):
            (self.out / name).unlink(missing_ok=True)
            if name in there:
                atomic.write_bytes(self.out / name, self._objects.read(name))

    @contextmanager
    def guarded(self, refusal: str) -> Iterator[None]:  # noqa: ARG002 - whoever made this object has done it
        """Hold the folder, which this process does."""
        yield

    def pull(self, held: HeldClaim | None) -> None:
        """Bring the folder to what the build is now; what is written from here on needs the claim."""
        self._shelf.require = unclaimed if held is None else held.require
        for last in (False, False, True):
            try:
                self._pull()
            except FeedError as error:
                # Another task has just removed what was listed, to write it anew.
                if last or not isinstance(error.__cause__, FileNotFoundError):
                    raise
            else:
                return

    def _pull(self) -> None:
        self._shelf.there = there = self._objects.listed()
        shutil.rmtree(self.out / CACHE_FOLDER, ignore_errors=True)
        wanted = {path for path in there if is_small(path)}
        for path in set(_local_files(self.out)) - wanted:
            (self.out / path).unlink()
        for tar in self.out.glob(f"{SHARDS_FOLDER}/*/*.tar"):
            tar.unlink()
        other = [path for path in wanted if not there[path].etag or _md5(self.out / path) != there[path].etag]
        self._objects.get_files([(path, self.out / path) for path in other])
        self._same = {path: _md5(self.out / path) for path in wanted if not is_marker(path)}
        pull_ledgers(self._objects, there, self.out)

    def note(self, lines: bytes) -> None:
        """Have lines of the ledger written with the next commit."""
        self._parts.note(lines)

    def merged(self) -> None:
        """Have the one ledger, with the lines of all, in the store, and no parts."""
        self._shelf.require()
        self._parts.flush()
        pulled = parts_in(self._shelf.there)
        put_merged(self._objects, [*pulled, *self._parts.names], self.out)
        for part in pulled:
            self._shelf.there.pop(part)
        self._parts = LedgerParts(self._objects, self._who)
        self._shelf.use_parts(self._parts)

    def publish(self) -> None:
        """Bring the store to what lies in the folder: the lock first, the index last, and what is gone, gone."""
        self._shelf.require()
        local = {path for path in _local_files(self.out) if not is_marker(path)}
        gone = set(self._same) - local
        if INDEX_FILE in gone:
            # The index of the old plan beside the views of the new one would be read as a build.
            self._shelf.withdraw_index()
        changed = {path for path in local if self._same.get(path) != _md5(self.out / path)}
        for group in ({LOCK_FILE}, local - {LOCK_FILE, INDEX_FILE}):
            self._objects.put_files([(self.out / path, path) for path in sorted(group & changed)])
        self._objects.delete(sorted(gone - {INDEX_FILE}))
        # One that was withdrawn meanwhile may have come back as it was.
        if INDEX_FILE in local and (INDEX_FILE in changed or INDEX_FILE not in self._shelf.there):
            self._shelf.put_index()
        self._same = {path: _md5(self.out / path) for path in local}
        for path in gone:
            self._shelf.there.pop(path, None)


@contextmanager
def build_home(store: str, work: Path | None, out: Path, *, who: str, unguarded: bool) -> Iterator[Home]:
    """Where the build of one run lies: in ``out``, or, if it is not empty, in the object store ``store``.

    ``who`` names a task among several; the others are as in ``object_home``.
    """
    if not store:
        yield LocalHome(out)
        return
    with object_home(store, work or default_work(), who=who or "alone", unguarded=unguarded) as home:
        yield home


@contextmanager
def object_home(url: str, work: Path, *, who: str, unguarded: bool = False) -> Iterator[ObjectHome]:
    """The build at ``url`` for one run, which works in a folder of its own in ``work``.

    Args:
        url: of an object store.
        work: folder of this machine; what lies in it can be had again.
        who: names the run among those that may write at the same time.
        unguarded: whether a store will do that cannot keep two builds apart.

    Raises:
        UsageError: the store cannot be written to safely, or another process works in that folder.
    """
    objects = objects_at(url, unguarded=unguarded)
    folder = work / f"{hashlib.sha256(objects.root.encode()).hexdigest()[:16]}-{who}"
    with atomic.writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder, url):
            _mark(folder)
            try:
                yield ObjectHome(url, folder, objects, who=who)
            except K710Error as error:
                # The folder stands for what the user has named, but where it is the disk that fails.
                if "cannot be written" not in error.message:
                    error.message = error.message.replace(str(folder), url)
                raise


def default_work() -> Path:
    """Where the folders of builds in object stores are unless it is said."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k710" / "work"


@contextmanager
def _alone_in(folder: Path, url: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(only_writer(folder / GUARD_FILE, f"another k710 build is writing to {url}"))
        except UsageError as error:
            raise TakenError(error.message, hint=error.hint) from error
        yield


def _mark(folder: Path) -> None:
    """Give a new folder its name of its own; refuse one that is not ours."""
    path = folder / WORK_ID_FILE
    if path.exists():
        return
    # A kill in the middle of this very write leaves a partial file.
    own = (GUARD_FILE, f".{WORK_ID_FILE}.")
    strangers = sorted(p.name for p in folder.iterdir() if p.name != own[0] and not p.name.startswith(own[1]))
    if strangers:
        raise UsageError(f"{folder}: not a folder of k710 (it has {strangers[0]})", hint="--work takes another folder")
    atomic.write_text(path, secrets.token_hex(16))


def _local_files(work: Path) -> Iterator[str]:
    """The small files of a build in its folder, relative to it."""
    for folder in ("", *FOLDERS, f"{SHARDS_FOLDER}/*"):
        for path in work.glob(f"{folder}/*" if folder else "*"):
            name = str(path.relative_to(work))
            if path.is_file() and is_small(name):
                yield name


def _md5(path: Path) -> str:
    """What S3 calls the content of an object that was sent in one piece; empty: there is no file."""
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return ""
