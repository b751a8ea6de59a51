"""Which objects of a build are small files, that a folder which stands for it has, too."""

from __future__ import annotations

from pathlib import PurePosixPath

from k710.shards.plan import SHARDS_FOLDER

FOLDERS = ("views", "report")
"""Folders of a build beside shards and cache."""
_SUFFIXES = frozenset({".json", ".parquet", ".csv", ".md", ".html"})


def is_small(path: str) -> bool:
    """Whether an object is a table, document or marker of a build: no shard, clip or ledger."""
    parts = path.split("/")
    if parts[-1].startswith(".") or PurePosixPath(path).suffix not in _SUFFIXES:
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[0] in FOLDERS) or is_marker(path)


def is_marker(path: str) -> bool:
    """Whether an object is the marker of a shard."""
    return path.count("/") == 2 and PurePosixPath(path).match(f"{SHARDS_FOLDER}/*/t-*.json")
