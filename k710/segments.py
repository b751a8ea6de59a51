"""What a clip is: one segment of one video, and the names it goes by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

ID_KINDS = {"youtube": b"yt:", "opaque": b"id:"}
"""Prefix under which ids of each kind are hashed, so that equal strings of two kinds stay apart."""

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_MAX_OPAQUE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One time range of one video."""

    id: str
    """YouTube id (11 characters, case matters) or another data set's opaque id; always a string."""
    start_s: float
    """Start in the video, seconds."""
    end_s: float
    """End in the video, seconds; after the start."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s

    @property
    def key(self) -> str:
        """Name of the clip's files: ``{id}_{start:06d}_{end:06d}``; 9 digits of milliseconds if not whole seconds."""
        return clip_key(self.id, self.start_s, self.end_s)


def clip_key(video_id: str, start_s: float, end_s: float) -> str:
    """Key of the clip that is ``start_s`` to ``end_s`` of the video ``video_id``."""
    name = safe_id(video_id)
    if float(start_s).is_integer() and float(end_s).is_integer():
        return f"{name}_{int(start_s):06d}_{int(end_s):06d}"
    return f"{name}_{round(start_s * 1000):09d}_{round(end_s * 1000):09d}"


def is_youtube_id(text: str) -> bool:
    """Whether ``text`` has the form of a YouTube id."""
    return YOUTUBE_ID.fullmatch(text) is not None


def safe_id(video_id: str) -> str:
    """``video_id`` in ``[A-Za-z0-9_-]``, at most 64 characters; longer ones end in 8 hex digits of their hash."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", video_id)
    if len(name) <= _MAX_OPAQUE:
        return name
    return name[: _MAX_OPAQUE - 9] + "-" + hashlib.sha256(video_id.encode()).hexdigest()[:8]


def id_hash(video_id: str, kind: str = "youtube") -> int:
    """Unsigned 64-bit hash under which id sets are compared, stored in checkpoints and published."""
    return int.from_bytes(id_digests([video_id], kind), "big")


def id_digests(video_ids: Iterable[str], kind: str = "youtube") -> bytes:
    """The ``id_hash`` of many videos, 8 bytes each, big-endian, one after the other."""
    prefix = ID_KINDS[kind]
    return b"".join([hashlib.blake2b(prefix + i.encode(), digest_size=8).digest() for i in video_ids])


def trie_digests(video_ids: Iterable[str]) -> bytes:
    """The paths of videos in the trie of shards: the first 8 bytes of sha256 of each id, one after the other."""
    return b"".join([hashlib.sha256(i.encode()).digest()[:8] for i in video_ids])
