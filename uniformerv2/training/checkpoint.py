"""What a run writes: checkpoints to go on from, ``model.safetensors`` with its lineage to use."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from k710 import atomic
from k710.config import from_mapping, to_mapping
from k710.errors import CheckpointError
from uniformerv2.training.classes import ClassTable
from uniformerv2.training.digest import content_digest
from uniformerv2.training.lineage import Lineage, write_lineage
from uniformerv2.training.metrics import Validation
from uniformerv2.weights.files import read_weights

CHECKPOINT_FILE = "checkpoint.pt"
"""The only checkpoint of a run of schema version 1; later ones are in a folder, see ``saves.py``."""
MODEL_FILE = "model.safetensors"
SCHEMA = "uniformerv2.checkpoint"
SCHEMA_VERSION = 2
"""Of the checkpoints that are written. Version 1 has no digest, running average, loss scale or validation."""
VERSIONS_READ = (1, 2)
MODEL_SCHEMA_VERSION = 1
"""Of the header of a model file."""
HEADER_KEY = "uniformerv2"
"""Key of our JSON in the metadata of a safetensors file."""
_TORCH_WRITER = re.compile(r"unexpected pos|PytorchStreamWriter|iostream error|file write failed")
"""Torch's own words for a write that ended early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """Where a run is in its data: all that decides which clip comes next."""

    view_digest: str
    """Clips and classes of the train view."""
    data_digest: str
    """View, class table and encode arguments."""
    window: int
    """Blocks shuffled together; 0: the whole view."""
    taken_out_digest: str
    """Positions without bytes or class."""
    global_batch: int
    """Clips of a step."""
    epoch: int = 0
    """Epochs finished."""
    samples_done: int = 0
    """Clips of the epoch under way that are done."""
    step: int = 0
    """Optimiser steps since the run began."""
    holes: int = 0
    """Clips of the epoch under way that failed at read time."""

    @property
    def step_in_epoch(self) -> int:
        """Steps of the epoch under way that are done."""
        return self.samples_done // self.global_batch

    def after_step(self, steps_per_epoch: int, holes: int) -> RunState:
        """The state one step on; an epoch ends with its last whole global batch."""
        done = self.samples_done + self.global_batch
        if done < steps_per_epoch * self.global_batch:
            return dataclasses.replace(self, samples_done=done, step=self.step + 1, holes=self.holes + holes)
        return dataclasses.replace(self, epoch=self.epoch + 1, samples_done=0, step=self.step + 1, holes=0)


def nowhere(global_batch: int) -> RunState:
    """The state of a run that trains on nothing."""
    return RunState(view_digest="", data_digest="", window=0, taken_out_digest="", global_batch=global_batch)


IDENTITY = ("view_digest", "data_digest", "window", "taken_out_digest", "global_batch")
"""Fields of ``RunState`` that must be the same for a run to go on inside an epoch."""


def go_on(saved: RunState, now: RunState, *, restart_epoch: bool) -> RunState:
    """The state from which a run with the data ``now`` goes on.

    Raises:
        CheckpointError: the data or the batch differ, and ``restart_epoch`` does not ask for the next epoch.
    """
    changed = [name for name in IDENTITY if getattr(saved, name) != getattr(now, name)]
    if not changed:
        return saved
    if not restart_epoch:
        lines = ", ".join(f"{n} {getattr(saved, n)!s:.16} -> {getattr(now, n)!s:.16}" for n in changed)
        raise CheckpointError(
            f"the checkpoint is inside an order that no longer exists: {lines}",
            hint="go on at the start of the next epoch with --set runtime.restart_epoch=true, or restore the data",
        )
    epoch = saved.epoch + (1 if saved.samples_done else 0)
    return dataclasses.replace(now, epoch=epoch, step=saved.step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What goes with weights wherever they are written."""

    config: Mapping[str, Any]
    """Resolved settings of the run, plain values."""
    classes: ClassTable
    """Row by row."""
    data_digest: str
    """Of the view trained on; empty: none."""
    lineage: Lineage
    """Videos seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """All that a run goes on from."""

    model: dict[str, Tensor]
    """State dict."""
    optimizer: dict[str, Any]
    """State dict."""
    state: RunState
    """Where the run is."""
    provenance: Provenance
    """Settings, classes, data and lineage."""
    ema: dict[str, Tensor] = field(default_factory=dict)
    """Running average of the weights by name; empty: none is kept."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the loss scale; empty: none is used."""
    validation: Validation | None = None
    """Scores of these weights; None: they were not scored."""
    best: Validation | None = None
    """The best scores of the run so far; None: nothing was scored."""


class OtherVersionError(CheckpointError):
    """A file of ours, of a version that is not read here: whole, so nothing older is taken in its place."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at ``path``; a kill at any moment leaves the old one or the new one."""
    with writing(path, size_of(checkpoint)), atomic.replacing(path) as partial:
        write_checkpoint(partial, checkpoint)


def size_of(checkpoint: Checkpoint) -> int:
    """Bytes of the tensors of ``checkpoint``, about what its file takes."""
    return tensor_bytes([checkpoint.model, checkpoint.optimizer, checkpoint.ema, checkpoint.scaler])


def write_checkpoint(partial: Path, checkpoint: Checkpoint) -> None:
    """Write the bytes of ``checkpoint`` into the file ``partial``."""
    p = checkpoint.provenance
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "ema": checkpoint.ema,
        "scaler": checkpoint.scaler,
        "state": to_mapping(checkpoint.state),
        "validation": to_mapping(checkpoint.validation) if checkpoint.validation else None,
        "best": to_mapping(checkpoint.best) if checkpoint.best else None,
        "config": to_mapping(p.config),
        "classes": p.classes.to_plain(),
        "data_digest": p.data_digest,
        "lineage": p.lineage.to_plain(),
    }
    torch.save(content | {"digest": content_digest(content)}, partial)


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; no code is run from it.

    Raises:
        CheckpointError: missing, damaged, or not one of ours of a version that is read here.
    """
    return parse_checkpoint(read_weights(path), where=str(path))


def parse_checkpoint(content: Mapping[str, Any], *, where: str) -> Checkpoint:
    """The checkpoint whose loaded content this is; from version 2 on its digest must be that of the content."""
    check_schema(content, where, versions=VERSIONS_READ)
    with parsing(where):
        if content["schema_version"] > 1:
            _require_digest(content, where)
        return Checkpoint(
            model=content["model"],
            optimizer=content["optimizer"],
            ema=content.get("ema", {}),
            scaler=content.get("scaler", {}),
            state=RunState(**content["state"]),
            validation=_validation(content.get("validation")),
            best=_validation(content.get("best")),
            provenance=Provenance(
                config=content["config"],
                classes=ClassTable.from_plain(content["classes"]),
                data_digest=content["data_digest"],
                lineage=Lineage.from_plain(content["lineage"]),
            ),
        )


def _require_digest(content: Mapping[str, Any], where: str) -> None:
    if content["digest"] != content_digest({name: value for name, value in content.items() if name != "digest"}):
        raise CheckpointError(
            f"{where}: damaged: its content is not what was saved (the digests differ)", hint="use another copy of it"
        )


def _validation(plain: Mapping[str, Any] | None) -> Validation | None:
    return None if plain is None else from_mapping(Validation, plain, where="validation")


def check_schema(content: Mapping[str, Any], where: str, versions: tuple[int, ...] = (MODEL_SCHEMA_VERSION,)) -> None:
    """Raise a ``CheckpointError`` unless the schema is ours and the version one of ``versions``."""
    name, version = content.get("schema"), content.get("schema_version")
    if name != SCHEMA:
        raise CheckpointError(f"{where}: not a checkpoint of this program (schema {name!r})")
    if version not in versions:
        read = " and ".join(map(str, versions))
        raise OtherVersionError(f"{where}: schema version {version}, this version reads {read}")


@contextmanager
def parsing(where: str) -> Iterator[None]:
    """Turn what a missing or misshapen part of a checkpoint raises inside the block into a ``CheckpointError``."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{where}: damaged, or not written by this program: {error!r}"
        raise CheckpointError(message, hint="use another copy of it") from error


@contextmanager
def writing(path: Path, size_bytes: int = 0) -> Iterator[None]:
    """Turn what a disk that takes no more raises inside the block into a ``CheckpointError``.

    ``size_bytes`` is about what is written, for its message; 0: too little to matter.
    """
    try:
        yield
    # Torch and safetensors wrap what the system says in errors of their own.
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason, is_full = _reason(error)
        room = _room(path, size_bytes) if is_full else ""
        first = "make room" if is_full else "see that it can be written"
        hint = f"{first}, then run the same command again; what was saved before is whole"
        raise CheckpointError(f"{path}: cannot be written: {reason}{room}", hint=hint) from error


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in mappings and lists of them."""
    if isinstance(value, Tensor):
        return value.nbytes
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(tensor_bytes(one) for one in inner)


def _reason(error: Exception) -> tuple[str, bool]:
    """What ended a write, in the words of the system, and whether it was a lack of room."""
    text = (str(error).splitlines() or [repr(error)])[0]
    said = re.search(r"os error (\d+)", text)
    number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
    if number is not None:
        return os.strerror(number), number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(text):
        return "the disk took only a part of it", True
    return text, False


def _room(path: Path, size_bytes: int) -> str:
    """What is needed and what is there, in words."""
    folder = next((p for p in path.parents if p.exists()), None)
    free = f"{shutil.disk_usage(folder).free / 2**20:,.1f} MiB are free" if folder is not None else ""
    needed = f"it takes about {size_bytes / 2**20:,.1f} MiB" if size_bytes else ""
    return "".join(f"; {part}" for part in (needed, free) if part)


def lineage_path(model_path: Path) -> Path:
    """The lineage file beside a model file: ``model.lineage.parquet`` beside ``model.safetensors``."""
    return model_path.with_name(f"{model_path.stem}.lineage.parquet")


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over names and values of the tensors of a model file, whatever their order in it."""
    return content_digest(dict(sorted(weights.items())))


def save_model(path: Path, model: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Write the weights with everything that is needed to use them, and the lineage beside them first."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}
    with writing(path):
        lineage_sha256 = write_lineage(lineage_path(path), provenance.lineage)
    header = {
        "schema": SCHEMA,
        "schema_version": MODEL_SCHEMA_VERSION,
        "config": to_mapping(provenance.config),
        "classes": provenance.classes.to_plain(),
        "data_digest": provenance.data_digest,
        "lineage_sha256": lineage_sha256,
        "lineage_known": provenance.lineage.known,
        "weights_digest": weights_digest(weights),
        "not_checked": list(provenance.lineage.not_checked),
    }
    with writing(path, tensor_bytes(weights)), atomic.replacing(path) as partial:
        safetensors.torch.save_file(weights, partial, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
