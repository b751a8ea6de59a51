"""What tests of whole runs share: a run with everything on, a stop at a step, and the comparison of two runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from uniformerv2.training.checkpoint import Checkpoint
from uniformerv2.training.metrics import Progress
from uniformerv2.training.saves import Saves

EVERYTHING = (
    "optim.epochs=7",
    "model.global_layers=[0,1]",
    "model.drop_path_backbone=0.3",
    "model.drop_path_global=0.3",
    "optim.clip_norm=1",
    "optim.ema_decay=0.9",
)
"""21 steps of the small build with dropout, drop path, batch norm, clipping and a running average."""


def stop_at(step: int, number: signal.Signals = signal.SIGTERM) -> Callable[[Progress], None]:
    """Send this process a signal when it shows ``step``."""

    def progress(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), number)

    return progress


def saved_in(out: Path) -> Checkpoint:
    """The newest checkpoint of a run."""
    saved = Saves(out, 2).newest()
    assert saved is not None, "the run has not saved"
    return saved


def rewrite(path: Path, state: dict[str, Tensor]) -> None:
    """Other weights under the header of a model file; as in older files it has no digest of them."""
    with safe_open(path, framework="pt") as handle:
        header = json.loads(handle.metadata()["uniformerv2"])
    del header["weights_digest"]
    save_file(state, path, metadata={"uniformerv2": json.dumps(header)})


def assert_same(a: Path, b: Path, name: str = "model.safetensors") -> None:
    """The weights of two runs are the same, bit for bit."""
    ours, theirs = load_file(a / name), load_file(b / name)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def assert_close(a: Path, b: Path, name: str = "model.safetensors", atol: float = 1e-6) -> None:
    """The weights of two runs agree.

    The key biases of the layers are set aside: the softmax cancels them, so their gradient is nothing but rounding, of
    which Adam makes whole steps, and no result depends on them.
    """
    ours, theirs = load_file(a / name), load_file(b / name)
    for key, value in ours.items():
        other = theirs[key]
        if ".resblocks." in key and key.endswith("attn.in_proj_bias"):
            value, other = (torch.cat([t.chunk(3)[0], t.chunk(3)[2]]) for t in (value, other))
        torch.testing.assert_close(value, other, atol=atol, rtol=0, msg=key)
