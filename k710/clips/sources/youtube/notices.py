"""What people are told when videos are to come from YouTube."""

from __future__ import annotations

import datetime
import importlib.metadata

MAX_AGE_DAYS = 90
"""Age from which yt-dlp is called old: the site changes, and it follows."""


def terms_notice() -> str:
    """What the user takes on, shown when a build starts that asks YouTube."""
    return (
        "youtube: videos are asked for from YouTube, whose terms of service apply to you.\n"
        "Whether you may download and keep them, in your country and for your purpose, is for you to find out.\n"
        "Nothing is asked for that another source has; what YouTube refuses is not asked for again in this build."
    )


def version_note(today: datetime.date | None = None) -> str:
    """That yt-dlp is old, and what to do; empty when it is not, or is not there."""
    try:
        version = importlib.metadata.version("yt-dlp")
        year, month, day = map(int, version.split(".")[:3])
        released = datetime.date(year, month, day)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    age_days = ((today or datetime.datetime.now(datetime.UTC).date()) - released).days
    if age_days <= MAX_AGE_DAYS:
        return ""
    return f"youtube: yt-dlp {version} is {age_days} days old; `pip install -U yt-dlp` if videos are refused"
