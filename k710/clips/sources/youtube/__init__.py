"""Videos from YouTube by yt-dlp: only when asked for, slowly, and with an end when the site does not want it."""

from __future__ import annotations

from k710.clips.sources.youtube.access import VARIABLES as VARIABLES
from k710.clips.sources.youtube.access import Access as Access
from k710.clips.sources.youtube.notices import terms_notice as terms_notice
from k710.clips.sources.youtube.notices import version_note as version_note
from k710.clips.sources.youtube.settings import YouTubeSettings as YouTubeSettings
from k710.clips.sources.youtube.source import YouTubeOrigin as YouTubeOrigin
from k710.clips.sources.youtube.source import YouTubeVideos as YouTubeVideos
