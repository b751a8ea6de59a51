"""``path label`` and ``path,label`` lists of mmaction2, SlowFast, UniFormer and VideoMAE V2: the id and, where it has
them, the times are in the file's name; the label is a name, a number, or the name of the folder."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from k710.errors import InputError
from k710.lists.dialects.delimited import MAX_LINES
from k710.lists.dialects.ids import id_in_address
from k710.lists.dialects.options import ReadOptions
from k710.lists.dialects.raw import Body, BrokenRow, RawRows, strings

CLIP_PATTERN = "{id}_{start:06d}_{end:06d}"
"""File name of a clip, as every published Kinetics has it."""
_SUFFIX = r"\.(?:mp4|mkv|webm|avi|mov|m4v|flv|wmv|mpe?g|3gp|ts|npy)"
_FILE = re.compile(rf'"?([^"]*?{_SUFFIX})"?(?:[\s,;|]+(.*))?', re.IGNORECASE)
_END = re.compile(_SUFFIX + "$", re.IGNORECASE)
_NUMBERS = re.compile(r"-?[0-9]+(?:[\s,;|]+-?[0-9]+)*")
_HEADERS = ("path", "video", "video_path", "file", "filename", "file_name", "name", "original_vido_id", "clip")
_YOUTUBE = r"(?:v_)?(?P<id>[A-Za-z0-9_-]{11})"
_MILLISECONDS = re.compile(_YOUTUBE + r"_(?P<start_ms>[0-9]{9})_(?P<end_ms>[0-9]{9})")
# A letter or digit after the 11 characters: a longer word, such as UCF's `v_ApplyEyeMakeup_g01_c01`, and no id.
_LEADING = re.compile(r"(?:(?P<id>[A-Za-z0-9_-]{11})|v_(?P<v>[A-Za-z0-9_-]{11}))(?![A-Za-z0-9]).*", re.DOTALL)
_FRAMES = ("frame", "frames", "image", "images", "img", "imgs", "jpg", "jpgs", "rgb", "flow")
"""What the folder of a video's frames is called when the folder above it bears the video's name."""
_SHOWN = 200
_MAX_LINE = 1 << 14


def looks_like_paths(lines: Sequence[str]) -> bool:
    """Whether nearly all ``lines`` name a video, or a folder of frames and numbers."""
    return sum(_parts(line) is not None for line in lines) * 10 >= len(lines) * 9 > 0


def is_path(text: str) -> bool:
    """Whether a cell names a video file, or is the stem of a clip."""
    return _END.search(text) is not None or _stem_pattern(CLIP_PATTERN, "youtube").fullmatch(stem(text)) is not None


def read_paths(body: Body, _options: ReadOptions) -> RawRows:
    """The paths and labels of a list, line by line; of several numbers the last is the label, ``-1`` is none.

    Raises:
        InputError: there are more lines than any list has.
    """
    if body.data.count(b"\n") > MAX_LINES:
        raise InputError(f"{body.where}: more than {MAX_LINES} lines", hint="is this a list of videos?")
    paths: list[str] = []
    labels: list[str | None] = []
    numbers: list[int] = []
    broken: list[BrokenRow] = []
    for number, line in enumerate(body.data.decode().split("\n"), 1):
        parts = _parts(line.removesuffix("\r"))
        if parts is not None:
            paths.append(parts[0])
            labels.append(parts[1])
            numbers.append(number)
        elif number > 1 or re.split(r"[\s,;|]", line.lower())[0].strip('"') not in _HEADERS:
            reason = "is not a path and a label" if line.strip() else "empty row"
            broken.append(BrokenRow(row=number, reason=reason, value=line.strip()[:_SHOWN]))
    columns = {"path": strings(paths)}
    if any(label is not None for label in labels):
        columns["label"] = strings(labels)
    return RawRows(dialect="paths", columns=columns, numbers=np.asarray(numbers, dtype=np.int64), broken=tuple(broken))


def located(raw: RawRows, id_kind: str | None, pattern: str = CLIP_PATTERN) -> RawRows:
    """``raw`` with the ids, times and class folders that its paths hold, where it has no columns of its own for them.

    A YouTube id is the first 11 characters of the file's name, after ``v_`` where ActivityNet wrote that; a name that
    has none is kept whole, for the check to refuse. Without an ``id_kind`` each path is looked at by itself: it may be
    an address of YouTube, or a folder of frames below one that bears the id, and a name without such an id is opaque.
    """
    if "path" not in raw.columns:
        return raw
    paths = _paths(raw)
    stems = [stem(p) for p in paths]
    if id_kind is None:
        places = [_place_of_any_kind(p, pattern) for p in paths]
    else:
        places = [_place(s, pattern, id_kind) for s in stems]
    columns: dict[str, pa.Array[Any]] = {
        "id": strings([place[0] or s for place, s in zip(places, stems, strict=True)]),
        "folder": strings([_folder(p) for p in paths]),
    }
    if any(place[1] for place in places):
        columns |= {"start": strings([p[1] for p in places]), "end": strings([p[2] for p in places])}
    return dataclasses.replace(raw, columns=columns | dict(raw.columns))


def stem(path: str) -> str:
    """Name of the file without folders and without the ending of a video."""
    return _END.sub("", re.split(r"[/\\]", path)[-1])


def _paths(raw: RawRows) -> list[str]:
    return [(p or "").strip() for p in raw.columns["path"].to_pylist()]


def _folder(path: str) -> str | None:
    parts = re.split(r"[/\\]", path)
    return parts[-2] if len(parts) > 1 else None


def _parts(line: str) -> tuple[str, str | None] | None:
    """Path and label of a line; None when it is none."""
    line = line.strip()
    if len(line) > _MAX_LINE:
        return None
    found = _FILE.fullmatch(line)
    if found is None:
        return _frames(line)
    rest = (found[2] or "").strip().strip('"')
    if _NUMBERS.fullmatch(rest):
        rest = re.split(r"[\s,;|]+", rest)[-1]
    return found[1].strip(), rest if rest not in ("", "-1") else None


def _frames(line: str) -> tuple[str, str | None] | None:
    """A folder of frames and the last of the numbers after it."""
    words = re.split(r"[\s,;|]+", line)
    first = next((i for i in range(len(words), 0, -1) if not _NUMBERS.fullmatch(words[i - 1])), 0)
    path = " ".join(words[:first]).strip('"')
    if first == len(words) or not re.search(r"[/\\]", path):
        return None
    return path, words[-1] if words[-1] != "-1" else None


def _place_of_any_kind(path: str, pattern: str) -> tuple[str | None, str | None, str | None]:
    """As ``_place``, of YouTube's kind where the path has such an id, else opaque."""
    if (video := id_in_address(path)) is not None:
        return video, None, None
    parts = re.split(r"[/\\]", path.rstrip("/\\"))
    name = stem(parts[-2] if parts[-1].lower() in _FRAMES and len(parts) > 1 else parts[-1])
    found = _place(name, pattern, "youtube")
    return found if found[0] is not None else _place(name, pattern, "opaque")


def _place(name: str, pattern: str, id_kind: str) -> tuple[str | None, str | None, str | None]:
    """Id, start and end in a stem, as text; None for what it does not hold."""
    found = _stem_pattern(pattern, id_kind).fullmatch(name)
    if found is not None:
        return found["id"], found["start"], found["end"]
    if id_kind != "youtube":
        return name or None, None, None
    if (found := _MILLISECONDS.fullmatch(name)) is not None:
        return found["id"], str(int(found["start_ms"]) / 1000), str(int(found["end_ms"]) / 1000)
    if (found := _LEADING.fullmatch(name)) is not None:
        return found["id"] or found["v"], None, None
    return None, None, None


@functools.cache
def _stem_pattern(pattern: str, id_kind: str) -> re.Pattern[str]:
    """The expression for a release's file names; the times may be missing."""
    prefix, _, suffix = pattern.partition("{id}")
    digits = re.sub(r"\\\{(start|end):0(\d+)d\\\}", lambda m: f"(?P<{m[1]}>[0-9]{{{m[2]}}})", re.escape(suffix))
    video = _YOUTUBE if id_kind == "youtube" else "(?P<id>.+?)"
    return re.compile(f"{re.escape(prefix)}{video}(?:{digits})?", re.DOTALL)
