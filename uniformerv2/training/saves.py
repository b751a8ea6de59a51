"""The checkpoints of a run: written beside the training, the newest few and the best one kept, checked when read.

``save`` copies every tensor to host memory before it returns, so what is saved is the state of that step whatever the
loop does next. One thread then writes it under a temporary name, waits for the disk, gives it its name and removes
what is too old: until the new file is durable nothing is removed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from k710 import atomic
from k710.errors import CheckpointError
from uniformerv2.training.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    OtherVersionError,
    load_checkpoint,
    size_of,
    write_checkpoint,
    writing,
)

CHECKPOINT_FOLDER = "checkpoints"
BEST_FILE = "best.pt"
_STEP_FILE = re.compile(r"step-(\d{8,})\.pt")
_LEFTOVER = re.compile(r"\.(step-\d{8,}|best)\.pt\..*\.partial")


def step_path(out: Path, step: int) -> Path:
    """The checkpoint after ``step`` steps of the run in ``out``."""
    return out / CHECKPOINT_FOLDER / f"step-{step:08d}.pt"


def checkpoint_paths(out: Path) -> list[Path]:
    """The checkpoints in the run folder ``out``, newest first, the best one last."""
    folder = out / CHECKPOINT_FOLDER
    steps = _steps(folder)
    others = [path for path in (out / CHECKPOINT_FILE, folder / BEST_FILE) if path.is_file()]
    return [*sorted(steps, key=lambda path: steps[path], reverse=True), *others]


def newest_checkpoint_path(out: Path) -> Path | None:
    """The newest checkpoint in the run folder ``out``, unread; None: there is none."""
    return next(iter(checkpoint_paths(out)), None)


def leftovers(out: Path) -> set[Path]:
    """Temporary files of checkpoints that a killed run left in ``out``."""
    folder = out / CHECKPOINT_FOLDER
    return {path for path in folder.glob(".*.partial") if _LEFTOVER.fullmatch(path.name)}


class Saves:
    """The checkpoints in one run folder; one process writes them."""

    def __init__(self, out: Path, keep: int) -> None:
        """Of the run in ``out``, of which the ``keep`` newest stay."""
        self.said: tuple[str, ...] = ()
        """What was wrong with the checkpoints that were read, a sentence each."""
        self._out, self._keep = out, keep
        self._damaged: set[Path] = set()
        self._snapshot = _Snapshot()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Write ``checkpoint`` beside what comes next, also as the best one; waits for the save before it.

        Raises:
            CheckpointError: the save before it could not be written.
        """
        self.wait()
        frozen = self._snapshot.of(checkpoint)
        # Not a daemon: a process that ends by an error still ends its last save.
        self._thread = threading.Thread(target=self._run, args=(frozen, best), name="save")
        self._thread.start()

    def wait(self) -> None:
        """Return when everything saved is on the disk.

        Raises:
            CheckpointError: it could not be written; what was saved before is whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; ``said`` names those that are not. None: there is none at all.

        Raises:
            CheckpointError: none can be read, or the newest is of another version or may not be read.
        """
        errors: dict[Path, CheckpointError] = {}
        for path in checkpoint_paths(self._out):
            try:
                checkpoint = load_checkpoint(path)
            except OtherVersionError:
                raise
            except CheckpointError as error:
                if not os.access(path, os.R_OK):
                    raise
                errors[path] = error
                continue
            self._damaged |= set(errors)
            self.said += tuple(f"{error}; going on from {path.name} instead" for error in errors.values())
            return checkpoint
        if errors:
            raise _none_is_whole(self._out, list(errors.values()))
        return None

    def best(self) -> Path | None:
        """The checkpoint with the best scores; None: nothing was scored."""
        path = self._out / CHECKPOINT_FOLDER / BEST_FILE
        return path if path.is_file() else None

    def _run(self, checkpoint: Checkpoint, best: bool) -> None:
        try:
            self._write(checkpoint, best)
        except BaseException as error:
            # Whatever it is belongs to who saves: a thread has nobody to tell.
            self._error = error

    def _write(self, checkpoint: Checkpoint, best: bool) -> None:
        path = step_path(self._out, checkpoint.state.step)
        with writing(path, size_of(checkpoint)):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                atomic.sync_folder(self._out)
            with atomic.replacing(path) as partial:
                write_checkpoint(partial, checkpoint)
                if best:
                    # First: a kill between the two names leaves a run that comes to this step, and to its score, again.
                    _name_best(partial, path.with_name(BEST_FILE))
            self._prune(checkpoint.state.step)

    def _prune(self, step: int) -> None:
        """Remove what the checkpoint of ``step``, now durable, makes superfluous."""
        steps = _steps(self._out / CHECKPOINT_FOLDER)
        self._damaged.discard(step_path(self._out, step))
        # Later ones were damaged, and passed over: from here on the run is another.
        useless = {path for path, number in steps.items() if number > step or path in self._damaged}
        whole = sorted(steps.keys() - useless, key=lambda path: steps[path], reverse=True)
        if len(whole) >= self._keep:
            useless.add(self._out / CHECKPOINT_FILE)
        for path in (*useless, *whole[self._keep :]):
            path.unlink(missing_ok=True)


class _Snapshot:
    """Copies of tensors in host memory, in the same memory each time: only one save is under way."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}
        self._from_device = False

    def of(self, checkpoint: Checkpoint) -> Checkpoint:
        """``checkpoint`` as it is now, bit for bit."""
        parts = {name: getattr(checkpoint, name) for name in ("model", "optimizer", "ema", "scaler")}
        copied = self._copied(parts, ())
        if self._from_device:
            torch.cuda.current_stream().synchronize()
        return dataclasses.replace(checkpoint, **copied)

    def _copied(self, value: Any, where: tuple[object, ...]) -> Any:
        if isinstance(value, Tensor):
            return self._buffer(value.detach(), where).copy_(value.detach(), non_blocking=True)
        if isinstance(value, Mapping):
            return {name: self._copied(inner, (*where, name)) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._copied(inner, (*where, index)) for index, inner in enumerate(value))
        return value

    def _buffer(self, tensor: Tensor, where: tuple[object, ...]) -> Tensor:
        buffer = self._buffers.get(where)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            # Pinned memory is what a device can copy into at full speed.
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._from_device |= tensor.is_cuda
            self._buffers[where] = buffer
        return buffer


def _steps(folder: Path) -> dict[Path, int]:
    """The step of each checkpoint in ``folder`` that has one."""
    found = folder.iterdir() if folder.is_dir() else ()
    return {path: int(match[1]) for path in found if (match := _STEP_FILE.fullmatch(path.name))}


def _name_best(partial: Path, best: Path) -> None:
    """Give the bytes of ``partial`` the name ``best`` too: at no cost where the file system has links."""
    atomic.sync_file(partial)
    link = best.with_name(f".{best.name}.{partial.name.split('.')[-2]}.partial")
    try:
        os.link(partial, link)
    except OSError:
        with atomic.replacing(best) as copy:
            shutil.copyfile(partial, copy)
    else:
        link.replace(best)


def _none_is_whole(out: Path, errors: list[CheckpointError]) -> CheckpointError:
    hint = f"put sound copies of them into {out}, or begin anew: --fresh in a new folder, by another --out"
    if len(errors) == 1:
        return CheckpointError(errors[0].message, hint=hint)
    return CheckpointError(f"{out}: none of its {len(errors)} checkpoints is whole; {errors[0]}", hint=hint)
