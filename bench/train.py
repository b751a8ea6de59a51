"""The engine's own share of a training step; on a GPU also clips/s, MFU and memory of whole steps.

usage: python bench/train.py [--rounds N] [--threads N] [--variant b16] [--device cpu|cuda] [--json FILE]

Clips come from memory, so that nothing is read or decoded. One process, the two kinds of step in turn, medians:
  product    a step of the training loop, as `k710 pretrain` does it
  bare       the same model: forward, loss, backward, clipping, AdamW, on a clip that is normalised already
  overhead   product over bare, less one
  remainder  of the product step itself, what is left without forward, backward, clipping and AdamW
On a CPU: 1 clip of 8 frames, fp32. On a GPU: bf16, compiled, several clips, with and without recomputed layers; what a
machine has no device for is said to be not measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.config import DataConfig, OptimConfig, Recipe, RuntimeConfig
from uniformerv2.data.augment import normalise
from uniformerv2.data.feed import Batch
from uniformerv2.training.checkpoint import RunState
from uniformerv2.training.distributed import Ranks
from uniformerv2.training.engine import StepReport, train
from uniformerv2.training.flops import count_macs, peak_flops
from uniformerv2.training.job import Job
from uniformerv2.training.metrics import silent
from uniformerv2.training.optim import make_optimizer
from uniformerv2.training.stopping import StopFlag

WARM_UP = 2
"""Steps of each kind that do not count."""
GPU_BATCH = {"b16": 64, "l14": 16, "l14_336": 8}


def main(arguments: argparse.Namespace) -> None:
    """Print what was measured, and write it as JSON."""
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {"variant": arguments.variant, "torch": torch.__version__, "threads": arguments.threads}
    if arguments.device == "cpu":
        result["cpu"] = measure(arguments.variant, 1, torch.device("cpu"), arguments.rounds)
        result["gpu"] = "not measured: asked for the CPU"
    elif torch.cuda.is_available():
        batch, device = GPU_BATCH[arguments.variant], torch.device("cuda", 0)
        result["cpu"] = "not measured: asked for the GPU"
        result["gpu"] = {
            kind: measure(arguments.variant, batch, device, arguments.rounds, recompute=recompute)
            for kind, recompute in (("all activations kept", False), ("every layer recomputed", True))
        }
    else:
        result |= {"cpu": "not measured: asked for the GPU", "gpu": "not measured: there is none"}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    variant: str, batch: int, device: torch.device, rounds: int, *, recompute: bool = False
) -> dict[str, float | None]:
    """Seconds, shares and memory of ``rounds`` steps of each kind."""
    recipe = _recipe(UniFormerV2Config.variant(variant), batch, device, recompute)  # type: ignore[arg-type]
    return measure_recipe(recipe, device, rounds)


def measure_recipe(recipe: Recipe, device: torch.device, rounds: int) -> dict[str, float | None]:
    """As ``measure``, of any recipe."""
    batch, model = _batch(recipe), _model(recipe, device)
    bare = _BareStep(recipe, batch, device)
    parts = _Parts()
    product_s: list[float] = []
    bare_s: list[float] = []
    remainder_s: list[float] = []

    def after(report: StepReport) -> None:
        _wait_for(device)
        product_s.append(time.perf_counter() - clock["began"] - report.data_wait_s)
        remainder_s.append(product_s[-1] - parts.take())
        bare_s.append(_seconds(bare, device))
        parts.take()
        clock["began"] = time.perf_counter()

    steps = rounds + WARM_UP
    job = Job(
        model=model,
        optimizer=make_optimizer(model, recipe.optim),
        recipe=recipe,
        batches=(batch for _ in range(steps)),
        accumulation=1,
        steps_per_epoch=steps,
        num_clips=steps * len(batch),
        ranks=Ranks(device=device),
    )
    state = RunState(view_digest="", data_digest="", window=0, taken_out_digest="", global_batch=len(batch))
    clock = {"began": time.perf_counter()}
    with parts.timed(job):
        train(job, state, StopFlag(), after, silent)
    product, alone = (statistics.median(values[WARM_UP:]) for values in (product_s, bare_s))
    return {
        "clips": len(batch),
        "product_s": product,
        "bare_s": alone,
        "overhead": statistics.median(a / b for a, b in zip(product_s[WARM_UP:], bare_s[WARM_UP:], strict=True)) - 1,
        # On a GPU the host runs ahead of the device: its own times say nothing.
        "remainder": statistics.median(remainder_s[WARM_UP:]) / product if device.type == "cpu" else None,
        **_of_device(recipe, device, len(batch) / product),
    }


class _BareStep:
    """Forward, backward, clipping and AdamW, with the calls that the loop makes, and nothing else."""

    def __init__(self, recipe: Recipe, batch: Batch, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.model = _model(recipe, device).train()
        self.optimizer = make_optimizer(self.model, recipe.optim)
        self.clip_NCTHW, self.labels_N = normalise(batch.clips.to(device)), batch.labels.to(device)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits_NK = self.model(self.clip_NCTHW)
        F.cross_entropy(logits_NK.float(), self.labels_N).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        self.optimizer.step()


class _Parts:
    """Seconds that the loop spends in forward, backward, clipping and AdamW."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def take(self) -> float:
        """Seconds since the last call."""
        taken, self.seconds = self.seconds, 0.0
        return taken

    @contextmanager
    def timed(self, job: Job) -> Iterator[None]:
        """Time those calls inside the block; they do what they did."""
        owners: list[tuple[Any, str]] = [
            (job.model, "forward"),
            (Tensor, "backward"),
            (torch.nn.utils, "get_total_norm"),
            (torch.nn.utils, "clip_grads_with_norm_"),
            (job.optimizer, "step"),
        ]
        before = [(owner, name, getattr(owner, name)) for owner, name in owners]
        for owner, name, call in before:
            setattr(owner, name, self._timing(call))
        try:
            yield
        finally:
            for owner, name, call in before:
                setattr(owner, name, call)

    def _timing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def _recipe(config: UniFormerV2Config, batch: int, device: torch.device, recompute: bool) -> Recipe:
    return Recipe(
        about="measured",
        model=config,
        data=DataConfig(global_batch=batch, micro_batch=batch),
        optim=OptimConfig(epochs=1, warmup_epochs=0),
        runtime=RuntimeConfig(
            compile=device.type == "cuda", recompute_layers=config.layers if recompute else 0, precision="auto"
        ),
    )


def _model(recipe: Recipe, device: torch.device) -> UniFormerV2:
    torch.manual_seed(0)
    model = UniFormerV2(recipe.model).to(device)
    model.recompute_layers(recipe.runtime.recompute_layers)
    if recipe.runtime.compile:
        model.compile_blocks()
    return model


def _batch(recipe: Recipe) -> Batch:
    size, config = recipe.data.micro_batch, recipe.model
    places = torch.arange(size)
    generator = torch.Generator().manual_seed(0)
    shape = (size, 3, config.num_frames, *config.frame_size)
    batch = Batch(
        clips=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        labels=places % config.num_classes,
        positions=places,
        repeats=torch.zeros_like(places),
        holes=(),
    )
    return batch.pin_memory() if torch.cuda.is_available() else batch


def _of_device(recipe: Recipe, device: torch.device, clips_per_s: float) -> Mapping[str, Any]:
    """Figures that only make sense on an accelerator."""
    if device.type != "cuda":
        return {"clips_per_s": clips_per_s}
    held, step = torch.cuda.memory_allocated(), _BareStep(recipe, _batch(recipe), device)
    step()  # the first one allocates what the optimiser keeps, and compiles
    kept = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    name = torch.cuda.get_device_name()
    peak = peak_flops(name, torch.bfloat16)
    flops = count_macs(recipe.model).training_flops * clips_per_s
    return {
        "device": name,
        "clips_per_s": clips_per_s,
        "mfu": flops / peak if peak else None,
        "model_and_optimizer_bytes": kept - held,
        "step_bytes": torch.cuda.max_memory_allocated() - kept,
    }


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    step()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", default="b16", choices=sorted(GPU_BATCH))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main(_arguments())
