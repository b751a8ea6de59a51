"""One clip's part of a video: from the wait for its turn to the file, or to the reason why there is none."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from k710.clips.outcomes import PENDING, Unusable
from k710.clips.sources.candidates import Brought
from k710.clips.sources.youtube.access import Access, Key
from k710.clips.sources.youtube.breaker import Answer, Breaker, Turn
from k710.clips.sources.youtube.deadline import OutOfTime, time_limit
from k710.clips.sources.youtube.formats import Choice, Format, choose
from k710.clips.sources.youtube.part import NoPartError, Span, save_part
from k710.clips.sources.youtube.rate import Bucket
from k710.clips.sources.youtube.refusals import Refusal, trouble
from k710.clips.sources.youtube.remote_file import Blocks, RemoteFile, TooManyBytesError
from k710.clips.sources.youtube.session import NoRangesError, NoVideoError, Session, too_many_bytes
from k710.clips.sources.youtube.settings import YouTubeSettings
from k710.clips.sources.youtube.shared_record import state_folder
from k710.segments import Segment

_LONGEST_NAP_S = 2.0
"""Time after which one that waits for its turn looks whether there will be any."""


class Sessions:
    """One session a process: what yt-dlp has learnt of the site for one video is not asked for again for the next."""

    def __init__(self) -> None:
        self._last: tuple[YouTubeSettings, Key, Session] | None = None

    def of(self, settings: YouTubeSettings, key: Key) -> Session:
        """The session with these settings; one with others is closed."""
        if self._last is not None and self._last[:2] == (settings, key):
            return self._last[2]
        self.close()
        session = Session(settings, key.access() or Access())
        self._last = (settings, key, session)
        return session

    def close(self) -> None:
        """Let its connections go."""
        if self._last is not None:
            self._last[2].close()
        self._last = None


_SESSIONS = Sessions()


def bring(settings: YouTubeSettings, key: Key, segment: Segment, folder: Path) -> Brought | Unusable:
    """Bring the part of a video that has ``segment`` in it to ``folder``, when it is its turn.

    Raises:
        OSError: there is no room.
        SourceError: the processes of this machine cannot agree on whose turn it is.
    """
    if key.access() is None:
        # Without it the site would see what the user meant to hide, or refuse what is allowed.
        return Unusable(status=PENDING, detail="this worker does not know the " + " and ".join(key.given))
    state = state_folder(settings.state)
    # A trial that is lost with its process may have waited for a token, and then have taken all its time.
    breaker = Breaker(state, rest_s=settings.rest_s, trial_s=settings.timeout_s + 3600 / settings.rate_per_h)
    turn = breaker.enter()
    if turn.wait_s:
        return _not_asked(turn)
    try:
        if not _drawn(settings, state, breaker, turn):
            return _not_asked(breaker.peek() or Turn())
        found = _found(settings, key, segment, folder)
        if isinstance(found, Brought):
            breaker.report(turn, Answer.GIVEN)
            return found
        breaker.report(turn, found.answer, found.outcome.detail)
        return found.outcome
    except BaseException:
        breaker.leave(turn)
        raise


def _drawn(settings: YouTubeSettings, state: Path, breaker: Breaker, turn: Turn) -> bool:
    """Wait for a token; False when the breaker has opened meanwhile."""
    bucket = Bucket(state, rate_per_h=settings.rate_per_h, burst=settings.burst)
    while wait_s := bucket.draw():
        # Short naps, which a signal ends.
        time.sleep(min(wait_s, _LONGEST_NAP_S))
        if not turn.is_trial and breaker.peek():
            return False
    return turn.is_trial or breaker.peek() is None


def _not_asked(turn: Turn) -> Unusable:
    minutes = max(1, round(turn.wait_s / 60))
    return Unusable(status=PENDING, detail=f"not asked, as the site refuses for now ({turn.why}); in {minutes} min")


def _found(settings: YouTubeSettings, key: Key, segment: Segment, folder: Path) -> Brought | Refusal:
    try:
        with time_limit(settings.timeout_s):
            session = _SESSIONS.of(settings, key)
            return _brought(session, settings, segment, folder)
    except NoVideoError as error:
        return error.refusal
    except OutOfTime:
        detail = f"it took more than {settings.timeout_s:g} s"
        return Refusal(outcome=Unusable(status=PENDING, detail=detail), answer=Answer.TROUBLE)


def _brought(session: Session, settings: YouTubeSettings, segment: Segment, folder: Path) -> Brought:
    formats = session.formats(segment.id)
    choice = choose(formats, short_side_px=settings.short_side_px, sound=settings.sound)
    if choice is not None and choice.by_parts:
        try:
            return _part(session, settings, segment, choice, folder / segment.id)
        except TooManyBytesError:
            raise NoVideoError(too_many_bytes(settings.max_bytes)) from None
        except (NoRangesError, NoPartError):
            for left in folder.iterdir():
                left.unlink()
    choice = choose(formats, short_side_px=settings.short_side_px, sound=settings.sound, in_one=True)
    if choice is None:
        raise NoVideoError(trouble("it is offered in no format that can be had"))
    path = folder / f"{segment.id}.{_suffix(choice)}"
    session.save(choice.picture, path)
    return Brought(path=path)


def _part(session: Session, settings: YouTubeSettings, segment: Segment, choice: Choice, stem: Path) -> Brought:
    def blocks_of(one: Format) -> Blocks:
        return Blocks(functools.partial(session.piece, one), max_bytes=settings.max_bytes)

    pictures = blocks_of(choice.picture)
    sound = None
    if settings.sound:
        sound = RemoteFile(pictures if choice.sound is None else blocks_of(choice.sound))
    span = Span(
        need_s=segment.start_s,
        from_s=max(0.0, segment.start_s - settings.pad_s),
        until_s=segment.end_s + settings.pad_s,
    )
    return save_part(RemoteFile(pictures), sound, span, stem)


def _suffix(choice: Choice) -> str:
    # What the site calls it becomes a part of a file's name.
    name = str(choice.picture.get("ext"))
    return name if name.isascii() and name.isalnum() and len(name) <= 5 else "mp4"
