"""What became of each clip, on disk the moment it is known: one JSON line an outcome, the last line of a key counts.

A build has one ledger. While tasks of an array job work at it, each run of a task writes one of its own beside it, as
no two machines can append to one file. They go into the one before anybody works alone, so a line of theirs is newer
than all that it holds; among themselves a clip that is there counts more than one that failed, then more attempts.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from k710 import atomic
from k710.clips.outcomes import OK, ClipOutcome

if TYPE_CHECKING:
    from k710.clips.make import ClipJob

SCHEMA = "k710.ledger/1"
LEDGER_FILE = "ledger.jsonl"
"""Of a build."""

_NAMES = tuple(field.name for field in fields(ClipOutcome))
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(ClipOutcome) if field.default is not MISSING}


class Ledger:
    """The outcomes of one build; one process writes it."""

    def __init__(
        self, path: Path, encode_digest: str, *, task: str = "", also: Callable[[bytes], None] | None = None
    ) -> None:
        """Read the outcomes that were made under the same encode arguments; a torn last line is dropped.

        Args:
            path: the ledger of the build; those of tasks beside it are read too.
            encode_digest: of the encode arguments.
            task: name of the task that writes to a ledger of its own; empty: ``path`` is written.
            also: called with the lines that are written.
        """
        self._path = path.with_name(f"{path.stem}-{task}-{secrets.token_hex(4)}{path.suffix}") if task else path
        self._encode_digest, self._also = encode_digest, also
        self.outcomes: dict[str, ClipOutcome] = {}
        self._whole_bytes = 0
        for line, record in _whole_lines(path):
            self._whole_bytes += 0 if task else len(line)
            self._take(record)
        for line in _best_of_tasks(path):
            self._take(json.loads(line))

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
        lines = []
        for outcome in outcomes:
            # Fields at their defaults are left out: most lines of a build with few videos say `missing` and no more.
            facts = {name: value for name in _NAMES if (value := getattr(outcome, name)) != _DEFAULTS.get(name)}
            record = {"schema": SCHEMA, "encode": self._encode_digest, **facts}
            lines.append(json.dumps(record, sort_keys=True).encode() + b"\n")
        self._handle.writelines(lines)
        self._handle.flush()
        os.fsync(self._handle.fileno())
        if self._also is not None:
            self._also(b"".join(lines))
        self.outcomes.update((outcome.key, outcome) for outcome in outcomes)

    def _take(self, record: dict[str, Any]) -> None:
        if record.pop("schema") == SCHEMA and record.pop("encode") == self._encode_digest:
            record["notes"] = tuple(record.get("notes", ()))
            self.outcomes[record["key"]] = ClipOutcome(**record)


def merge_ledgers(path: Path) -> None:
    """Put the ledgers of tasks into the one of the build, for whoever has the build alone; a kill costs no line."""
    beside = _of_tasks(path)
    if any(other.stat().st_size for other in beside):
        with atomic.replacing(path) as partial, partial.open("wb") as handle:
            handle.writelines(line for line, _ in _whole_lines(path))
            handle.writelines(_best_of_tasks(path))
    for other in beside:
        other.unlink()


def on_the_disk(make: Callable[[ClipJob], ClipOutcome], job: ClipJob) -> ClipOutcome:
    """What ``make`` makes of a job, told when the bytes are on the disk; for the worker, so that none waits for all."""
    outcome = make(job)
    if outcome.sha256:
        atomic.sync_file(job.target)
    return outcome


def _of_tasks(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def _best_of_tasks(path: Path) -> Iterator[bytes]:
    """For each clip and encode arguments the line of those in the ledgers of tasks that counts."""
    files = _of_tasks(path)
    # Places, not lines: all the lines of a large build would take more room than all else together.
    best: dict[tuple[Any, ...], tuple[tuple[bool, int], int, int, int]] = {}
    for number, other in enumerate(files):
        own: dict[tuple[Any, ...], tuple[tuple[bool, int], int, int, int]] = {}
        offset = 0
        for line, record in _whole_lines(other):
            clip = (record.get("schema"), record.get("encode"), record.get("key"))
            weight = (record.get("status") == OK, record.get("attempts", 1))
            own[clip] = weight, number, offset, len(line)
            offset += len(line)
        best |= {clip: place for clip, place in own.items() if clip not in best or place[0] >= best[clip][0]}
    by_file: dict[int, list[tuple[int, int]]] = {}
    for _, number, offset, size in best.values():
        by_file.setdefault(number, []).append((offset, size))
    for number, places in sorted(by_file.items()):
        with files[number].open("rb") as handle:
            for offset, size in sorted(places):
                handle.seek(offset)
                yield handle.read(size)


def _whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a ledger before the first that is torn, each with what it says."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            record = _parsed(line)
            if record is None:
                return
            yield line, record


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
