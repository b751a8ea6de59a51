"""Many files at once, within bounds: asked for their sizes first, so that what has no room is not begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from k710 import atomic
from k710.clip_figures import sized
from k710.fetch.asking import in_parallel, nearest, survey
from k710.fetch.client import Client, Facts, public
from k710.fetch.download import download
from k710.fetch.outcomes import FetchError, Outcome, Wanted
from k710.fetch.partial import OnBytes, Partial, require_room
from k710.fetch.record import Sources


@dataclass(frozen=True, kw_only=True, slots=True)
class SoFar:
    """How far a fetch is."""

    done: int
    """Files that came to an end, good or bad."""
    total: int
    """Files in all."""
    done_bytes: int
    """Bytes that are here."""
    total_bytes: int
    """Bytes of all files whose size is known."""
    new_bytes: int
    """Bytes that came in this run."""
    seconds: float
    """Time since its beginning."""

    def note(self) -> str:
        """Bytes and rate, for people."""
        rate = self.new_bytes / self.seconds if self.seconds > 0 else 0.0
        return f"{sized(self.done_bytes)} of {sized(max(self.total_bytes, self.done_bytes))}, {sized(round(rate))}/s"


OnProgress = Callable[[SoFar], None]


class Counter:
    """Counts bytes from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.here_bytes = 0
        """Bytes that are here."""

    def __call__(self, size_bytes: int) -> None:
        """Count more bytes, or fewer."""
        with self._lock:
            self.here_bytes += size_bytes


def fetch_all(
    client: Client,
    sources: Sources,
    wanted: Sequence[Wanted],
    *,
    parallel: int,
    accept_changed: bool,
    on_progress: OnProgress = lambda _: None,
    finish: Callable[[Wanted, Outcome], Outcome] = lambda _, outcome: outcome,
    require: Callable[[Sequence[int]], None] | None = None,
) -> list[Outcome]:
    """Download all of ``wanted``; one that fails does not keep the others.

    Args:
        client: does the asking.
        sources: record of the folder that they go into.
        wanted: the files.
        parallel: downloads at a time.
        accept_changed: as in ``download``.
        on_progress: told now and then how far it is.
        finish: what is done with a file right after its download, in the same thread.
        require: raises a ``FetchError`` when there is no room for files of these sizes; None: asks the disk of the
            folder for their sum.

    Raises:
        FetchError: the disk has not the room for what is to come.
        UsageError: the folder cannot be written.
    """
    absent = [w for w in wanted if not w.path.exists()]
    said = dict(zip((w.url for w in absent), survey(client, [w.url for w in absent], parallel), strict=True))
    sizes = {w.path: _size(w, said) for w in wanted}
    to_come = [sizes[w.path] - Partial(w.path, public(w.url)).size_bytes for w in absent]
    if any(size > 0 for size in to_come):
        (require or (lambda sizes: require_room(nearest(sources.folder), sum(sizes))))([max(s, 0) for s in to_come])
    here, new, began = Counter(), Counter(), time.monotonic()

    def one(item: Wanted) -> Outcome:
        answer = said.get(item.url)
        if isinstance(answer, FetchError):
            outcome = Outcome(
                name=sources.name(item.path), url=public(item.url), status=answer.status, reason=answer.message
            )
            return finish(item, outcome)
        with atomic.writable(sources.folder):
            outcome = download(client, sources, item, accept_changed=accept_changed, on_bytes=_counting(here, new))
        return finish(item, outcome)

    def tick(done: int) -> None:
        on_progress(
            SoFar(
                done=done,
                total=len(wanted),
                done_bytes=here.here_bytes,
                total_bytes=sum(sizes.values()),
                new_bytes=new.here_bytes,
                seconds=time.monotonic() - began,
            )
        )

    return in_parallel(client, wanted, one, parallel, tick)


def _counting(here: Counter, new: Counter) -> OnBytes:
    """Counts for both, but what was here at the beginning only as here."""
    first = True

    def count(size_bytes: int) -> None:
        nonlocal first
        here(size_bytes)
        if not first and size_bytes > 0:
            new(size_bytes)
        first = False

    return count


def _size(wanted: Wanted, said: dict[str, Facts | FetchError]) -> int:
    answer = said.get(wanted.url)
    if isinstance(answer, Facts):
        return answer.size_bytes or 0
    return wanted.path.stat().st_size if wanted.path.exists() else 0
