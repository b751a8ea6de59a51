"""Video files and samples of shards as rows of a list: what their names say, or the facts that our shards carry."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from k710.errors import FeedError
from k710.labels import MERGED, LabelMap
from k710.lists.dialects.classes import named
from k710.lists.dialects.names import list_name
from k710.lists.dialects.paths import located
from k710.lists.dialects.raw import RawRows, strings
from k710.lists.rows import Expected, checked, encoded

_MAX_JSON_BYTES = 1 << 20
_LOOKED_AT = 64
"""Members that tell whether a tar holds samples or lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What ``KEY.json`` of our shards says of a sample."""

    id: str
    """Of the video."""
    start_s: float
    """Start in the video, seconds."""
    end_s: float
    """End in the video, seconds."""
    canonical: int | None
    """Canonical class; None: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedClips:
    """Clips as rows."""

    rows: pa.Table
    """``LIST_ROWS``."""
    bad_rows: pa.Table
    """``BAD_ROWS``: files or samples that name no video, or whose facts are damaged."""


def named_clips(
    names: Sequence[str], facts: Mapping[int, Facts], where: str, labels: LabelMap, *, read_classes: bool = True
) -> NamedClips:
    """The rows of some files or samples.

    The id is the first 11 characters of a name, the times follow it; a name without a YouTube id is an id of its own.
    The class is the folder's where every file lies in a folder with a class name.

    Args:
        names: paths, with the ending of a video.
        facts: what is known of some of them, by position, which counts more than their names.
        where: how messages name them all.
        labels: the class table.
        read_classes: whether the classes of ``facts`` are of this table.

    Raises:
        InputError: not one name holds an id.
    """
    paths = strings([printable(name) for name in names])
    raw = RawRows(dialect="clips", columns={"path": paths}, numbers=np.arange(1, len(names) + 1))
    raw = _with_facts(located(raw, None), facts, labels, read_classes=read_classes)
    raw = named(raw, where, labels, None, None)
    expected = Expected(where=where, taxonomy=_taxonomy_of(raw, labels), id_kind="opaque", times=False, report=True)
    rows, bad = checked(raw, expected, labels)
    return NamedClips(rows=rows, bad_rows=bad)


def read_samples(path: Path) -> list[tuple[str, Facts | None]]:
    """The samples of a WebDataset shard: each one's key as the name of a video, and the facts where they are ours.

    Raises:
        FeedError: the file is no tar, or is damaged or cut off.
    """
    samples: dict[str, Facts | None] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                name = PurePosixPath(info.name)
                if not info.isreg() or name.name.startswith("._"):
                    continue
                key, _, suffix = name.name.partition(".")
                sample = f"{name.parent}/{key}.mp4"
                samples.setdefault(sample, None)
                if suffix == "json" and info.size <= _MAX_JSON_BYTES and (handle := tar.extractfile(info)) is not None:
                    samples[sample] = _facts(handle.read()) or samples[sample]
    # ValueError, IndexError: numbers in headers of other kinds that tarfile does not expect.
    except (tarfile.TarError, OSError, EOFError, ValueError, IndexError) as error:
        raise FeedError(f"{path}: not a whole tar archive ({error})", hint="fetch it again, or take it out") from error
    return list(samples.items())


def printable(text: str) -> str:
    """``text`` with ``?`` for what is no unicode: names on a disk and in a tar may be any bytes."""
    return text.encode(errors="replace").decode()


def holds_lists(path: Path) -> bool:
    """Whether a tar holds annotation lists instead of samples; False for one that cannot be read."""
    try:
        with tarfile.open(path, "r:") as tar:
            names = [info.name for info, _ in zip(tar, range(_LOOKED_AT), strict=False)]
    except (tarfile.TarError, OSError, EOFError, ValueError, IndexError):
        return False
    return any(list_name(PurePosixPath(name).name) is not None for name in names)


def _facts(data: bytes) -> Facts | None:
    """The facts in a ``KEY.json``; None where it is not one of ours."""
    try:
        found = json.loads(data)
        times = [float(found["segment"][name]) for name in ("start_s", "end_s")]
        canonical = found.get("labels", {}).get("k710")
        if not isinstance(found["id"], str) or printable(found["id"]) != found["id"]:
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    index = canonical if isinstance(canonical, int) else None
    return Facts(id=found["id"], start_s=times[0], end_s=times[1], canonical=index)


def _with_facts(raw: RawRows, facts: Mapping[int, Facts], labels: LabelMap, *, read_classes: bool) -> RawRows:
    if not facts:
        return raw
    columns: dict[str, list[str | None]] = {n: c.to_pylist() for n, c in raw.columns.items() if n != "folder"}
    for name in ("start", "end"):
        columns.setdefault(name, [None] * len(columns["id"]))
    columns["label"] = [None] * len(columns["id"])
    for position, known in facts.items():
        columns["id"][position] = known.id
        columns["start"][position], columns["end"][position] = repr(known.start_s), repr(known.end_s)
        if read_classes and known.canonical is not None and 0 <= known.canonical < labels.num_classes:
            columns["label"][position] = labels.names[known.canonical]
    return replace(raw, columns={name: strings(values) for name, values in columns.items()})


def _taxonomy_of(raw: RawRows, labels: LabelMap) -> str | None:
    """A taxonomy that has every label; the merged classes first, which our own shards have."""
    found: Any = set(encoded(raw.columns["label"])[0]) if "label" in raw.columns else set()
    fits = (t for t in (MERGED, *labels.taxonomies) if found <= labels.canonical_of(t).keys())
    return next(fits, None) if found else None
