"""Ids of videos as people write them: YouTube's alone, after ActivityNet's ``v_`` or in an address, and all others."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k710.segments import YOUTUBE_ID
from k710.tables import compute

_PREFIXED = re.compile(rf"(?:v_)?(?P<id>{YOUTUBE_ID.pattern})")
_ADDRESS = re.compile(
    r"(?:https?://)?(?:[a-z]+\.)?(?:youtu\.be/|youtube(?:-nocookie)?\.com/"
    r"(?:(?:embed|shorts|live|v|e)/|watch/?\?(?:[^#\s]*&)?v=))"
    rf"(?P<id>{YOUTUBE_ID.pattern})(?![A-Za-z0-9_-]).*",
    re.IGNORECASE | re.DOTALL,
)
_MAX_ADDRESS = 2000


def bare_id(text: str) -> str:
    """The YouTube id that a cell is or holds; another cell's text without the blanks around it."""
    text = text.strip()
    found = _PREFIXED.fullmatch(text)
    return found["id"] if found is not None else id_in_address(text) or text


def id_in_address(text: str) -> str | None:
    """The id in an address of YouTube (``watch?v=``, ``youtu.be/``, ``embed/``, ``shorts/``); None: it is none."""
    found = _ADDRESS.fullmatch(text) if len(text) <= _MAX_ADDRESS else None
    return found["id"] if found is not None else None


def holds_youtube_id(text: str) -> bool:
    """Whether ``bare_id`` of a cell has the form of YouTube's ids."""
    return YOUTUBE_ID.fullmatch(bare_id(text)) is not None


def youtube_mask(ids: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    """Per id: whether it has the form of YouTube's; the others are opaque."""
    found = compute.match_substring_regex(ids, f"^(?:{YOUTUBE_ID.pattern})$")
    return np.asarray(compute.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)
