"""The clips of a build's views as an export lists them: numbered in an order of classes, the others counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.class_names.orders import ClassOrder, all_orders, class_order
from k710.errors import FeedError, UsageError
from k710.exports.job import Unlabelled
from k710.labels import CANONICAL, MERGED, LabelMap, load_labels, parse_labels
from k710.shards.index import CLASSES_FILE, INDEX_FILE, LOCK_FILE, parsed_lock
from k710.store import Store
from k710.tables import compute, table_from_bytes

NO_BYTES = "without bytes"
NO_CLASS = "without a class"
_MANIFEST_FILE = "manifest.parquet"
_PLANNED = ["key", "id", "start_s", "end_s", "views", "view_classes"]
_MEMBERS = ("mp4", "json", "cls")
_ROWS = 4096
_PLACED = ["shard", "path", "mp4_offset", "mp4_size_bytes", "sha256"]

Sample = tuple[str, list[tuple[str, int, int]]]
"""Key of a sample in a shard, and name, offset and size of each of its members in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip of a view."""

    key: str
    """Name of its files."""
    id: str
    """Of the video."""
    start_s: float
    """Start in the video, seconds."""
    end_s: float
    """End in the video, seconds."""
    label: int | None
    """Number of its class in the order of the export; None: it has none."""
    class_name: str | None
    """Name of its class in the taxonomy of that order."""
    shard: str | None
    """Shard that holds it; None: a file in place, or no bytes."""
    path: str | None
    """The file in place, absolute or as seen from the build."""
    offset: int
    """First byte in the shard or file; -1: it has no bytes."""
    size_bytes: int
    """Bytes of the video; -1: none."""
    sha256: str | None
    """Of these bytes; None: unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportView:
    """What an export lists of a view."""

    name: str
    """``k710-train``, ``k400-val``, ..."""
    release: str
    """``k710`` or a release."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    digest: str
    """The view's own digest, from the lock."""
    planned: int
    """Clips of the view in the build."""
    clips: tuple[Clip, ...]
    """Those that are listed, in the order of the build."""
    left_out: dict[str, int]
    """The others, counted by reason."""
    order: ClassOrder
    """The order that numbers the classes."""

    @property
    def has_classes(self) -> bool:
        """Whether any listed clip has a class."""
        return any(clip.label is not None for clip in self.clips)


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """A build as exports read it."""

    store: Store
    """Its bytes."""
    lock: dict[str, Any]
    """``k710.lock.json``."""
    labels: LabelMap
    """The class table that it was made with."""
    table: pa.Table
    """A row for each planned clip."""
    columns: dict[str, list[Any]]
    """The same, of what is no list: made once, since every view takes from it."""
    has_index: bool
    """Whether it says where bytes are: lists alone have been made otherwise."""
    statement: str
    """First sentence of its audit; empty when it has none."""

    @property
    def view_names(self) -> list[str]:
        """The views of the build, in order of name."""
        return sorted(self.lock["views"])

    @property
    def has_shards(self) -> bool:
        """Whether any clip is in a shard."""
        return self.has_index and self.table["shard"].null_count < self.table.num_rows

    @property
    def shard_counts(self) -> Counter[str]:
        """Clips with bytes in each shard."""
        return Counter(map(str, self.table["shard"].drop_null().to_pylist()))

    def samples(self, shards: Collection[str]) -> dict[str, list[Sample]]:
        """The samples of some shards in the order in which these hold them."""
        places = [f"{member}_{what}" for member in _MEMBERS for what in ("offset", "size_bytes")]
        data, url = self.store.read(INDEX_FILE), self.store.url(INDEX_FILE)
        table = table_from_bytes(data, schema.SHARDS, ["key", "shard", *places], where=url)
        table = table.filter(compute.is_in(table["shard"], value_set=pa.array(sorted(shards))))
        found: dict[str, list[Sample]] = {}
        # Some at a time: as rows, the whole of Kinetics would take gigabytes.
        for rows in table.sort_by([("shard", "ascending"), ("mp4_offset", "ascending")]).to_batches(_ROWS):
            for row in rows.to_pylist():
                found.setdefault(str(row["shard"]), []).append((str(row["key"]), _parts(row)))
        return found


def read_build(root: str) -> Build:
    """The build at ``root``, a folder or an fsspec URL; one of lists alone has no bytes.

    Raises:
        FeedError: no build there, or a damaged one.
    """
    store = Store(root)
    if not store.exists(LOCK_FILE):
        raise FeedError(f"{root}: no build here ({LOCK_FILE} is missing)", hint="`k710 build --out` makes one")
    lock = parsed_lock(store.read(LOCK_FILE), where=store.url(LOCK_FILE))
    has_index = store.exists(INDEX_FILE)
    name, columns = (INDEX_FILE, [*_PLANNED, *_PLACED]) if has_index else (_MANIFEST_FILE, _PLANNED)
    wanted = schema.SHARDS if has_index else schema.MANIFEST
    table = table_from_bytes(store.read(name), wanted, columns, where=store.url(name))
    return Build(
        store=store,
        lock=lock,
        labels=_labels(store, lock),
        table=table,
        columns={c: _shared(table[c].to_pylist()) for c in columns if c not in ("views", "view_classes")},
        has_index=has_index,
        statement=_statement(store),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which clips of a view are listed, and how they are numbered."""

    order: ClassOrder
    """Order of the numbers."""
    planned: bool
    """Whether clips without bytes are listed too."""
    unlabelled: Unlabelled
    """Which clips without a class are listed too."""


def read_view(build: Build, name: str, wanted: Wanted) -> ExportView:
    """The clips of the view ``name`` that an export lists, and the count of those that it cannot."""
    rows, classes = _members(build.table, name)
    names = wanted.order.names(build.labels)
    labels = {canonical: label for label, canonical in enumerate(wanted.order.canonical)}
    takes_unlabelled = wanted.unlabelled == "single clips" or (
        wanted.unlabelled == "whole views" and not (classes >= 0).any()
    )
    left_out: Counter[str] = Counter()
    clips = []
    for row, canonical in zip(rows.tolist(), classes.tolist(), strict=True):
        clip = _clip(build.columns, row, labels.get(canonical), names)
        if clip.offset < 0 and not wanted.planned:
            left_out[NO_BYTES] += 1
        elif canonical >= 0 and clip.label is None:
            left_out[f"of a class that {wanted.order.taxonomy} lacks"] += 1
        elif canonical < 0 and not takes_unlabelled:
            left_out[NO_CLASS] += 1
        else:
            clips.append(clip)
    release, _, split = name.rpartition("-")
    return ExportView(
        name=name,
        release=release,
        split=split,
        digest=str(build.lock["views"][name].get("digest", "")),
        planned=len(rows),
        clips=tuple(clips),
        left_out=dict(left_out.most_common()),
        order=wanted.order,
    )


def scored_views(build: Build) -> list[str]:
    """The views in which some clip has a class."""
    return [name for name in build.view_names if (_members(build.table, name)[1] >= 0).any()]


def require_views(build: Build, names: Sequence[str]) -> None:
    """Refuse names that are no views of the build, or that stand twice.

    Raises:
        UsageError: one is.
    """
    for place, name in enumerate(names):
        if name not in build.view_names:
            raise UsageError(
                f"view {name!r} is not in {build.store.root}",
                hint=f"it has {', '.join(build.view_names)}; `k710 build --views` adds others",
            )
        if name in names[:place]:
            raise UsageError(f"--view {name}: given twice", hint="give each once")


def named_order(name: str, labels: LabelMap, taxonomy: str) -> ClassOrder:
    """The order ``name`` of the build's class table, of whose classes those of ``taxonomy`` are to be numbered.

    Raises:
        UsageError: the table has no such order; a user's table lacks most published ones.
    """
    try:
        return class_order(name, labels)
    except UsageError as error:
        if labels.is_packaged:
            raise
        known = (CANONICAL, *(order.name for order in all_orders(labels)))
        raise UsageError(
            f"the class table of this build has no order {name!r}",
            hint=f"{_own_order(labels, taxonomy)}; known: {', '.join(dict.fromkeys(known))}",
        ) from error


def _own_order(labels: LabelMap, taxonomy: str) -> str:
    """What to write for the numbers that the table itself gives the classes of ``taxonomy``."""
    names = labels.taxonomy_names(taxonomy)
    alphabetical = " (alphabetical)" if names == sorted(names) else ""
    return f"--order {CANONICAL if taxonomy == MERGED else taxonomy} takes the table's own numbers{alphabetical}"


def _members(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row of each clip of a view, and its canonical class there; -1: none."""
    views = table["views"].combine_chunks()
    inside = compute.equal(compute.list_flatten(views), name).to_numpy(zero_copy_only=False)
    classes = compute.list_flatten(table["view_classes"].combine_chunks()).to_numpy()[inside]
    return compute.list_parent_indices(views).to_numpy()[inside], classes.astype(np.int64)


def _parts(row: dict[str, Any]) -> list[tuple[str, int, int]]:
    parts: list[tuple[str, Any, Any]] = [(m, row[f"{m}_offset"], row[f"{m}_size_bytes"]) for m in _MEMBERS]
    return [part for part in parts if part[1] is not None]


def _shared(values: list[Any]) -> list[Any]:
    """``values`` with equal texts as one object: names of shards stand a thousand times each."""
    known: dict[Any, Any] = {}
    return [known.setdefault(value, value) for value in values]


def _clip(columns: dict[str, list[Any]], row: int, label: int | None, names: Sequence[str]) -> Clip:
    placed: dict[str, Any] = {c: columns[c][row] if c in columns else None for c in _PLACED}
    has_bytes = placed["mp4_offset"] is not None
    return Clip(
        key=columns["key"][row],
        id=columns["id"][row],
        start_s=columns["start_s"][row],
        end_s=columns["end_s"][row],
        label=label,
        class_name=None if label is None else names[label],
        shard=placed["shard"],
        path=placed["path"],
        offset=placed["mp4_offset"] if has_bytes else -1,
        size_bytes=placed["mp4_size_bytes"] if has_bytes else -1,
        sha256=placed["sha256"],
    )


def _labels(store: Store, lock: dict[str, Any]) -> LabelMap:
    packaged = load_labels()
    if lock["class_table"] == packaged.digest:
        return packaged
    if store.exists(CLASSES_FILE):
        own = parse_labels(store.read(CLASSES_FILE), where=store.url(CLASSES_FILE))
        if own.digest == lock["class_table"]:
            return own
    raise FeedError(
        f"{store.root}: the class table that it was built with is not there",
        hint=f"restore {CLASSES_FILE} in it, or build it again",
    )


def _statement(store: Store) -> str:
    if not store.exists("audit.json"):
        return ""
    try:
        return str(json.loads(store.read("audit.json"))["statement"])
    except (ValueError, KeyError, TypeError) as error:
        raise FeedError(f"{store.url('audit.json')}: not an audit ({error})", hint="run `k710 build` again") from error
