"""What a build plans and holds, read for people to look at: every clip, and who stands in which class of which view."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.browse.unchanged import MANIFEST_FILE
from k710.errors import FeedError
from k710.shards.index import INDEX_FILE, LOCK_FILE, class_table, parsed_lock
from k710.store import Store
from k710.tables import compute, table_from_bytes
from k710.takedown.forgotten import read_forgotten

PLANNED = "planned"
"""Status of the clips of a build that has no index: nothing is known of their bytes."""
NO_CLASS = -1
"""Class of a clip whose view gives it none."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewFacts:
    """What a view is."""

    name: str
    """``k710-train``, ``k400-val``, ..."""
    release: str
    """``k710`` or a release."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    taxonomy: str
    """Whose class names it goes by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bytes:
    """Where the bytes of a clip are."""

    file: str
    """Shard or file in place, as the store takes it."""
    offset: int
    """First byte."""
    size_bytes: int
    """Number of bytes."""
    sha256: str
    """Of the bytes; empty: unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What one annotation row says of a clip."""

    release: str
    """Release of the row."""
    split: str
    """Its split."""
    label: str | None
    """Its class name, as its list has it; None: it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A planned clip, with all that a page tells of it."""

    key: str
    """Its key."""
    id: str
    """Its video."""
    start_s: float
    """Where it starts in the video, seconds."""
    end_s: float
    """Where it ends, seconds."""
    status: str
    """``ok``, why it has no bytes, or ``planned``."""
    views: tuple[str, ...]
    """The views that list it."""
    labels: tuple[Label, ...]
    """Every annotation row of it."""
    notes: tuple[str, ...] = ()
    """What was unusual about its source."""
    picture: str = ""
    """Its size, frames, rate and codec in words; empty: it has no bytes."""
    where: Bytes | None = None
    """Its bytes; None: it has none."""


class Pool:
    """The clips of a build and their places in its views; positions are those in the manifest."""

    def __init__(self, build: str) -> None:
        """Read the build at ``build``, a folder or an fsspec URL.

        Raises:
            FeedError: no build there, or a damaged one.
        """
        self.store = Store(build)
        self.lock = parsed_lock(self.store.read(LOCK_FILE), where=self.store.url(LOCK_FILE))
        self.has_index = self.store.exists(INDEX_FILE)
        self.manifest_bytes = self.store.read(MANIFEST_FILE)
        self.index_bytes = self.store.read(INDEX_FILE) if self.has_index else b""
        self._require_taken_down()
        self.table = self._table()
        self.labels = class_table(self.store, self.lock)
        self.views = tuple(_view(self.store, name) for name in sorted(self.lock["views"]))
        self.members = _Members(self.table, [view.name for view in self.views])

    @property
    def num_clips(self) -> int:
        """Planned clips."""
        return int(self.table.num_rows)

    @functools.cached_property
    def statuses(self) -> dict[str, Ints]:
        """Positions of the clips of each status, in order of key; the most frequent status first."""
        codes = self.table["status"].combine_chunks().dictionary_encode()
        of, names = codes.indices.to_numpy(), [str(name) for name in codes.dictionary.to_pylist()]
        counts = np.bincount(of, minlength=len(names))
        by_count = sorted(range(len(names)), key=lambda code: (-counts[code], names[code]))
        return {names[c]: self.members.by_key[of[self.members.by_key] == c] for c in by_count}

    @functools.cached_property
    def is_ok(self) -> npt.NDArray[np.bool_]:
        """Whether each clip has bytes."""
        if not self.has_index:
            return np.zeros(self.num_clips, dtype=bool)
        found: npt.NDArray[np.bool_] = self.table["mp4_offset"].is_valid().to_numpy()
        return found

    def class_name(self, view: ViewFacts, index: int) -> str:
        """What ``view`` calls a canonical class."""
        if index == NO_CLASS:
            return "no label"
        row = self.labels.rows[index]
        return row.names.get(view.taxonomy, row.name)

    def positions_of(self, keys: Sequence[str]) -> dict[str, int]:
        """Where each of ``keys`` stands; those that are not planned are left out."""
        found = compute.index_in(pa.array(list(keys), pa.string()), value_set=self.table["key"])
        return {key: at for key, at in zip(keys, found.to_pylist(), strict=True) if at is not None}

    def bytes_at(self, positions: Ints) -> Iterator[Bytes | None]:
        """Where the bytes of each clip are, in the order of ``positions``; None: it has none."""
        if not self.has_index:
            yield from (None for _ in positions)
            return
        names = ["shard", "path", "mp4_offset", "mp4_size_bytes", "sha256"]
        for row in self.table.select(names).take(positions).to_pylist():
            yield _bytes(row)

    def clips_at(self, positions: Ints) -> list[Clip]:
        """The clips at ``positions``, in their order."""
        rows = self.table.take(positions).to_pylist()
        listed: list[Any] = self._rows.take(positions).to_pylist()
        return [_clip(row, own) for row, own in zip(rows, listed, strict=True)]

    @functools.cached_property
    def _rows(self) -> pa.Array[Any]:
        where = self.store.url(MANIFEST_FILE)
        table = table_from_bytes(self.manifest_bytes, schema.MANIFEST, ["key", "rows"], where=where)
        if not table["key"].equals(self.table["key"]):
            raise FeedError(
                f"{self.store.url(INDEX_FILE)}: not the index of the manifest beside it",
                hint="run `k710 build` again, which writes it anew",
            )
        return table["rows"].combine_chunks()

    def _require_taken_down(self) -> None:
        """Refuse a build that still plans what it was told to forget."""
        forgotten = read_forgotten(Path(self.store.root)) if self.store.is_local else ()
        if not forgotten:
            return
        where = self.store.url(MANIFEST_FILE)
        planned = table_from_bytes(self.manifest_bytes, schema.MANIFEST, ["id_hash"], where=where)["id_hash"].to_numpy()
        if np.isin(planned, np.array(forgotten, dtype=np.uint64)).any():
            raise FeedError(
                f"{self.store.root}: videos that it forgets are still in it, a takedown was stopped",
                hint="run the same `k710 forget` again, or `k710 build`",
            )

    def _table(self) -> pa.Table:
        if self.has_index:
            names = [name for name in schema.SHARDS.names if name not in _UNUSED]
            table = table_from_bytes(self.index_bytes, schema.SHARDS, names, where=self.store.url(INDEX_FILE))
        else:
            names = [name for name in schema.MANIFEST.names if name not in (*_UNUSED, "rows")]
            table = table_from_bytes(self.manifest_bytes, schema.MANIFEST, names, where=self.store.url(MANIFEST_FILE))
            table = table.append_column("status", pa.repeat(PLANNED, table.num_rows))
        return table.combine_chunks()


_UNUSED = frozenset(
    {"id_hash", "leaf", "class", "classes", "k400_class", "k600_class", "k700_class"}
    | {f"{suffix}_{what}" for suffix in ("json", "cls") for what in ("offset", "size_bytes")}
)


class _Members:
    """Who stands in which class of which view."""

    def __init__(self, table: pa.Table, views: Sequence[str]) -> None:
        order = compute.sort_indices(table["key"]).to_numpy().astype(np.int64)
        self.by_key: Ints = order
        """Every position, in order of key."""
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        listed = table["views"].combine_chunks()
        clip = compute.list_parent_indices(listed).to_numpy().astype(np.int64)
        names = compute.index_in(compute.list_flatten(listed), value_set=pa.array(views, pa.string()))
        view = names.fill_null(-1).to_numpy().astype(np.int64)
        classes = compute.list_flatten(table["view_classes"].combine_chunks()).to_numpy().astype(np.int64)
        sort = np.lexsort((rank[clip], classes, view))
        self._clip, view, classes = clip[sort], view[sort], classes[sort]
        changes = np.flatnonzero((np.diff(view) != 0) | (np.diff(classes) != 0)) + 1
        starts = [0, *changes.tolist()] if len(view) else []
        ends = [*changes.tolist(), len(view)]
        self._places = {
            (views[view[start]], int(classes[start])): (start, end)
            for start, end in zip(starts, ends, strict=False)
            if view[start] >= 0
        }

    def classes_of(self, view: str) -> list[int]:
        """The classes that have clips in ``view``, ascending; ``NO_CLASS`` last."""
        found = sorted(index for name, index in self._places if name == view)
        return [i for i in found if i >= 0] + [i for i in found if i < 0]

    def of(self, view: str, index: int) -> Ints:
        """Positions of the clips of a class in a view, in order of key."""
        start, end = self._places.get((view, index), (0, 0))
        found: Ints = self._clip[start:end]
        return found


def _view(store: Store, name: str) -> ViewFacts:
    path = f"views/{name}.json"
    try:
        facts = json.loads(store.read(path))
        return ViewFacts(name=name, release=facts["release"], split=facts["split"], taxonomy=facts["taxonomy"])
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{store.url(path)}: not a view of `k710 build`", hint="run `k710 build` again") from error


def _bytes(row: Mapping[str, Any]) -> Bytes | None:
    if row["mp4_offset"] is None or row["mp4_size_bytes"] is None:
        return None
    return Bytes(
        file=row["shard"] or row["path"] or "",
        offset=row["mp4_offset"],
        size_bytes=row["mp4_size_bytes"],
        sha256=row["sha256"] or "",
    )


def _clip(row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> Clip:
    where = _bytes(row) if "mp4_offset" in row else None
    labels = (Label(release=r["release"], split=r["split"], label=r["label"]) for r in listed)
    return Clip(
        key=row["key"],
        id=row["id"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        status=row["status"],
        views=tuple(row["views"]),
        labels=tuple(dict.fromkeys(labels)),
        notes=tuple(row.get("notes", ())),
        picture="" if where is None else _picture(row),
        where=where,
    )


def _picture(row: Mapping[str, Any]) -> str:
    size = f"{row['width_px']}x{row['height_px']}" if row["width_px"] and row["height_px"] else ""
    frames = f"{row['frames']:,} frames" if row["frames"] else ""
    rate = f"{row['fps']:.4g} fps" if row["fps"] else ""
    return ", ".join(part for part in (size, frames, rate, row["codec"] or "") if part)
