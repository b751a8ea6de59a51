"""Every annotation row of a build as columns of integers, in an order that no order of rows or files changes.

Videos, clips and class names are numbered in the order of their names, so that sorting, comparing and looking up are
arithmetic on arrays; strings are made again only for what is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.config import load_releases
from k710.errors import InputError
from k710.segments import id_digests, safe_id, trie_digests
from k710.tables import compute, picked

SPLIT_ORDER = ("train", "val", "test", "holdout")
"""Also the order in which lists hold a video out: val before test before holdout."""

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.float64]

MAX_LABELS = (1 << 18) - 1
"""Most class names that a catalog can hold."""
_PLAIN_ID = r"^[A-Za-z0-9_-]{1,64}$"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListName:
    """One list: what a row's ``release`` and ``split`` say."""

    release: str
    """``k400``, ... or the name of somebody's list."""
    split: str
    """``train``, ``val``, ``test`` or ``holdout``."""
    id_kind: str = "youtube"
    """``youtube`` or ``opaque``: equal ids of two kinds are two videos."""

    def __str__(self) -> str:
        return f"{self.release}:{self.split}"

    @property
    def is_held_out(self) -> bool:
        """Whether the list is not for training."""
        return self.split != "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """The rows of some lists; row ``i`` is the ``i``-th by (release, split, id, start, end, label)."""

    lists: tuple[ListName, ...]
    """The lists, oldest release first, each release in the order train, val, test, holdout."""
    ages: npt.NDArray[np.int64]
    """Per list: number of its release, older first."""
    names: tuple[str, ...]
    """The class names that rows use, by code point."""
    ids: pa.Array[Any]
    """Per video: its id; videos are in order of id, opaque ones behind those of YouTube."""
    num_youtube: int
    """Videos with an id of YouTube: the first ones."""
    keys: pa.Array[Any]
    """Per clip: its key; clips are in order of (video, start, end)."""
    key_rank: Codes
    """Per clip: the place of its key among all keys in order of code point."""
    clip_video: Codes
    """Per clip: its video."""
    start_s: Seconds
    """Per clip: start in the video, seconds; NaN where the list has no times."""
    end_s: Seconds
    """Per clip: end in the video, seconds; NaN where the list has no times."""
    list_code: npt.NDArray[np.int16]
    """Per row: position in ``lists``."""
    clip: Codes
    """Per row: its clip."""
    label: Codes
    """Per row: position in ``names``; -1: no label."""
    canonical: npt.NDArray[np.int16]
    """Per row: canonical class; -1: no label, or a class that the table does not know."""
    is_cc: npt.NDArray[np.int8]
    """Per row: 1 or 0 for a Creative Commons licence or none; -1: the list does not say."""

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def video(self) -> Codes:
        """Per row: its video."""
        return self.clip_video[self.clip]

    @property
    def num_videos(self) -> int:
        """Videos that some row names."""
        return len(self.ids)

    @property
    def num_clips(self) -> int:
        """Clips that some row names."""
        return len(self.keys)

    @property
    def timed(self) -> Mask:
        """Per row: whether its list says when the clip is."""
        known: Mask = ~np.isnan(self.start_s)[self.clip]
        return known

    def split_mask(self, splits: Sequence[str]) -> Mask:
        """Per row: whether its list is of one of these splits."""
        return np.array([name.split in splits for name in self.lists])[self.list_code]

    def list_rows(self, position: int) -> slice:
        """The rows of one list, which stand together."""
        low, high = np.searchsorted(self.list_code, [position, position + 1])
        return slice(int(low), int(high))

    def video_hashes(self, videos: npt.NDArray[Any] | None = None) -> npt.NDArray[np.uint64]:
        """The 64-bit hashes of videos (ascending; all by default) under which id sets are compared and published."""
        numbers = np.arange(self.num_videos) if videos is None else videos
        ids = picked(self.ids, numbers).to_pylist()
        first_opaque = int(np.searchsorted(numbers, self.num_youtube))
        digests = id_digests(ids[:first_opaque], "youtube") + id_digests(ids[first_opaque:], "opaque")  # type: ignore[arg-type]
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    def trie_hashes(self, videos: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """The paths of videos in the trie of shards."""
        digests = trie_digests(picked(self.ids, videos).to_pylist())  # type: ignore[arg-type]
        return np.frombuffer(digests, ">u8").astype(np.uint64)

    def columns(self, rows: npt.NDArray[Any]) -> dict[str, pa.Array[Any]]:
        """``release, split, id, start_s, end_s, label, key`` of some rows: what names a row, and its clip's key."""
        clip, code = self.clip[rows], self.list_code[rows]
        return {
            "release": self._per_list([name.release for name in self.lists], code),
            "split": self._per_list([name.split for name in self.lists], code),
            "id": picked(self.ids, self.clip_video[clip]),
            "start_s": pa.array(self.start_s[clip], from_pandas=True),
            "end_s": pa.array(self.end_s[clip], from_pandas=True),
            "label": self.labels(rows),
            "key": picked(self.keys, clip),
        }

    def labels(self, rows: npt.NDArray[Any]) -> pa.Array[Any]:
        """The class names of some rows, null where there is none."""
        return picked(pa.array(self.names, pa.string()), self.label[rows])

    def table(self, rows: npt.NDArray[Any]) -> pa.Table:
        """Some rows as a table: ``columns`` and ``canonical``."""
        return pa.table({**self.columns(rows), "canonical": pa.array(self.canonical[rows])})

    def _per_list(self, values: Sequence[str], codes: npt.NDArray[Any]) -> pa.Array[Any]:
        return picked(pa.array(values, pa.string()), codes)


def build_catalog(
    lists: Sequence[tuple[ListName, pa.Table]], ages: Mapping[str, int] | None = None, *, unique_keys: bool = True
) -> Catalog:
    """The rows of ``lists``, each a table of ``k710.lists.rows.LIST_ROWS``.

    Args:
        lists: every list with its rows; two of one name are an error of the caller.
        ages: number of each release, older first; None for the order of ``releases.toml``.
        unique_keys: whether keys will name files, so that no two clips may share one.

    Raises:
        InputError: two different clips would have one key.
    """
    ages = {name: i for i, name in enumerate(load_releases())} if ages is None else ages
    ordered = sorted(lists, key=lambda item: (ages[item[0].release], SPLIT_ORDER.index(item[0].split)))
    names = tuple(name for name, _ in ordered)
    assert len(set(map(str, names))) == len(names), "one list twice"
    sizes = [table.num_rows for _, table in ordered]
    code = np.repeat(np.arange(len(names), dtype=np.int16), sizes)
    ids, video, num_youtube = _numbered_ids([(n.id_kind, t["id"]) for n, t in ordered])
    start_s, end_s = (_floats([t[c] for _, t in ordered]) for c in ("start_s", "end_s"))
    clip, first = _numbered_clips(video, start_s, end_s)
    label, labels = _numbered_labels([t["label"] for _, t in ordered])
    is_cc = _flags([t["is_cc"] for _, t in ordered])
    canonical = _ints([t["canonical"] for _, t in ordered])
    order = np.argsort(_packed(code, clip, label, is_cc), kind="stable")
    keys, key_rank = _keys(picked(ids, video[first]), start_s[first], end_s[first], unique=unique_keys)
    return Catalog(
        lists=names,
        ages=np.array([ages[n.release] for n in names], dtype=np.int64),
        names=labels,
        ids=ids,
        num_youtube=num_youtube,
        keys=keys,
        key_rank=key_rank,
        clip_video=video[first],
        start_s=start_s[first],
        end_s=end_s[first],
        list_code=code[order],
        clip=clip[order],
        label=label[order],
        canonical=canonical[order],
        is_cc=is_cc[order],
    )


def distinct(numbers: npt.NDArray[Any], size: int) -> Ints:
    """The different ``numbers``, all below ``size``, ascending."""
    seen = np.zeros(size, dtype=bool)
    seen[numbers] = True
    return np.flatnonzero(seen)


def first_of_each(group: npt.NDArray[Any], priority: Ints, num_groups: int) -> Ints:
    """For each group the position with the smallest priority, the first of equal ones; -1 for a group without any."""
    best = np.full(num_groups, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(best, group, priority)
    # Backwards, so that the first of equal ones is written last.
    hits = np.flatnonzero(best[group] == priority)[::-1]
    first = np.full(num_groups, -1, dtype=np.int64)
    first[group[hits]] = hits
    return first


def _numbered_ids(columns: Sequence[tuple[str, pa.ChunkedArray[Any]]]) -> tuple[pa.Array[Any], Codes, int]:
    """Every id once in order of (kind, id), the number of each row's, and how many are YouTube's."""
    numbers = [np.zeros(0, np.int32) for _ in columns]
    found: list[pa.Array[Any]] = []
    for kind in ("youtube", "opaque"):
        offset = sum(map(len, found))
        own = [i for i, (k, _) in enumerate(columns) if k == kind]
        encoded = _joined([columns[i][1] for i in own], pa.string()).dictionary_encode()
        order = compute.sort_indices(encoded.dictionary)
        rank = np.empty(len(order), np.int32)
        rank[order.to_numpy()] = np.arange(offset, offset + len(order), dtype=np.int32)
        found.append(encoded.dictionary.take(order))
        coded = rank[encoded.indices.to_numpy(zero_copy_only=False)]
        for i, part in zip(own, np.split(coded, np.cumsum([len(columns[i][1]) for i in own])[:-1]), strict=False):
            numbers[i] = part
    return pa.concat_arrays(found), np.concatenate([np.zeros(0, np.int32), *numbers]), len(found[0])


def _numbered_clips(video: Codes, start_s: Seconds, end_s: Seconds) -> tuple[Codes, Ints]:
    """The number of each row's clip in order of (video, start, end), and some row of each clip."""
    # A missing time is like any other missing one, and comes after every real time.
    low, high = (np.where(np.isnan(times), np.inf, times) for times in (start_s, end_s))
    order = np.lexsort((high, low, video))
    differs = np.zeros(len(order), dtype=bool)
    for column in (video, low, high):
        values = column[order]
        differs[1:] |= values[1:] != values[:-1]
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(differs, dtype=np.int32)
    starts = np.flatnonzero(differs) if len(order) else np.zeros(0, np.int64)
    return number, order[np.concatenate([[0], starts])] if len(order) else starts


def _numbered_labels(columns: Sequence[pa.ChunkedArray[Any]]) -> tuple[Codes, tuple[str, ...]]:
    encoded = _joined(columns, pa.string()).dictionary_encode()
    order = compute.sort_indices(encoded.dictionary)
    rank = np.empty(len(order) + 1, np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    rank[-1] = -1
    codes = compute.fill_null(encoded.indices, len(order)).to_numpy(zero_copy_only=False)
    return rank[codes], tuple(map(str, encoded.dictionary.take(order).to_pylist()))


def _packed(code: npt.NDArray[np.int16], clip: Codes, label: Codes, is_cc: npt.NDArray[np.int8]) -> Ints:
    """One integer per row that sorts like (list, clip, label, licence)."""
    assert label.max(initial=-1) < MAX_LABELS, "too many class names"
    return ((code.astype(np.int64) << 31 | clip) << 18 | (label + 1)) << 2 | (is_cc + 1).astype(np.int64)


def _keys(ids: pa.Array[Any], start_s: Seconds, end_s: Seconds, *, unique: bool) -> tuple[pa.Array[Any], Codes]:
    """The key of each clip, as ``segments.clip_key`` makes it (without times the id alone), and its rank."""
    plain = compute.all(compute.match_substring_regex(ids, _PLAIN_ID)).as_py() is not False
    safe = ids if plain else pa.array([safe_id(str(i)) for i in ids.to_pylist()], pa.string())
    whole, timed = (start_s % 1 == 0) & (end_s % 1 == 0), ~np.isnan(start_s)

    def times(values: Seconds) -> pa.Array[Any]:
        seconds = _padded(np.where(whole, values, 0), 6)
        millis = seconds if whole.all() else _padded(np.where(timed, values, 0) * 1000, 9)
        return seconds if whole.all() else compute.if_else(pa.array(whole), seconds, millis)

    keys = compute.binary_join_element_wise(safe, times(start_s), times(end_s), "_")
    keys = keys if timed.all() else compute.if_else(pa.array(timed), keys, safe)
    if unique and not (plain and whole.all()):
        _refuse_collisions(keys, ids)
    if plain and whole.all() and len(compute.unique(compute.binary_length(ids))) <= 1:
        return keys, np.arange(len(keys), dtype=np.int32)  # clips stand in this order already
    return keys, (compute.rank(keys).to_numpy() - 1).astype(np.int32)


def _padded(values: Seconds, width: int) -> pa.Array[Any]:
    numbers: pa.Array[Any] = compute.cast(pa.array(np.rint(values).astype(np.int64)), pa.string())
    return compute.utf8_lpad(numbers, width, "0")  # type: ignore[no-any-return]


def _refuse_collisions(keys: pa.Array[Any], ids: pa.Array[Any]) -> None:
    counted = compute.value_counts(keys)
    twice = counted.filter(compute.greater(counted.field("counts"), 1)).field("values").to_pylist()
    if twice:
        key = min(twice)
        first, second = ids.filter(compute.equal(keys, key)).to_pylist()[:2]
        raise InputError(
            f"two clips would have the key {key}: videos {first!r} and {second!r}",
            hint="their ids or times differ only in what a file name cannot show; take one row out",
        )


def _joined(columns: Sequence[pa.ChunkedArray[Any]], kind: pa.DataType) -> pa.Array[Any]:
    chunks = [chunk.cast(kind) for column in columns for chunk in pa.chunked_array(column).chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], kind)


def _floats(columns: Sequence[pa.ChunkedArray[Any]]) -> Seconds:
    return _joined(columns, pa.float64()).to_numpy(zero_copy_only=False)


def _ints(columns: Sequence[pa.ChunkedArray[Any]]) -> npt.NDArray[np.int16]:
    return _joined(columns, pa.int16()).to_numpy(zero_copy_only=False)


def _flags(columns: Sequence[pa.ChunkedArray[Any]]) -> npt.NDArray[np.int8]:
    values = compute.fill_null(_joined(columns, pa.bool_()).cast(pa.int8()), -1)
    return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
