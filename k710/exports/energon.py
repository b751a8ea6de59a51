"""What `energon prepare` writes for Megatron-Energon, from the build's index, so that no shard is read for it.

Energon takes names of shards for paths below the folder of the data set and looks for an index beside each, so the
shards are linked into the folder of the export and the build stays as it is.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from k710 import atomic
from k710.errors import UsageError
from k710.exports.job import ExportJob, Format, Written
from k710.exports.shards import Shard, distinct, require_plain, shards_of

if TYPE_CHECKING:
    from k710.exports.clips import Sample

_BLOCK = 512
"""Of a tar: a header takes one, and members begin at a multiple of it."""
_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (
    tar_file_id INTEGER, sample_index INTEGER, part_name TEXT,
    content_byte_offset INTEGER, content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""
_HOW = """\
The folder is a prepared data set of type `CrudeWebdataset`; each view is a part of its split:

```python
from megatron.energon import WorkerConfig, get_train_dataset

data = get_train_dataset(
    "{root}",
    split_part="NAME",
    worker_config=WorkerConfig.default_worker_config(),
    batch_size=None,
    shuffle_buffer_size=100,
    max_samples_per_sequence=None,
    task_encoder=...,  # with a cooker that takes the class: json.loads(sample["json"])["labels"]["k400"]["index"]
)
```"""


def _write(job: ExportJob) -> Written:
    if not job.build.store.is_local:
        raise UsageError(
            f"{job.build.store.root}: energon reads indexes beside the shards, which an export does not write there",
            hint="copy the build to a disk",
        )
    by_view = shards_of(job)
    shards = distinct(by_view)
    require_plain(shards, "energon", "{}")
    samples = job.build.samples({shard.name for shard in shards})
    for shard in shards:
        job.folder.data(f"{shard.name}.idx", _starts(samples[shard.name]))
    meta = {
        ".info.json": {"shard_counts": {shard.name: shard.clips for shard in shards}},
        # JSON is YAML.
        "split.yaml": {"split_parts": {v: [s.name for s in found] for v, found in by_view.items()}, "exclude": []},
        "dataset.yaml": {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"},
    }
    for name, value in meta.items():
        job.folder.text(f".nv-meta/{name}", json.dumps(value, indent=1) + "\n")
    _write_database(job.folder.path(".nv-meta/index.sqlite"), shards, samples)
    content = "".join(f"{shard.name} {shard.sha256}\n" for shard in shards)
    job.folder.text(".nv-meta/index.uuid", str(uuid.uuid5(uuid.NAMESPACE_URL, content)))
    return Written(files={view: view for view in by_view}, how=_HOW.format(root=job.folder.root.absolute()))


def _extents(samples: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """First byte of each sample, its first header included, and its size with what fills the last block."""
    for _, members in samples:
        start = members[0][1] - _BLOCK
        _, offset, size = members[-1]
        yield start, offset - start + -(-size // _BLOCK) * _BLOCK


def _starts(samples: Sequence[Sample]) -> bytes:
    """Where each sample begins, and where the last one ends: eight bytes each."""
    extents = list(_extents(samples))
    return struct.pack(f"<{len(extents) + 1}Q", *(start for start, _ in extents), sum(extents[-1]))


def _write_database(path: Path, shards: Sequence[Shard], samples: Mapping[str, Sequence[Sample]]) -> None:
    """Keys and members by shard, in the tables that energon looks samples up in."""
    with tempfile.TemporaryDirectory() as folder:
        # Made elsewhere: sqlite needs locks, which network disks lack.
        made = Path(folder) / "index.sqlite"
        with closing(sqlite3.connect(made)) as database, database:
            database.executescript(_TABLES)
            for tar, shard in enumerate(shards):
                own = samples[shard.name]
                keys = [
                    (tar, key, number, *extent)
                    for number, ((key, _), extent) in enumerate(zip(own, _extents(own), strict=True))
                ]
                parts = [(tar, number, *part) for number, (_, members) in enumerate(own) for part in members]
                database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", keys)
                database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", parts)
            database.executescript(_INDEXES)
        with atomic.writable(path.parent):
            atomic.write_bytes(path, made.read_bytes())


ENERGON = Format(
    summary="Write the indexes of Megatron-Energon beside links to the shards.",
    reads="shards",
    write=_write,
    unlabelled="single clips",
)
