"""``path label`` lists of mmaction2, SlowFast, UniFormerV2, VideoMAE V2 and V-JEPA 2, as each one's reader splits them.

No reader takes a comment or a header: the order of the numbers is named in files beside the lists.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k710.class_names.files import write_order
from k710.errors import UsageError
from k710.exports.job import ExportJob, Format, Unlabelled, Written

if TYPE_CHECKING:
    from k710.exports.clips import ExportView
    from k710.exports.job import Files


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dialect:
    """How one tool reads lists."""

    tool: str
    """The tool, as people call it."""
    separator: str
    """Between path and label."""
    file: Callable[[ExportView], str]
    """Name of a view's list."""
    how: str
    """How the tool is pointed at lists; ``{root}`` is the folder of the files."""
    absolute: bool = False
    """Whether paths are taken as they stand, without a folder to put before them."""


def _per_release(view: ExportView) -> str:
    return f"{view.release}/{view.split}.csv"


def _write(dialect: _Dialect, job: ExportJob) -> Written:
    assert job.files is not None, "formats of files are given files"
    files = {}
    for view in job.views:
        lines = [_line(dialect, _path(dialect, job.files, clip.key), clip.label) for clip in view.clips]
        files[view.name] = dialect.file(view)
        job.folder.text(files[view.name], "".join(lines))
    root = job.files.root
    for order in {view.order.taxonomy: view.order for view in job.views}.values():
        job.folder.text(f"label_map_{order.taxonomy}.txt", write_order(order, job.build.labels, "txt"))
    how = dialect.how.format(root="/" if root is None else str(root.absolute()))
    return Written(files=files, how=how)


def _path(dialect: _Dialect, files: Files, key: str) -> str:
    if dialect.absolute and files.root is not None:
        return str(files.root.absolute() / files.paths[key])
    return files.paths[key]


def _line(dialect: _Dialect, path: str, label: int | None) -> str:
    return f"{path}\n" if label is None else f"{path}{dialect.separator}{label}\n"


def _check(dialect: _Dialect, files: Files) -> None:
    for key in files.paths:
        _require_whole(dialect, _path(dialect, files, key), files.root)


def _require_whole(dialect: _Dialect, path: str, root: Path | None) -> None:
    """Refuse a path that the tool's reader would break at, or alter."""
    strange = next((c for c in path if not c.isprintable()), None)
    found = dialect.separator if dialect.separator in path else '"' if '"' in path else strange
    if found is None and path == path.strip():
        return
    shown = path.encode("unicode_escape").decode()
    what = {" ": "a space", ",": "a comma", '"': "a quotation mark"}.get(found or " ", f"the character {found!a}")
    raise UsageError(
        f"{shown}: {dialect.tool} reads a path up to {what}",
        hint="--extract takes a folder without one" if root else "--extract DIR links the clips under plain names",
    )


_CSV_HOW = (
    "`{setting} NAME`, with NAME one of the folders here, and `{prefix} {{root}}`. Files are called after the split. "
    "A test run reads `test.csv`: where there is only a `val.csv`, and that is what is to be scored, copy it."
)


def _format(dialect: _Dialect, order: str, unlabelled: Unlabelled = "refused") -> Format:
    return Format(
        summary=f"Write lists of files for {dialect.tool}.",
        reads="files",
        write=functools.partial(_write, dialect),
        check=functools.partial(_check, dialect),
        order=order,
        unlabelled=unlabelled,
    )


_MMACTION2 = _Dialect(
    tool="mmaction2",
    separator=" ",
    file=lambda view: f"{view.release}_{view.split}_list_videos.txt",
    how="`ann_file` is a list, `data_prefix=dict(video='{root}')`, in a dataset of type `VideoDataset`.",
)
_SLOWFAST = _Dialect(
    tool="SlowFast",
    separator=" ",
    file=_per_release,
    how=_CSV_HOW.format(setting="DATA.PATH_TO_DATA_DIR", prefix="DATA.PATH_PREFIX"),
)
_UNIFORMERV2 = _Dialect(
    tool="UniFormerV2",
    separator=",",
    file=_per_release,
    how=_CSV_HOW.format(setting='DATA.PATH_LABEL_SEPARATOR "," DATA.PATH_TO_DATA_DIR', prefix="DATA.PATH_PREFIX"),
)
_VIDEOMAEV2 = _Dialect(
    tool="VideoMAE V2",
    separator=" ",
    file=_per_release,
    how="`--data_path NAME`, with NAME one of the folders here, and `--data_root {root}`. It validates and tests on "
    "`val.csv`.",
)
_VJEPA2 = _Dialect(
    tool="V-JEPA 2",
    separator=" ",
    file=lambda view: f"{view.name}.csv",
    how="`dataset_train` and `dataset_val` of an evaluation, or `datasets` of a pre-training, are lists; their paths "
    "are absolute. V-JEPA 2 names no order of its own: a published head says itself which one it has, and "
    "`--order` gives that.",
    absolute=True,
)

MMACTION2 = _format(_MMACTION2, "mmaction2_{taxonomy}", "whole views")
SLOWFAST = _format(_SLOWFAST, "uniformerv2_{taxonomy}")
UNIFORMERV2 = _format(_UNIFORMERV2, "uniformerv2_{taxonomy}")
VIDEOMAEV2 = _format(_VIDEOMAEV2, "videomaev2_{taxonomy}")
VJEPA2 = _format(_VJEPA2, "{taxonomy}")
