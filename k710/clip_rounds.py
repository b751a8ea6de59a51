"""Which clips are still to be made of what: the sources in order of preference, one round after the other.

A clip goes through the rounds until one gives it, or a source asks to wait. What has been tried is kept as a digest of
everything offered up to a round, so that the next run goes on at the round after it, and again at the first one when a
file has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from k710.clip_stage import Crew, make_clips
from k710.clips.encodings import EncodeConfig
from k710.clips.ledger import Ledger
from k710.clips.make import ClipJob, fingerprint
from k710.clips.outcomes import MISSING, OK, PENDING, ClipOutcome
from k710.clips.sources.candidates import Candidate, Round, Streamed, Wanted
from k710.errors import K710Error, SourceError
from k710.shards.packing import Packing

_NO_FILES: tuple[Candidate, ...] = ()


class ClipRounds:
    """The clips of a build that are still to be made, and what each round of sources offers for them."""

    def __init__(
        self,
        rounds: Sequence[Round],
        wanted: Mapping[str, Wanted],
        rivals: Mapping[str, Sequence[Wanted]],
        ledger: Ledger,
        packing: Packing,
        *,
        encode: EncodeConfig,
        reopen: AbstractSet[str] = frozenset(),
        tries_pending: bool = True,
    ) -> None:
        """Find the clips that are open, and ask the first round for them.

        A clip is open that was never tried, that failed on other files than those there are now, whose bytes are gone,
        that is pending, or whose status is in ``reopen``.

        Args:
            rounds: sources in order of preference; at least one.
            wanted: every planned clip by key.
            rivals: for each video with several segments in any list, planned or not, all of them.
            ledger: what is known of them.
            packing: the shards; the clips of its leaves are to be made here.
            encode: how clips are encoded.
            reopen: statuses whose clips are tried again although nothing has changed.
            tries_pending: whether clips that are pending are.

        Raises:
            SourceError: no planned clip has a video.
        """
        self._rounds, self._wanted, self._rivals = rounds, wanted, rivals
        self._ledger, self._packing, self._encode = ledger, packing, encode
        self._files: list[dict[str, tuple[Candidate, ...]]] = [{} for _ in rounds]
        self._archives: list[dict[str, str]] = [{} for _ in rounds]
        self._failed: dict[str, ClipOutcome] = {}
        self._made: dict[str, ClipOutcome] = {}
        self._error: K710Error | None = None
        self._from = self._find_open({*reopen, PENDING} if tries_pending else reopen)
        self._ask(0, self._turn(0))
        self._require_any()
        if len(rounds) == 1:
            self._settle([key for key in self._turn(0) if not self._is_offered(0, key)])

    @property
    def open(self) -> AbstractSet[str]:
        """Keys of the clips that have no final outcome yet."""
        return self._from.keys()

    @property
    def segments_s(self) -> float:
        """Seconds of all segments that are open."""
        return sum(self._wanted[key].segment.duration_s for key in self._from)

    def first_files(self) -> Iterator[Candidate]:
        """The best file of each open clip that the first round has one for."""
        yield from (files[0] for key in self._from if (files := self._files[0].get(key)))

    def room_of_streams(self) -> list[str]:
        """What sources that are read as a whole have on the disk meanwhile, where they will be asked for something."""
        lines = []
        for number, sources in enumerate(self._rounds):
            if not isinstance(sources, tuple):
                keys = (key for key in self._turn(number) if not any(f.get(key) for f in self._files[:number]))
                wanted = [self._wanted[key] for key in keys]
                lines += [sources.room(wanted)] if wanted else []
        return lines

    def make(self, crew: Crew) -> Iterator[list[ClipOutcome]]:
        """Make the clips, and yield the final outcomes when they are on the disk, a few at a time.

        Raises:
            SourceError: the workers die one after the other, or a source cannot be read.
        """
        for number, sources in enumerate(self._rounds):
            turn = self._turn(number)
            self._ask(number, turn)
            offered = [key for key in turn if self._is_offered(number, key)]
            with contextlib.closing(self._jobs(number, offered, crew)) as jobs:
                for outcomes in make_clips(jobs, self._ledger, self._packing, crew, self._made.keys()):
                    yield self._took(number, outcomes)
            if self._error is not None:
                raise self._error
            if not isinstance(sources, tuple):
                yield self._end_stream(number, sources, offered)
        yield self._settle(list(self._from))

    def _find_open(self, reopen: AbstractSet[str]) -> dict[str, int]:
        """The open clips, each with the round that it goes on at."""
        # Once per leaf: looking at a leaf costs as much as it has clips.
        packed = {leaf for leaf in self._packing.leaves if self._packing.is_done(leaf)}
        keys = self._packing.keys
        known = self._ledger.outcomes
        told = [key for key in keys if key in known and known[key].status not in reopen and not _is_made(known[key])]
        for number in range(len(self._rounds)):
            self._ask(number, told)
        by_digest, found = set(told), {}
        for key in keys:
            outcome = known.get(key)
            if outcome is None or outcome.status in reopen:
                found[key] = 0
                if outcome is not None and _is_made(outcome) and self._packing.has_bytes(key):
                    self._made[key] = outcome
            elif key in by_digest:
                number = self._next_round(key, outcome)
                if number < len(self._rounds):
                    found[key] = number
            elif self._packing.clips[key]["leaf"] not in packed and not self._packing.has_bytes(key):
                found[key] = 0
        return found

    def _next_round(self, key: str, outcome: ClipOutcome) -> int:
        """The first round that has something which was not tried; their number when there is none."""
        for number in range(len(self._rounds) - 1, -1, -1):
            if outcome.status == PENDING or outcome.tried == self._digest(number, key):
                if outcome.status in (OK, PENDING):
                    return len(self._rounds)
                if number + 1 < len(self._rounds) and outcome.status != MISSING:
                    self._failed[key] = outcome
                return number + 1
        return 0

    def _turn(self, number: int) -> list[str]:
        """The open clips that have come to a round, in order of leaf."""
        return [key for key, first in self._from.items() if first <= number]

    def _ask(self, number: int, keys: Iterable[str]) -> None:
        """Have the sources of a round say what they have for these clips."""
        sources = self._rounds[number]
        answers = self._files[number] if isinstance(sources, tuple) else self._archives[number]
        new = [key for key in keys if key not in answers]
        wanted = [self._wanted[key] for key in new]
        if not new:
            return
        if isinstance(sources, tuple):
            found = [source.candidates(wanted, self._rivals) for source in sources]
            files = ((key, sum(own, _NO_FILES)) for key, own in zip(new, zip(*found, strict=True), strict=True))
            self._files[number].update(files)
        else:
            self._archives[number].update(zip(new, sources.identities(wanted), strict=True))

    def _is_offered(self, number: int, key: str) -> bool:
        return bool(self._files[number].get(key) or self._archives[number].get(key))

    def _offered(self, number: int, key: str) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
        """All files up to and including a round, and all archives."""
        files = sum((asked.get(key, _NO_FILES) for asked in self._files[: number + 1]), _NO_FILES)
        return files, tuple(filter(None, (asked.get(key) for asked in self._archives[: number + 1])))

    def _digest(self, number: int, key: str) -> str:
        return fingerprint(*self._offered(number, key))

    def _require_any(self) -> None:
        """Raise when no source has anything for any planned clip: most likely it is the wrong folder."""
        if any(o.status == OK for o in self._ledger.outcomes.values()):
            return
        for number in range(len(self._rounds)):
            for keys in (self._from, self._wanted):
                self._ask(number, keys)
                if any(self._is_offered(number, key) for key in keys):
                    return
        if self._wanted:
            names = [name for sources in self._rounds for name in _names(sources)]
            raise SourceError(
                f"none of the {len(self._wanted):,} planned clips has a video in {', '.join(names)}",
                hint="files are found by name: the 11-character id, then _{start:06d}_{end:06d} if they are trimmed; a "
                "table of addresses needs the ids of the lists",
            )

    def _jobs(self, number: int, keys: Sequence[str], crew: Crew) -> Generator[ClipJob, None, None]:
        """The jobs of a round; what a source raises is kept, so that what is in flight comes to its end."""
        sources = self._rounds[number]
        if isinstance(sources, tuple):
            yield from (self._job(number, key, self._files[number][key], crew) for key in keys)
            return
        try:
            yield from self._streamed_jobs(number, sources, keys, crew)
        except K710Error as error:
            self._error = error

    def _streamed_jobs(self, number: int, source: Streamed, keys: Sequence[str], crew: Crew) -> Iterator[ClipJob]:
        folder = crew.scratch / f"offered-{number}"
        if not keys:
            return
        folder.mkdir()
        offers = source.offers({key: self._wanted[key] for key in keys}, folder)
        try:
            for key, offered in offers:
                if key in self._from:
                    yield self._job(number, key, (offered,), crew)
                elif offered.is_ours:
                    Path(offered.path).unlink(missing_ok=True)
        finally:
            # It may hold files and threads.
            if isinstance(offers, Generator):
                offers.close()

    def _job(self, number: int, key: str, candidates: tuple[Candidate, ...], crew: Crew) -> ClipJob:
        before, archives = self._offered(number, key)
        return ClipJob(
            segment=self._wanted[key].segment,
            candidates=candidates,
            target=crew.scratch / f"{key}.mp4",
            encode=self._encode,
            before=before[: len(before) - len(self._files[number].get(key, ()))],
            archives=archives,
            failed=self._failed.get(key),
        )

    def _took(self, number: int, outcomes: Sequence[ClipOutcome]) -> list[ClipOutcome]:
        """Those of the outcomes that are final: the others have a chance left."""
        final = []
        sources = self._rounds[number]
        is_last = number == len(self._rounds) - 1 and isinstance(sources, tuple)
        for outcome in outcomes:
            if is_last or outcome.status in (OK, PENDING):
                self._from.pop(outcome.key)
                final.append(self._kept(outcome))
            elif outcome.status != MISSING:
                self._failed.setdefault(outcome.key, outcome)
        if not isinstance(sources, tuple):
            sources.unusable([outcome.key for outcome in outcomes if outcome.status != OK])
            sources.settled([outcome.key for outcome in outcomes])
        return final

    def _end_stream(self, number: int, source: Streamed, keys: Sequence[str]) -> list[ClipOutcome]:
        """Record what was read in vain for clips, before the next round; returns those that wait for another run."""
        left = [key for key in keys if key in self._from]
        may_come = source.may_come(left)
        waiting = [self._kept(ClipOutcome(key=key, status=PENDING, detail=detail)) for key, detail in may_come.items()]
        self._record(waiting)
        for outcome in waiting:
            self._from.pop(outcome.key)
        self._record([self._kept(self._final(number, key)) for key in left if key in self._from])
        return waiting

    def _settle(self, keys: Iterable[str]) -> list[ClipOutcome]:
        """Record the outcome of clips that nothing more can be tried for."""
        outcomes = [self._kept(self._final(len(self._rounds) - 1, key)) for key in keys]
        self._record(outcomes)
        for outcome in outcomes:
            self._from.pop(outcome.key)
        return outcomes

    def _kept(self, outcome: ClipOutcome) -> ClipOutcome:
        """The outcome; of a clip that was to be made anew, and could not be, the one that it has."""
        return outcome if outcome.status == OK else self._made.get(outcome.key, outcome)

    def _final(self, number: int, key: str) -> ClipOutcome:
        failed = self._failed.get(key)
        tried = self._digest(number, key)
        return ClipOutcome(key=key, status=MISSING, tried=tried) if failed is None else replace(failed, tried=tried)

    def _record(self, outcomes: Iterable[ClipOutcome]) -> None:
        """Write down what is not known yet."""
        known = self._ledger.outcomes
        self._ledger.add_all([o for o in outcomes if o.key not in known or _essence(known[o.key]) != _essence(o)])


def _is_made(outcome: ClipOutcome) -> bool:
    """Whether a clip has bytes of its own."""
    return outcome.status == OK and not outcome.path


def _names(sources: Round) -> Iterator[str]:
    for source in sources if isinstance(sources, tuple) else (sources,):
        yield from source.names


def _essence(outcome: ClipOutcome) -> tuple[str, str]:
    return outcome.status, outcome.tried
