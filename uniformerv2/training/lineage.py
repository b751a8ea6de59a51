"""Which videos a model's weights have seen, and whether any of them is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from k710 import schema
from k710.errors import AnswerIsNo, CheckpointError
from k710.shards.index import ShardIndex
from k710.tables import read_table, write_table

Hashes = npt.NDArray[np.uint64]
UNKNOWN = "lineage unknown: for some of what the weights have seen there is no list of videos"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The videos of every view that went into some weights, as hashes."""

    views: Mapping[str, Hashes] = field(default_factory=dict)
    """Sorted hashes by view."""
    known: bool = True
    """Whether ``views`` is all there is; False once any part came without a list."""
    not_checked: tuple[str, ...] = ()
    """Lists that a build behind these views was not given, as ``k700:train``."""

    def with_view(self, name: str, id_hashes: Hashes, not_checked: Sequence[str] = ()) -> Lineage:
        """The lineage after training on a view."""
        seen = np.union1d(self.views.get(name, np.empty(0, np.uint64)), id_hashes)
        missing = tuple(sorted({*self.not_checked, *not_checked}))
        return Lineage(views={**self.views, name: seen}, known=self.known, not_checked=missing)

    def count_in(self, id_hashes: Hashes) -> int:
        """How many of these videos the weights have seen."""
        return len(np.intersect1d(self.all_hashes, id_hashes))

    @property
    def all_hashes(self) -> Hashes:
        """The videos of all views, once each."""
        return np.unique(np.concatenate([np.empty(0, np.uint64), *self.views.values()]))

    @property
    def statement(self) -> str:
        """One sentence: what the weights have seen, or that it is unknown."""
        seen = ", ".join(f"{name} ({len(ids)} videos)" for name, ids in sorted(self.views.items()))
        unchecked = f"; not checked: {', '.join(self.not_checked)}" if self.not_checked else ""
        if not self.known:
            return UNKNOWN + (f"; known: {seen}" if seen else "") + unchecked
        return (f"seen: {seen}" if seen else "no view seen") + unchecked

    def to_plain(self) -> dict[str, Any]:
        """Tensors and scalars for a checkpoint."""
        views = {name: torch.from_numpy(ids.view(np.int64).copy()) for name, ids in self.views.items()}
        return {"views": views, "known": self.known, "not_checked": list(self.not_checked)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Lineage:
        """The lineage that ``to_plain`` wrote."""
        views = {str(name): ids.numpy().view(np.uint64) for name, ids in plain["views"].items()}
        return cls(views=views, known=bool(plain["known"]), not_checked=tuple(plain["not_checked"]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Videos that a seen view shares with a held-out list."""

    view: str
    """View that the weights have seen, or will."""
    held_out: str
    """List, as ``k400:val``."""
    videos: int
    """How many."""
    own: bool
    """Whether the list is one that the run's own target must not see."""


def overlaps(lineage: Lineage, index: ShardIndex, own: Sequence[str]) -> tuple[Overlap, ...]:
    """Every overlap of the lineage with a held-out list of the build; ``own`` names the target's lists."""
    found = []
    for release in index.lock["releases"]:
        for split, held_out in sorted(index.held_out(release).items()):
            name = f"{release}:{split}"
            for view, seen in sorted(lineage.views.items()):
                videos = len(np.intersect1d(seen, held_out))
                if videos:
                    found.append(Overlap(view=view, held_out=name, videos=videos, own=name in own))
    return tuple(found)


def own_lists(index: ShardIndex, target: str, releases: Sequence[str]) -> tuple[str, ...]:
    """The held-out lists that a run for ``target`` must not have seen: those of its releases, or all protected ones."""
    if target == "k710":
        return tuple(index.lock["protected"])
    return tuple(f"{release}:{split}" for release in releases for split in sorted(index.held_out(release)))


def refuse_leaks(found: Sequence[Overlap], target: str) -> None:
    """Raise an ``AnswerIsNo`` that names every view, list and count, when one of the target's own lists was seen."""
    leaks = [o for o in found if o.own]
    if leaks:
        named = "; ".join(f"{o.view} has {o.videos} videos of {o.held_out}" for o in leaks)
        raise AnswerIsNo(
            f"leak into {target}: {named}",
            hint="train on a view without them (`k710 build --leaks drop-train`), or go on with --allow-leaks",
        )


def write_lineage(path: Path, lineage: Lineage) -> str:
    """Write the lineage as a table; returns the sha256 of the file."""
    names = [name for name, ids in sorted(lineage.views.items()) for _ in range(len(ids))]
    hashes = np.concatenate([np.empty(0, np.uint64), *(ids for _, ids in sorted(lineage.views.items()))])
    table = pa.Table.from_pydict({"view": names, "id_hash": hashes}, schema=schema.LINEAGE)
    write_table(path, table, schema.LINEAGE)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_lineage(path: Path, *, digest: str, known: bool, not_checked: Sequence[str]) -> Lineage:
    """The lineage beside a model file; unknown when the file is missing.

    Raises:
        CheckpointError: the file is not the one that the model's header names.
    """
    if not path.is_file():
        return Lineage(known=False, not_checked=tuple(not_checked))
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise CheckpointError(
            f"{path}: not the lineage of the model beside it (the digests differ)",
            hint="copy model.safetensors and model.lineage.parquet together",
        )
    table = read_table(path, schema.LINEAGE)
    names = np.array(table["view"].to_pylist(), dtype=object)
    hashes = table["id_hash"].to_numpy().astype(np.uint64)
    views = {str(name): np.unique(hashes[names == name]) for name in sorted(set(names))}
    return Lineage(views=views, known=known, not_checked=tuple(not_checked))
