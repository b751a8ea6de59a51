"""Every annotation row of a build in one table, in an order that does not depend on the order of rows or files."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from k710.config import load_releases
from k710.errors import InputError
from k710.lists.annotations import AnnotationList
from k710.segments import safe_id

SPLIT_ORDER = ("train", "val", "test", "holdout")
"""Also the order in which lists hold a video out: val before test before holdout."""


def build_catalog(lists: Sequence[AnnotationList]) -> pd.DataFrame:
    """One row per annotation row: ``release, split, id, start_s, end_s, label, key, canonical, is_cc``.

    More columns are for sorting and comparing: ``release_order`` (older first), ``split_order``, and ``video`` and
    ``clip``, which number the ids and the keys in their order (integers compare much faster than strings).

    Raises:
        InputError: two different clips would have one key.
    """
    order = {name: i for i, name in enumerate(load_releases())}
    tables = []
    for item in lists:
        table = item.rows.assign(release=item.file.release.name, split=item.file.split)
        table["release_order"] = order[item.file.release.name]
        table["split_order"] = SPLIT_ORDER.index(item.file.split)
        table["label"] = (
            table["label"].astype("str") if table["label"].notna().any() else pd.array([None] * len(table), "str")
        )
        table["is_cc"] = table["is_cc"].astype("boolean")
        tables.append(table)
    catalog = pd.concat(tables, ignore_index=True)
    catalog["key"] = _keys(catalog)
    _refuse_collisions(catalog)
    catalog["video"] = pd.factorize(catalog["id"], sort=True)[0]
    catalog["clip"] = pd.factorize(catalog["key"], sort=True)[0]
    by = ["release_order", "split_order", "video", "start_s", "end_s", "label"]
    return catalog.sort_values(by, kind="stable", na_position="first", ignore_index=True)


def _keys(catalog: pd.DataFrame) -> pd.Series:
    names = catalog["id"]
    strange = ~names.str.fullmatch(r"[A-Za-z0-9_-]{1,64}")
    if strange.any():
        names = names.where(~strange, names.map(safe_id))
    whole = (catalog["start_s"] % 1 == 0) & (catalog["end_s"] % 1 == 0)

    def time(column: str) -> pd.Series:
        seconds = catalog[column].where(whole, 0).astype("int64").astype("str").str.zfill(6)
        if whole.all():
            return seconds
        millis = (catalog[column] * 1000).round().astype("int64").astype("str").str.zfill(9)
        return seconds.where(whole, millis)

    return names + "_" + time("start_s") + "_" + time("end_s")


def _refuse_collisions(catalog: pd.DataFrame) -> None:
    clips = catalog[["key", "id", "start_s", "end_s"]].drop_duplicates()
    twice = clips[clips["key"].duplicated(keep=False)].sort_values(["key", "id", "start_s", "end_s"])
    if len(twice):
        first, second = twice.iloc[0], twice.iloc[1]
        raise InputError(f"two clips would have the key {first['key']}: videos {first['id']!r} and {second['id']!r}")
