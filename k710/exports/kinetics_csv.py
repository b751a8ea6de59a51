"""Annotation CSVs in the official form, a file for each view: ``label,youtube_id,time_start,time_end,split``.

The files stand in folders that a build takes for those of a release (``k400/train.csv``).
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from k710.exports.job import ExportJob, Format, Written

if TYPE_CHECKING:
    from k710.exports.clips import Clip, ExportView

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPLIT_WORDS = {"holdout": "holdout_test"}
"""Official words that are not ours."""
_HOW = (
    "`k710 build --annotations`, `k710 audit`, and readers of the official files. Labels are class names of the "
    "taxonomy, so no order is needed. A list without classes has no column `label`, as the official ones."
)


def _write(job: ExportJob) -> Written:
    files = {}
    for view in job.views:
        files[view.name] = f"{view.release}/{view.split}.csv"
        job.folder.text(files[view.name], _text(view))
    return Written(files=files, how=_HOW)


def _text(view: ExportView) -> str:
    """The list; official readers take ``label`` for a column of words, so one without classes does not have it."""
    columns = COLUMNS if view.has_classes else COLUMNS[1:]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    split = _SPLIT_WORDS.get(view.split, view.split)
    for clip in view.clips:
        row = _row(clip, split)
        writer.writerow(row if view.has_classes else row[1:])
    return text.getvalue()


def _row(clip: Clip, split: str) -> tuple[str, ...]:
    return (clip.class_name or "", clip.id, seconds(clip.start_s), seconds(clip.end_s), split)


def seconds(value: float) -> str:
    """Seconds as the official files write them: whole ones without a decimal point."""
    return str(int(value)) if value == int(value) else repr(value)


CSV = Format(
    summary="Write annotation CSVs in the official Kinetics form, a file for each view.",
    reads="lists",
    write=_write,
    order="{taxonomy}",
    by_name=True,
    unlabelled="single clips",
    planned=True,
)
