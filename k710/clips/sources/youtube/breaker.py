"""When the site is not asked at all: a circuit breaker that all processes of a machine share.

It opens when the site refuses to be asked, as by "confirm you're not a bot" or code 429, or when nothing but trouble
came of many videos in a row. While it is open nobody asks. Then one process may ask for one video, to see: an answer
closes it, another refusal opens it for twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from k710.clips.sources.youtube.shared_record import SharedRecord, now_s

TROUBLE_IN_A_ROW = 10
"""Videos in a row, of all processes, that came to nothing for other reasons than their own."""
TROUBLE_REST_S = 300.0
"""The first rest after those: a network that was down, or a proxy, may be back soon, and one request tells."""
MAX_REST_S = 6 * 3600.0
"""The longest rest."""

_NUMBERS = ("until_s", "trial_until_s", "rest_s", "troubles")


class Answer(Enum):
    """What a request says about the site."""

    GIVEN = "given"
    """It answered: the video, or why there is none."""
    WALL = "wall"
    """It refuses to be asked, for now."""
    TROUBLE = "trouble"
    """Something passing went wrong on the way, or nobody knows what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Leave to ask, or how long there is none."""

    wait_s: float = 0.0
    """Seconds until somebody may ask again; 0: one may ask."""
    is_trial: bool = False
    """Whether this is the one video that tells whether the site answers again."""
    why: str = ""
    """What the breaker was opened for."""


class Breaker:
    """The breaker in ``folder``."""

    def __init__(self, folder: Path, *, rest_s: float, trial_s: float, clock: Callable[[], float] = now_s) -> None:
        """Open it for ``rest_s`` seconds; a trial that has not ended after ``trial_s`` was lost with its process."""
        self._record = SharedRecord(folder, "breaker")
        self._rest_s, self._trial_s, self._clock = rest_s, trial_s, clock

    def enter(self) -> Turn:
        """Ask for leave to ask.

        Raises:
            SourceError: the record cannot be locked or written.
        """
        with self._record.changing() as record:
            now = self._clock()
            until, why = self._until(record, now), str(record.get("why", ""))
            if until is None:
                return Turn()
            trial_until = min(float(record.get("trial_until_s", 0.0)), now + self._trial_s)
            wait_s = max(until, trial_until) - now
            if wait_s > 0:
                return Turn(wait_s=wait_s, why=why)
            record["trial_until_s"] = now + self._trial_s
            return Turn(is_trial=True, why=why)

    def peek(self) -> Turn | None:
        """How long nobody may ask; None while everybody may."""
        with self._record.changing() as record:
            now = self._clock()
            until = self._until(record, now)
            return None if until is None else Turn(wait_s=max(until - now, 0.0), why=str(record.get("why", "")))

    def report(self, turn: Turn, answer: Answer, why: str = "") -> None:
        """Tell what came of a request."""
        with self._record.changing() as record:
            now = self._clock()
            is_open = self._until(record, now) is not None
            if answer is Answer.GIVEN:
                # While it is open only the trial counts: other answers are to requests from before.
                if turn.is_trial or not is_open:
                    record.clear()
                return
            troubles = int(record.get("troubles", 0)) + 1
            if turn.is_trial or (not is_open and (answer is Answer.WALL or troubles >= TROUBLE_IN_A_ROW)):
                self._open(record, now, why, answer, again=turn.is_trial)
            elif not is_open:
                record["troubles"] = troubles

    def leave(self, turn: Turn) -> None:
        """Give a turn back that came to no answer."""
        if turn.is_trial:
            with self._record.changing() as record:
                record.pop("trial_until_s", None)

    def _open(self, record: dict[str, Any], now: float, why: str, answer: Answer, *, again: bool) -> None:
        rest_s = self._rest_s if answer is Answer.WALL else min(self._rest_s, TROUBLE_REST_S)
        if again:
            rest_s = max(rest_s, min(2 * float(record.get("rest_s", rest_s)), MAX_REST_S))
        record.clear()
        record.update(until_s=now + rest_s, rest_s=rest_s, why=why[:100])

    def _until(self, record: dict[str, Any], now: float) -> float | None:
        """Until when the breaker is open; None when it is closed."""
        if "damaged" in record or not all(isinstance(record.get(name, 0), int | float) for name in _NUMBERS):
            # Nobody knows whether it was open: the next one is a trial.
            record.clear()
            record.update(until_s=now, rest_s=self._rest_s, why="its record was damaged")
        if "until_s" not in record:
            return None
        # What is further off than any rest is of a clock that went back.
        record["until_s"] = min(float(record["until_s"]), now + max(MAX_REST_S, self._rest_s))
        return float(record["until_s"])
