"""Messages of yt-dlp, and what they mean.

Where each is known from: ``site``, the site's own words for a video's state, as yt-dlp hands them on; ``yt-dlp``, its
own words in version 2026.10.26; ``reports``, what users of yt-dlp have quoted in public.
"""

from __future__ import annotations

import pytest

from k710.clips.outcomes import (
    AGE_RESTRICTED,
    COPYRIGHT,
    GEO_BLOCKED,
    PENDING,
    PRIVATE,
    REMOVED,
    STATUSES,
    TERMINATED,
)
from k710.clips.sources.youtube.breaker import Answer
from k710.clips.sources.youtube.refusals import MAX_DETAIL, refusal

HINT = "Use --cookies-from-browser or --cookies for the authentication. See https://github.com/yt-dlp/yt-dlp/wiki/FAQ"
REPORT = "; please report this issue on https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the template"
GIVEN, WALL, TROUBLE = Answer.GIVEN, Answer.WALL, Answer.TROUBLE

# fmt: off
MESSAGES = [
    # site
    ("Private video. Sign in if you've been granted access to this video. " + HINT, PRIVATE, GIVEN),
    ("Join this channel to get access to members-only content like this video, and other exclusive perks.",
     PRIVATE, GIVEN),
    ("This video is available to this channel's members on level: Friends (or any higher level).", PRIVATE, GIVEN),
    ("This video requires payment to watch", PRIVATE, GIVEN),
    ("Video unavailable. This video has been removed by the uploader", REMOVED, GIVEN),
    ("This video has been removed for violating YouTube's Community Guidelines", REMOVED, GIVEN),
    ("This video has been removed for violating YouTube’s Terms of Service", REMOVED, GIVEN),
    ("Video unavailable. This video is no longer available", REMOVED, GIVEN),
    ("This video isn't available anymore", REMOVED, GIVEN),
    ("Video unavailable", REMOVED, GIVEN),
    ("This video is unavailable", REMOVED, GIVEN),
    ("This video is not available", REMOVED, GIVEN),
    ("This live stream recording is not available.", REMOVED, GIVEN),
    ("Video unavailable. This video is no longer available because the YouTube account associated with this video has "
     "been terminated.", TERMINATED, GIVEN),
    ("This video is no longer available because the uploader has closed their YouTube account.", TERMINATED, GIVEN),
    ("The YouTube account associated with this video has been terminated due to multiple third-party notifications of "
     "copyright infringement", TERMINATED, GIVEN),
    ("Video unavailable. This video is no longer available due to a copyright claim by Somebody Ltd.",
     COPYRIGHT, GIVEN),
    ("Video unavailable. This video contains content from Somebody, who has blocked it in your country on copyright "
     "grounds", COPYRIGHT, GIVEN),
    ("Video unavailable. The uploader has not made this video available in your country\nThis video is available in "
     "Germany.\nYou might want to use a VPN or a proxy server (with --proxy) to workaround.", GEO_BLOCKED, GIVEN),
    ("This video is not available in your country", GEO_BLOCKED, GIVEN),
    ("Sign in to confirm your age. This video may be inappropriate for some users. " + HINT, AGE_RESTRICTED, GIVEN),
    ("This video is age-restricted and only available on YouTube.", AGE_RESTRICTED, GIVEN),
    ("Premieres in 3 hours", PENDING, GIVEN),
    ("This live event will begin in 2 days.", PENDING, GIVEN),
    ("This live event has ended.", PENDING, GIVEN),
    ("Video unavailable. This video is restricted. Please check the Google Workspace administrator and/or the network "
     "administrator restrictions.", PENDING, TROUBLE),
    # reports
    ("Sign in to confirm you’re not a bot. " + HINT, PENDING, WALL),
    ("Sign in to confirm that you're not a bot. This helps protect our community.", PENDING, WALL),
    ("Please sign in. " + HINT, PENDING, TROUBLE),
    ("The following content is not available on this app. Watch on the latest version of YouTube.", PENDING, TROUBLE),
    ("Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)", PENDING, WALL),
    ("unable to download video data: HTTP Error 403: Forbidden", PENDING, TROUBLE),
    # yt-dlp
    ("Video unavailable. This content isn't available, try again later. The current session has been rate-limited by "
     "YouTube for up to an hour.", PENDING, WALL),
    ("Playback is blocked. YouTube is requiring a captcha challenge before playback", PENDING, WALL),
    ("Unable to download webpage: <urlopen error [Errno -3] Temporary failure in name resolution>" + REPORT,
     PENDING, TROUBLE),
    ("Unable to download webpage: HTTP Error 503: Service Unavailable", PENDING, TROUBLE),
    ("Failed to extract any player response" + REPORT, PENDING, TROUBLE),
    ("Requested format is not available. Use --list-formats for a list of available formats", PENDING, TROUBLE),
    ("This video is DRM protected", PENDING, TROUBLE),
    ("something that nobody has ever said", PENDING, TROUBLE),
    ("", PENDING, TROUBLE),
]
# fmt: on


@pytest.mark.parametrize(("message", "status", "answer"), MESSAGES)
def test_a_message_means(message: str, status: str, answer: Answer) -> None:
    found = refusal(f"ERROR: [youtube] -bcdefghij_: {message}")
    assert (found.outcome.status, found.answer) == (status, answer)
    assert status in STATUSES


@pytest.mark.parametrize("message", [message for message, *_ in MESSAGES])
def test_what_is_kept_of_a_message_is_one_short_line_without_addresses(message: str) -> None:
    detail = refusal(f"\x1b[0;31mERROR:\x1b[0m [youtube] -bcdefghij_: {message}").outcome.detail
    assert 0 < len(detail) <= MAX_DETAIL
    assert detail.isprintable()
    assert not any(words in detail for words in ("http:", "https:", "--cookies", "ERROR", "-bcdefghij_", "report this"))


def test_what_is_private_is_not_told_on() -> None:
    message = "Unable to connect to proxy socks5://me:pass@proxy.example:1080 as me with private/cookies.txt"
    hidden = ("socks5://me:pass@proxy.example:1080", "private/cookies.txt", "pass", "me")
    detail = refusal(message, hidden).outcome.detail
    assert detail == "Unable to connect to proxy *** as *** with ***"


def test_an_address_is_not_told_on_even_if_it_is_not_known_to_be_private() -> None:
    detail = refusal("cannot read https://r4.example/videoplayback?sig=abc&ip=1.2.3.4 twice").outcome.detail
    assert detail == "cannot read (an address) twice"
