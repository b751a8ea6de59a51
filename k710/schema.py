"""The tables between the stages, as arrow schemas."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from k710.tables import named_schema

LOCK = "k710.lock/2"
"""Name and version of ``k710.lock.json``."""

ROW_FIELDS: list[pa.Field[Any]] = [
    pa.field("release", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("start_s", pa.float64(), nullable=False),
    pa.field("end_s", pa.float64(), nullable=False),
    pa.field("label", pa.string()),
]
"""An annotation row by value: how a row is named everywhere but in error messages."""

CATALOG = named_schema(
    "catalog",
    1,
    [
        *ROW_FIELDS,
        pa.field("key", pa.string(), nullable=False),
        pa.field("canonical", pa.int16(), nullable=False),  # 0-709; -1: the row has no label
        pa.field("is_cc", pa.bool_()),
    ],
)
"""Every annotation row with its clip key and canonical class."""

EXCLUDED = named_schema(
    "excluded",
    2,
    [
        pa.field("view", pa.string(), nullable=False),
        # What a row says of itself; of a bad row, what could be read.
        *(field.with_nullable(field.name not in ("release", "split")) for field in ROW_FIELDS),
        pa.field("key", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("by_release", pa.string()),  # the row that holds it out, or that won
        pa.field("by_split", pa.string()),
        pa.field("by_start_s", pa.float64()),
        pa.field("by_end_s", pa.float64()),
        pa.field("by_label", pa.string()),
        pa.field("class_differs", pa.bool_(), nullable=False),
    ],
)
"""Per view, each source row that is not in it, once, with the first reason that applies."""

_CLIP_FIELDS: list[pa.Field[Any]] = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("id_hash", pa.uint64(), nullable=False),
    pa.field("start_s", pa.float64(), nullable=False),
    pa.field("end_s", pa.float64(), nullable=False),
    pa.field("class", pa.int16()),  # what `.cls` holds; null: none, or the views differ
    pa.field("classes", pa.list_(pa.int16()), nullable=False),  # every class that some row gives the clip
    pa.field("views", pa.list_(pa.string()), nullable=False),  # sorted
    pa.field("view_classes", pa.list_(pa.int16()), nullable=False),  # class in each of `views`; -1: none
    pa.field("k400_class", pa.int16()),
    pa.field("k600_class", pa.int16()),
    pa.field("k700_class", pa.int16()),
    pa.field("leaf", pa.string(), nullable=False),  # planned shard, relative to the build
]

MANIFEST = named_schema(
    "manifest",
    1,
    [*_CLIP_FIELDS, pa.field("rows", pa.list_(pa.struct(ROW_FIELDS)), nullable=False)],
)
"""One row per planned clip, in the order of leaf and key."""

SHARDS = named_schema(
    "shards",
    2,
    [
        *_CLIP_FIELDS,
        pa.field("status", pa.string(), nullable=False),  # `ok`, or why there are no bytes
        pa.field("shard", pa.string()),
        pa.field("path", pa.string()),  # a file in place: absolute, or as seen from the build
        *(
            pa.field(f"{suffix}_{what}", pa.int64())
            for suffix in ("mp4", "json", "cls")
            for what in ("offset", "size_bytes")
        ),
        pa.field("frames", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
    ],
)
"""Where each planned clip's bytes are: the contract that training reads."""

HELD_OUT = named_schema(
    "held_out",
    1,
    [
        pa.field("release", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("id_hash", pa.uint64(), nullable=False),
    ],
)
"""The videos of every list that is not for training, as hashes."""

LINEAGE = named_schema(
    "lineage",
    1,
    [pa.field("view", pa.string(), nullable=False), pa.field("id_hash", pa.uint64(), nullable=False)],
)
"""The videos that a model's weights have seen, by the view they came in."""

_SIDE_FIELDS: list[tuple[str, pa.DataType]] = [
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("label", pa.string()),
    ("class", pa.int16()),  # canonical; null: none, or a name that the class table does not know
]

LEAKS = named_schema(
    "leaks",
    1,
    [
        pa.field("level", pa.string(), nullable=False),  # `same_video`; `same_bytes` and `near_duplicate` need clips
        pa.field("kind", pa.string(), nullable=False),  # train_eval, own_train_eval, eval_eval, train_train
        *(pa.field(f"{side}_{what}", pa.string(), nullable=False) for side in "ab" for what in ("release", "split")),
        pa.field("id", pa.string(), nullable=False),
        *(pa.field(f"{side}_{what}", kind) for side in "ab" for what, kind in _SIDE_FIELDS),
        pa.field("overlap_s", pa.float64()),  # 0: disjoint; null: a list has no times
        pa.field("class_differs", pa.bool_()),  # null: a row has no class to compare
    ],
)
"""Each pair of rows of two lists that name one video; of a training and a held-out list, ``a`` is the training list."""
