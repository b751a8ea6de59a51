"""What became of each clip, on disk the moment it is known: one JSON line an outcome, the last line of a key counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from k710 import atomic
from k710.clips.outcomes import ClipOutcome

if TYPE_CHECKING:
    from k710.clips.make import ClipJob

SCHEMA = "k710.ledger/1"

_NAMES = tuple(field.name for field in fields(ClipOutcome))
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(ClipOutcome) if field.default is not MISSING}


class Ledger:
    """The outcomes of one build; one process writes it."""

    def __init__(self, path: Path, encode_digest: str) -> None:
        """Read the outcomes that were made under the same encode arguments; a torn last line is dropped."""
        self._path = path
        self._encode_digest = encode_digest
        self.outcomes: dict[str, ClipOutcome] = {}
        self._whole_bytes = 0
        if path.exists():
            self._read()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._path.open("ab")
        # A line that was being written when the machine died must not run into the next one.
        self._handle.truncate(self._whole_bytes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()

    def add(self, outcome: ClipOutcome) -> None:
        """Record an outcome, durably."""
        self.add_all([outcome])

    def add_all(self, outcomes: Sequence[ClipOutcome]) -> None:
        """Record outcomes, durably, waiting for the disk once."""
        if not outcomes:
            return
        for outcome in outcomes:
            # Fields at their defaults are left out: most lines of a build with few videos say `missing` and no more.
            facts = {name: value for name in _NAMES if (value := getattr(outcome, name)) != _DEFAULTS.get(name)}
            record = {"schema": SCHEMA, "encode": self._encode_digest, **facts}
            self._handle.write(json.dumps(record, sort_keys=True).encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.outcomes.update((outcome.key, outcome) for outcome in outcomes)

    def _read(self) -> None:
        with self._path.open("rb") as handle:
            for line in handle:
                record = _parsed(line)
                if record is None:
                    break
                self._whole_bytes += len(line)
                if record.pop("schema") == SCHEMA and record.pop("encode") == self._encode_digest:
                    record["notes"] = tuple(record.get("notes", ()))
                    self.outcomes[record["key"]] = ClipOutcome(**record)


def on_the_disk(make: Callable[[ClipJob], ClipOutcome], job: ClipJob) -> ClipOutcome:
    """What ``make`` makes of a job, told when the bytes are on the disk; for the worker, so that none waits for all."""
    outcome = make(job)
    if outcome.sha256:
        atomic.sync_file(job.target)
    return outcome


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
