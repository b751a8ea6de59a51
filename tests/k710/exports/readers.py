"""The tools' own readers of ``path label`` lists, written from what their documents and sources say of the format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from k710.exports.summary import ExportSummary

Rows = list[tuple[str, int]]
Export = Callable[..., ExportSummary]
"""What the fixture ``run`` gives."""


def mmaction2(path: Path, prefix: str) -> Rows:
    """``VideoDataset``: lines stripped and split at a space, two fields; one field is a video without label, -1."""
    rows = []
    for line in path.read_text().split("\n")[:-1]:
        fields = line.strip().split(" ")
        filename, label = (fields[0], -1) if len(fields) == 1 else (fields[0], int(fields[1]))
        assert len(fields) <= 2
        rows.append((os.path.join(prefix, filename), label))  # noqa: PTH118 - as the tool does
    return rows


def slowfast(path: Path, prefix: str, separator: str = " ") -> Rows:
    """``Kinetics``: ``splitlines``, two fields at PATH_LABEL_SEPARATOR; path below PATH_PREFIX."""
    rows = []
    for line in path.read_text().splitlines():
        filename, label = line.split(separator)
        rows.append((os.path.join(prefix, filename), int(label)))  # noqa: PTH118 - as the tool does
    return rows


def uniformerv2(path: Path, prefix: str) -> Rows:
    """A fork of SlowFast; its Kinetics scripts set the separator to a comma."""
    return slowfast(path, prefix, ",")


def videomaev2(path: Path, prefix: str) -> Rows:
    """``VideoClsDataset``: ``pandas.read_csv`` without header, columns at a space; path below ``data_root``."""
    table = pd.read_csv(path, header=None, delimiter=" ")
    return [(os.path.join(prefix, row[0]), int(row[1])) for row in table.to_numpy()]  # noqa: PTH118 - as the tool does


def vjepa2(path: Path, prefix: str) -> Rows:
    """``VideoDataset``: ``pandas.read_csv`` without header, columns at a space; paths are taken as they stand."""
    assert path.suffix == ".csv"
    table = pd.read_csv(path, header=None, delimiter=" ")
    return [(str(row[0]), int(row[1])) for row in table.to_numpy()]


READERS: dict[str, Callable[[Path, str], Rows]] = {
    "mmaction2": mmaction2,
    "slowfast": slowfast,
    "uniformerv2": uniformerv2,
    "videomaev2": videomaev2,
    "vjepa2": vjepa2,
}
