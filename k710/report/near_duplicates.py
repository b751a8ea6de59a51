"""The content audit as it lies in a build: ``near_duplicates.json`` and ``near_duplicates.parquet``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710.errors import FeedError
from k710.shards.index import INDEX_FILE
from k710.tables import named_schema, read_table

TABLE_FILE = "near_duplicates.parquet"
DOCUMENT_FILE = "near_duplicates.json"
CONTENT_AUDIT = "k710.near_duplicates/2"
"""Schema of ``near_duplicates.json``."""


NEAR_DUPLICATES = named_schema(
    "near_duplicates",
    2,
    [
        pa.field("key_a", pa.string(), nullable=False),
        pa.field("key_b", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # own_train_eval, train_eval, train_train, eval_eval
        pa.field("views_a", pa.string(), nullable=False),  # separated by commas
        pa.field("views_b", pa.string(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),  # samples that lie over each other, 10 a second
        pa.field("offset_s", pa.float64(), nullable=False),  # start of b after that of a
        pa.field("distance", pa.float64(), nullable=False),  # typical bits of 256 between frames
        pa.field("part", pa.float64(), nullable=False),  # frames, as part of the shorter clip
        pa.field("mirrored", pa.bool_(), nullable=False),
        pa.field("rest", pa.float64(), nullable=False),  # what the pictures differ by, as part of what moves
        pa.field("found_by", pa.string(), nullable=False),  # rest, motion, still, drift
        pa.field("same_video", pa.bool_(), nullable=False),  # two segments of one video without a common second
        pa.field("same_bytes", pa.bool_(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # first key of all that hang together
        pa.field("id_a", pa.string(), nullable=False),
        pa.field("id_b", pa.string(), nullable=False),
        pa.field("gave_way", pa.bool_(), nullable=False),  # one of them left the build, because of such a pair
    ],
)
"""Each pair of clips that show the same frames; ``a`` is the one of a training view where only one is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentAudit:
    """What was found."""

    document: dict[str, Any]
    """``near_duplicates.json``."""
    table: pa.Table
    """``near_duplicates.parquet``."""
    made: int
    """Fingerprints that were made now."""

    @property
    def leaking(self) -> list[dict[str, Any]]:
        """Training views and the held-out ones that they must not look like, with the pairs between them."""
        return [r for r in self.document["between"] if r["protected"]]

    @property
    def num_unread(self) -> int:
        """Clips that are there and could not be read; what they look like is not known."""
        return int(self.document["unread"])


def read_content_audit(folder: Path) -> ContentAudit | None:
    """The content audit that lies in a build; None: there is none, or the build has changed since.

    Raises:
        FeedError: it is damaged.
    """
    path = folder / DOCUMENT_FILE
    if not path.exists() or not (folder / INDEX_FILE).exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        is_current = document["schema"] == CONTENT_AUDIT and document["index_sha256"] == _digest(folder / INDEX_FILE)
    except (ValueError, KeyError, TypeError, OSError) as error:
        hint = "run `k710 audit --level content` again"
        raise FeedError(f"{path}: not a content audit ({error})", hint=hint) from error
    if not is_current:
        return None
    return ContentAudit(document=document, table=read_table(folder / TABLE_FILE, NEAR_DUPLICATES), made=0)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
