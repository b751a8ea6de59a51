"""Takedown: a build without some videos, for good; only the shards that held them are written anew.

Order of writes: the gallery away, the wish (``forgotten.json``), the index away, lock and tables, then bytes and
ledger, audit, and the index last. After a kill at any moment the same command, or the next build, goes on to the same
bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.browse.folder import gallery_kept_away, remove_gallery
from k710.clips.ledger import LEDGER_FILE, Ledger
from k710.config import load_releases
from k710.errors import FeedError
from k710.fingerprints.content import remove_content_audit
from k710.labels import LabelMap, load_labels, parse_labels
from k710.lists.manifest import digest
from k710.report.markdown import audit_markdown
from k710.report.page import write_build_page
from k710.segments import id_hash
from k710.shard_stage import clip_outcomes
from k710.shards.index import CLASSES_FILE, INDEX_FILE
from k710.shards.packing import Packing
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.shelf import CACHE_FOLDER, remove_unfinished
from k710.shards.write import shard_files
from k710.tables import read_table, write_table
from k710.takedown.forgotten import hashes_of, read_forgotten, write_forgotten
from k710.takedown.stored_plan import StoredPlan, read_lock, read_plan, without, write_json, write_stored_plan
from k710.writers import sole_writer

_KEY = re.compile(r"(.+)_(?:[0-9]{6}_[0-9]{6}|[0-9]{9}_[0-9]{9})")

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetConfig:
    """What to forget."""

    ids: tuple[str, ...]
    """Ids of the videos."""
    out: Path = Path("k710-data")
    """Folder of the build."""
    dry_run: bool = False
    """Whether to say only what would be done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetSummary:
    """What a takedown did, or would do."""

    out: Path
    """The build."""
    videos: int
    """Videos named."""
    id_hashes: list[str]
    """Their hashes, as ``forgotten.json`` has them."""
    forgotten_before: int
    """How many of them had been forgotten before."""
    not_listed: list[str]
    """Ids that no table of the build knows; they are kept out all the same."""
    clips: int
    """Clips that are planned no more."""
    shards_rewritten: int
    """Shards written anew."""
    shards_removed: int
    """Shards that are gone, emptied or merged into another."""
    unfinished: bool
    """Whether `k710 build` has to go on before the build can be read: it had not been finished."""
    drawn: bool
    """Whether the lists may hold clips that take the place of these, drawn by `k710 build --per-class --replan`."""
    dry_run: bool
    """Whether nothing was written."""


def forget(config: ForgetConfig, progress: Progress | None = None) -> ForgetSummary:
    """Take videos out of the build, and keep them out of every later plan of it.

    Raises:
        UsageError: an id is none, the build cannot be written, or another process writes to it or to its gallery.
        FeedError: no build there, or a damaged one.
    """
    read_lock(config.out)
    if config.dry_run:
        return _Takedown(config, progress or _silent).looked_at()
    with atomic.writable(config.out), sole_writer(config.out), gallery_kept_away(config.out):
        return _Takedown(config, progress or _silent).done()


@dataclass(frozen=True, kw_only=True, slots=True)
class _ShardWork:
    """What is to be done to the shards, by their paths in the build."""

    ready: list[str]
    """Leaves that are not as planned, and whose clips are all there: to be written."""
    waiting: list[str]
    """Leaves that the build has still to make."""
    stale: list[str]
    """Shards that are not planned."""
    dissolved: list[str]
    """Shards that hold forgotten bytes, and whose other clips have to wait for the build."""
    rewritten: int
    """Shards that are there afterwards, and are written for it."""
    removed: int
    """Shards that are there, and will not be."""


class _Takedown:
    """One run."""

    def __init__(self, config: ForgetConfig, progress: Progress) -> None:
        self._config, self._out, self._progress = config, config.out, progress
        lock = read_lock(self._out)
        self._labels = _class_table(self._out, lock)
        self._before = read_forgotten(self._out)
        known = load_releases()
        self._named = hashes_of(config.ids, {known[name].id_kind for name in lock["releases"] if name in known})
        self._keys: set[str] = set()
        self._all = frozenset(self._before).union(*self._named.values())

    def looked_at(self) -> ForgetSummary:
        """What would be done."""
        plan = read_plan(self._out)
        after = without(plan, self._all, self._labels)
        self._keys = plan.keys_of(self._all)
        index = _index(self._out)
        if not (self._out / LEDGER_FILE).exists() or (index is not None and _is_index_of(index, after.manifest)):
            return self._summary(plan, after, None)
        return self._summary(plan, after, self._shard_work(self._packing(after, self._ledger(after))))

    def done(self) -> ForgetSummary:
        """Do it, from wherever an earlier run stopped."""
        # First: whoever goes on after a kill, be it the build, need not know of it.
        remove_gallery(self._out)
        remove_content_audit(self._out)
        plan = self._recorded_plan()
        after = without(plan, self._all, self._labels)
        self._keys = plan.keys_of(self._all)
        index = _index(self._out)
        if index is None or not _is_index_of(index, after.manifest):
            # From here on shards change under the index; a reader that comes after a kill must not trust its offsets.
            (self._out / INDEX_FILE).unlink(missing_ok=True)
            index = None
        write_stored_plan(self._out, after)
        remove_unfinished(self._out)
        _drop_lines(self._out / LEDGER_FILE, self._is_forgotten)
        self._forget_cache()
        return self._summary(plan, after, self._forget_shards(after, index))

    def _recorded_plan(self) -> StoredPlan:
        """The plan on the disk; when it is read, the wish stands in ``forgotten.json``."""
        try:
            plan = read_plan(self._out)
        except FeedError as error:
            write_forgotten(self._out, self._all)
            raise FeedError(
                error.message,
                hint="the videos stand in forgotten.json; `k710 build --replan` with its arguments leaves them out",
            ) from error
        if not plan.is_of(plan.lock):
            earlier = without(plan, self._before, self._labels)
            if earlier.is_of(plan.lock):
                # An earlier takedown was killed among its tables. They are brought to its lock before the wish grows.
                write_stored_plan(self._out, earlier)
                plan = read_plan(self._out)
        if self._all != set(self._before):
            write_forgotten(self._out, self._all)
        return plan

    def _forget_shards(self, plan: StoredPlan, index: pa.Table | None) -> _ShardWork | None:
        """Bring shards, audit and index to ``plan``; ``index`` is the one on the disk when it is right already."""
        if index is not None or not (self._out / LEDGER_FILE).exists():
            # Where the index stands no clip is concerned; without a ledger there are none.
            _write_audit(self._out, plan, index)
            return None
        keep_clips = (self._out / CACHE_FOLDER).exists()
        packing = self._packing(plan, self._ledger(plan))
        work = self._shard_work(packing)
        self._rewrite(packing, work, plan.lock["digests"]["plan"], keep_clips=keep_clips)
        if work.waiting:
            _write_audit(self._out, plan, None)
            return work
        packing.sweep(keep_clips=keep_clips)
        table = packing.index()
        _write_audit(self._out, plan, table)
        # Last: where it is, all the rest is.
        write_table(self._out / INDEX_FILE, table, schema.SHARDS)
        return work

    def _rewrite(self, packing: Packing, work: _ShardWork, plan_digest: str, *, keep_clips: bool) -> None:
        packing.rescue(work.ready)
        for done, leaf in enumerate(work.ready):
            self._progress("rewriting shards", done, len(work.ready))
            packing.pack(leaf, plan_digest, keep_clips=keep_clips)
        self._progress("rewriting shards", len(work.ready), len(work.ready))
        for shard in work.dissolved:
            packing.dissolve(shard)
        packing.restamp(plan_digest)

    def _ledger(self, plan: StoredPlan) -> Ledger:
        return Ledger(self._out / LEDGER_FILE, digest(plan.lock["config"]["encode"]))

    def _packing(self, plan: StoredPlan, ledger: Ledger) -> Packing:
        return Packing(self._out, plan.manifest, self._labels, ledger.outcomes)

    def _shard_work(self, packing: Packing) -> _ShardWork:
        open_leaves = [leaf for leaf in packing.leaves if not packing.is_done(leaf)]
        ready = [leaf for leaf in open_leaves if packing.is_ready(leaf)]
        waiting = sorted(set(open_leaves) - set(ready))
        there = {os.path.relpath(path, self._out) for path in shard_files(self._out / SHARDS_FOLDER)}
        stale = packing.stale()
        suspects = [shard for shard in (*waiting, *stale) if waiting and shard in there]
        dissolved = [shard for shard in suspects if any(map(self._is_forgotten, packing.keys_in(shard)))]
        written = {leaf for leaf in ready if packing.members(leaf)}
        left = there - set(ready) - set(dissolved) - set([] if waiting else stale)
        return _ShardWork(
            ready=ready,
            waiting=waiting,
            stale=stale,
            dissolved=dissolved,
            rewritten=len(written),
            removed=len(there - left - written),
        )

    def _forget_cache(self) -> None:
        """Remove the forgotten clips from the cache, and what killed encoders left there."""
        for scratch in (self._out / CACHE_FOLDER).glob("tmp-*"):
            shutil.rmtree(scratch, ignore_errors=True)
        for path in list((self._out / CACHE_FOLDER).glob("*/*.mp4")):
            if self._is_forgotten(path.stem):
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()

    def _is_forgotten(self, key: str) -> bool:
        if key in self._keys:
            return True
        # Left by an earlier plan, and in no table any more: the key of a YouTube video begins with its id.
        match = _KEY.fullmatch(key)
        return match is not None and id_hash(match[1]) in self._all

    def _summary(self, plan: StoredPlan, after: StoredPlan, work: _ShardWork | None) -> ForgetSummary:
        known = plan.videos()
        clips = plan.manifest.num_rows - after.manifest.num_rows
        hashes = sorted({h for own in self._named.values() for h in own})
        return ForgetSummary(
            out=self._out,
            videos=len(self._named),
            id_hashes=[f"{h:016x}" for h in hashes],
            forgotten_before=sum(set(own) <= set(self._before) for own in self._named.values()),
            not_listed=[i for i, own in self._named.items() if not known & set(own)],
            clips=clips,
            shards_rewritten=0 if work is None else work.rewritten,
            shards_removed=0 if work is None else work.removed,
            unfinished=work is not None and bool(work.waiting),
            drawn=bool(clips and plan.lock["config"]["selection"].get("per_class")),
            dry_run=self._config.dry_run,
        )


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def _class_table(out: Path, lock: Mapping[str, Any]) -> LabelMap:
    """The class table that the lock names."""
    path = out / CLASSES_FILE
    labels = parse_labels(path.read_bytes(), where=str(path)) if path.exists() else load_labels()
    if labels.digest != lock["class_table"]:
        raise FeedError(
            f"{out}: the class table that it was built with is not there",
            hint=f"restore {CLASSES_FILE} in it, or run `k710 build` again",
        )
    return labels


def _index(out: Path) -> pa.Table | None:
    try:
        return read_table(out / INDEX_FILE, schema.SHARDS)
    except FeedError:
        return None


def _is_index_of(index: pa.Table, manifest: pa.Table) -> bool:
    return all(index[name].to_pylist() == manifest[name].to_pylist() for name in ("key", "leaf"))


def _write_audit(out: Path, plan: StoredPlan, index: pa.Table | None) -> None:
    audit = {name: value for name, value in plan.audit.items() if name != "clips"}
    if index is not None:
        audit["clips"] = clip_outcomes(index)
    write_json(out / "audit.json", audit)
    page = audit_markdown(audit).encode()
    if not (out / "audit.md").exists() or (out / "audit.md").read_bytes() != page:
        atomic.write_bytes(out / "audit.md", page)
    write_build_page(out, audit)


def _drop_lines(path: Path, is_forgotten: Callable[[str], bool]) -> None:
    """Rewrite the ledger without the lines of some keys, and without a torn last one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and not is_forgotten(_key_of(line))]
    if kept != lines:
        atomic.write_bytes(path, b"".join(kept))


def _key_of(line: bytes) -> str:
    try:
        return str(json.loads(line)["key"])
    except (ValueError, KeyError, TypeError):
        return ""
