"""The only module that runs yt-dlp: what a video is offered in, and the bytes of it, in one family of errors.

yt-dlp can bring a range of a video by itself, by starting ffmpeg with its address. That is not used here: such a file
does not tell to the frame where in the video it begins, ffmpeg knows neither the source address nor SOCKS proxies, and
its command line, which every user of the machine can read, has the cookies and the signed address in it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yt_dlp
from yt_dlp.cookies import CookieLoadError
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, RequestError, network_exceptions
from yt_dlp.utils import YoutubeDLError

from k710.clips.outcomes import TOO_LARGE, Unusable
from k710.clips.sources.youtube.access import Access
from k710.clips.sources.youtube.breaker import Answer
from k710.clips.sources.youtube.formats import Format
from k710.clips.sources.youtube.refusals import Refusal, refusal, trouble
from k710.clips.sources.youtube.remote_file import Piece
from k710.clips.sources.youtube.settings import YouTubeSettings
from k710.errors import UsageError

Result = TypeVar("Result")

_SOCKET_TIMEOUT_S = 30.0
_TRIES = 3
_FIRST_WAIT_S = 1.0
_COOKIES = "close the browser, or export its cookies to a file for --cookies"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_THERE = re.compile(r"HTTP Error (404|410)\b")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class NoVideoError(Exception):
    """There is no video, for the reason given."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.outcome.detail)
        self.refusal = reason


class NoRangesError(Exception):
    """The server gives whole files only."""


class Session:
    """yt-dlp with the settings of a build, for one video after the other."""

    def __init__(self, settings: YouTubeSettings, access: Access) -> None:
        """Set it up; nothing is asked for.

        Raises:
            UsageError: the cookies cannot be read.
        """
        self._settings = settings
        self._hidden = access.words()
        self._ydl = yt_dlp.YoutubeDL(_parameters(settings, access))
        try:
            _ = self._ydl.cookiejar
        except CookieLoadError as error:
            raise UsageError("the cookies for YouTube cannot be loaded", hint=_COOKIES) from error

    def formats(self, video_id: str) -> list[Format]:
        """What a video is offered in.

        Raises:
            NoVideoError: it is not offered.
        """
        url = self._settings.url(video_id)
        try:
            info: Any = self._named(lambda: self._ydl.extract_info(url, download=False))
        except NoVideoError as error:
            # The site itself has a page for every id.
            if self._settings.asks_youtube or not _NOT_THERE.search(str(error)):
                raise
            raise NoVideoError(refusal(f"Video unavailable: {error}", self._hidden)) from error
        if not isinstance(info, dict) or not info.get("formats"):
            raise NoVideoError(trouble("nothing was found there"))
        if info.get("is_live"):
            raise NoVideoError(refusal("the video is currently live"))
        if self._settings.asks_youtube and info.get("id") != video_id:
            raise NoVideoError(trouble("another video came than the one asked for"))
        return list(info["formats"])

    def piece(self, one: Format, first: int, last: int) -> Piece:
        """Bytes of a format's file.

        Raises:
            NoVideoError: they cannot be had.
            NoRangesError: the server knows no ranges.
        """
        headers = {**(one.get("http_headers") or {}), "Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        wait_s = _FIRST_WAIT_S
        for left in range(_TRIES - 1, -1, -1):
            try:
                return self._asked(str(one["url"]), headers, first, last)
            except RequestError as error:
                passes = not isinstance(error, HTTPError) or error.status in (500, 502, 503, 504)
                if not left or not passes:
                    raise NoVideoError(self._read(error)) from error
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    def save(self, one: Format, target: Path) -> None:
        """Bring a format whole, by yt-dlp's own means.

        Raises:
            NoVideoError: it cannot be had.
            OSError: there is no room.
        """
        too_large = False

        def watch(status: Mapping[str, Any]) -> None:
            nonlocal too_large
            sizes = (status.get(name) or 0 for name in ("downloaded_bytes", "total_bytes"))
            if max(sizes) > self._settings.max_bytes:
                too_large = True
                raise yt_dlp.utils.DownloadCancelled

        # The description of the format alone: its address, headers, fragments.
        self._ydl._progress_hooks[:] = [watch]
        try:
            done = self._named(lambda: self._ydl.dl(str(target), dict(one)))
        except yt_dlp.utils.DownloadCancelled:
            raise NoVideoError(too_many_bytes(self._settings.max_bytes)) from None
        if not done or not target.exists():
            raise NoVideoError(trouble("the download came to nothing"))

    def close(self) -> None:
        """Let the connections go."""
        self._ydl.close()

    def _asked(self, url: str, headers: Mapping[str, str], first: int, last: int) -> Piece:
        reply = self._ydl.urlopen(Request(url, headers=dict(headers)))
        try:
            found = _RANGE.fullmatch(reply.headers.get("Content-Range") or "")
            if reply.status != 206 or found is None or int(found[1]) != first:
                raise NoRangesError
            end = min(last, int(found[3]) - 1)
            data = reply.read(end - first + 1)
            while len(data) < end - first + 1:
                more = reply.read(end - first + 1 - len(data))
                if not more:
                    raise RequestError("the connection ended early")
                data += more
            return Piece(data=data, total_bytes=int(found[3]))
        finally:
            reply.close()

    def _named(self, ask: Callable[[], Result]) -> Result:
        try:
            return ask()
        except yt_dlp.utils.DownloadCancelled:
            raise
        except YoutubeDLError as error:
            _raise_if_no_room(error)
            raise NoVideoError(self._read(error)) from error
        except (MemoryError, OSError) as error:
            # Those of the network are of this family too.
            if not isinstance(error, network_exceptions):
                raise
            raise NoVideoError(self._read(error)) from error
        except Exception as error:
            # Whatever a page that yt-dlp did not expect makes its parsers raise; one video must not end a build.
            raise NoVideoError(trouble(f"yt-dlp failed ({type(error).__name__})")) from error

    def _read(self, error: BaseException) -> Refusal:
        message = f"HTTP Error {error.status}: {error.reason}" if isinstance(error, HTTPError) else str(error)
        return refusal(message, self._hidden)


def too_many_bytes(limit: int) -> Refusal:
    """That a video is larger than it may be."""
    return Refusal(outcome=Unusable(status=TOO_LARGE, detail=f"more than {limit:,} bytes"), answer=Answer.GIVEN)


def _raise_if_no_room(error: YoutubeDLError) -> None:
    for code in _NO_ROOM:
        if os.strerror(code) in str(error):
            raise OSError(code, os.strerror(code)) from error


class _Silent:
    """Takes yt-dlp's messages: what counts is raised, and others hold addresses."""

    def debug(self, message: str) -> None:
        """Nothing."""

    info = warning = error = debug


def _parameters(settings: YouTubeSettings, access: Access) -> dict[str, Any]:
    cookies = access.read_cookies()
    name, _, path = settings.js_runtime.partition(":")
    parameters: dict[str, Any] = {
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Silent(),
        "color": "no_color",
        # Formats are chosen by us, from all there are.
        "format": lambda context: context["formats"][-1:],
        "noplaylist": True,
        "cachedir": False,
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "retries": _TRIES,
        "fragment_retries": _TRIES,
        "extractor_retries": 1,
        "skip_unavailable_fragments": False,
        "continuedl": False,
        "nopart": True,
        "updatetime": False,
        "fixup": "never",
        # No pretence of asking from another country.
        "geo_bypass": False,
        "allowed_extractors": ["youtube" if settings.asks_youtube else "generic"],
        "proxy": access.proxy or None,
        "source_address": access.source_address or None,
        # As text: what it is given by name it writes back, from every worker.
        "cookiefile": None if cookies is None else io.StringIO(cookies),
        "cookiesfrombrowser": _browser(access.cookies_from_browser),
        "extractor_args": _extractor_args(access.extractor_args),
    }
    if name:
        parameters["js_runtimes"] = {name: {"path": path} if path else {}}
    return parameters


def _browser(text: str) -> tuple[str | None, ...] | None:
    """yt-dlp's way of naming a browser's cookies: browser, profile, keyring, container."""
    if not text:
        return None
    rest, _, container = text.partition("::")
    rest, _, profile = rest.partition(":")
    name, _, keyring = rest.partition("+")
    return name.lower(), profile or None, keyring.upper() or None, container or None


def _extractor_args(texts: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """``youtube:a=1,2;b=3`` as yt-dlp takes it from Python."""
    found: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        extractor, _, rest = text.partition(":")
        for pair in rest.split(";"):
            name, _, values = pair.partition("=")
            key = name.strip().lower().replace("-", "_")
            found.setdefault(extractor.lower(), {})[key] = [value.strip() for value in values.split(",")]
    return found
