"""Byte ranges that will be wanted soon, fetched by threads while the ones before them are decoded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from k710.errors import K710Error

_GAP_BYTES = 256 * 1024
"""Ranges of one file at most so far apart come in one request: it costs less than a second one."""
_SPAN_BYTES = 8 * 1024 * 1024
"""A request does not grow beyond this, or its first range would wait for all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """A byte range of a file."""

    file: str
    """Path in the store."""
    offset: int
    """First byte."""
    size_bytes: int
    """Number of bytes."""

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.size_bytes


Fetch = Callable[[Extent], bytes]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _UnderWay:
    span: Extent
    data: Future[bytes]


class ReadAhead:
    """The ranges that come next, in background threads of this process, within a number of bytes."""

    def __init__(self, fetch: Fetch, *, max_bytes: int, num_threads: int) -> None:
        self._fetch, self._max_bytes, self._num_threads = fetch, max_bytes, num_threads
        self._under_way: dict[Extent, _UnderWay] = {}
        self._jobs: queue.SimpleQueue[_UnderWay] = queue.SimpleQueue()

    def expect(self, extents: Iterable[Extent]) -> None:
        """Begin to fetch ``extents``, the next ones to be taken, in order; what was expected and is not any more is
        dropped.
        """
        wanted = dict.fromkeys(extents)
        kept = {extent: self._under_way[extent] for extent in wanted if extent in self._under_way}
        for dropped in {*self._under_way.values()} - {*kept.values()}:
            dropped.data.cancel()
        self._under_way = kept
        room = self._max_bytes - sum(under_way.span.size_bytes for under_way in {*kept.values()})
        fitting = _first_within(room, [extent for extent in wanted if extent not in kept])
        for span, members in coalesced(fitting):
            room -= span.size_bytes
            if room < 0:
                break
            under_way = _UnderWay(span=span, data=Future())
            self._under_way |= dict.fromkeys(members, under_way)
            self._start(under_way)

    def take(self, extent: Extent) -> bytes:
        """The bytes of a range: those that were fetched, or else fetched now.

        Raises:
            FeedError: they cannot be read.
        """
        if extent not in self._under_way:
            return self._fetch(extent)
        under_way = self._under_way.pop(extent)
        span = under_way.span
        if span == extent:
            return under_way.data.result()
        try:
            data = under_way.data.result()
        except K710Error:  # perhaps of a neighbour, which must not be the fault of this one
            return self._fetch(extent)
        return data[extent.offset - span.offset : extent.end - span.offset]

    def _start(self, under_way: _UnderWay) -> None:
        self._jobs.put(under_way)
        if self._num_threads:
            self._num_threads -= 1
            # Daemons, and no executor: the end of the process does not wait for a network.
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            under_way = self._jobs.get()
            if not under_way.data.set_running_or_notify_cancel():
                continue
            try:
                under_way.data.set_result(self._fetch(under_way.span))
            except BaseException as error:  # whatever it is, the reader who waits for it must learn it
                under_way.data.set_exception(error)
            del under_way  # or its bytes would be held until the next job


def coalesced(extents: Sequence[Extent]) -> list[tuple[Extent, list[Extent]]]:
    """Requests for ``extents``, those that are near each other in a file in one; by their first members."""
    spans: list[tuple[Extent, list[Extent]]] = []
    for extent in sorted(extents, key=lambda e: (e.file, e.offset, e.size_bytes)):
        last = spans[-1] if spans else None
        if last and _belongs(extent, last[0]):
            span, members = last
            size = max(span.end, extent.end) - span.offset
            spans[-1] = Extent(file=span.file, offset=span.offset, size_bytes=size), [*members, extent]
        else:
            spans.append((extent, [extent]))
    place = {extent: number for number, extent in enumerate(extents)}
    return sorted(spans, key=lambda span: min(place[member] for member in span[1]))


def _belongs(extent: Extent, span: Extent) -> bool:
    near = extent.file == span.file and extent.offset - span.end <= _GAP_BYTES
    return near and max(span.end, extent.end) - span.offset <= _SPAN_BYTES


def _first_within(room: int, extents: Iterable[Extent]) -> list[Extent]:
    """As many of the first ``extents`` as there is room for."""
    fitting = []
    for extent in extents:
        room -= extent.size_bytes
        if room < 0:
            break
        fitting.append(extent)
    return fitting
