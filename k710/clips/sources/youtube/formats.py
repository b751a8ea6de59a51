"""Which of the formats that a video is offered in is brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Format = Mapping[str, Any]
"""As yt-dlp describes one."""

PLAIN = ("http", "https")
"""Ways of transfer that a part can be asked for by its bytes."""
_WHOLE = ("m3u8_native", "http_dash_segments")
"""Those that yt-dlp itself can bring whole."""
# Kinds of pictures from the quickest to decode to the slowest; unknown ones stand in the middle.
_CODECS = ("avc1", "h264", "vp09", "vp9", "", "av01")
_GOOD_SOUND_KBPS = 128.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What is brought of a video."""

    picture: Format
    """Format with the picture, and maybe the sound."""
    sound: Format | None
    """Format with the sound, where that is wanted and apart."""

    @property
    def by_parts(self) -> bool:
        """Whether a part of it can be asked for."""
        return all(one.get("protocol") in PLAIN for one in (self.picture, self.sound or self.picture))


def choose(formats: Sequence[Format], *, short_side_px: int, sound: bool, in_one: bool = False) -> Choice | None:
    """The smallest format whose short side is enough, else the largest; mp4 before others. None: there is no picture.

    Args:
        formats: all there are.
        short_side_px: short side that is wanted.
        sound: whether the sound is wanted.
        in_one: whether picture and sound must be of one format.
    """
    pictures = [one for one in formats if _can_be_had(one) and one.get("vcodec") != "none"]
    if not pictures:
        return None
    together = [one for one in pictures if one.get("acodec") != "none"]
    if in_one and sound and together:
        pictures = together
    picture = min(pictures, key=lambda one: _rank(one, short_side_px, sound=sound))
    if not sound or in_one or picture.get("acodec") != "none":
        return Choice(picture=picture, sound=None)
    sounds = [one for one in formats if _can_be_had(one) and one.get("vcodec") == "none" != one.get("acodec")]
    return Choice(picture=picture, sound=min(sounds, key=_sound_rank, default=None))


def _can_be_had(one: Format) -> bool:
    return bool(one.get("url")) and not one.get("has_drm") and one.get("protocol") in PLAIN + _WHOLE


def _rank(one: Format, short_side_px: int, *, sound: bool) -> tuple[Any, ...]:
    width, height = one.get("width"), one.get("height")
    short = min(width, height) if width and height else height or None
    is_enough = short is None or short >= short_side_px
    codec = str(one.get("vcodec") or "").partition(".")[0]
    return (
        one.get("protocol") not in PLAIN,
        not is_enough,
        short is None,
        (short or 0) if is_enough else -(short or 0),
        one.get("ext") != "mp4",
        _CODECS.index(codec if codec in _CODECS else ""),
        (one.get("acodec") != "none") != sound,
        # Of equal pictures the one with more bytes is nearer to the original.
        -(one.get("tbr") or 0),
    )


def _sound_rank(one: Format) -> tuple[Any, ...]:
    rate = one.get("abr") or one.get("tbr") or 0.0
    # Videos with dubbed sound: the preference is highest for the original.
    return (
        one.get("protocol") not in PLAIN,
        -(one.get("language_preference") or 0),
        one.get("ext") != "m4a",
        abs(rate - _GOOD_SOUND_KBPS),
    )
