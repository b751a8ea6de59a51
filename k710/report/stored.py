"""The audit that a build wrote, with its leaks counted again from the build's own tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from k710 import schema
from k710.errors import FeedError
from k710.report.audit import SCHEMA
from k710.shards.index import HELD_OUT_FILE, LOCK_FILE, parsed_lock
from k710.tables import read_table

_RESTORE = "run `k710 build` again to restore it"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAudit:
    """An audit as it lies on the disk."""

    json_text: str
    """``audit.json``."""
    markdown: str
    """``audit.md``."""
    leaking: list[dict[str, Any]]
    """Overlaps of training views with lists that are protected from them: ``view``, ``list``, ``videos``."""


def read_audit(folder: Path) -> StoredAudit:
    """The audit of the build in ``folder``.

    Raises:
        FeedError: no build there, or its tables are damaged.
    """
    if not (folder / LOCK_FILE).is_file():
        raise FeedError(
            f"{folder}: no build here ({LOCK_FILE} is missing)", hint="`k710 build --out` makes one; or give --data"
        )
    json_text, markdown = (_text(folder / name) for name in ("audit.json", "audit.md"))
    _check_document(json_text, folder / "audit.json")
    return StoredAudit(json_text=json_text, markdown=markdown, leaking=_leaking(folder))


def _check_document(text: str, path: Path) -> None:
    try:
        found = json.loads(text)["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{path}: not an audit of `k710 build`", hint=_RESTORE) from error
    if found != SCHEMA:
        raise FeedError(f"{path}: schema is {found}, this version reads {SCHEMA}", hint=_RESTORE)


def _leaking(folder: Path) -> list[dict[str, Any]]:
    lock = parsed_lock(_text(folder / LOCK_FILE).encode(), where=str(folder / LOCK_FILE))
    held_out = read_table(folder / HELD_OUT_FILE, schema.HELD_OUT).to_pandas(use_threads=False)
    manifest = read_table(folder / "manifest.parquet", schema.MANIFEST, ["id_hash", "views"])
    hashes, members = manifest["id_hash"].to_numpy(), manifest["views"].to_pylist()
    found = []
    for view in (v for v in lock["views"] if v.endswith("-train")):
        release = view.removesuffix("-train")
        seen = hashes[[view in (views or ()) for views in members]]
        for (owner, split), rows in held_out.groupby(["release", "split"]):
            name = f"{owner}:{split}"
            count = len(np.intersect1d(seen, rows["id_hash"].to_numpy()))
            if count and (owner == release or (release == "k710" and _is_protected(lock, str(split)))):
                found.append({"view": view, "list": name, "videos": count})
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
