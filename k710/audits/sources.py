"""What people have, as lists to compare: files of any dialect, folders of clips, shards, builds and their views."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710 import schema
from k710.audits.named_clips import Facts, holds_lists, named_clips, printable, read_samples
from k710.class_names.orders import all_orders
from k710.clips.sources.local import SUFFIXES
from k710.config import load_releases
from k710.errors import FeedError, InputError, UsageError
from k710.exports.folder import EXPORT_FILE, order_beside
from k710.labels import LabelMap
from k710.lists.dialects.foreign import ForeignList, read_foreign
from k710.lists.dialects.names import ListName, list_name
from k710.lists.dialects.options import ReadOptions
from k710.lists.rows import LIST_ROWS, split_of, with_bad_rows
from k710.shards.index import LOCK_FILE, parsed_lock
from k710.tables import compute, picked, read_table

_TAKES = "give a list, a folder of clips, shards (.tar), or a build as OUT or OUT:VIEW"
_MOST_CLASSES = 0.9
"""Part of a taxonomy's classes that makes a list without a telling name one of the taxonomy's release."""
_MANIFEST_COLUMNS = ["id", "start_s", "end_s", "views", "view_classes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenList:
    """One list to be compared, wherever it is from."""

    title: str
    """What reports call it, before they add the split; several may have one title."""
    split: str
    """``train``, or the kind of held-out list."""
    owner: str | None
    """Release it is of; None when nothing says so."""
    source: str
    """Where it is from, as the user wrote it."""
    kind: str
    """``list``, ``clips``, ``shards`` or ``build``."""
    dialect: str = ""
    """Of a list: what its file was recognised as."""
    sha256: str | None = None
    """Of a list: of its file."""
    rows: pa.Table
    """``LIST_ROWS``; of a bad row whose id could be read, the id alone. An id is YouTube's where it has that form."""
    num_bad_rows: int = 0
    """Rows, files or samples that are damaged."""
    num_without_id: int = 0
    """Those of which not even the id could be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What one word of the command line stands for."""

    lists: list[GivenList]
    """At least one."""
    not_checked: list[str] = field(default_factory=list)
    """What lies there and could not be compared."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know of how it was taken."""


def read_given(
    word: str, options: ReadOptions, labels: LabelMap, *, for_training: bool, by_split: bool = False
) -> Given:
    """The lists that ``word`` stands for; where it holds both, those for training or those that are held out.

    A file that is no archive is what the user says it is, whatever its rows say, unless ``by_split``.

    Raises:
        UsageError: nothing is there, or a build has no such view.
        InputError: a list is wrong, or a folder has nothing that names a video.
        FeedError: a build or a shard is damaged.
    """
    path, view = _existing(word)
    if (path / LOCK_FILE).is_file():
        return _build_lists(word, path, view, labels, for_training=for_training)
    if path.is_dir():
        return _folder_lists(word, path, options, labels, for_training=for_training)
    if path.name.lower().endswith(".tar") and not holds_lists(path):
        return Given(lists=[_clips_list(word, path, [], [path], labels, for_training=for_training)])
    return _file_lists(word, path, options, labels, for_training=for_training, by_split=by_split)


def owner_of(path: Path) -> str | None:
    """The release that the name of ``path`` mentions, or that one of its last folders is called; None: none."""
    aliases = {alias: release.name for release in load_releases().values() for alias in release.aliases}
    # The longest first: k700-2020 is not k700.
    for alias in sorted(aliases, key=len, reverse=True):
        if re.search(rf"(?<![a-z0-9]){re.escape(alias)}(?![a-z0-9])", path.name.lower()):
            return aliases[alias]
    parts = path.absolute().parts
    for part in reversed(parts[-3:] if path.is_dir() else parts[-4:-1]):
        if part.lower() in aliases:
            return aliases[part.lower()]
    return None


def _existing(word: str) -> tuple[Path, str | None]:
    """The path that a word names, and the view after its colon."""
    head, _, view = word.rpartition(":")
    try:
        if Path(word).exists():
            return Path(word), None
        if head and (Path(head) / LOCK_FILE).is_file():
            return Path(head), view
        if head and Path(head).is_dir():
            raise UsageError(f"{head}: no build here ({LOCK_FILE} is missing), so no view {view!r}", hint=_TAKES)
    except OSError as error:
        raise UsageError(f"{word}: cannot be read ({error.strerror})", hint=_TAKES) from error
    raise UsageError(f"{word}: no such file or folder", hint=_TAKES)


def _file_lists(
    word: str, path: Path, options: ReadOptions, labels: LabelMap, *, for_training: bool, by_split: bool = False
) -> Given:
    found, order = _read_file(path, options, labels)
    several = len(found) > 1
    picks = several and (by_split or found[0].member is not None)
    # A file is what the user says it is: rows that were test rows elsewhere may be trained on here.
    wanted = [f for f in found if (f.split == "train") == for_training] if picks else found
    if not wanted:
        splits = ", ".join(sorted({str(f.split) for f in found}))
        raise InputError(f"{path}: no {_role(for_training)} list in it, only {splits}", hint="name another file")
    groups: dict[tuple[str | None, str], list[ForeignList]] = {}
    for one in wanted:
        groups.setdefault((one.member, _split(one.split, for_training)), []).append(one)
    return Given(
        lists=[_as_given(word, path, group, labels, for_training=for_training) for group in groups.values()],
        notes=[
            *(_overruled(path, wanted, for_training) if several and not picks else []),
            *(_exported(path, order) if order is not None and found[0].taxonomy is not None else []),
        ],
    )


def _read_file(path: Path, options: ReadOptions, labels: LabelMap) -> tuple[list[ForeignList], str | None]:
    """The lists in a file, and the order of their numbers where only the file's export named it."""
    order = None if options.class_order is not None else _order_of(path, labels)
    if order is not None:
        # Class folders that contradict the numbers are an error only where the user named the order.
        with contextlib.suppress(InputError):
            return read_foreign(path, labels, dataclasses.replace(options, class_order=order)), order
    return read_foreign(path, labels, options), None


def _order_of(path: Path, labels: LabelMap) -> str | None:
    """The order of the numbers in a list that `k710 export` wrote; None: not known, or one of another class table."""
    order, class_table = order_beside(path) or ("", "")
    known = class_table == labels.digest and order in {o.name for o in all_orders(labels)}
    return order if known else None


def _exported(path: Path, order: str) -> list[str]:
    """How the numbers of a list were taken that its export explains."""
    place = printable("/".join(path.absolute().parts[-2:]))
    return [f"{place}: class numbers were read in the order {order}, which {EXPORT_FILE} of its export names"]


def _overruled(path: Path, found: Sequence[ForeignList], for_training: bool) -> list[str]:
    """What rows of a file say of themselves that the user says otherwise."""
    others = [(f, f.rows.num_rows + f.bad_rows.num_rows) for f in found if (f.split == "train") != for_training]
    counts = [f"{num:,} {'row says' if num == 1 else 'rows say'} {f.split or 'no split'}" for f, num in others]
    they = "it was" if sum(num for _, num in others) == 1 else "they were"
    said = f"{printable(path.name)}: {', '.join(counts)}; {they} taken as {_role(for_training)} rows, as you said"
    return [said] if others else []


def _as_given(
    word: str, path: Path, parts: Sequence[ForeignList], labels: LabelMap, *, for_training: bool
) -> GivenList:
    found = parts[0]
    rows = pa.concat_tables([part.rows for part in parts])
    bad_rows = pa.concat_tables([part.bad_rows for part in parts])
    stem = re.sub(r"(\.(csv|json|txt|tsv|parquet|list|tar|tgz|gz))+$", "", path.name, flags=re.IGNORECASE)
    owner = owner_of(path)
    return GivenList(
        # `train.csv` says nothing; its folder may.
        title=printable(stem if split_of(stem) is None else owner or path.absolute().parent.name or stem),
        split=_split(found.split, for_training),
        owner=owner or _owner_by_classes(rows, found.taxonomy, labels),
        source=printable(word),
        kind="list",
        dialect=found.dialect,
        sha256=found.sha256,
        rows=with_bad_rows(rows, bad_rows),
        num_bad_rows=bad_rows.num_rows,
        num_without_id=bad_rows["id"].null_count,
    )


def _owner_by_classes(rows: pa.Table, taxonomy: str | None, labels: LabelMap) -> str | None:
    """The release whose classes a list has, nearly all of them."""
    releases = [r.name for r in load_releases().values() if r.taxonomy == taxonomy]
    if taxonomy is None or not releases:
        return None
    num_classes = len(compute.unique(rows["canonical"]))
    return releases[0] if num_classes >= _MOST_CLASSES * len(labels.canonical_of(taxonomy)) else None


def _folder_lists(word: str, folder: Path, options: ReadOptions, labels: LabelMap, *, for_training: bool) -> Given:
    clips, tars, builds, lists = _walked(folder)
    inside = [printable(f"{path} (a build; give it by itself)") for path in builds]
    if clips or tars:
        given = _clips_list(word, folder, clips, tars, labels, for_training=for_training)
        return Given(lists=[given], not_checked=inside)
    chosen = [path for path, known in lists if (known.split == "train") == for_training]
    if not chosen:
        named = ", ".join(path.name for path, _ in lists[:5])
        what = f"no {_role(for_training)} list among {named}" if lists else "no clips, shards or lists in it"
        raise InputError(f"{folder}: {what}", hint=_TAKES)
    found = [_file_lists(word, p, options, labels, for_training=for_training) for p in chosen]
    return Given(
        lists=[g for f in found for g in f.lists], not_checked=inside, notes=[n for f in found for n in f.notes]
    )


def _walked(folder: Path) -> tuple[list[str], list[Path], list[Path], list[tuple[Path, ListName]]]:
    """The videos, the tars, the builds (which are not entered) and the best file of each list under a folder."""
    clips: list[str] = []
    tars: list[Path] = []
    builds: list[Path] = []
    lists: dict[tuple[str, str, str], tuple[Path, ListName]] = {}
    for root, folders, names in os.walk(folder, onerror=_refuse):
        if LOCK_FILE in names:
            builds.append(Path(root))
            folders.clear()
            continue
        folders.sort()
        # `._*` are AppleDouble files, which some published archives carry.
        for name in sorted(n for n in names if not n.startswith("._")):
            suffix = PurePosixPath(name).suffix.lower()
            if suffix in SUFFIXES:
                clips.append(f"{root}/{name}")
            elif suffix == ".tar":
                tars.append(Path(root) / name)
            elif (known := list_name(name)) is not None:
                place = (root, known.split, known.owner)
                if place not in lists or known.rank < lists[place][1].rank:
                    lists[place] = (Path(root) / name, known)
    return clips, tars, builds, list(lists.values())


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be listed ({error.strerror})", hint="make it readable") from error


def _clips_list(
    word: str, path: Path, clips: Sequence[str], tars: Sequence[Path], labels: LabelMap, *, for_training: bool
) -> GivenList:
    names, facts = list(clips), dict[int, Facts]()
    for tar in tars:
        for name, known in read_samples(tar):
            if known is not None:
                facts[len(names)] = known
            names.append(name)
    if not names:
        raise InputError(f"{path}: no samples in it", hint=_TAKES)
    found = named_clips(names, facts, str(path), labels)
    return GivenList(
        title=printable("/".join(part for part in path.absolute().parts[-2:] if part != "/")),
        split=_split(split_of(path.name.lower().removeprefix("videos_")), for_training),
        owner=owner_of(path),
        source=printable(word),
        kind="clips" if clips else "shards",
        rows=with_bad_rows(found.rows, found.bad_rows),
        num_bad_rows=found.bad_rows.num_rows,
        num_without_id=found.bad_rows["id"].null_count,
    )


def _build_lists(word: str, folder: Path, view: str | None, labels: LabelMap, *, for_training: bool) -> Given:
    try:
        data = (folder / LOCK_FILE).read_bytes()
    except OSError as error:
        raise FeedError(f"{folder / LOCK_FILE}: cannot be read ({error.strerror})", hint="make it readable") from error
    lock = parsed_lock(data, where=str(folder / LOCK_FILE))
    views = sorted(lock["views"])
    if view is not None and view not in views:
        raise UsageError(f"view {view!r} is not in {folder}", hint=f"it has {', '.join(views)}")
    chosen = [view] if view is not None else [v for v in views if v.endswith("-train") == for_training]
    if not chosen:
        raise UsageError(f"{folder}: the build has no {_role(for_training)} view", hint=f"it has {', '.join(views)}")
    table = read_table(folder / "manifest.parquet", schema.MANIFEST, _MANIFEST_COLUMNS)
    own_classes = lock["class_table"] == labels.digest
    lists = [
        _view_list(word, folder, v, table, labels if own_classes else None, for_training=for_training) for v in chosen
    ]
    not_checked = [] if own_classes else [f"classes of {printable(word)} (it was built with another class table)"]
    if view is None and not for_training:
        held_out = [name for name in lock["inputs"] if not name.endswith(":train")]
        missing = [name for name in held_out if name.replace(":", "-") not in chosen]
        not_checked += [f"{name} of {printable(word)} (no view holds it)" for name in missing]
    return Given(lists=lists, not_checked=not_checked)


def _view_list(
    word: str, folder: Path, view: str, manifest: pa.Table, labels: LabelMap | None, *, for_training: bool
) -> GivenList:
    views = manifest["views"].combine_chunks()
    inside = compute.equal(compute.list_flatten(views), view).to_numpy(zero_copy_only=False)
    clips = compute.list_parent_indices(views).to_numpy()[inside]
    classes = compute.list_flatten(manifest["view_classes"].combine_chunks()).to_numpy()[inside]
    release, _, split = view.rpartition("-")
    return GivenList(
        title=printable(f"{folder.absolute().name}/{release}"),
        split=_split(split, for_training),
        owner=release if release in load_releases() else None,
        source=printable(word),
        kind="build",
        rows=_view_rows(manifest, clips, classes, labels),
    )


def _view_rows(
    manifest: pa.Table, clips: npt.NDArray[np.int64], classes: npt.NDArray[np.int16], labels: LabelMap | None
) -> pa.Table:
    classes = classes if labels is not None else np.full(len(classes), -1, np.int16)
    names = pa.array(labels.names if labels is not None else [], pa.string())
    columns = {name: picked(manifest[name].combine_chunks(), clips) for name in ("id", "start_s", "end_s")}
    columns |= {"label": picked(names, classes), "canonical": pa.array(classes)}
    return pa.table({**columns, "is_cc": pa.nulls(len(clips), pa.bool_())}, schema=LIST_ROWS)


def _split(found: str | None, for_training: bool) -> str:
    """The split under which a list is compared: its own where that fits what the user wants of it."""
    if for_training:
        return "train"
    return found if found in ("val", "test", "holdout") else "val"


def _role(for_training: bool) -> str:
    return "training" if for_training else "held-out"
