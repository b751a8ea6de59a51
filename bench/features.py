"""What kept features of a frozen backbone save: seconds for each clip of an epoch with them, without, and as usual.

usage: python bench/features.py --data BUILD [--recipe NAME] [--epochs N] [--rounds N] [--set a.b=value] [--json FILE]

Whole runs in one process, in turn (A B C A B C ...), each in a new folder; medians of the rounds, decoding included,
in wall time and, for a machine with other work, in CPU time of the process (workers are not in it: use 0 of them):
  kept      data.feature_views = 1: the first epoch computes and writes, the later ones read
  computed  the same with runtime.keep_features = false, which ends in the same weights (compared here)
  usual     data.feature_views = 0: the frozen backbone runs on whole micro-batches, and every epoch draws anew
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from uniformerv2.config import read_recipe, resolve_recipe
from uniformerv2.pretrain import PretrainConfig, pretrain
from uniformerv2.training.metrics import Progress

KINDS = {
    "kept": ("data.feature_views=1",),
    "computed": ("data.feature_views=1", "runtime.keep_features=false"),
    "usual": ("data.feature_views=0",),
}
Moment = tuple[int, float, float]
"""Steps done, wall time and CPU time."""


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured, and write it as JSON."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    result: dict[str, Any] = {"command": " ".join(sys.argv), "torch": torch.__version__, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        for number in range(arguments.rounds):
            models = {}
            for kind, settings in KINDS.items():
                out = Path(name) / f"{kind}{number}"
                runs[kind].append(measure(arguments, out, settings))
                models[kind] = load_file(out / "model.safetensors")
                result["features_bytes"] = max(result.get("features_bytes", 0), size_of(out / "features"))
                shutil.rmtree(out)
            result["same_weights"] = all(torch.equal(models["kept"][k], v) for k, v in models["computed"].items())
    for kind, of_kind in runs.items():
        result[kind] = {name: round(statistics.median(run[name] for run in of_kind), 4) for name in of_kind[0]}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(arguments: argparse.Namespace, out: Path, settings: tuple[str, ...]) -> dict[str, float]:
    """Seconds for each clip, wall and CPU, in the first epoch and in the later ones of a run.

    From the end of an epoch's first step to that of its last: what begins a run and what is saved between epochs does
    not count.
    """
    moments: list[Moment] = []

    def note(progress: Progress) -> None:
        if progress.step > len(moments):
            moments.append((progress.step, time.perf_counter(), time.process_time()))

    own = (f"optim.epochs={arguments.epochs}", "optim.warmup_epochs=0", "validation.view=")
    overrides = (*own, *arguments.set, *settings)
    config = PretrainConfig(
        recipe=arguments.recipe, data=arguments.data, out=out, overrides=overrides, allow_leaks=True
    )
    summary = pretrain(config, on_progress=note)
    steps = summary.steps // summary.epochs
    if steps < 2 or summary.epochs < 2:
        sys.exit("two epochs of two steps are the least that can be measured: lower data.global_batch")
    recipe = resolve_recipe(read_recipe(config.recipe), overrides, where=config.recipe)
    clips = recipe.data.global_batch * (steps - 1)
    epochs = [moments[first : first + steps] for first in range(0, len(moments), steps)]
    spans = [(epoch[-1][1] - epoch[0][1], epoch[-1][2] - epoch[0][2]) for epoch in epochs]
    return {
        "first_epoch_s": spans[0][0] / clips,
        "later_epochs_s": statistics.median(wall for wall, _ in spans[1:]) / clips,
        "first_epoch_cpu_s": spans[0][1] / clips,
        "later_epochs_cpu_s": statistics.median(cpu for _, cpu in spans[1:]) / clips,
    }


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="kept_b16_frozen_from_clip")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--work", type=Path, help="folder for the runs; default: the system's temporary one")
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
