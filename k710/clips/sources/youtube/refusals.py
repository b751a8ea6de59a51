"""What yt-dlp's messages mean: why a video cannot be had, and what that says about the site.

Most of the texts are the site's own, which yt-dlp hands on; they are known in English, which it asks for. A message
that nobody knows is passing trouble: to take a video for gone that is not would lose it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from k710.clips.outcomes import (
    AGE_RESTRICTED,
    COPYRIGHT,
    GEO_BLOCKED,
    PENDING,
    PRIVATE,
    REMOVED,
    TERMINATED,
    Unusable,
)
from k710.clips.sources.youtube.breaker import Answer

MAX_DETAIL = 200
"""Characters of a message that are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why there is no video."""

    outcome: Unusable
    """What becomes of the clip, if it is up to this source."""
    answer: Answer
    """What it says about the site."""


_Rule = tuple[str, str, Answer]

# The first that is found in the message, in lower case and with straight quotes, decides.
_RULES: tuple[_Rule, ...] = (
    # Refusals to be asked. They come first: some begin like those of a video that is gone.
    (r"not a bot", PENDING, Answer.WALL),
    (r"try again later|rate-limited|too many requests|http error 429|captcha|unusual traffic", PENDING, Answer.WALL),
    # What is up to this network or to yt-dlp, and not to the video.
    (
        r"administrator|restricted mode|not available on this (app|device)|latest version of youtube",
        PENDING,
        Answer.TROUBLE,
    ),
    # Videos that are not there yet.
    (
        r"premieres? (in|on|will)|live event will begin|live event has ended|processing this video|is offline|"
        r"currently live",
        PENDING,
        Answer.GIVEN,
    ),
    # Those that are not to be seen, the most definite reasons first.
    (
        r"account (associated with this video )?(has been|was) (terminated|suspended|closed)|closed (their|his|her) "
        r"youtube account|account has been terminated|account no longer exists",
        TERMINATED,
        Answer.GIVEN,
    ),
    (r"copyright|contains content from", COPYRIGHT, Answer.GIVEN),
    (
        r"confirm your age|age-restricted|age restricted|inappropriate for some users|age verification",
        AGE_RESTRICTED,
        Answer.GIVEN,
    ),
    (r"in your country|in your region|from your location|geo.?restrict", GEO_BLOCKED, Answer.GIVEN),
    (
        r"private video|video is private|granted access|members.only|join this channel|channel's members|"
        r"requires payment|must be purchased|rental",
        PRIVATE,
        Answer.GIVEN,
    ),
    (
        r"removed|has been deleted|no longer available|isn't available anymore|recording is not available|"
        r"does(n't| not) exist",
        REMOVED,
        Answer.GIVEN,
    ),
    (r"video unavailable|video is unavailable|video (is not|isn't) available", REMOVED, Answer.GIVEN),
)
_COMPILED = tuple((re.compile(rf"\b(?:{pattern})"), status, answer) for pattern, status, answer in _RULES)

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = re.compile(r"^(?:error:\s*)?(?:\[[\w:.+-]+\]\s*)?(?:[\w-]{11}:\s*)?", re.IGNORECASE)
# What yt-dlp adds for its own users, and reprs of exceptions, which hold addresses of objects.
_ADDED = re.compile(
    r"[;.]? *(?:please report this issue|use --cookies|you might want to use a vpn|\(caused by|"
    r"confirm you are on|see +https?:|this video is available in )",
    re.IGNORECASE,
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


def refusal(message: str, hidden: Sequence[str] = ()) -> Refusal:
    """What a message of yt-dlp means.

    Args:
        message: as it is raised.
        hidden: words that must not be told on.
    """
    plain = message.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()
    for pattern, status, answer in _COMPILED:
        if pattern.search(plain):
            return Refusal(outcome=Unusable(status=status, detail=told(message, hidden)), answer=answer)
    return trouble(message, hidden)


def trouble(message: str, hidden: Sequence[str] = ()) -> Refusal:
    """Something that may pass, and is not the video's."""
    return Refusal(outcome=Unusable(status=PENDING, detail=told(message, hidden)), answer=Answer.TROUBLE)


def told(message: str, hidden: Sequence[str] = ()) -> str:
    """A message in one line, without what is for users of yt-dlp, without addresses, and without ``hidden``."""
    text = _COLOUR.sub("", message)
    for word in hidden:
        text = text.replace(word, "***")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = _ADDED.split(_PREFIX.sub("", text, count=1), maxsplit=1)[0]
    return _URL.sub("(an address)", text).strip(" .;")[:MAX_DETAIL] or "no reason is told"
