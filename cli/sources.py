"""Flags of the sources that are elsewhere: archives, and YouTube."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from k710.clips.sources.chosen import ArchiveSettings, SourceSettings
    from k710.clips.sources.youtube import Access

Videos = Annotated[
    list[str] | None,
    typer.Option(
        "--videos",
        metavar="SOURCE",
        help="Folder of video files or s3://BUCKET/FOLDER, cvdf: or cvdf:DIR (archives), url:TEMPLATE or url:FILE.csv, "
        "youtube: (the last); repeatable, in order of preference.",
    ),
]
Archives = Annotated[
    Path | None,
    typer.Option("--archives", help="With cvdf: folder for archives on their way (default: in the build)."),
]
KeepArchives = Annotated[
    bool, typer.Option("--keep-archives", help="With cvdf: keep archives that this build has downloaded.")
]
ArchivesInFlight = Annotated[
    int, typer.Option("--archives-in-flight", min=1, max=64, help="With cvdf: archives on the disk at a time.")
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="With cvdf: a mirror to download archives from.")
]
AcceptChanged = Annotated[
    bool,
    typer.Option("--accept-changed", help="With cvdf: take archives that are others than those first downloaded."),
]
YouTubeRate = Annotated[
    float,
    typer.Option("--youtube-rate", metavar="NUMBER", help="Videos an hour from YouTube, over all workers here."),
]
Cookies = Annotated[
    Path | None,
    typer.Option("--cookies", help="Cookies for YouTube, a file as browsers export it (Netscape); never stored."),
]
CookiesFromBrowser = Annotated[
    str,
    typer.Option(
        "--cookies-from-browser",
        metavar="NAME",
        help="Browser to take cookies for YouTube from, as yt-dlp names it; never stored.",
    ),
]
Proxy = Annotated[str, typer.Option("--proxy", metavar="URL", help="Proxy for YouTube; never stored.")]
SourceAddress = Annotated[
    str,
    typer.Option("--source-address", metavar="IP", help="Address of this machine to reach YouTube from; never stored."),
]


def settings(archives: ArchiveSettings, youtube_rate_per_h: float) -> SourceSettings:
    """How sources elsewhere are used, by the flags."""
    from k710.clips.sources.chosen import SourceSettings

    return SourceSettings(archives=archives, youtube_rate_per_h=youtube_rate_per_h)


def archives(
    folder: Path | None, in_flight: int, base_url: str | None, *, keep: bool, changed: bool
) -> ArchiveSettings:
    """How archives are used, by the flags."""
    from k710.clips.sources.chosen import ArchiveSettings

    return ArchiveSettings(folder=folder, keep=keep, in_flight=in_flight, base_url=base_url, accept_changed=changed)


def access(cookies: Path | None, cookies_from_browser: str, proxy: str, source_address: str) -> Access:
    """What YouTube is to be shown, by the flags."""
    from k710.clips.sources.youtube import Access

    return Access(
        cookies=cookies, cookies_from_browser=cookies_from_browser, proxy=proxy, source_address=source_address
    )
