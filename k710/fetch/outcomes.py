"""What came of a file that was to be fetched: one word for each way it can go, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from k710.errors import SourceError

FETCHED = "fetched"
REPLACED = "replaced"
UNCHANGED = "unchanged"
FOUND = "found"
NOT_COMPARED = "not_compared"
GOOD = {
    FETCHED: "downloaded now",
    REPLACED: "downloaded now in place of another version, as --accept-changed allows",
    UNCHANGED: "here since an earlier run, and the server has the same",
    FOUND: "was here, put there by somebody else, and has the size that the server states",
    NOT_COMPARED: "here since an earlier run; the server could not be asked whether it has the same",
}
"""Statuses of files that are there, with their meaning."""

NOT_FOUND = "not_found"
FORBIDDEN = "forbidden"
RATE_LIMITED = "rate_limited"
REFUSED = "refused"
SERVER_ERROR = "server_error"
UNREACHABLE = "unreachable"
BAD_REDIRECT = "bad_redirect"
TOO_SLOW = "too_slow"
TRUNCATED = "truncated"
NO_LENGTH = "no_length"
NOT_DATA = "not_data"
WRONG_CHECKSUM = "wrong_checksum"
CHANGED = "changed"
IN_THE_WAY = "in_the_way"
DAMAGED = "damaged"
NO_ROOM = "no_room"
BAD = {
    NOT_FOUND: "look whether it has moved; --base-url names a mirror",
    FORBIDDEN: "the server does not give it to you; --base-url names a mirror",
    RATE_LIMITED: "run the same command again later, with a smaller --parallel",
    REFUSED: "--base-url names a mirror",
    SERVER_ERROR: "run the same command again later",
    UNREACHABLE: "check the network and the proxy settings, and run the same command again",
    BAD_REDIRECT: "--base-url names a mirror",
    TOO_SLOW: "run the same command again, which goes on from here",
    TRUNCATED: "run the same command again, which goes on from here",
    NO_LENGTH: "it could be half of it and nobody would know; --base-url names a mirror",
    NOT_DATA: "is there a login page or a filter between you and the server?",
    WRONG_CHECKSUM: "run the same command again; if it stays, the publisher's file is another one",
    CHANGED: "what was first fetched is kept; --accept-changed takes the new one",
    IN_THE_WAY: "move it away, or give another folder",
    DAMAGED: "run the same command again; if it stays, the publisher's file is damaged",
    NO_ROOM: "make room, or fetch less at a time (--split, --max-archives)",
}
"""Statuses of files that are not there, or not as they should be, with what to do."""


class FetchError(SourceError):
    """A request that came to nothing."""

    def __init__(self, status: str, reason: str, *, again: bool = False, wait_s: float | None = None) -> None:
        """Status of ``BAD`` and why; whether the next try may go better, and how long the server asks to wait."""
        super().__init__(reason, hint=BAD[status])
        self.status = status
        self.again = again
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one file."""

    name: str
    """Path below the folder that is fetched into."""
    url: str
    """Where it is from, without user, password and query."""
    status: str
    """One of ``GOOD`` or ``BAD``."""
    reason: str = ""
    """What happened, where the status alone does not say it."""
    size_bytes: int = 0
    """Of the file that is there."""
    sha256: str = ""
    """Of the file that is there."""

    @property
    def is_good(self) -> bool:
        """Whether the file is there."""
        return self.status in GOOD

    @property
    def line(self) -> str:
        """In a line, for people."""
        advice = "" if self.is_good else f"; {BAD[self.status]}"
        return f"{self.name}: {self.status}{f' ({self.reason})' if self.reason else ''}{advice}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A file to fetch."""

    url: str
    """Where it is."""
    path: Path
    """Where it goes."""
    is_archive: bool = False
    """Whether it is a tar archive, gzipped or not; else text."""
    is_checked_inside: bool = True
    """Whether an archive without a known checksum is read to its end before it counts as whole."""
    sha256: str = ""
    """Its checksum, where it is known."""
    is_temporary: bool = False
    """Whether it is fetched to be unpacked and removed."""
