"""What is private about how the site is asked, and how workers come to know it: never by a file or a pickle.

The process that builds keeps it in a file of the system that has no name and no disk, only memory. An origin tells its
place, ``/proc/{process}/fd/{number}``, which programs of the same user on the same machine can open while that process
lives, and a token by which they see that it is the one meant. On other machines, and where there are no such files, it
is taken from environment variables.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from k710.errors import UsageError

VARIABLES = {
    "cookies": "K710_YOUTUBE_COOKIES",
    "cookies_from_browser": "K710_YOUTUBE_COOKIES_FROM_BROWSER",
    "proxy": "K710_YOUTUBE_PROXY",
    "source_address": "K710_YOUTUBE_SOURCE_ADDRESS",
    "extractor_args": "K710_YOUTUBE_EXTRACTOR_ARGS",
}
"""Environment variables that give what is not given otherwise; several extractor arguments stand one a line."""

_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_OWN: dict[str, Access] = {}
"""What this process has put away, by token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What is private: not shown, and it cannot be pickled."""

    cookies: Path | None = field(default=None, repr=False)
    """File of cookies as browsers export it; it is only read."""
    cookies_from_browser: str = field(default="", repr=False)
    """Browser of this user, as yt-dlp's option names it: ``NAME[+KEYRING][:PROFILE][::CONTAINER]``."""
    proxy: str = field(default="", repr=False)
    """URL of a proxy, also with user and password."""
    source_address: str = field(default="", repr=False)
    """Address of this machine that is asked from."""
    extractor_args: tuple[str, ...] = field(default=(), repr=False)
    """As yt-dlp's option takes them, ``youtube:player_client=...``; some hold tokens."""

    def __post_init__(self) -> None:
        # Without the value: it may be a password that was given to the wrong flag.
        if self.proxy and (urlsplit(self.proxy).scheme not in _PROXIES or not urlsplit(self.proxy).hostname):
            raise UsageError("the proxy for YouTube is no URL", hint=f"SCHEME://HOST:PORT, of {', '.join(_PROXIES)}")
        if self.source_address:
            try:
                ipaddress.ip_address(self.source_address)
            except ValueError:
                raise UsageError("the source address for YouTube is no IP address") from None
        if any(":" not in text or "=" not in text for text in self.extractor_args):
            raise UsageError("an extractor argument is not EXTRACTOR:NAME=VALUE")

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is private about the access to YouTube is not pickled")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of what is given, which are not private."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name))

    def with_environment(self) -> Access:
        """What is not given is taken from the environment."""
        missing: dict[str, Any] = {
            name: _parsed(name, os.environ[variable])
            for name, variable in VARIABLES.items()
            if name not in self.given and os.environ.get(variable)
        }
        return replace(self, **missing)

    def read_cookies(self) -> str | None:
        """The text of the cookies' file.

        Raises:
            UsageError: it cannot be read, or holds no cookies.
        """
        if self.cookies is None:
            return None
        try:
            text = self.cookies.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                "the cookies for YouTube cannot be read: "
                + (error.strerror or "" if isinstance(error, OSError) else "not a text"),
                hint="--cookies takes a file in Netscape's format, as browser extensions export it",
            ) from None
        if not any(line.count("\t") == 6 for line in text.splitlines()):
            raise UsageError(
                "the file of cookies for YouTube holds none",
                hint="--cookies takes a file in Netscape's format, as browser extensions export it",
            )
        return text

    def words(self) -> tuple[str, ...]:
        """Whatever no message may hold, longest first."""
        parts = urlsplit(self.proxy)
        host = f"{parts.hostname}:{parts.port}" if parts.hostname and parts.port else parts.hostname
        found = (self.cookies and str(self.cookies), self.proxy, parts.username, parts.password, host)
        return tuple(sorted({w for w in (*found, self.source_address, *self.extractor_args) if w}, key=len)[::-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Where a worker finds what is private; it says nothing about it but the names."""

    place: str
    """Path of the nameless file; empty where the system has none."""
    token: str
    """What its contents begin with."""
    given: tuple[str, ...]
    """Which fields are given."""

    def access(self) -> Access | None:
        """What is private; None when this process cannot know it."""
        if not self.given:
            return Access()
        if self.token in _OWN:
            return _OWN[self.token]
        told = self._told()
        access = Access().with_environment() if told is None else _access(told)
        return access if set(self.given) <= set(access.given) else None

    def _told(self) -> dict[str, Any] | None:
        # Another process may have that number by now, or the file be another machine's.
        try:
            document = json.loads(Path(self.place).read_bytes()) if self.place else None
        except (OSError, ValueError):
            return None
        if isinstance(document, dict) and document.get("token") == self.token and isinstance(document["access"], dict):
            return document["access"]
        return None


class PutAway:
    """Keeps what is private until it is told to forget it, or the process ends: jobs may outlive what made them."""

    def __init__(self, access: Access) -> None:
        token = secrets.token_hex(16)
        descriptor = _memory_file(access, token) if access.given else None
        place = "" if descriptor is None else f"/proc/{os.getpid()}/fd/{descriptor}"
        self.key = Key(place=place, token=token, given=access.given)
        """Tells workers where it is."""
        self._descriptor = descriptor
        _OWN[token] = access

    def close(self) -> None:
        """Forget it."""
        if _OWN.pop(self.key.token, None) is not None and self._descriptor is not None:
            os.close(self._descriptor)


def _memory_file(access: Access, token: str) -> int | None:
    # Absent outside Linux.
    create = getattr(os, "memfd_create", None)
    if create is None:
        return None
    told: Mapping[str, Any] = {one.name: getattr(access, one.name) for one in fields(access)}
    descriptor: int = create("k710")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, json.dumps({"token": token, "access": told}, default=os.fspath).encode())
    return descriptor


def _access(told: Mapping[str, Any]) -> Access:
    cookies = told["cookies"] and Path(told["cookies"])
    return Access(**{**told, "cookies": cookies, "extractor_args": tuple(told["extractor_args"])})


def _parsed(name: str, text: str) -> object:
    if name == "cookies":
        return Path(text)
    return tuple(text.splitlines()) if name == "extractor_args" else text
