"""Where each clip's bytes are, and which clips a view lists: all that a reader needs to know about a build."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k710 import schema
from k710.errors import FeedError, UsageError
from k710.labels import LabelMap, load_labels, parse_labels
from k710.store import Store
from k710.tables import compute, table_from_bytes

LOCK_FILE = "k710.lock.json"
INDEX_FILE = "shards.parquet"
HELD_OUT_FILE = "held_out.parquet"
CLASSES_FILE = "classes.csv"

_COLUMNS = [
    "key",
    "id_hash",
    "views",
    "view_classes",
    "classes",
    "shard",
    "path",
    "mp4_offset",
    "mp4_size_bytes",
    "frames",
    "sha256",
    "status",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The clips of one view at their planned positions (order of leaf and key), with and without bytes."""

    name: str
    """``k710-train``, ``k400-val``, ..."""
    release: str
    """``k710`` or a release."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    taxonomy: str
    """``k710``, ``k400``, ``k600`` or ``k700``."""
    digest: str
    """Over the sorted (key, class) of the view."""
    data_digest: str
    """Over the view, the class table and the encode arguments."""
    keys: tuple[str, ...]
    """Clip keys."""
    id_hashes: npt.NDArray[np.uint64]
    """Hash of each clip's video."""
    classes: npt.NDArray[np.int64]
    """Canonical class of each clip in this view; -1: none."""
    all_classes: tuple[tuple[int, ...], ...]
    """Every canonical class that some list gives the clip."""
    shards: tuple[str | None, ...]
    """Shard or file in place that holds the clip, absolute or relative to the build; None: it has no bytes."""
    offsets: npt.NDArray[np.int64]
    """First byte of the video in that file; -1: none."""
    sizes_bytes: npt.NDArray[np.int64]
    """Size of the video; -1: none."""
    frames: npt.NDArray[np.int64]
    """Frames in the clip; -1: unknown."""
    sha256: npt.NDArray[np.uint8] | None = None
    """sha256 of each clip's bytes, [clip, 32]; zeros, or None: unknown."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def present(self) -> npt.NDArray[np.int64]:
        """Planned positions of the clips that have bytes."""
        return np.flatnonzero(self.offsets >= 0)


class ShardIndex:
    """A build as readers see it."""

    def __init__(self, root: str | Path) -> None:
        """Read the lock and the index of the build at ``root`` (a folder or an fsspec URL).

        Raises:
            FeedError: no build there, or a damaged one.
        """
        self.store = Store(root)
        self.lock = parsed_lock(self.store.read(LOCK_FILE), where=self.store.url(LOCK_FILE))
        if not self.store.exists(INDEX_FILE):
            raise FeedError(f"{root}: the build has no shards yet", hint="run `k710 build` with --videos to make them")
        url = self.store.url(INDEX_FILE)
        self._table = table_from_bytes(self.store.read(INDEX_FILE), schema.SHARDS, _COLUMNS, where=url)

    @functools.cached_property
    def labels(self) -> LabelMap:
        """The class table that the build was made with: the packaged one, or the user's that lies in the build.

        Raises:
            FeedError: the build was made with another table than this version has, and does not hold it.
        """
        return class_table(self.store, self.lock)

    @property
    def view_names(self) -> list[str]:
        """The views of the build, in order of name."""
        return sorted(self.lock["views"])

    def view(self, name: str) -> View:
        """The view ``name``; an unknown one is a ``UsageError`` that lists those there are."""
        if name not in self.lock["views"]:
            raise UsageError(
                f"view {name!r} is not in {self.store.root}",
                hint=f"it has {', '.join(self.view_names)}; `k710 build --views` adds others",
            )
        facts = json.loads(self.store.read(f"views/{name}.json"))
        table = self._table
        mask = [name in (views or ()) for views in table["views"].to_pylist()]
        rows = table.filter(mask).to_pydict()
        classes = [c[v.index(name)] for v, c in zip(rows["views"], rows["view_classes"], strict=True)]
        return View(
            name=name,
            release=facts["release"],
            split=facts["split"],
            taxonomy=facts["taxonomy"],
            digest=facts["digest"],
            data_digest=facts["data_digest"],
            keys=tuple(rows["key"]),
            id_hashes=np.array(rows["id_hash"], dtype=np.uint64),
            classes=np.array(classes, dtype=np.int64),
            all_classes=tuple(tuple(c) for c in rows["classes"]),
            shards=tuple(shard or path for shard, path in zip(rows["shard"], rows["path"], strict=True)),
            offsets=_filled(rows["mp4_offset"]),
            sizes_bytes=_filled(rows["mp4_size_bytes"]),
            frames=_filled(rows["frames"]),
            sha256=_digests(rows["sha256"]),
        )

    def read_clip(self, view: View, position: int) -> bytes:
        """The encoded clip at a planned position, as it is stored; one without bytes is a ``FeedError``."""
        shard = view.shards[position]
        if shard is None:
            raise FeedError(f"{view.name}: clip {view.keys[position]} has no bytes")
        return self.store.read_range(shard, int(view.offsets[position]), int(view.sizes_bytes[position]))

    def held_out(self, release: str, splits: Sequence[str] | None = None) -> dict[str, npt.NDArray[np.uint64]]:
        """Hashes of the held-out videos of a release, by split; lists that the build was not given are absent."""
        url = self.store.url(HELD_OUT_FILE)
        table = table_from_bytes(self.store.read(HELD_OUT_FILE), schema.HELD_OUT, where=url)
        own = table.filter(compute.equal(table["release"], release))
        hashes, of = own["id_hash"].to_numpy(), np.array(own["split"].to_pylist(), dtype=object)
        found = {split: hashes[of == split] for split in sorted(set(of.tolist()))}
        return {s: ids for s, ids in found.items() if splits is None or s in splits}


def parsed_lock(data: bytes, *, where: str) -> dict[str, Any]:
    """The lock in ``data``; one that is damaged or of another version is a ``FeedError``."""
    try:
        lock: dict[str, Any] = json.loads(data)
        seen = lock["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{where}: not a lock ({error})", hint="run `k710 build` again") from error
    if seen != schema.LOCK:
        raise FeedError(f"{where}: schema is {seen}, this version reads {schema.LOCK}", hint="build it again")
    return lock


def _digests(values: list[str | None]) -> npt.NDArray[np.uint8]:
    digests = b"".join(bytes.fromhex(v) if v else bytes(32) for v in values)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)


def _filled(values: list[int | None]) -> npt.NDArray[np.int64]:
    return np.array([-1 if v is None else v for v in values], dtype=np.int64)


def class_table(store: Store, lock: Mapping[str, Any]) -> LabelMap:
    """The class table that the build with ``lock`` in ``store`` was made with, as ``ShardIndex.labels``."""
    packaged, wanted = load_labels(), lock["class_table"]
    if wanted == packaged.digest:
        return packaged
    if store.exists(CLASSES_FILE):
        own = parse_labels(store.read(CLASSES_FILE), where=store.url(CLASSES_FILE))
        if own.digest == wanted:
            return own
    raise FeedError(
        f"{store.root}: the class table that it was built with is not there",
        hint=f"restore {CLASSES_FILE} in it, or build it again",
    )
