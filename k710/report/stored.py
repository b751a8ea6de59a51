"""The audit that a build wrote, with its leaks counted again from the build's own tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k710 import schema
from k710.errors import FeedError, UsageError
from k710.report.audit import SCHEMA
from k710.report.damage import thin_classes
from k710.report.markdown import audit_markdown
from k710.report.near_duplicates import read_content_audit
from k710.report.page import LEAKS_FILE, audit_page
from k710.shards.index import HELD_OUT_FILE, LOCK_FILE, parsed_lock
from k710.tables import compute, read_table

_RESTORE = "run `k710 build` again to restore it"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAudit:
    """An audit as it lies on the disk."""

    json_text: str
    """``audit.json``."""
    markdown: str
    """``audit.md``."""
    trains: bool
    """Whether there is a training view, whose leaks could be counted."""
    leaking: list[dict[str, Any]]
    """Overlaps of training views with lists that are protected from them: ``view``, ``list``, ``videos``."""


def stored_page(folder: Path, stored: StoredAudit) -> str:
    """The page of a build's audit as it was read, from the build's own leaks, lock and content audit.

    Raises:
        FeedError: one of them is missing or damaged, or a part of the audit is missing.
    """
    leaks = read_table(folder / LEAKS_FILE, schema.LEAKS)
    lock = parsed_lock(_text(folder / LOCK_FILE).encode(), where=str(folder / LOCK_FILE))
    try:
        return audit_page(json.loads(stored.json_text), leaks, lock, read_content_audit(folder))
    except (KeyError, TypeError) as error:
        raise FeedError(f"{folder}: a part of the audit is missing ({error})", hint=_RESTORE) from error


def read_audit(folder: Path, minimum: int | None = None) -> StoredAudit:
    """The audit of the build in ``folder``.

    Args:
        folder: what ``k710 build --out`` wrote.
        minimum: clips under which a class counts as thin; None for what the build was made with.

    Raises:
        FeedError: no build there, or its tables are damaged.
    """
    if not (folder / LOCK_FILE).is_file():
        raise FeedError(
            f"{folder}: no build here ({LOCK_FILE} is missing)", hint="`k710 build --out` makes one; or give --data"
        )
    json_text, markdown = (_text(folder / name) for name in ("audit.json", "audit.md"))
    document = parsed_audit(json_text, folder / "audit.json")
    if minimum is not None:
        json_text, markdown = _with_minimum(document, minimum, folder / "audit.json")
    trains = any(entry["view"].endswith("-train") for entry in document.get("views", ()))
    return StoredAudit(json_text=json_text, markdown=markdown, trains=trains, leaking=_leaking(folder))


def parsed_audit(text: str, path: Path) -> dict[str, Any]:
    """The audit document in ``text``; what is none, or of another version, is a ``FeedError``."""
    try:
        document: dict[str, Any] = json.loads(text)
        found = document["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{path}: not an audit of `k710 build`", hint=_RESTORE) from error
    if found != SCHEMA:
        raise FeedError(f"{path}: schema is {found}, this version reads {SCHEMA}", hint=_RESTORE)
    return document


def _with_minimum(document: dict[str, Any], minimum: int, path: Path) -> tuple[str, str]:
    """The document with its thin classes counted anew, as JSON and as Markdown."""
    if minimum < 0:
        raise UsageError(f"the minimum of clips per class must be at least 0, got {minimum}")
    try:
        changed = document | {"min_per_class": minimum, "thin_classes": thin_classes(document["damage"], minimum)}
        return json.dumps(changed, indent=1, sort_keys=True, ensure_ascii=False) + "\n", audit_markdown(changed)
    except (KeyError, TypeError) as error:
        raise FeedError(f"{path}: a part of the audit is missing ({error})", hint=_RESTORE) from error


def _leaking(folder: Path) -> list[dict[str, Any]]:
    lock = parsed_lock(_text(folder / LOCK_FILE).encode(), where=str(folder / LOCK_FILE))
    held_out = _held_out(folder)
    manifest = read_table(folder / "manifest.parquet", schema.MANIFEST, ["id_hash", "views"])
    hashes = manifest["id_hash"].to_numpy()
    views = manifest["views"].combine_chunks()
    clip, named = compute.list_parent_indices(views).to_numpy(), compute.list_flatten(views)
    found = []
    for view in (v for v in lock["views"] if v.endswith("-train")):
        release = view.removesuffix("-train")
        seen = hashes[clip[compute.equal(named, view).to_numpy(zero_copy_only=False)]]
        for (owner, split), videos in held_out.items():
            count = len(np.intersect1d(seen, videos))
            if count and (owner == release or (release == "k710" and _is_protected(lock, split))):
                found.append({"view": view, "list": f"{owner}:{split}", "videos": count})
    return found


def _held_out(folder: Path) -> dict[tuple[str, str], npt.NDArray[np.uint64]]:
    """Hashes of the videos of each held-out list, by (release, split)."""
    table = read_table(folder / HELD_OUT_FILE, schema.HELD_OUT)
    names = table.select(["release", "split"]).group_by(["release", "split"]).aggregate([]).to_pylist()
    found = {}
    for release, split in sorted((row["release"], row["split"]) for row in names):
        own = compute.and_(compute.equal(table["release"], release), compute.equal(table["split"], split))
        found[release, split] = table["id_hash"].filter(own).to_numpy()
    return found


def _is_protected(lock: dict[str, Any], split: str) -> bool:
    return ("test" if split == "holdout" else split) in lock["config"]["protect"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FeedError(f"{path}: no such file", hint=_RESTORE) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FeedError(f"{path}: cannot be read ({error})", hint=_RESTORE) from error
