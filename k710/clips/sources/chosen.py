"""What ``--videos`` names: sources of several kinds in order of preference, and the rounds in which they are asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from k710.clips.encodings import EncodeConfig
from k710.clips.sources.candidates import Listed, Round, Streamed, VideosAre, Wanted
from k710.clips.sources.local import LocalFolders
from k710.clips.sources.url import UrlVideos
from k710.clips.sources.url_folders import UrlFolders
from k710.clips.sources.url_origin import HTTP, SCHEMES, require_plain, shown
from k710.errors import UsageError

if TYPE_CHECKING:
    from k710.clips.sources.youtube import Access

LOCAL, CVDF, URL, YOUTUBE = "local", "cvdf", "url", "youtube"
SOURCES = {
    LOCAL: "DIR: a folder of video files",
    CVDF: "cvdf: or cvdf:DIR: the archives that CVDF publishes, downloaded or in a folder",
    URL: "url:TEMPLATE or url:FILE.csv: an address for each video; or s3://BUCKET/FOLDER, as a folder on a disk",
    YOUTUBE: "youtube: YouTube, for clips that nothing else has",
}
"""Kinds of sources, as samples name them, with what people write; another is a line here and one in ``Chosen``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveSettings:
    """How CVDF's archives are used."""

    folder: Path | None = None
    """Folder for archives on their way; None: in the build."""
    keep: bool = False
    """Whether archives that this build downloads stay."""
    in_flight: int = 3
    """Archives on the disk at a time."""
    base_url: str | None = None
    """Address of a mirror."""
    accept_changed: bool = False
    """Whether an archive that is another one than at first sight is taken."""

    def __post_init__(self) -> None:
        if not 1 <= self.in_flight <= 64:
            raise UsageError(f"archives in flight must be between 1 and 64, got {self.in_flight}")
        if self.base_url is not None:
            require_plain(self.base_url, f"--base-url {shown(self.base_url)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSettings:
    """How sources elsewhere are used; nothing of it decides what a build is."""

    archives: ArchiveSettings = field(default_factory=ArchiveSettings)
    """CVDF's archives."""
    youtube_rate_per_h: float = 300.0
    """Videos an hour from YouTube, over all workers of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """What sources that are read as a whole need to know of the plan."""

    work: Path
    """Folder for archives on their way."""
    rivals: Mapping[str, Sequence[Wanted]]
    """Every segment of each video that has several in some list, planned or not."""
    rows: Callable[[], Mapping[str, tuple[tuple[str, str, str], ...]]]
    """Gives release, split and class of the rows of each clip, by key."""
    say: Callable[[str], None]
    """Called with a line that people should read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Sources in order of preference."""

    texts: tuple[str, ...]
    """What the user wrote."""
    settings: SourceSettings
    """How they are used."""
    videos_are: VideosAre
    """What files without times in their names are."""
    made: Mapping[int, Listed]
    """Listed sources by the place of the first text that they are of."""
    folders: tuple[LocalFolders, ...] = field(default=())
    """Those of them that are folders of this machine."""

    @property
    def kinds(self) -> list[str]:
        """Kind of each text."""
        return [parsed(text)[0] for text in self.texts]

    def rounds(self, clips: Clips) -> list[Round]:
        """Adjacent listed sources together, one that is read as a whole by itself, and YouTube by itself at the end.

        Raises:
            UsageError: a source cannot be used.
        """
        found: list[Round] = []
        together: list[Listed] = []
        for place, text in enumerate(self.texts):
            kind, rest = parsed(text)
            if kind in (CVDF, YOUTUBE) and together:
                found.append(tuple(together))
                together = []
            if kind == CVDF:
                found.append(self._cvdf(rest, clips))
            elif place in self.made:
                together.append(self.made[place])
        return [*found, tuple(together)] if together else found

    def _cvdf(self, folder: str, clips: Clips) -> Streamed:
        # Here, so that workers need not load it.
        from k710.clips.sources.cvdf.source import CvdfArchives, CvdfConfig

        own = self.settings.archives
        config = CvdfConfig(
            work=own.folder or clips.work,
            folder=Path(folder) if folder else None,
            in_flight=own.in_flight,
            keep_archives=own.keep and not folder,
            base_url=None if folder else own.base_url,
            accept_changed=own.accept_changed,
            videos_are=self.videos_are,
        )
        return CvdfArchives(config, rivals=clips.rivals, rows=clips.rows(), say=clips.say)


def choose(
    texts: Sequence[str],
    *,
    encode: EncodeConfig,
    videos_are: VideosAre = "auto",
    settings: SourceSettings | None = None,
    access: Access | None = None,
) -> Chosen:
    """The sources that ``texts`` name; folders are read, and lists of addresses, but no archive and no video.

    Raises:
        UsageError: a text names no source, or they do not go together.
        SourceError: a list of addresses cannot be had.
        InputError: one is wrong.
    """
    settings = settings or SourceSettings()
    kinds = [parsed(text)[0] for text in texts]
    _require_together(texts, kinds, encode)
    made: dict[int, Listed] = {}
    folders: list[LocalFolders] = []
    for place, text in enumerate(texts):
        kind, rest = parsed(text)
        if kind == LOCAL and (place == 0 or kinds[place - 1] != LOCAL):
            # Folders side by side are one source: a file that two of them reach counts for the first.
            end = next((n for n in range(place, len(texts)) if kinds[n] != LOCAL), len(texts))
            folders.append(LocalFolders([Path(parsed(t)[1]) for t in texts[place:end]], videos_are))
            made[place] = folders[-1]
        elif kind == URL:
            made[place] = UrlFolders(rest, videos_are) if rest == text else UrlVideos(rest, videos_are)
        elif kind == YOUTUBE:
            made[place] = _youtube(settings, encode, access)
        elif kind == CVDF and rest and not Path(rest).is_dir():
            raise UsageError(f"--videos {text}: no such folder", hint=f"--videos takes {'; '.join(SOURCES.values())}")
    return Chosen(texts=tuple(texts), settings=settings, videos_are=videos_are, made=made, folders=tuple(folders))


def parsed(text: str) -> tuple[str, str]:
    """Kind of source that ``text`` names, and the folder, template, file or address in it.

    Raises:
        UsageError: it names none.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in (CVDF, URL, YOUTUBE):
        return kind, rest
    if text.startswith("file://"):
        return LOCAL, unquote(text.removeprefix("file://").removeprefix("localhost"))
    if "://" in text:
        return URL, _listable(text)
    if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", kind) and not Path(text).exists():
        raise UsageError(f"--videos {shown(text)}: neither a folder nor a kind of source", hint=_kinds())
    return LOCAL, text


def moved(text: str, move: Callable[[str], str]) -> str:
    """``text`` with the path in it, if there is one, as ``move`` gives it."""
    kind, colon, rest = text.partition(":")
    if colon and kind in (CVDF, URL, YOUTUBE):
        is_path = rest and kind != YOUTUBE and "{" not in rest and "://" not in rest
        return f"{kind}:{move(rest)}" if is_path else text
    return text if "://" in text else move(text)


def _youtube(settings: SourceSettings, encode: EncodeConfig, access: Access | None) -> Listed:
    # Here, so that builds without it load nothing of it.
    from k710.clips.sources.youtube import Access, YouTubeSettings, YouTubeVideos

    own = YouTubeSettings(
        rate_per_h=settings.youtube_rate_per_h, short_side_px=encode.short_side_px, sound=encode.keep_audio
    )
    return YouTubeVideos(own, access or Access())


def _kinds() -> str:
    return f"--videos takes {'; '.join(SOURCES.values())}"


def _listable(text: str) -> str:
    """An address of a folder, if it is of a kind whose files can be listed."""
    scheme = text.partition("://")[0]
    if scheme in HTTP:
        raise UsageError(
            f"--videos {shown(text)}: what a web server has cannot be listed",
            hint="url:https://host/{id}.mp4 says where each video is, and so does url:FILE.csv",
        )
    if scheme in SCHEMES:
        require_plain(text, f"--videos {shown(text)}")
        return text
    raise UsageError(f"--videos {shown(text)}: files at {scheme}:// cannot be listed", hint=_kinds())


def _require_together(texts: Sequence[str], kinds: Sequence[str], encode: EncodeConfig) -> None:
    elsewhere = [text for text, kind in zip(texts, kinds, strict=True) if kind != LOCAL]
    if encode.encode == "none" and elsewhere:
        raise UsageError(
            f"--videos {shown(elsewhere[0])}: `--encode none` leaves videos where they are, and these are elsewhere",
            hint="--encode copy stores them as they are",
        )
    if encode.encode == "copy" and YOUTUBE in kinds:
        raise UsageError(
            "--videos youtube: `--encode copy` takes trimmed files only, and YouTube has whole videos",
            hint="leave out one of them",
        )
    if YOUTUBE in kinds[:-1]:
        raise UsageError(
            "--videos youtube: must be the last, for it is asked for clips that nothing else has",
            hint="put the other sources before it",
        )
    if kinds and kinds[-1] == YOUTUBE and texts[-1] != f"{YOUTUBE}:":
        raise UsageError(f"--videos {texts[-1]}: nothing may follow `youtube:`", hint="its settings are flags")
