"""How the site is asked: what may be stored with a build. What may not is in ``access``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from k710.errors import UsageError

VIDEO_URL = "https://www.youtube.com/watch?v={id}"
"""Where a video is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YouTubeSettings:
    """How the site is asked for videos; nothing here is private."""

    rate_per_h: float = 300.0
    """Videos asked for in an hour, by all processes of this user on this machine."""
    burst: int = 5
    """Videos that may be asked for at once after a rest."""
    pad_s: float = 3.0
    """Seconds brought before and after the segment."""
    short_side_px: int = 256
    """Short side that a format should have; the smallest that has it is taken, else the largest there is."""
    sound: bool = False
    """Whether the sound is brought too."""
    max_bytes: int = 4 << 30
    """Bytes with which a download is given up."""
    timeout_s: float = 900.0
    """Time for one video, without the wait for its turn."""
    rest_s: float = 3600.0
    """How long nothing is asked for when the site has refused to be asked; each refusal after that doubles it."""
    state: Path | None = None
    """Folder, on a disk of this machine, by which its processes agree; None: one of this user's in the folder for
    temporary files."""
    url_template: str = VIDEO_URL
    """Address of a video, with ``{id}`` in it; another one is for mirrors and tests."""
    js_runtime: str = ""
    """``NAME`` or ``NAME:PATH`` of the JavaScript runtime that yt-dlp is to use; empty: a deno on the PATH."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_per_h) and self.rate_per_h > 0):
            raise UsageError(f"the rate for YouTube must be above 0 videos an hour, got {self.rate_per_h:g}")
        for name in ("burst", "short_side_px", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("timeout_s", "rest_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be above 0 seconds, got {getattr(self, name)}")
        if not 0 <= self.pad_s <= 600:
            raise ValueError(f"pad_s must be between 0 and 600, got {self.pad_s}")
        if "{id}" not in self.url_template:
            raise UsageError(f"{self.url_template}: an address of videos needs {{id}} in it")

    @property
    def asks_youtube(self) -> bool:
        """Whether videos come from the site itself."""
        return self.url_template == VIDEO_URL

    def url(self, video_id: str) -> str:
        """Address of a video."""
        return self.url_template.replace("{id}", video_id)
