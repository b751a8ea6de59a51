"""What the weights of a file have seen, against lists, and with lists that it lacks: ``k710 lineage``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from k710 import schema
from k710.errors import CheckpointError, UsageError
from k710.segments import id_digests
from k710.shards.index import HELD_OUT_FILE
from k710.store import Store
from k710.tables import table_from_bytes
from uniformerv2.training.checkpoint import Provenance, save_model
from uniformerv2.training.lineage import Hashes, Lineage
from uniformerv2.training.source import Source, file_sha256, find_weights, read_source, require_not_of

_ADDED = "(added)"
"""Ends the name of a list that a user added: it is what somebody says, not what a run has written down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenOf:
    """How much of a list some weights have seen."""

    name: str
    """The list, as ``k400:val``."""
    videos: int
    """Its videos."""
    seen: int
    """Those that are in the lineage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageSummary:
    """What some weights have seen."""

    checkpoint: Path
    """The weights file."""
    checkpoint_sha256: str
    """Of it."""
    known: bool
    """Whether ``views`` is all that they have seen."""
    statement: str
    """All of this in one sentence."""
    views: Mapping[str, int]
    """Videos by view."""
    videos: int
    """Videos of all views, once each."""
    not_checked: tuple[str, ...]
    """Lists that a build behind the views was not given, as ``k700:train``."""
    against: tuple[SeenOf, ...] = ()
    """Other lists, and how much of them was seen; when ``known`` is false, at least so much."""
    added: int = 0
    """Videos that were not in the lineage before lists were added."""


def lineage_of(source: Path, *, against: Mapping[str, Hashes] | None = None) -> LineageSummary:
    """What the weights at ``source`` have seen, and how much of the lists ``against``, given as hashes of videos.

    Raises:
        CheckpointError: weights that cannot be read, or a lineage that is not theirs.
    """
    read = read_source(source)
    return _summary(find_weights(source), read.sha256, read.lineage, against or {})


def add_to_lineage(
    source: Path,
    out: Path,
    lists: Mapping[str, Hashes],
    *,
    complete: bool = False,
    against: Mapping[str, Hashes] | None = None,
) -> LineageSummary:
    """Write the weights at ``source`` to ``out`` with ``lists``, hashes of videos by name, in their lineage.

    The lineage is written first and the weights take their name last: whatever ends this, no file names another's
    lineage. ``source`` stays as it is.

    Args:
        source: run folder or weights file of ours.
        out: a new ``.safetensors`` file.
        lists: what the weights have seen, too.
        complete: whether that is then all that they have seen.
        against: as in ``lineage_of``, counted after ``lists`` were added.

    Raises:
        UsageError: ``out`` exists, or is not a model file's name.
        CheckpointError: weights that cannot be read, or that do not say what model and classes they are of.
    """
    weights = find_weights(source)
    _require_new(weights, out)
    read = read_source(source)
    lineage = read.lineage
    before = lineage.all_hashes
    for name, id_hashes in lists.items():
        lineage = lineage.with_view(f"{name} {_ADDED}", np.unique(id_hashes))
    lineage = Lineage(views=lineage.views, known=lineage.known or complete, not_checked=lineage.not_checked)
    save_model(out, read.state, _provenance(weights, read, lineage))
    added = len(np.setdiff1d(lineage.all_hashes, before))
    return _summary(out, file_sha256(out), lineage, against or {}, added=added)


def hashed(ids: Iterable[Any], kind: str = "youtube") -> Hashes:
    """The hashes under which videos are compared, sorted, each once; ``kind`` says whose ids they are."""
    return np.unique(np.frombuffer(id_digests(map(str, ids), kind), ">u8").astype(np.uint64))


def held_out_lists(data: str | Path) -> dict[str, Hashes]:
    """Hashes of the videos of every held-out list that the build at ``data`` was given, by name as ``k400:val``.

    Raises:
        FeedError: no build is there, or a damaged one.
    """
    store = Store(data)
    table = table_from_bytes(store.read(HELD_OUT_FILE), schema.HELD_OUT, where=store.url(HELD_OUT_FILE))
    names = np.array([f"{r}:{s}" for r, s in zip(*(table[n].to_pylist() for n in ("release", "split")), strict=True)])
    hashes = table["id_hash"].to_numpy()
    return {str(name): np.unique(hashes[names == name]) for name in np.unique(names)}


def _require_new(weights: Path, out: Path) -> None:
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: is written as a model file", hint="give a name that ends in .safetensors")
    require_not_of(weights, out)
    if out.exists():
        raise UsageError(f"--out {out}: exists", hint="give another --out, or remove the file")


def _provenance(weights: Path, read: Source, lineage: Lineage) -> Provenance:
    if read.classes is None or not read.config:
        raise CheckpointError(
            f"{weights}: does not say what model and classes it is of, so that it cannot be written with a lineage",
            hint="bring it into our form first: k710 finetune --epochs 0 --target RELEASE --recipe NAME --from FILE; "
            "for K710: k710 pretrain --init official:FILE --recipe NAME --set optim.epochs=0 "
            "--set optim.warmup_epochs=0",
        )
    return Provenance(config=read.config, classes=read.classes, data_digest=read.data_digest, lineage=lineage)


def _summary(
    checkpoint: Path, sha256: str, lineage: Lineage, against: Mapping[str, Hashes], added: int = 0
) -> LineageSummary:
    return LineageSummary(
        checkpoint=checkpoint,
        checkpoint_sha256=sha256,
        known=lineage.known,
        statement=lineage.statement,
        views={name: len(ids) for name, ids in sorted(lineage.views.items())},
        videos=len(lineage.all_hashes),
        not_checked=lineage.not_checked,
        against=tuple(
            SeenOf(name=name, videos=len(np.unique(ids)), seen=lineage.count_in(ids)) for name, ids in against.items()
        ),
        added=added,
    )
