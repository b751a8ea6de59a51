"""One clip per video, by a fixed rule, and why each of the others gave way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd


def winners(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """For each value of ``by`` (``video`` or ``clip``) the row that is kept.

    Newest release first, then the smallest (start, end), then the class name by code point.
    """
    ranked = rows.assign(age=-rows["release_order"])
    order = ["age", "start_s", "end_s", "label", "split_order"]
    return ranked.sort_values(order, kind="stable", na_position="first").drop_duplicates(by).drop(columns="age")


def losers(rows: pd.DataFrame, kept: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows that gave way, each with its ``reason`` and the row that won.

    ``same_clip``: the winner's very clip, so only a label is set aside; ``other_segment``: another part of the video.
    """
    lost = rows[~rows.index.isin(kept.index)]
    against = kept.set_index(by).loc[lost[by]]
    same = lost["key"].to_numpy() == against["key"].to_numpy()
    return excluded(lost, np.where(same, "same_clip", "other_segment"), against)


def excluded(rows: pd.DataFrame, reason: str | npt.NDArray[np.str_], against: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with their reason; the ``by_`` columns name the row of ``against``, in the same order, that decided."""
    out = rows[["release", "split", "id", "start_s", "end_s", "label", "key"]].assign(reason=reason)
    for column in ("release", "split", "start_s", "end_s", "label"):
        out[f"by_{column}"] = against[column].to_numpy()
    mine, theirs = rows["canonical"].to_numpy(), against["canonical"].to_numpy()
    out["class_differs"] = (mine != theirs) & (mine >= 0) & (theirs >= 0)
    return out
