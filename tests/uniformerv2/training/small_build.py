"""A build small enough to write by hand: two train views, two val views, a holdout without classes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.labels import load_labels
from k710.segments import id_hash
from k710.tables import write_table

TINY_RECIPE = """
about = "a test"
finetune_recipe = "tiny_cpu_finetune"
seed = 3
[model]
image_size = 32
patch_size = 16
width = 16
layers = 2
heads = 2
num_frames = 2
num_classes = 710
local_blocks = 1
global_layers = [1]
dropout = 0.2
drop_path_global = 0.1
[data]
global_batch = 4
micro_batch = 2
workers = 0
max_hole_fraction = 0.2
[augment]
area = [0.5, 1.0]
[optim]
epochs = 3
base_lr = 1e-3
warmup_epochs = 0.5
clip_norm = 5.0
[runtime]
device = "cpu"
threads = 1
checkpoint_every = 2
log_every = 1
"""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One planned clip of the small build."""

    id: str
    views: dict[str, int]
    """Canonical class in each view; -1: none."""
    status: str = "ok"
    data: bytes | None = None
    """Other bytes than the drawn video's."""


def clips_of_build() -> list[Clip]:
    """14 train clips (one without bytes), 6 val clips, 2 holdout clips; classes 0-3, of which 3 is called otherwise."""
    train = [Clip(id=f"train{i:06d}", views={"k400-train": i % 4, "k710-train": i % 4}) for i in range(14)]
    train[5] = replace(train[5], status="unavailable")
    val = [Clip(id=f"valid{i:06d}", views={"k400-val": i % 4, "k710-val": i % 4}) for i in range(6)]
    holdout = [Clip(id=f"holds{i:06d}", views={"k600-holdout": -1}) for i in range(2)]
    return [*train, *val, *holdout]


def write_build(root: Path, clips: list[Clip], drawn: list[bytes]) -> Path:
    """Write a build of ``clips`` at ``root``, the bytes of all in one file."""
    root.mkdir(parents=True, exist_ok=True)
    rows, blob = [], b""
    for clip in sorted(clips, key=lambda c: c.id):
        label = max(clip.views.values())
        data = clip.data if clip.data is not None else drawn[max(label, 0) % len(drawn)]
        rows.append(_row(clip, label, len(blob), len(data)))
        blob += data if clip.status == "ok" else b""
    (root / "shards").mkdir(exist_ok=True)
    (root / "shards/all.tar").write_bytes(blob)
    write_table(root / "shards.parquet", pa.Table.from_pylist(rows, schema=schema.SHARDS), schema.SHARDS)
    names = sorted({name for clip in clips for name in clip.views})
    (root / "views").mkdir(exist_ok=True)
    for name in names:
        release, split = name.rsplit("-", 1)
        digest = "".join(sorted(f"{c.id}{c.views[name]};" for c in clips if name in c.views))
        facts = {"release": release, "split": split, "taxonomy": release, "digest": digest, "data_digest": f"d{digest}"}
        (root / f"views/{name}.json").write_text(json.dumps(facts))
    held = [
        {"release": name.rsplit("-", 1)[0], "split": name.rsplit("-", 1)[1], "id_hash": id_hash(clip.id)}
        for clip in clips
        for name in clip.views
        if not name.endswith("-train") and not name.startswith("k710")
    ]
    write_table(root / "held_out.parquet", pa.Table.from_pylist(held, schema=schema.HELD_OUT), schema.HELD_OUT)
    lock = {
        "schema": schema.LOCK,
        "class_table": load_labels().digest,
        "views": {name: {} for name in names},
        "releases": {"k400": "k400", "k600": "k600"},
        "protected": ["k400:val", "k600:holdout"],
        "not_checked": ["k700:train"],
    }
    (root / "k710.lock.json").write_text(json.dumps(lock))
    return root


def _row(clip: Clip, label: int, offset: int, size: int) -> dict[str, object]:
    views = sorted(clip.views)
    there = clip.status == "ok"
    return {
        "key": f"{clip.id}_000000_000010",
        "id": clip.id,
        "id_hash": id_hash(clip.id),
        "start_s": 0.0,
        "end_s": 10.0,
        "class": label if label >= 0 else None,
        "classes": [label] if label >= 0 else [],
        "views": views,
        "view_classes": [clip.views[v] for v in views],
        "leaf": "shards/all.tar",
        "status": clip.status,
        "shard": "shards/all.tar" if there else None,
        "mp4_offset": offset if there else None,
        "mp4_size_bytes": size if there else None,
        "frames": 8 if there else None,
        "notes": [],
    }


def moving_bar(kind: int) -> npt.NDArray[np.uint8]:
    frames = np.full((8, 40, 48, 3), 40, dtype=np.uint8)
    for t in range(8):
        left = 4 * t if kind == 0 else 12
        width = {2: 4 + 3 * t, 3: 26 - 3 * t}.get(kind, 10)
        frames[t, 8:32, left : left + width] = (220, 60 * kind, 90)
    return frames
