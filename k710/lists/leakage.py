"""Which videos stand in more than one list, and which held-out row keeps a video out of training.

A leak is decided by video, never by segment: another segment of a held-out video shows the same people and place.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd


def shared_videos(catalog: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Number of videos that stand in both of two lists, for every pair of lists, in catalog order."""
    lists = catalog["release"] + ":" + catalog["split"]
    list_codes, names = pd.factorize(lists)
    member = np.zeros((len(names), int(catalog["video"].max()) + 1), dtype=np.float32)
    # float32 counts exactly up to 2^24 videos; an integer product would not use BLAS.
    member[list_codes, catalog["video"]] = 1
    counts = member @ member.T
    return {(str(a), str(b)): int(counts[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i < j}


def in_lists(catalog: pd.DataFrame, lists: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The rows of the named (release, split) lists."""
    wanted = {f"{release}:{split}" for release, split in lists}
    return catalog[(catalog["release"] + ":" + catalog["split"]).isin(wanted)]


def first_holders(held_out: pd.DataFrame) -> pd.DataFrame:
    """For each video of the held-out rows, the row that is named as holding it out.

    The first by val < test < holdout, then release order, then (start, end), then class name.
    """
    order = ["split_order", "release_order", "start_s", "end_s", "label"]
    ranked = held_out.sort_values(order, kind="stable", na_position="first")
    return ranked.drop_duplicates("video").set_index("video")
