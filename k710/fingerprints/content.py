"""The content audit of a build: which of its clips look the same, across and inside its views."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.config import to_mapping
from k710.errors import FeedError
from k710.fingerprints.frames import RATE_HZ, FrameHashes
from k710.fingerprints.giving_way import gave_way
from k710.fingerprints.leaks import ClipFacts, between_views, is_counted, pair_table
from k710.fingerprints.search import Index, SearchSettings, verified
from k710.fingerprints.stored import FOLDER, ClipBytes, FingerprintFolder, FingerprintSummary, fingerprint_clips
from k710.report.markdown import audit_markdown
from k710.report.near_duplicates import CONTENT_AUDIT, DOCUMENT_FILE, NEAR_DUPLICATES, TABLE_FILE, ContentAudit
from k710.report.page import write_stored_page
from k710.report.stored import StoredAudit
from k710.shards.index import INDEX_FILE, LOCK_FILE, parsed_lock
from k710.store import Store
from k710.tables import read_table, table_from_bytes, write_table
from k710.writers import sole_writer

EXCLUDED_FILE = "excluded.parquet"
_COLUMNS = [
    "key", "id", "start_s", "end_s", "views", "shard", "path", "mp4_offset", "mp4_size_bytes", "sha256",
]  # fmt: skip

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentConfig:
    """What to compare."""

    folder: Path
    """The build."""
    workers: int = 1
    """Decoding processes."""
    settings: SearchSettings = field(default_factory=SearchSettings)
    """How."""


def audit_content(config: ContentConfig, progress: Progress | None = None) -> ContentAudit:
    """Compare the clips of a build, and write ``near_duplicates.json`` and ``near_duplicates.parquet`` into it.

    Fingerprints are kept in the build; killed at any time, the same call goes on from there.

    Raises:
        UsageError: a package is missing, or the build cannot be written, or another process writes to it.
        FeedError: no build there, none with clips, or a damaged one.
        SourceError: workers cannot be started.
    """
    build = _Build(config.folder)
    with atomic.writable(config.folder), sole_writer(config.folder):
        return _Run(build, config, progress or _silent).done()


def remove_content_audit(folder: Path) -> bool:
    """Remove what content audits have left in a build, fingerprints too; whether there was any."""
    files = [folder / name for name in (DOCUMENT_FILE, TABLE_FILE) if (folder / name).exists()]
    for path in files:
        path.unlink()
    has_prints = (folder / FOLDER).is_dir()
    if has_prints:
        shutil.rmtree(folder / FOLDER)
    return bool(files) or has_prints


def with_content(stored: StoredAudit, content: ContentAudit) -> StoredAudit:
    """The audit of a build with the seats of bytes and pictures taken, for machines and for people."""
    audit = json.loads(stored.json_text)
    audit |= {"levels": {**audit["levels"], **content.document["levels"]}, "content": content.document}
    json_text = json.dumps(audit, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    return replace(
        stored, json_text=json_text, markdown=f"{audit_markdown(audit)}\n{content_markdown(content.document)}"
    )


class _Build:
    """A build as it is compared."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        lock = parsed_lock(self.store.read(LOCK_FILE), where=self.store.url(LOCK_FILE))
        if not self.store.exists(INDEX_FILE):
            raise FeedError(f"{folder}: the build has no clips yet", hint="run `k710 build` with --videos to make them")
        data = self.store.read(INDEX_FILE)
        table = table_from_bytes(data, schema.SHARDS, _COLUMNS, where=self.store.url(INDEX_FILE))
        self.protect: tuple[str, ...] = tuple(lock["config"]["protect"])
        self.index_sha256 = hashlib.sha256(data).hexdigest()
        self.planned = frozenset(map(str, table["key"].to_pylist()))
        self.num_planned = table.num_rows
        self.rows = [row for row in table.to_pylist() if row["mp4_offset"] is not None]

    def left_out(self) -> frozenset[str]:
        """Ids of the videos that it leaves out of a view as near-duplicates."""
        data, url = self.store.read(EXCLUDED_FILE), self.store.url(EXCLUDED_FILE)
        table = table_from_bytes(data, schema.EXCLUDED, ["id", "reason"], where=url)
        return frozenset(str(row["id"]) for row in table.to_pylist() if row["reason"] == "near_duplicate")


class _Run:
    """One content audit."""

    def __init__(self, build: _Build, config: ContentConfig, progress: Progress) -> None:
        self._build, self._config, self._progress = build, config, progress
        self._folder = FingerprintFolder(config.folder / FOLDER)
        self._clips = [_clip_bytes(row) for row in build.rows]

    def done(self) -> ContentAudit:
        self._folder.sweep(self._clips)
        for name in (TABLE_FILE, DOCUMENT_FILE):
            for left in self._config.folder.glob(f".{name}.*.partial"):
                left.unlink(missing_ok=True)
        made = fingerprint_clips(
            self._clips, self._build.store, self._folder, workers=self._config.workers, progress=self._progress
        )
        facts = [_facts(row, made) for row in self._build.rows]
        index, not_compared = self._indexed(made)
        pairs = index.candidates(self._config.settings)
        frames = self._frames({int(p) for p in pairs.flat}, made)
        found = verified(pairs, frames, self._config.settings.match, self._progress)
        table = pair_table(facts, found, self._gave_way())
        not_compared["no bytes"] = self._build.num_planned - len(self._clips)
        document = self._document(facts, table, +not_compared, len(pairs)) | {"unread": len(made.failed)}
        write_table(self._config.folder / TABLE_FILE, table, NEAR_DUPLICATES)
        atomic.write_json(self._config.folder / DOCUMENT_FILE, document)
        write_stored_page(self._config.folder)
        return ContentAudit(document=document, table=table, made=made.made)

    def _gave_way(self) -> list[dict[str, Any]]:
        """Pairs that the last audit found, and of which the build has left one clip out since."""
        gone = self._build.left_out()
        try:
            old = read_table(self._config.folder / TABLE_FILE, NEAR_DUPLICATES) if gone else None
        except FeedError:
            old = None
        return gave_way(old, self._build.planned, gone)

    def _indexed(self, made: FingerprintSummary) -> tuple[Index, Counter[str]]:
        """The index of all clips, and how many could not be compared, by reason."""
        index = Index()
        not_compared: Counter[str] = Counter(failed.reason for failed in made.failed)
        least = self._config.settings.match.least_samples
        for position, frames, reason in self._stored(range(len(self._clips)), made):
            if reason:
                not_compared[reason] += 1
            elif int(frames.is_shown.sum()) < least:
                not_compared[f"under {least / RATE_HZ:g} s of pictures that show something"] += 1
            else:
                index.add(position, frames)
        return index, not_compared

    def _frames(self, positions: Collection[int], made: FingerprintSummary) -> dict[int, FrameHashes]:
        return {position: frames for position, frames, _ in self._stored(sorted(positions), made)}

    def _stored(self, positions: Sequence[int], made: FingerprintSummary) -> Any:
        """Position, hashes and reason of each fingerprint that is there, one table in memory at a time."""
        by_table: dict[Path, list[int]] = {}
        for position in positions:
            by_table.setdefault(self._folder.path(self._clips[position]), []).append(position)
        for path, those in by_table.items():
            known = self._folder.read(path)
            for position in those:
                found = known.get(made.sha256.get(self._clips[position].key, ""))
                if found is not None:
                    yield position, found.frames, found.reason

    def _document(
        self, facts: Sequence[ClipFacts], table: pa.Table, not_compared: Counter[str], candidates: int
    ) -> dict[str, Any]:
        rows = table.to_pylist()
        counted = [row for row in rows if is_counted(row)]
        between = between_views(table, self._build.protect)
        compared = self._build.num_planned - sum(not_compared.values())
        figures = {"checked": True, "clips": compared, "pairs": len(counted)}
        return {
            "schema": CONTENT_AUDIT,
            "index_sha256": self._build.index_sha256,
            "statement": statement(compared, between, not_compared),
            "settings": to_mapping(self._config.settings),
            "clips": compared,
            "not_compared": dict(sorted(not_compared.items())),
            "candidates": candidates,
            "pairs": len(counted),
            "mirrored": sum(row["mirrored"] for row in counted),
            "same_video_pairs": sum(row["same_video"] for row in rows),
            "gave_way_pairs": sum(row["gave_way"] for row in rows),
            "groups": len({row["group"] for row in counted}),
            "kinds": dict(sorted(Counter(row["kind"] for row in counted).items())),
            "between": between,
            "levels": {"same_bytes": _same_bytes(facts), "near_duplicate": figures},
        }


def statement(compared: int, between: Sequence[Mapping[str, Any]], not_compared: Mapping[str, int]) -> str:
    """What may be said of the pictures of a build, with how many clips it was not checked for."""
    leaks = [r for r in between if r["protected"]]
    if leaks:
        told = "; ".join(f"{r['pairs']:,} pairs of {r['views'][0]} and {r['views'][1]}" for r in leaks)
        said = f"NOT free of near-duplicates: {told}"
    else:
        said = f"no near-duplicate of a protected clip is trained on, of {compared:,} clips compared"
    missing = sum(not_compared.values())
    return f"{said}; not compared: {missing:,} clips." if missing else f"{said}; every clip was compared."


def content_markdown(document: Mapping[str, Any]) -> str:
    """The content audit as Markdown."""
    lines = ["## Clips that look the same", "", _sentence(document["statement"]), ""]
    if document["between"]:
        lines += ["| view | other view | pairs | clips of each | must not be |", "|---|---|---:|---:|---|"]
        for row in document["between"]:
            clips = " and ".join(f"{n:,}" for n in row["clips"])
            forbidden = "yes" if row["protected"] else ""
            lines.append(f"| {row['views'][0]} | {row['views'][1]} | {row['pairs']:,} | {clips} | {forbidden} |")
        lines.append("")
    lines.append(
        f"{document['pairs']:,} pairs in {document['groups']:,} groups, {document['mirrored']:,} of them mirrored; "
        f"{document['same_video_pairs']:,} more are segments of one video without a common second and do not count. "
        f"{document['levels']['same_bytes']['pairs']:,} pairs have the same bytes."
    )
    if document["gave_way_pairs"]:
        lines[-1] += f" {document['gave_way_pairs']:,} pairs that were found before have lost a clip, which gave way."
    for reason, num in document["not_compared"].items():
        lines += ["", f"Not compared: {num:,} clips ({reason})."]
    return "\n".join(lines) + "\n"


def _same_bytes(facts: Sequence[ClipFacts]) -> dict[str, Any]:
    counts = Counter(clip.sha256 for clip in facts if clip.sha256)
    return {"checked": True, "clips": counts.total(), "pairs": sum(n * (n - 1) // 2 for n in counts.values())}


def _clip_bytes(row: Mapping[str, Any]) -> ClipBytes:
    return ClipBytes(
        key=row["key"],
        file=row["shard"] or row["path"] or "",
        offset=row["mp4_offset"],
        size_bytes=row["mp4_size_bytes"] or 0,
        sha256=row["sha256"] or "",
    )


def _facts(row: Mapping[str, Any], made: FingerprintSummary) -> ClipFacts:
    return ClipFacts(
        key=row["key"],
        id=row["id"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        views=tuple(row["views"]),
        sha256=made.sha256.get(row["key"]) or row["sha256"] or "",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _silent(stage: str, done: int, total: int) -> None:
    pass
