"""The files that an evaluation writes, and what they must not take the place of."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k710 import atomic
from k710.errors import UsageError
from k710.tables import NAME_KEY
from uniformerv2.report import CONFUSION, SCORES, EvaluationReport, confusion_table, is_report, scores_table
from uniformerv2.training.source import require_not_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFiles:
    """Where an evaluation is written; None: not."""

    out: Path | None = None
    """The report, as JSON."""
    scores: Path | None = None
    """The probabilities of every class for every clip, as Parquet."""
    confusion: Path | None = None
    """The confusion matrix, as Parquet."""

    def __post_init__(self) -> None:
        for flag, path in self._tables:
            if path.suffix.lower() != ".parquet":
                raise UsageError(f"{flag} {path}: is written as Parquet", hint="give a name that ends in .parquet")
        paths = [os.path.realpath(path) for _, path in self._all]
        if len(set(paths)) < len(paths):
            raise UsageError(f"two of {', '.join(f for f, _ in self._all)} are one file", hint="give each its own")

    @property
    def partial(self) -> Path | None:
        """Folder for what is scored so far; None: nothing is written."""
        first = self._all[0][1] if self._all else None
        return first.with_name(f"{first.name}.partial") if first is not None else None

    @property
    def _tables(self) -> list[tuple[str, Path]]:
        named = (("--scores", self.scores), ("--confusion", self.confusion))
        return [(flag, path) for flag, path in named if path is not None]

    @property
    def _all(self) -> list[tuple[str, Path]]:
        return [("--out", self.out), *self._tables] if self.out is not None else self._tables

    def require_free(self, weights: Path) -> None:
        """Refuse a place where anything but an older file of the same kind is, or where a run keeps its files."""
        kinds = {"--scores": SCORES, "--confusion": CONFUSION}
        for flag, path in self._all:
            try:
                require_not_of(weights, path)
            except UsageError as error:
                raise UsageError(f"{flag}{error.message.removeprefix('--out')}", hint=f"give another {flag}") from error
            what = "a report" if flag == "--out" else f"a table of {flag.removeprefix('--')}"
            is_older = _is_report(path) if flag == "--out" else _is_table(path, kinds[flag])
            if os.path.lexists(path) and not path.is_dir() and not is_older:
                raise UsageError(
                    f"{flag} {path}: exists and is not {what}", hint=f"give another {flag}, or remove the file"
                )

    def require_writable(self) -> None:
        """Fail before the scoring, which may take hours, rather than after it."""
        for flag, path in self._all:
            try:
                if path.is_dir():
                    raise IsADirectoryError(f"{path} is a folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=path.parent):
                    pass
            except OSError as error:
                raise UsageError(f"{flag} {path}: cannot be written: {error}") from error

    def write(self, report: EvaluationReport, scores_NK: npt.NDArray[np.float32], names: Sequence[str]) -> None:
        """Write what was asked for, the report last: where it is, all is."""
        if self.scores is not None:
            _write_table(self.scores, scores_table(report.predictions, scores_NK, names))
        if self.confusion is not None:
            _write_table(self.confusion, confusion_table(report.predictions, names))
        if self.out is not None:
            with atomic.writable(self.out.parent):
                atomic.write_json(self.out, report.to_json())


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic.writable(path.parent), atomic.replacing(path) as partial:
        # A dictionary of probabilities, hardly any of which occurs twice, would take more room than they do.
        pq.write_table(table, partial, compression="zstd", use_dictionary=False)


def _is_report(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as handle:
            # Weights of gigabytes are not read to see that they are no JSON.
            return handle.read(1) == b"{" and is_report(json.loads(b"{" + handle.read()))
    except (OSError, ValueError, RecursionError):
        return False


def _is_table(path: Path, schema: pa.Schema) -> bool:
    if not path.is_file():
        return False
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.metadata or {}
    except (OSError, pa.ArrowInvalid):
        return False
    return found.get(NAME_KEY) == (schema.metadata or {})[NAME_KEY]
