"""What lies in the folder of a build before a run: whether it may be written there, and what would change."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import schema
from k710.claims import CLAIMS_FOLDER
from k710.errors import FeedError, UsageError
from k710.lists.compare import shard_changes
from k710.lists.manifest import lock_differences
from k710.processes import GUARD_FILE
from k710.shards.index import LOCK_FILE
from k710.tables import read_table
from k710.takedown.forgotten import FORGOTTEN_FILE

_NOT_STRANGE = (GUARD_FILE, CLAIMS_FOLDER, FORGOTTEN_FILE)
"""What may lie in a folder before its first build."""
_MANIFEST_FILE = "manifest.parquet"


def refuse_url(path: Path, flag: str) -> None:
    """Refuse an address, which would be taken for a folder of that name."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise UsageError(f"{flag} {path}: not a folder on this machine", hint="copy it here, or mount it")


def refuse_foreign(out: Path) -> None:
    """Refuse an ``out`` with files that are not a build's."""
    if not out.exists() or (out / LOCK_FILE).exists():
        return
    strangers = sorted(p.name for p in out.iterdir() if p.name not in _NOT_STRANGE and not _is_unfinished(p.name))
    if strangers:
        raise UsageError(f"{out}: not empty and not a build (it has {strangers[0]})", hint="--out takes a new folder")


def changes(out: Path, lock: dict[str, Any], *, locked: bool, replan: bool) -> list[str]:
    """What changes against the build in ``out``; refused unless ``replan``, and with ``locked``."""
    path = out / LOCK_FILE
    if not path.exists():
        return []
    try:
        changed = lock_differences(json.loads(path.read_bytes()), lock)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a lock of this version ({error})", hint="build into a new folder") from error
    if changed and locked:
        listed = "\n  ".join(changed)
        raise UsageError(
            f"--locked: these lists and settings do not give what {path} says; they differ in\n  {listed}",
            hint="get the lists and settings that the lock names, or leave out --locked",
        )
    if changed and not replan:
        listed = "\n  ".join(changed)
        raise UsageError(
            f"{out} holds another build; it differs in\n  {listed}",
            hint="--replan changes it and keeps every clip that can stay; or give another --out",
        )
    return changed


def changes_of_shards(out: Path, manifest: pa.Table) -> list[str]:
    """What becomes of the shards that the old plan has; nothing where its manifest cannot be read."""
    columns = [name for name in schema.MANIFEST.names if name != "rows"]
    try:
        old = read_table(out / _MANIFEST_FILE, schema.MANIFEST, columns)
    except FeedError:
        return []
    return shard_changes(old, manifest).lines()


def _is_unfinished(name: str) -> bool:
    """Whether ``name`` is that of a temporary file of ours."""
    return name.startswith(".") and name.endswith(".partial")
