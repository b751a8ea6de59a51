"""What can become of a clip: the statuses, and the record of one outcome."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
"""The clip is there."""
MISSING = "missing"
"""No file is named after it."""
AMBIGUOUS = "ambiguous"
"""A file is neither the clip nor the whole video, or two segments could claim it."""
CORRUPT = "corrupt"
"""A video file that cannot be opened, decoded or put into an mp4."""
TRUNCATED = "truncated"
"""A video file that breaks off before its declared end."""
NOT_A_VIDEO = "not_a_video"
"""An empty file, a web page, text."""
NO_VIDEO_STREAM = "no_video_stream"
"""A media file without a picture, such as sound alone."""
TOO_SHORT = "too_short"
"""Nothing is left of the segment: the whole video ends before it starts."""
TOO_LARGE = "too_large"
"""More bytes or pixels than any video of the data sets has."""
TIMEOUT = "timeout"
"""ffmpeg did not come to an end in the time that a clip of this length may take."""
NEEDS_CUT = "needs_cut"
"""A whole video, where ``copy`` or ``none`` takes trimmed files only."""
PENDING = "pending"
"""A source elsewhere did not answer, or asks to wait: the next run tries it again."""
FORBIDDEN = "forbidden"
"""A server has refused to give the file: a login or a right is missing, or it does not take the address."""
PRIVATE = "private"
"""The uploader has made the video private."""
REMOVED = "removed"
"""The uploader or the site has removed the video."""
TERMINATED = "terminated"
"""The uploader's account was closed."""
GEO_BLOCKED = "geo_blocked"
"""The site does not show the video in this country."""
AGE_RESTRICTED = "age_restricted"
"""The site shows the video to grown-ups who sign in."""
COPYRIGHT = "copyright"
"""The video was taken down or blocked for a claim of its owner."""

STATUSES = (
    OK,
    MISSING,
    AMBIGUOUS,
    CORRUPT,
    TRUNCATED,
    NOT_A_VIDEO,
    NO_VIDEO_STREAM,
    TOO_SHORT,
    TOO_LARGE,
    TIMEOUT,
    NEEDS_CUT,
    PENDING,
    FORBIDDEN,
    PRIVATE,
    REMOVED,
    TERMINATED,
    GEO_BLOCKED,
    AGE_RESTRICTED,
    COPYRIGHT,
)
"""Every status, in the order in which reports list them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """Why a file, or what came of it, is no clip: an outcome, not an exception."""

    status: str
    """One of ``STATUSES``, not ``ok``."""
    detail: str = ""
    """What the decoder or ffmpeg said, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOutcome:
    """What became of a clip."""

    key: str
    """The clip."""
    status: str
    """One of ``STATUSES``."""
    detail: str = ""
    """One line for people: the reason."""
    source: str = ""
    """Name of the file it is from; empty when there was none."""
    kind: str = "local"
    """The kind of source that the file is from: a name of ``SOURCES``."""
    frames: int = 0
    """Frames in the clip."""
    fps: float = 0.0
    """Its constant frame rate."""
    width_px: int = 0
    """Its width."""
    height_px: int = 0
    """Its height."""
    codec: str = ""
    """Its codec."""
    size_bytes: int = 0
    """Size of the clip's file."""
    sha256: str = ""
    """Of the clip's file; empty when it is indexed in place."""
    path: str = ""
    """The file itself, when it is indexed in place."""
    notes: tuple[str, ...] = ()
    """What was unusual about the source, and what was done about it."""
    tried: str = ""
    """Digest of the candidates' names, sizes and times: a failed clip is tried again when it changes."""
    attempts: int = 1
    """How often the clip was tried; an interrupted attempt does not count."""
