"""Videos on YouTube as a source of clips: nothing is known of them, so any clip with such an id may be there."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k710.clips.outcomes import Unusable
from k710.clips.sources.candidates import Brought, Candidate, Wanted
from k710.clips.sources.youtube.access import Access, Key, PutAway
from k710.clips.sources.youtube.settings import YouTubeSettings
from k710.clips.sources.youtube.shared_record import state_folder
from k710.errors import UsageError
from k710.segments import Segment, is_youtube_id

KIND = "youtube"
"""Name of this kind of source."""
_INSTALL = 'pip install "k710[youtube]"'


class YouTubeVideos:
    """The videos on YouTube; used only when asked for, and then for what no other source has."""

    names = ("youtube:",)
    """What people call it."""

    def __init__(self, settings: YouTubeSettings | None = None, access: Access | None = None) -> None:
        """Make ready; nothing is asked for.

        Args:
            settings: how the site is asked.
            access: what is private about it; what it leaves open is taken from the environment.

        Raises:
            UsageError: yt-dlp is not installed, or something given is of no use.
        """
        if importlib.util.find_spec("yt_dlp") is None:
            raise UsageError("videos from YouTube need yt-dlp, which is not installed", hint=_INSTALL)
        wanted = settings or YouTubeSettings()
        # Workers may have another folder for temporary files.
        self.settings = dataclasses.replace(wanted, state=state_folder(wanted.state))
        """How the site is asked."""
        known = (access or Access()).with_environment()
        known.read_cookies()
        if known.cookies is not None:
            known = dataclasses.replace(known, cookies=known.cookies.absolute())
        self._private = PutAway(known)

    def candidates(
        self,
        wanted: Sequence[Wanted],
        rivals: Mapping[str, Sequence[Wanted]],  # noqa: ARG002 - the same for all sources
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the whole video; an empty tuple where its id is not one of YouTube."""
        return [self._for_clip(item.segment) for item in wanted]

    def close(self) -> None:
        """Forget what is private; candidates can then no longer be brought where something is."""
        self._private.close()

    def _for_clip(self, segment: Segment) -> tuple[Candidate, ...]:
        if not is_youtube_id(segment.id):
            return ()
        origin = YouTubeOrigin(segment=segment, settings=self.settings, key=self._private.key)
        return (
            Candidate(
                path=f"{segment.id}.mp4",
                timed=False,
                may_be_trimmed=False,
                videos_are="originals",
                origin=origin,
                kind=KIND,
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class YouTubeOrigin:
    """A video on YouTube, of which a clip's part is brought."""

    segment: Segment
    """Which part of which video."""
    settings: YouTubeSettings
    """How the site is asked."""
    key: Key
    """Where a worker finds what is private."""

    @property
    def kind(self) -> str:
        """``youtube``."""
        return KIND

    @property
    def identity(self) -> str:
        """The address, and whether it is asked for as somebody, or from elsewhere: another answer may come then."""
        return " ".join((self.settings.url(self.segment.id), *self.key.given))

    def bring(self, folder: Path) -> Brought | Unusable:
        """Bring the clip's part of the video into ``folder``, or say why that cannot be done; waits for its turn.

        Raises:
            OSError: there is no room.
            SourceError: the processes of this machine cannot agree on whose turn it is.
        """
        # yt-dlp takes half a second to load, and is an extra.
        from k710.clips.sources.youtube.download import bring

        return bring(self.settings, self.key, self.segment, folder)
