"""How two builds, two views or two lists differ: `k710 diff`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from k710 import atomic, schema
from k710.audits.class_tables import cautions, counted_rows, lock_line, moved_classes, own_table
from k710.errors import FeedError, UsageError
from k710.labels import MERGED, LabelMap, load_labels, read_labels
from k710.lists.annotations import ReadOptions
from k710.lists.compare import (
    DIFFERENCES,
    ListDiff,
    ShardChanges,
    compare_rows,
    examples,
    leaf_states,
    shard_changes,
)
from k710.lists.dialects.foreign import read_foreign
from k710.lists.manifest import lock_differences
from k710.shards.index import CLASSES_FILE, INDEX_FILE, LOCK_FILE, parsed_lock
from k710.tables import compute, picked, read_table, require_replaceable_table, write_table

SUFFIXES = (".csv", ".parquet")
"""What a file of differences can be."""
_MANIFEST_FILE = "manifest.parquet"
_SIDES = "a build folder, FOLDER:VIEW for one view of a build, or a list file"


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffConfig:
    """What to compare."""

    a: str
    """A build folder, ``FOLDER:VIEW``, or a list file of any dialect."""
    b: str
    """The other one."""
    options: ReadOptions = field(default_factory=ReadOptions)
    """How lists are read whose content alone does not tell."""
    taxonomy: str | None = None
    """Whose class names the labels of lists are; None: found out."""
    class_table: Path | None = None
    """A user's class table; None for the packaged one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewDiff:
    """One view or list against another."""

    view: str
    """The view's name; of two lists the first one's."""
    a: str
    """View or list on the first side."""
    b: str
    """View or list on the second side."""
    found: ListDiff
    """What differs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StayingBytes:
    """Encoded video of the first build that the second can keep."""

    total: int
    """Bytes of its clips in shards."""
    untouched: int
    """Bytes in shards that are the same in both plans."""
    copied: int
    """Bytes of clips that both plans have, in shards that are not the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diff:
    """How two sides differ."""

    a: str
    """What the first side was called."""
    b: str
    """What the second side was called."""
    views: tuple[ViewDiff, ...]
    """What was compared row by row, in order of name."""
    only_a: tuple[str, ...] = ()
    """Views or lists of the first side without a partner."""
    only_b: tuple[str, ...] = ()
    """Views or lists of the second side without a partner."""
    lock: tuple[str, ...] = ()
    """Settings, lists and views in which the locks of two builds differ."""
    shards: ShardChanges | None = None
    """Of two builds: what becomes of the shards."""
    staying: StayingBytes | None = None
    """Of two builds, the first with shards: what need not be encoded again."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the comparison."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        parts = (self.only_a, self.only_b, self.lock)
        return (
            not any(parts) and all(v.found.is_empty for v in self.views) and (not self.shards or self.shards.is_empty)
        )

    def rows(self) -> pa.Table:
        """Every difference as ``DIFFERENCES``, view by view."""
        return pa.concat_tables([DIFFERENCES.empty_table(), *(v.found.rows for v in self.views)])


def diff(config: DiffConfig) -> Diff:
    """How the two sides of ``config`` differ.

    Raises:
        UsageError: a side is nothing that can be compared, or it is not clear which of its views is meant.
        InputError: a list is wrong.
        FeedError: a build is damaged.
    """
    builds = [_build_at(text) for text in (config.a, config.b)]
    labels = _class_table(config, [build for build in builds if build])
    if all(builds) and (config.taxonomy or config.options != ReadOptions()):
        raise UsageError(
            "both sides are builds, and how lists are read is said", hint="leave out the options for lists"
        )
    a, b = (side or _Lists(text, config, labels) for side, text in zip(builds, (config.a, config.b), strict=True))
    notes = _settle_classes(a, b, labels)
    pairs, only_a, only_b = _partners(a, b)
    views = []
    for name_a, name_b in pairs:
        view = name_b if isinstance(b, _Build) and not isinstance(a, _Build) else name_a
        found = compare_rows(a.rows(name_a), b.rows(name_b), view)
        views.append(ViewDiff(view=view, a=name_a, b=name_b, found=found))
    notes += cautions([v.found for v in views])
    notes += [
        f"{side.text}: {counted_rows(side.num_bad_rows, 'bad ')} left out"
        for side in (a, b)
        if isinstance(side, _Lists) and side.num_bad_rows
    ]
    by_name = isinstance(a, _Build) and a.compares_names
    if by_name:
        notes += moved_classes([v.found for v in views])
    whole = Diff(
        a=config.a, b=config.b, views=tuple(views), only_a=tuple(only_a), only_b=tuple(only_b), notes=tuple(notes)
    )
    if not (isinstance(a, _Build) and isinstance(b, _Build) and a.is_whole and b.is_whole):
        return whole
    return dataclasses.replace(
        whole,
        lock=tuple(_lock_lines(a, b, {v.view: v.found for v in views} if by_name else {})),
        shards=shard_changes(a.manifest, b.manifest),
        staying=_staying_bytes(a, b),
    )


def diff_document(found: Diff) -> dict[str, Any]:
    """``found`` as plain values, with examples instead of all rows."""
    counted = [f.name for f in dataclasses.fields(ListDiff) if f.name not in ("ids", "rows")]
    return {
        "a": found.a,
        "b": found.b,
        "differs": not found.is_empty,
        "views": [
            {"view": v.view, "a": v.a, "b": v.b}
            | {name: getattr(v.found, name) for name in counted}
            | {"ids": dict(v.found.ids), "examples": examples(v.found)}
            for v in found.views
        ],
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "lock": list(found.lock),
        "shards": None if found.shards is None else dataclasses.asdict(found.shards),
        "staying_bytes": None if found.staying is None else dataclasses.asdict(found.staying),
        "notes": list(found.notes),
    }


def check_out(path: Path, sides: Sequence[str] = ()) -> None:
    """Refuse a file of differences whose name does not say its form, or that is one of the ``sides`` or a build's.

    Raises:
        UsageError: it is.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path}: not a name of a table", hint=f"end it in {' or '.join(SUFFIXES)}")
    if any(path.absolute() == Path(side).absolute() for side in sides) or (path.parent / LOCK_FILE).is_file():
        raise UsageError(f"--out {path}: would replace what is compared", hint="give another file")
    require_replaceable_table(path, "--out", DIFFERENCES, what="a table of differences")


def write_differences(path: Path, rows: pa.Table) -> None:
    """Replace ``path`` with the differences, as CSV or parquet by its suffix; what it must not be is refused."""
    check_out(path)
    with atomic.writable(path.parent):
        if path.suffix.lower() == ".parquet":
            write_table(path, rows, DIFFERENCES)
        else:
            with atomic.replacing(path) as partial:
                pyarrow.csv.write_csv(rows, partial)


class _Build:
    """A build, or one view of it."""

    def __init__(self, text: str, folder: Path, view: str | None) -> None:
        self.text = text
        self.folder = folder
        self.lock = parsed_lock((folder / LOCK_FILE).read_bytes(), where=str(folder / LOCK_FILE))
        self.is_whole = view is None
        try:
            self.views = sorted(self.lock["views"])
            self.class_table = str(self.lock["class_table"])
        except (KeyError, TypeError) as error:
            raise FeedError(f"{folder / LOCK_FILE}: not a whole lock ({error})", hint="build it again") from error
        if view is not None and view not in self.views:
            raise UsageError(f"{text}: {folder} has no view {view!r}", hint=f"it has {', '.join(self.views)}")
        self.views = self.views if view is None else [view]
        columns = [n for n in schema.MANIFEST.names if n != "rows"]
        needed = columns if self.is_whole else ["id", "start_s", "end_s", "views", "view_classes"]
        self.manifest = read_table(folder / _MANIFEST_FILE, schema.MANIFEST, needed)
        self.compares_classes = True
        self.compares_names = False
        """Whether by name, since the numbers of two builds mean different classes."""
        self.class_names: Sequence[str] = ()  # of canonical classes; empty: not known

    def split_of(self, name: str) -> str | None:
        """The split of a view; of a whole build only merged views are meant when none is named."""
        release, _, split = name.rpartition("-")
        return split if release == MERGED or not self.is_whole else None

    def rows(self, view: str) -> pa.Table:
        """``id, start_s, end_s, label, canonical`` of a view's clips."""
        views = self.manifest["views"].combine_chunks()
        mask = compute.equal(compute.list_flatten(views), view)
        clips = self.manifest.select(["id", "start_s", "end_s"]).take(compute.list_parent_indices(views).filter(mask))
        canonical = compute.list_flatten(self.manifest["view_classes"].combine_chunks()).filter(mask).to_numpy()
        places = canonical if self.class_names else np.full_like(canonical, -1)
        label = picked(pa.array(self.class_names, pa.string()), places)
        canonical = canonical if self.compares_classes else np.full_like(canonical, -1)
        return clips.append_column("label", label).append_column("canonical", pa.array(canonical))


class _Lists:
    """The lists of a file."""

    def __init__(self, text: str, config: DiffConfig, labels: LabelMap) -> None:
        self.text = text
        found = read_foreign(Path(text), labels, config.options, taxonomy=config.taxonomy)
        self._found = {item.name: item for item in found}
        self._classes = _classes_by_name(labels)
        self.views = list(self._found)
        self.num_bad_rows = sum(item.bad_rows.num_rows for item in found)

    def split_of(self, name: str) -> str | None:
        """The split of a list, if it or its name says so."""
        return self._found[name].split

    def rows(self, name: str) -> pa.Table:
        """The rows of a list; names that mean one class in every taxonomy that has them have that class."""
        rows = self._found[name].rows
        encoded = rows["label"].combine_chunks().dictionary_encode()
        known = np.array([self._classes.get(str(t), -1) for t in encoded.dictionary.to_pylist()] + [-1], dtype=np.int16)
        by_name = known[compute.fill_null(encoded.indices, len(known) - 1).to_numpy(zero_copy_only=False)]
        canonical = rows["canonical"].to_numpy()
        column = pa.array(np.where(canonical < 0, by_name, canonical).astype(np.int16))
        return rows.set_column(rows.column_names.index("canonical"), "canonical", column)


def _classes_by_name(labels: LabelMap) -> dict[str, int]:
    """The class of each name that all taxonomies which have it use for one class."""
    meant: dict[str, set[int]] = {}
    for row in labels.rows:
        for name in {row.name, *row.names.values()}:
            meant.setdefault(name, set()).add(row.index)
    return {name: min(found) for name, found in meant.items() if len(found) == 1}


def _build_at(text: str) -> _Build | None:
    """The build, or view of one, that ``text`` names; None when it is a file."""
    path = Path(text)
    folder, _, view = text.rpartition(":")
    if (path / LOCK_FILE).is_file():
        return _Build(text, path, None)
    if path.is_dir():
        raise UsageError(f"{text}: no build here ({LOCK_FILE} is missing)", hint=f"give {_SIDES}")
    if path.exists():
        return None
    if folder and (Path(folder) / LOCK_FILE).is_file():
        return _Build(text, Path(folder), view)
    raise UsageError(f"{text}: no such build or list", hint=f"give {_SIDES}")


def _class_table(config: DiffConfig, builds: Sequence[_Build]) -> LabelMap:
    """The user's class table, else the one that lies in a build, else the packaged one."""
    if config.class_table is not None:
        return read_labels(config.class_table)
    own = (build.folder / CLASSES_FILE for build in builds if build.class_table != load_labels().digest)
    path = next((p for p in own if p.is_file()), None)
    return load_labels() if path is None else read_labels(path)


def _settle_classes(a: _Build | _Lists, b: _Build | _Lists, labels: LabelMap) -> list[str]:
    """Give builds the names of their classes; those of two tables are not compared."""
    builds = [side for side in (a, b) if isinstance(side, _Build)]
    if len({build.class_table for build in builds}) > 1:
        tables = [own_table(build.folder / CLASSES_FILE, build.class_table) for build in builds]
        for build, table in zip(builds, tables, strict=True):
            build.compares_classes = False
            build.compares_names = None not in tables
            build.class_names = table.names if table is not None and build.compares_names else ()
        how = "compared by name" if builds[0].compares_names else "not compared"
        return [f"the two builds have different class tables: classes are {how}"]
    for build in builds:
        if build.class_table == labels.digest:
            build.class_names = labels.names
        elif len(builds) == 1:
            raise UsageError(
                f"{build.text}: built with another class table than the one that the list was read with",
                hint="give the build's own with --class-table",
            )
    return []


def _partners(a: _Build | _Lists, b: _Build | _Lists) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Which view or list is compared with which, and those of either side without a partner."""
    whole = [isinstance(side, _Build) and side.is_whole for side in (a, b)]
    both = [name for name in a.views if name in b.views]
    if all(whole):
        return [(n, n) for n in both], [n for n in a.views if n not in both], [n for n in b.views if n not in both]
    if both and isinstance(a, _Build) and isinstance(b, _Build):
        return [(n, n) for n in both], [], []
    if len(a.views) == len(b.views) == 1:
        return [(a.views[0], b.views[0])], [], []
    by_split = [_by_split(side) for side in (a, b)]
    pairs = [(names, by_split[1][split]) for split, names in by_split[0].items() if split in by_split[1]]
    if not pairs:
        raise _unclear(a, b)
    only = [
        # Of a whole build the one view is meant, and nobody asked for the others.
        [] if is_whole else [n for n in side.views if n not in {pair[i] for pair in pairs}]
        for i, (side, is_whole) in enumerate(zip((a, b), whole, strict=True))
    ]
    return pairs, only[0], only[1]


def _by_split(side: _Build | _Lists) -> dict[str, str]:
    """The view or list of each split that only one is of."""
    named = [(side.split_of(name), name) for name in side.views]
    splits = [split for split, _ in named]
    return {split: name for split, name in named if split is not None and splits.count(split) == 1}


def _unclear(a: _Build | _Lists, b: _Build | _Lists) -> UsageError:
    wide = a if len(a.views) > 1 else b
    other = b if wide is a else a
    if isinstance(wide, _Build):
        return UsageError(
            f"{wide.text}: which of its views is to be compared with {other.text}?",
            hint=f"{wide.text}:VIEW, one of {', '.join(wide.views)}",
        )
    return UsageError(
        f"{wide.text}: which of its lists is to be compared with {other.text}?",
        hint=f"give a file with one of them; it holds {', '.join(wide.views[:12])}",
    )


def _lock_lines(a: _Build, b: _Build, by_view: Mapping[str, ListDiff]) -> list[str]:
    try:
        lines = lock_differences(a.lock, b.lock)
        return [lock_line(line, by_view) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FeedError(
            f"{a.text} and {b.text}: locks that cannot be compared ({error})", hint="build again"
        ) from error


def _staying_bytes(a: _Build, b: _Build) -> StayingBytes | None:
    """What of the first build's encoded clips stays; None while it has no shards."""
    if not (a.folder / INDEX_FILE).is_file():
        return None
    index = read_table(a.folder / INDEX_FILE, schema.SHARDS, ["key", "leaf", "mp4_size_bytes"])
    sizes = compute.fill_null(index["mp4_size_bytes"], 0).to_numpy()
    states = leaf_states(a.manifest, b.manifest)
    same = states.leaves.filter(pa.array(states.same))
    if a.lock["config"].get("encode") != b.lock["config"].get("encode"):
        return StayingBytes(total=int(sizes.sum()), untouched=0, copied=0)
    untouched, planned = (
        compute.is_in(index[name], value_set=values).to_numpy()
        for name, values in (("leaf", same), ("key", b.manifest["key"].combine_chunks()))
    )
    return StayingBytes(
        total=int(sizes.sum()), untouched=int(sizes[untouched].sum()), copied=int(sizes[planned & ~untouched].sum())
    )
