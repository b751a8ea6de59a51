"""Videos at addresses: a template with the clip's id and times in it, or a table that names an address for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from k710.clips.sources.candidates import Candidate, VideosAre, Wanted
from k710.clips.sources.file_names import SUFFIXES
from k710.clips.sources.url_origin import HTTP, UrlOrigin, require_plain, shown
from k710.clips.sources.url_table import Address, read_table
from k710.errors import UsageError
from k710.segments import Segment, safe_id

FIELDS = ("id", "key", "start", "end", "release")
"""What may stand in braces in a template."""

_TIMES = ("start", "end")
_WHOLE_SECONDS = re.compile(r"0?\d{0,2}d")


class UrlVideos:
    """Videos that a server or an object store has, each under an address of its own."""

    def __init__(self, text: str, videos_are: VideosAre = "auto") -> None:
        """Read the template, or the table, that ``text`` is or names.

        Raises:
            UsageError: it is neither, or names what cannot be.
            SourceError: the table cannot be had.
        """
        self.names = (f"url:{text}",)
        self._videos_are: VideosAre = videos_are
        self._addresses: _Addresses = _Template(text) if "{" in text else read_table(text)

    def candidates(
        self, wanted: Sequence[Wanted], rivals: Mapping[str, Sequence[Wanted]]
    ) -> list[tuple[Candidate, ...]]:
        """For each clip the addresses to try, those with its times first; nobody is asked whether they are there.

        A video without times in its address is taken as trimmed only where no list has another segment of it, or the
        address names the one release that has this one.
        """
        return [tuple(self._for_clip(item, rivals.get(item.segment.id, (item,)))) for item in wanted]

    def _for_clip(self, item: Wanted, rivals: Sequence[Wanted]) -> Iterator[Candidate]:
        addresses = sorted(self._addresses.of(item), key=lambda address: not address.is_timed)
        for address in addresses:
            own = [rival for rival in rivals if address.release in rival.releases] if address.release else rivals
            name = _file_name(address, item.segment)
            is_here = urlsplit(address.url).scheme == "file"
            yield Candidate(
                path=unquote(address.url.removeprefix("file://")) if is_here else name,
                timed=address.is_timed,
                may_be_trimmed=address.is_timed or len(own) == 1,
                videos_are=self._videos_are,
                origin=None if is_here else UrlOrigin(url=address.url, name=name, sha256=address.sha256),
                kind="url",
            )


class _Addresses(Protocol):
    """What has addresses."""

    def of(self, item: Wanted) -> list[Address]:
        """The addresses of a clip."""
        ...


class _Template:
    """An address with fields in braces."""

    def __init__(self, text: str) -> None:
        self._text = text
        where = f"--videos url:{shown(text)}"
        try:
            fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(text) if name is not None]
        except ValueError as error:
            raise UsageError(f"{where}: not a template ({error})", hint=_HINT) from error
        for name, spec, how in fields:
            is_whole = name in _TIMES and _WHOLE_SECONDS.fullmatch(spec or "")
            if name not in FIELDS or how or (spec and not is_whole):
                field = f"{name}{f'!{how}' if how else ''}{f':{spec}' if spec else ''}"
                raise UsageError(f"{where}: {{{field}}} cannot stand there", hint=_HINT)
        self._fields = {name for name, _, _ in fields}
        self._in_whole_seconds = {name for name, spec, _ in fields if spec}
        if not self._fields & {"id", "key"}:
            raise UsageError(f"{where}: without {{id}} all clips would have one address", hint=_HINT)
        self._is_http = urlsplit(text).scheme in HTTP
        self._is_quoted = self._is_http or text.startswith("file://")
        require_plain(re.sub(r"[{}]", "", text), where)

    def of(self, item: Wanted) -> list[Address]:
        """One address; as many as the clip has releases where the template names them."""
        segment = item.segment
        values: dict[str, object] = {"key": segment.key}
        for name, time_s in (("start", segment.start_s), ("end", segment.end_s)):
            is_whole = float(time_s).is_integer()
            if name in self._in_whole_seconds and not is_whole:
                return []
            values[name] = int(time_s) if is_whole else time_s
        # In a path of an object store, or of this machine, an id could lead elsewhere.
        if not self._is_http and "/" in segment.id and "id" in self._fields:
            return []
        values["id"] = quote(segment.id, safe="") if self._is_quoted else segment.id
        is_timed = "key" in self._fields or self._fields.issuperset(_TIMES)
        return [
            Address(url=self._text.format(release=release, **values), is_timed=is_timed, release=release)
            for release in (sorted(item.releases) if "release" in self._fields else [""])
        ]


_HINT = "fields are {id}, {key}, {release}, {start} and {end}, the last two also as in {start:06d}"


def _file_name(address: Address, segment: Segment) -> str:
    """How the file is called in samples: as in its address, if that is the name of a video."""
    parts = urlsplit(address.url)
    name = unquote(parts.path).rpartition("/")[2] if parts.scheme in HTTP else address.url.rpartition("/")[2]
    if Path(name).suffix.lower() in SUFFIXES and "\0" not in name and len(name.encode(errors="replace")) < 200:
        return name
    return f"{segment.key if address.is_timed else safe_id(segment.id)}.mp4"
