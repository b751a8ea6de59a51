"""What an evaluation has scored so far, on the disk: one that was ended by force goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k710 import atomic
from k710.errors import FeedError, UsageError
from k710.tables import named_schema, read_table, write_table
from uniformerv2.report import scores_column
from uniformerv2.scores import ScoredBatch

PARTIAL = named_schema(
    "partial_scores",
    1,
    [
        pa.field("batch", pa.int32(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ],
)
"""The clips of whole batches, in order of batch."""
_SUFFIX = ".parquet"


class PartialScores:
    """The scored batches of an evaluation; those without holes are kept in a folder until the evaluation is done."""

    def __init__(self, folder: Path | None, digest: str, *, every_s: float) -> None:
        """Keep batches in ``folder`` (None: nowhere), every ``every_s`` seconds, under the ``digest`` of what they are.

        Raises:
            UsageError: something else is in the place of the folder.
        """
        self._folder, self._digest, self._every_s = folder, digest, every_s
        self._unsaved: list[ScoredBatch] = []
        self._last_save = time.monotonic()
        self.batches: dict[int, ScoredBatch] = {}
        """By number."""
        if folder is not None and folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is in the place of the partial scores", hint="move it, or give another --out")

    def read(self, say: Callable[[str], None]) -> frozenset[int]:
        """Numbers of the batches that are kept; what is there and cannot be used is said."""
        others = 0
        for path in self._files():
            if not path.name.startswith(self._digest):
                others += 1
                continue
            try:
                self.batches |= {batch.number: batch for batch in _read(path)}
            except FeedError as error:
                say(f"not used: {error.message}")
        if others:
            say(f"not used: partial scores in {self._folder}, of other weights, another view or other settings")
        return frozenset(self.batches)

    def add(self, batches: Sequence[ScoredBatch]) -> None:
        """Take up batches that were scored, and keep them now and then."""
        self.batches |= {batch.number: batch for batch in batches}
        # A clip that could not be read may be readable next time, so its batch is scored again.
        self._unsaved += [batch for batch in batches if not batch.holes]
        if time.monotonic() - self._last_save >= self._every_s:
            self.save()

    def save(self) -> None:
        """Keep all that is not yet kept."""
        self._last_save = time.monotonic()
        if self._folder is None or not self._unsaved:
            return
        # Under a number that nothing kept has, so that no file takes the place of another.
        path = self._folder / f"{self._digest}-{min(batch.number for batch in self._unsaved):08d}{_SUFFIX}"
        with atomic.writable(self._folder):
            write_table(path, _table(self._unsaved), PARTIAL)
        self._unsaved = []

    def remove(self) -> None:
        """Remove what was kept, of other settings too, and the folder if nothing else is in it."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in (*self._files(), *self._folder.glob(f".*{_SUFFIX}.*.partial")):
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.glob(f"*{_SUFFIX}") if not path.name.startswith("."))


def _table(batches: Sequence[ScoredBatch]) -> pa.Table:
    rows = sorted(batches, key=lambda batch: batch.number)
    scores = np.concatenate([batch.scores_NK for batch in rows])
    return pa.table(
        {
            "batch": [batch.number for batch in rows for _ in batch.positions],
            "position": [position for batch in rows for position in batch.positions],
            "scores": scores_column(scores),
        },
        schema=PARTIAL,
    )


def _read(path: Path) -> list[ScoredBatch]:
    table = read_table(path, PARTIAL)
    numbers, positions = (table[name].to_numpy() for name in ("batch", "position"))
    lists: Any = table["scores"].combine_chunks()
    scores_NK = lists.flatten().to_numpy().reshape(len(numbers), -1)
    found = []
    for number in np.unique(numbers).tolist():
        rows = numbers == number
        found.append(
            ScoredBatch(number=number, positions=tuple(positions[rows].tolist()), scores_NK=scores_NK[rows], holes=())
        )
    return found
